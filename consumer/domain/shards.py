"""The shard graph: what DescribeStream lists, and which lineage rules follow from it.

A child may start only when every parent has a row that says it is settled to its end. A parent that cannot be read any
more has such a row, too (a tombstone, written once it is *gone*), so the rule needs no exception, and every worker
comes to the same answer from the same rows. *Gone* takes complete listings that do not name the shard, some time apart;
an error or an empty list never means gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from .lease import LeaseRow

DAY: Final = 24 * 3600.0  # seconds
TOMBSTONE_AGE: Final = 2 * DAY  # for which a worker remembers that a shard was finished


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as listed. Sequence numbers are the service's text (21-40 digits); None where absent.

    An open shard has no ``ending_sequence_number``. ``parents`` is empty for a root of the lineage.
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    starting_sequence_number: str | None = None
    ending_sequence_number: str | None = None


def missing_leases(listed: Iterable[ShardInfo], known: Collection[str]) -> list[ShardInfo]:
    """Listed shards that have no lease row yet: the open ones and their parents first, because an open one may start
    when its parents have rows, then the others. Among either, parents come before children."""
    missing = {shard.shard_id: shard for shard in listed if shard.shard_id not in known}
    is_open = [shard for shard in missing.values() if shard.ending_sequence_number is None]
    first = {shard_id for shard in is_open for shard_id in (shard.shard_id, *shard.parents)}
    return sorted(_parents_first(missing), key=lambda shard: shard.shard_id not in first)


def _parents_first(shards: Mapping[str, ShardInfo]) -> list[ShardInfo]:
    ordered: list[ShardInfo] = []
    met: set[str] = set()  # placed, or on the chain: a cycle cannot exist; never hang on one

    for root in shards:
        chain = [root] if root not in met else []
        met.update(chain)
        while chain:  # depth first without recursion: a stream may have thousands of generations
            shard = shards[chain[-1]]
            parent = next((p for p in shard.parents if p in shards and p not in met), None)
            if parent is not None:
                met.add(parent)
                chain.append(parent)
            else:
                chain.pop()
                ordered.append(shard)
    return ordered


def may_start(row: LeaseRow, rows: Mapping[str, LeaseRow]) -> bool:
    """True when every parent of ``row`` has a row and is settled to its end, or when the shard was started before.

    A parent without a row is unknown, which is not the same as gone: its row may have been left out of a listing, or
    have been deleted. What was started once was started by this rule, so it goes on whatever became of its parents.
    """
    return row.state != "waiting" or all(parent in rows and rows[parent].lets_children_start for parent in row.parents)


def startable(rows: Mapping[str, LeaseRow], dead: Collection[str]) -> list[LeaseRow]:
    """Leases that no worker can be working on (unowned, or owned by one of ``dead``: incarnations that are fenced for
    good), and that one could start on."""
    free = [row for row in rows.values() if (row.owner is None or row.owner in dead) and not row.corrupt]
    return [row for row in free if not row.finished and may_start(row, rows)]


def settled_before(rows: Iterable[LeaseRow]) -> set[str]:
    """Shards that were settled to their end, if they have no row: a child of them has been started that waits for none
    of their keys, so their rows were removed since. A corrupt row does not say what it waits for."""
    return {
        parent
        for child in rows
        if child.state != "waiting"
        and not child.corrupt
        and not any(key.waits_for_parent for key in child.frontier.deferred)
        for parent in child.parents
    }


def keys_held_back(parents: Iterable[str], rows: Mapping[str, LeaseRow]) -> list[tuple[str, ...] | None]:
    """For each parent that is not settled, the digests of the keys that it has deferred; None when it has not come to
    its end, its row is corrupt, or it has no row: as long as a key waits for it, nothing says that it was settled."""
    unsettled = [rows.get(parent) for parent in parents if parent not in rows or not rows[parent].settled]
    return [
        tuple(key.digest for key in row.frontier.deferred) if row is not None and row.lets_children_start else None
        for row in unsettled
    ]


def unknown_parents(listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> set[str]:
    """Parents that shards wait for, as a whole or with some keys, although they are neither listed nor have a row."""
    known = {shard.shard_id for shard in listed} | rows.keys()
    return {parent for row in rows.values() if _waits_for_parents(row) for parent in row.parents} - known


def _waits_for_parents(row: LeaseRow) -> bool:
    frontier = row.frontier
    return not row.settled and (frontier.untouched or any(key.waits_for_parent for key in frontier.deferred))


def is_young(created: float | None, now: float, retention: float) -> bool:
    """Whether a shard that was ``created`` then (None: unknown) cannot have been trimmed as a whole, so that a listing
    without it is not complete yet. Unix seconds; ``retention`` in seconds."""
    return created is not None and now - created < retention


def expired_tombstones(
    listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow], now: float, retention: float
) -> list[LeaseRow]:
    """Rows of finished shards that a complete, not empty listing does not name, for so long that they have left the
    stream for good, and whose children have all been started. ``now`` in Unix seconds, ``retention`` in seconds.

    A shard that was done a retention and a day ago has been out of the listing for most of a day: it ended before it
    was done, and the service lists a shard for about as long as it keeps its records.
    """
    known = {shard.shard_id for shard in listed}
    needed = {parent for row in rows.values() if row.state == "waiting" for parent in row.parents}
    return [
        row
        for row in rows.values()
        if known
        and row.finished
        and row.shard_id not in known
        and row.shard_id not in needed
        and 0 < row.updated_at < now - retention - DAY
    ]


def all_settled(listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> bool:
    """Every shard that is listed or has a row is settled to its end, and there is one at least."""
    return bool(rows) and all(shard.shard_id in rows for shard in listed) and all(row.settled for row in rows.values())
