"""How parked keys (``domain/parking.py``) look as DynamoDB items, and the conditions on them. Pure.

========================  =================================  ====================================================
``pk``                    ``sk``                             holds
========================  =================================  ====================================================
``app#parked``            ``<digest>``                       a key: why it is parked, since when, who redrives it,
                                                             and how many shards have a row of it
``app#parked``            ``<digest>#<label>#<shard id>``    its letters from one shard
``app#parked``            ``!changes``                       how many steps redrives have made: owners look at it
========================  =================================  ====================================================

A digest is base64url text, so ``!`` is no part of one and comes before all of them, and ``#`` comes before all that can
follow in a longer one: the rows of a key stand together, its own first.

``shards`` counts the rows of a key, because a listing is no proof that there are no others: a Query may run while a
transaction is being applied, and then sees a part of it. A key is freed only with all of its rows.

Reading never guesses: a key that counts as free is handled before its letters. A row that cannot be read holds up its
own key, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast, get_args

from consumer.aws import lease_items as items
from consumer.aws.item_values import NotAFrontier, read_count, read_number, read_sequence_number, read_text
from consumer.aws.table_rows import PRESENT, AttributeMap, Changes, Clause, Item, key
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.parking import Damage, Parked, ParkedKey, ParkedShard, ParkedState

PARTITION: Final = "parked"
CHANGES: Final = "!changes"
SHARDS: Final = "shards"  # of a key row
PARKED_AGAIN: Final[Changes] = {"state": items.text("parked"), "nonce": None}
IS_READ: Final[tuple[Clause, ...]] = (  # the lease of a shard that may get further letters
    ("state", "<>", items.text("draining")),
    ("state", "<>", items.text("done")),
)
COUNTS: Final[tuple[Clause, ...]] = (items.READABLE, ("changes", "absent or >=", items.number(0)))
LEFT: Final[Changes] = {**PARKED_AGAIN, "redriver": None}  # to any redrive

_STATES: Final = frozenset(get_args(ParkedState))
_VERSION: Final = {items.VERSION: items.number(items.SCHEMA_VERSION)}


# --- keys ------------------------------------------------------------------------------------------


def shard_sk(shard: ParkedShard) -> str:
    return f"{shard.digest}#{shard.label}#{shard.shard_id}"


def between(digest: str) -> tuple[str, str]:
    """The sort keys before and behind which there are no rows of a key: ``$`` follows ``#``, and is no part of one."""
    return digest, f"{digest}$"


# --- rows ------------------------------------------------------------------------------------------


def key_item(pk: str, row: ParkedKey) -> AttributeMap:
    """A new key row, complete, of a key that has one shard row."""
    item = key(pk, row.digest) | _VERSION
    item["park_id"] = items.text(row.park_id)
    item["state"] = items.text(row.state)
    item["since"] = items.number(float(row.since))
    item["claim"] = items.number(row.claim)
    item[SHARDS] = items.number(1)
    texts = {"reason": row.reason[: items.MAX_NOTE], "nonce": row.nonce, "redriver": row.redriver}
    texts |= {"label": row.label, "shard_id": row.shard_id, "sequence_number": row.sequence_number}
    return item | {name: items.text(value) for name, value in texts.items() if value}


def shard_item(pk: str, row: ParkedShard) -> AttributeMap:
    """A new shard row, complete."""
    item = key(pk, shard_sk(row)) | _VERSION
    item["park_id"] = items.text(row.park_id)
    item["first"] = items.text(row.first)
    item["done"] = items.number(row.done)
    if row.closed:
        item["closed"] = items.text(row.closed)
    return item | counted(row)


def counted(row: ParkedShard) -> AttributeMap:
    """What a letter changes in a shard row."""
    letters: AttributeMap = {"letters": items.number(row.letters)}
    return letters | ({"last": items.text(row.last)} if row.last else {})


def parked_rows(found: Iterable[Item]) -> list[Parked]:
    """All keys in the items of a partition, or of a part of it, in the order of their digests. A row that cannot be
    read says which key it is of, and of which shard."""
    keys: dict[str, ParkedKey] = {}
    shards: dict[str, list[ParkedShard]] = {}
    damaged: dict[str, list[Damage]] = {}
    for item in found:
        sk = _place(item)[1]
        digest, _, rest = sk.partition("#")
        try:
            if rest or sk != digest:
                shards.setdefault(digest, []).append(parked_shard(item))
            elif sk != CHANGES:
                keys[digest] = parked_key(item)
        except MisconfiguredResource as problem:
            label, _, shard_id = rest.partition("#")
            damaged.setdefault(digest, []).append(Damage(digest, str(problem), label, shard_id))
    return [
        Parked(keys.get(digest), tuple(shards.get(digest, ())), tuple(damaged.get(digest, ())))
        for digest in sorted(keys.keys() | shards.keys() | damaged.keys())
    ]


