"""The bulletin of a stream (``domain/bulletin.py``) as a DynamoDB item.

Reading is lenient: what does not parse counts as not there, because nothing that is settled depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast, get_args

from consumer.aws import lease_items as items
from consumer.aws.registry_and_sessions import ApplicationRows
from consumer.aws.table_rows import Changes, Clause, Item, Written
from consumer.domain.bulletin import Bulletin, Change
from consumer.domain.errors import DependencyError
from consumer.domain.lease import LeaseState

BULLETIN: Final = "bulletin"
POST_ATTEMPTS: Final = 8  # to write a row that others write, too

_STATES: Final = frozenset(get_args(LeaseState))


class DynamoDBBulletins(ApplicationRows):
    """``ports.BulletinStore`` on DynamoDB."""

    async def bulletin(self, label: str) -> Bulletin:
        return _bulletin(await self._rows.get(self._bulletin_pk(label), BULLETIN) or {})

    async def begin_listing(self, label: str, seen: Bulletin, lister: str) -> bool:
        unchanged: Clause = ("turn", "=", items.number(seen.turn)) if seen.turn else ("turn", "absent", None)
        changes = {"turn": items.number(seen.turn + 1), "lister": items.text(lister), "listing": {"BOOL": True}}
        written = await self._write(label, changes, [unchanged])
        if not written.refused:
            return True
        found = _bulletin(written.found or {})  # an attempt whose answer was lost may have succeeded
        return written.doubtful and (found.turn, found.lister) == (seen.turn + 1, lister)

    async def end_listing(self, label: str, turn: int, lister: str, *, rows: int = 0, failed: bool = False) -> None:
        where: list[Clause] = [("turn", "=", items.number(turn)), ("lister", "=", items.text(lister))]
        over: dict[str, dict[str, Any] | None] = {"listing": None}
        over |= {"lister": None} if failed else {}
        over |= {"rows": items.number(rows)} if rows else {}
        await self._write(label, over, where)

    async def post(self, label: str, changes: Sequence[Change]) -> None:
        """DependencyError ``Contended`` when other workers were faster each time, ``NewerVersion`` when a newer program
        writes the bulletin."""
        seen = await self.bulletin(label)
        for _ in range(POST_ATTEMPTS):
            after = seen.with_changes(changes)
            unchanged: Clause = (
                ("number", "=", items.number(seen.number)) if seen.number else ("number", "absent", None)
            )
            posted = {"number": items.number(after.number), "changes": items.texts(_encode(after.changes))}
            written = await self._write(label, posted, [unchanged])
            if not written.refused:
                return
            if newer := items.newer_version(written.found or {}):
                raise DependencyError("UpdateItem", "NewerVersion", f"the bulletin of {label} has {newer}")
            seen = _bulletin(written.found or {})  # an attempt without an answer may be said twice: no harm
        raise DependencyError("UpdateItem", "Contended", f"the bulletin of {label} is written by many at once")

    async def _write(self, label: str, changes: Changes, where: Sequence[Clause]) -> Written:
        changes = {items.VERSION: items.number(items.SCHEMA_VERSION), **changes}
        return await self._rows.update(self._bulletin_pk(label), BULLETIN, changes, [items.READABLE, *where])

    def _bulletin_pk(self, label: str) -> str:
        return f"{self._pk(label)}#{BULLETIN}"


def _bulletin(item: Item) -> Bulletin:
    if items.newer_version(item):
        return Bulletin()
    return Bulletin(
        turn=_count(item, "turn"),
        lister=item.get("lister", {}).get("S", ""),
        listing="listing" in item,
        number=_count(item, "number"),
        changes=tuple(_changes(item)),
        rows=_count(item, "rows"),
    )


def _count(item: Item, name: str) -> int:
    found = item.get(name, {}).get("N", "0")
    return int(found) if found.isdecimal() else 0


def _encode(changes: Sequence[Change]) -> tuple[str, ...]:
    """``epoch state shard owner`` each; no owner is an empty one."""
    return tuple(f"{one.epoch} {one.state} {one.shard_id} {one.owner or ''}" for one in changes)


def _changes(item: Item) -> Iterator[Change]:
    for entry in item.get("changes", {}).get("L", ()):
        epoch, state, shard_id, owner = (*entry.get("S", "").split(" ", 3), "", "", "", "")[:4]
        if epoch.isdecimal() and state in _STATES:
            yield Change(shard_id, owner or None, int(epoch), cast("LeaseState", state))
