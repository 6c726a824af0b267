"""The bulletin of a stream (``domain/bulletin.py``) as a DynamoDB item, and its posts as others, in a ring.

Reading is lenient: what does not parse counts as not there, because nothing that is settled depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast, get_args

from consumer.aws import lease_items as items
from consumer.aws.registry_and_sessions import ApplicationRows
from consumer.aws.table_rows import AttributeMap, Changes, Clause, Item, Written
from consumer.domain.bulletin import MOST_POSTS, Bulletin, Change, Post
from consumer.domain.errors import DependencyError
from consumer.domain.lease import LeaseState

BULLETIN: Final = "bulletin"

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

    async def expect_rows(self, label: str, turn: int, lister: str, rows: int) -> None:
        where: list[Clause] = [("turn", "=", items.number(turn)), ("lister", "=", items.text(lister))]
        await self._write(label, {"rows": items.number(rows)}, where)

    async def end_listing(self, label: str, turn: int, lister: str, *, rows: int = 0, failed: bool = False) -> None:
        where: list[Clause] = [("turn", "=", items.number(turn)), ("lister", "=", items.text(lister))]
        over: dict[str, dict[str, Any] | None] = {"listing": None}
        over |= {"lister": None} if failed else {}
        over |= {"rows": items.number(rows)} if rows else {}
        await self._write(label, over, where)

    async def post(self, label: str, changes: Sequence[Change]) -> int:
        """Counted in the bulletin first, then put down. DependencyError ``NewerVersion`` when a newer program writes
        the bulletin."""
        number = await self._count_post(label, len(changes))
        older: Clause = ("number", "absent or <", items.number(number))
        changed = {
            items.VERSION: items.number(items.SCHEMA_VERSION),
            "number": items.number(number),
            **_encode(changes),
        }
        await self._rows.update(self._posts_pk(label), _place(number), changed, [older])
        return number

    async def posts(self, label: str, first: int, last: int) -> list[Post]:
        first = max(first, last - MOST_POSTS + 1)
        spans = [(first, last)]
        if _place(first) > _place(last):  # around the end of the ring
            spans = [(first, first - first % MOST_POSTS + MOST_POSTS - 1), (last - last % MOST_POSTS, last)]
        pk = self._posts_pk(label)
        found = [_post(item) for span in spans for item in await self._rows.query_between(pk, *map(_place, span))]
        return [post for post in found if post is not None and first <= post.number <= last]

    async def _count_post(self, label: str, changes: int) -> int:
        """The number of the next post. Without a condition on the last one, which hundreds of workers may count at
        once; one that is counted twice, because an answer was lost, is missed by its readers and does no harm."""
        added = {"posts": items.number(1), "changed": items.number(changes)}
        written = await self._write(label, {}, [], added=added, answer="UPDATED_NEW")
        if newer := items.newer_version(written.found or {}):
            raise DependencyError("UpdateItem", "NewerVersion", f"the bulletin of {label} has {newer}")
        number = _count(written.attributes, "posts")
        if written.refused or not number:
            raise DependencyError("UpdateItem", "NotCounted", f"the bulletin of {label} does not count posts")
        return number

    async def _write(
        self,
        label: str,
        changes: Changes,
        where: Sequence[Clause],
        *,
        added: Changes | None = None,
        answer: str = "NONE",
    ) -> Written:
        changes = {items.VERSION: items.number(items.SCHEMA_VERSION), **changes}
        readable = [items.READABLE, *where]
        place = self._bulletin_pk(label), BULLETIN
        return await self._rows.update(*place, changes, readable, added=added, answer=answer)

    def _bulletin_pk(self, label: str) -> str:
        return f"{self._pk(label)}#{BULLETIN}"

    def _posts_pk(self, label: str) -> str:
        return f"{self._pk(label)}#posts"


def _bulletin(item: Item) -> Bulletin:
    if items.newer_version(item):
        return Bulletin()
    return Bulletin(
        turn=_count(item, "turn"),
        lister=item.get("lister", {}).get("S", ""),
        listing="listing" in item,
        posts=_count(item, "posts"),
        changes=_count(item, "changed"),
        rows=_count(item, "rows"),
    )


def _count(item: Item, name: str) -> int:
    found = item.get(name, {}).get("N", "0")
    return int(found) if found.isdecimal() else 0


def _place(number: int) -> str:
    """The sort key of a post: its place in the ring."""
    return f"{number % MOST_POSTS:04}"


def _post(item: Item) -> Post | None:
    if items.newer_version(item):
        return None
    return Post(_count(item, "number"), tuple(_changes(item)))


def _encode(changes: Sequence[Change]) -> AttributeMap:
    """``owners``, and ``changes`` as ``epoch state shard owner parent...`` with the place of the owner among them, if
    there is one: most changes of a post have the same."""
    owners = list(dict.fromkeys(change.owner for change in changes if change.owner is not None))
    places = {owner: str(place) for place, owner in enumerate(owners)}
    entries = (
        " ".join((str(c.epoch), c.state, c.shard_id, places.get(c.owner or "", "-"), *c.parents)) for c in changes
    )
    return {"owners": items.texts(tuple(owners)), "changes": items.texts(tuple(entries))}


def _changes(item: Item) -> Iterator[Change]:
    owners = {str(place): owner.get("S") for place, owner in enumerate(item.get("owners", {}).get("L", ()))}
    for entry in item.get("changes", {}).get("L", ()):
        epoch, state, shard_id, place, *parents = [*str(entry.get("S", "")).split(" "), "", "", "", ""]
        if epoch.isdecimal() and state in _STATES and (place == "-" or place in owners):
            known = cast("LeaseState", state)
            yield Change(shard_id, owners.get(place), int(epoch), known, tuple(filter(None, parents)))
