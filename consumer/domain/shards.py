"""The shard graph: what DescribeStream lists, and which lineage rules follow from it.

A child may start only when its parent is settled to its end. A parent is *gone* only when a complete listing does
not name it and no lease row exists for it; an error or an empty list never means gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from consumer.domain.lease import LeaseRow


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
    """Listed shards that have no lease row yet, parents before children."""
    missing = {shard.shard_id: shard for shard in listed if shard.shard_id not in known}
    ordered: list[ShardInfo] = []
    met: set[str] = set()  # placed, or on the chain: a cycle cannot exist; never hang on one

    for root in missing:
        chain = [root] if root not in met else []
        met.update(chain)
        while chain:  # depth first without recursion: a stream may have thousands of generations
            shard = missing[chain[-1]]
            parent = next((p for p in shard.parents if p in missing and p not in met), None)
            if parent is not None:
                met.add(parent)
                chain.append(parent)
            else:
                chain.pop()
                ordered.append(shard)
    return ordered


def may_start(row: LeaseRow, rows: Mapping[str, LeaseRow]) -> bool:
    """True when every parent of ``row`` is settled to its end, or has no row (trimmed before registration).

    Parents are registered before their children (``missing_leases``), so a missing parent row means that the parent
    was not listed any more when the child was registered, or that its tombstone was removed long after its end.
    """
    return all(parent not in rows or rows[parent].settled for parent in row.parents)


def children_of(shard_id: str, rows: Iterable[LeaseRow]) -> list[LeaseRow]:
    return [row for row in rows if shard_id in row.parents]
