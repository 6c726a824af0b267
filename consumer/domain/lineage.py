"""Who comes from whom among the shards of a stream, by the listing and the lease rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from .lease import LeaseRow
from .shards import DAY, ShardInfo

# Seconds: records of a shard may be as much younger than its children, and clocks as far apart.
MARGIN: Final = 3600.0
_OLDEST: Final = 2 * DAY  # by which a shard that is listed may be older than its records: other ids are no times


class Lineage:
    """``listed`` by id; ``all`` also has shards with rows that left the stream."""

    def __init__(self, listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> None:
        self.listed = {shard.shard_id: shard for shard in listed}
        self._parents: dict[str, tuple[str, ...]] = {row.shard_id: row.parents for row in rows.values()}
        self._parents |= {shard.shard_id: shard.parents for shard in self.listed.values()}
        self.all = self._parents.keys()
        self._children: dict[str, list[str]] = {}
        for shard_id, parents in self._parents.items():
            for parent in parents:
                self._children.setdefault(parent, []).append(shard_id)

    def parents(self, shard_id: str) -> tuple[str, ...]:
        return self._parents[shard_id]

    def descendants(self, roots: Iterable[str]) -> set[str]:
        """The roots and all that come after them."""
        return _reached(roots, lambda shard_id: self._children.get(shard_id, ()))

    def ancestors(self, roots: Iterable[str]) -> set[str]:
        """All that come before the roots."""
        found = set(roots)
        return _reached(found, lambda shard_id: self._parents.get(shard_id, ())) - found

    def parents_first(self, shards: Collection[str]) -> list[str]:
        """A shard comes after all of its parents."""
        ordered: dict[str, None] = {}
        chain = sorted(shards, reverse=True)
        on_the_way: set[str] = set()
        while chain:
            shard_id = chain[-1]
            before = [p for p in self._parents[shard_id] if p in shards and p not in ordered and p not in on_the_way]
            if before and shard_id not in ordered:
                on_the_way.add(shard_id)
                chain += before
            else:
                chain.pop()
                ordered.setdefault(shard_id)
        return list(ordered)

    def ended_before(self, since: float, created: Callable[[str], float | None]) -> set[str]:
        """Shards of which all records are older, because their children were made long before."""
        young = since - MARGIN
        old = young - _OLDEST
        return {
            shard_id
            for shard_id, children in self._children.items()
            if all((made := created(child)) is not None and old < made < young for child in children)
        }


def _reached(roots: Iterable[str], following: Callable[[str], Sequence[str]]) -> set[str]:
    found: set[str] = set()
    left = list(roots)
    while left:
        shard_id = left.pop()
        if shard_id not in found:
            found.add(shard_id)
            left += following(shard_id)
    return found
