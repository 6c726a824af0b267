"""What a shard worker has to know of the shards around its own; ``worker/fleet`` finds it out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from consumer.domain.lease import LeaseRow


class Lineage(Protocol):
    """The shard graph as one shard sees it."""

    def has_children(self, shard_id: str) -> bool:
        """True when a child of this shard has a row: the shard is closed, or about to be."""

    def keys_held_back(self, parents: Collection[str]) -> list[tuple[str, ...] | None]:
        """For each parent that is not settled, the digests of the keys that it has deferred; None when it has not come
        to its end. What was read a moment ago may name keys that are settled by now, and never lacks one that is
        not."""

    async def is_gone(self, shard_id: str) -> bool:
        """True when complete listings of a stream that exists do not name the shard, over some time. An error or an
        empty listing never means gone."""

    async def register_children(self, parent: LeaseRow) -> None:
        """Returns when every child of ``parent`` that the service shows has a row, and there is one at least."""

    def shard_settled(self, shard_id: str) -> None:
        """The shard reached its end durably: its children may start."""