def parked_key(item: Item) -> ParkedKey:
    """The key in an item. MisconfiguredResource when it cannot be read."""
    try:
        _require_readable(item)
        state, nonce = _there(read_text(item, "state"), "state"), read_text(item, "nonce") or ""
        if state not in _STATES:
            raise NotAFrontier(f"state is unknown: {state[:80]!r}")
        if (state == "closing") != bool(nonce):
            raise NotAFrontier(f"its state is {state}, and {'it has a nonce' if nonce else 'it has no nonce'}")
        read_count(item, SHARDS)  # writes alone rely on it: no shard could join the key, and nothing would free it
        return ParkedKey(
            digest=_place(item)[1],
            park_id=_there(read_text(item, "park_id"), "park_id"),
            state=cast("ParkedState", state),
            since=read_number(item, "since"),
            reason=read_text(item, "reason") or "",
            label=read_text(item, "label") or "",
            shard_id=read_text(item, "shard_id") or "",
            sequence_number=read_text(item, "sequence_number") or "",
            nonce=nonce,
            redriver=read_text(item, "redriver"),
            claim=read_count(item, "claim"),
        )
    except NotAFrontier as problem:
        raise _unreadable(item, problem) from problem


def parked_shard(item: Item) -> ParkedShard:
    """The shard row in an item. MisconfiguredResource when it cannot be read."""
    try:
        _require_readable(item)
        digest, label, shard_id = _parts(item)
        letters, last = read_count(item, "letters"), read_sequence_number(item, "last") or ""
        if bool(letters) != bool(last):
            raise NotAFrontier(f"it counts {letters} letters, and the last of them is {last or 'missing'}")
        return ParkedShard(
            digest=digest,
            label=label,
            shard_id=shard_id,
            park_id=_there(read_text(item, "park_id"), "park_id"),
            first=_there(read_sequence_number(item, "first"), "first"),
            letters=letters,
            last=last,
            done=read_count(item, "done"),
            closed=read_text(item, "closed") or "",
        )
    except NotAFrontier as problem:
        raise _unreadable(item, problem) from problem


def changes(item: Item) -> int:
    """The number in the row ``!changes``. MisconfiguredResource when it is none."""
    try:
        return read_count(item, "changes")
    except NotAFrontier as problem:
        raise _unreadable(item, problem, "delete it: the next redrive makes it anew") from problem


# --- conditions ------------------------------------------------------------------------------------


def is_parked_as(park_id: str) -> list[Clause]:
    """A row, of a key or of a shard, is there and belongs to this very time that the key is parked."""
    return [PRESENT, items.READABLE, ("park_id", "=", items.text(park_id))]


def is_parked(row: ParkedKey) -> list[Clause]:
    return [*is_parked_as(row.park_id), ("state", "=", items.text("parked"))]


def is_closing(row: ParkedKey) -> list[Clause]:
    """The key is closing with the nonce of ``row``."""
    return [*is_parked_as(row.park_id), *_closing_with(row.nonce)]


def is_claimed(row: ParkedKey) -> list[Clause]:
    """Nobody else has claimed the key since ``row`` was read."""
    redriver: Clause = ("redriver", "absent", None)
    if row.redriver is not None:
        redriver = ("redriver", "=", items.text(row.redriver))
    return [*is_parked_as(row.park_id), redriver, ("claim", "=", items.number(row.claim))]


def is_claimed_and_closing(row: ParkedKey) -> list[Clause]:
    return [*is_claimed(row), *_closing_with(row.nonce)]


def has_other_park_id(row: ParkedShard) -> list[Clause]:
    """There is no shard row, or one that was left from another time."""
    return [items.READABLE, ("park_id", "absent or <>", items.text(row.park_id))]


def has_fewer_letters(row: ParkedShard) -> list[Clause]:
    return [*is_parked_as(row.park_id), ("letters", "<", items.number(row.letters))]


def is_done(row: ParkedShard, nonce: str) -> list[Clause]:
    """Closed with the nonce, and all of as many letters as ``row`` has are done."""
    return [*has_all_done(row), ("closed", "=", items.text(nonce))]


def has_all_done(row: ParkedShard) -> list[Clause]:
    """All of as many letters as ``row`` has are done."""
    all_of_them = items.number(row.letters)
    return [*is_parked_as(row.park_id), ("letters", "=", all_of_them), ("done", "=", all_of_them)]


def _closing_with(nonce: str) -> list[Clause]:
    return [("state", "=", items.text("closing")), ("nonce", "=", items.text(nonce))]


# --- single values ---------------------------------------------------------------------------------


def _place(item: Item) -> tuple[str, str]:
    return str(item["pk"]["S"]), str(item["sk"]["S"])


def _parts(item: Item) -> tuple[str, str, str]:
    """Digest, stream label and shard id."""
    parts = _place(item)[1].split("#", 2)
    if len(parts) != 3 or not all(parts):
        raise NotAFrontier("its sort key is not <digest>#<label>#<shard id>")
    return parts[0], parts[1], parts[2]


def _there(found: str | None, name: str) -> str:
    if not found:
        raise NotAFrontier(f"{name} is missing")
    return found


def _require_readable(item: Item) -> None:
    if version := items.newer_version(item):
        raise NotAFrontier(version)


_KEEP: Final = "put it right, and do not delete it: without it the key counts as free, and its letters as handled"


def _unreadable(item: Item, problem: Exception, advice: str = _KEEP) -> MisconfiguredResource:
    pk, sk = _place(item)
    return MisconfiguredResource(f"the row pk={pk}, sk={sk} of a parked key cannot be used: {problem} ({advice})")
