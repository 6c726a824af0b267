"""The shards of a stream in memory: how they are opened, closed, listed and lost."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec

from consumer.domain.errors import ResourceMissing
from consumer.domain.shards import ShardInfo
from consumer.ports.time import Clock
from consumer.testing.wire import to_wire

HASHES: Final = 1 << 32  # size of the space that keys are hashed into
SHORTEST, LONGEST = 21, 40  # digits of a SequenceNumber

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class MemoryShard:
    """Keys whose hash is in [low, high). Numbers and bodies are parallel lists in stream order."""

    shard_id: str
    parent: str | None
    low: int
    high: int
    start: int
    visible_at: float
    numbers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    end: int | None = None
    trimmed: int = 0  # the newest number that is gone
    empty_pages: int = 0
    looks_open_until: float = 0.0

    def ended(self, now: float) -> bool:
        """Whether it takes no more writes, and the service says so."""
        return self.end is not None and self.looks_open_until <= now

    def info(self, now: float) -> ShardInfo:
        """How it is listed at ``now``."""
        parents = (self.parent,) if self.parent is not None else ()
        return ShardInfo(self.shard_id, parents, str(self.start), str(self.end) if self.ended(now) else None)


class MemoryShards:
    """The shard tree of one stream, and what DescribeStream shows of it.

    ``blank``: a listing succeeds and names no shard; ``omitted``: shards that it leaves out; ``missing``: the service
    knows no such stream, for a while; ``dated``: ids name the time of creation, as on AWS.
    """

    def __init__(
        self, clock: Clock, arn: str, *, shards: int, jump_every: int, dated: bool, shards_before: int
    ) -> None:
        self.clock = clock
        self.arn = arn
        self.dated = dated
        self.status: Literal["ENABLING", "ENABLED", "DISABLING", "DISABLED"] = "ENABLED"
        self.view_type = "NEW_AND_OLD_IMAGES"
        self.blank = False
        self.omitted: frozenset[str] = frozenset()
        self.missing = False
        self._jump_every = jump_every
        self._shards: dict[str, MemoryShard] = {}
        self._lineage: dict[str, str | None] = {}
        self._number: int = 10 ** (SHORTEST - 1)
        self._written = 0
        self._made = shards_before
        self._hidden_for = 0.0
        self._open_for = 0.0
        self._frozen: list[ShardInfo] | None = None
        bounds = [HASHES * index // shards for index in range(shards + 1)]
        for low, high in pairwise(bounds):
            self._add_shard(None, low, high, 0.0)

    def shard_of(self, key: Any) -> str:
        """The open shard that the next write of this partition key goes to."""
        return self._open_shard(key).shard_id

    def open_shards(self) -> list[str]:
        """The shards that take writes, hidden ones included, by hash range."""
        return [s.shard_id for s in sorted(self._shards.values(), key=lambda s: s.low) if s.end is None]

    def parents_of(self, shard_id: str) -> tuple[str, ...]:
        """The parent of a shard, also of one that has vanished meanwhile; () for a root."""
        parent = self._lineage.get(shard_id)
        return () if parent is None else (parent,)

    def knows(self, shard_id: str) -> bool:
        """Whether the shard is or was one of this stream."""
        return shard_id in self._lineage

    def has(self, shard_id: str) -> bool:
        """Whether the shard is still there."""
        return shard_id in self._shards

    def closed_shards(self) -> list[str]:
        """Shards that take no more writes and are still there, oldest first."""
        return [s.shard_id for s in self._shards.values() if s.end is not None]

    def split(self, shard_id: str) -> tuple[str, str]:
        """Close a shard and open two children, each with half of its keys."""
        parent = self._close(shard_id)
        middle = (parent.low + parent.high) // 2
        visible_at = self.clock.monotonic() + self._hidden_for
        left = self._add_shard(shard_id, parent.low, middle, visible_at)
        return left, self._add_shard(shard_id, middle, parent.high, visible_at)

    def roll(self, shard_id: str) -> str:
        """Close a shard and open one child with the same keys, as DynamoDB does about every four hours."""
        parent = self._close(shard_id)
        return self._add_shard(shard_id, parent.low, parent.high, self.clock.monotonic() + self._hidden_for)

    def hide_children(self, seconds: float) -> None:
        """From now on, children are listed and readable only ``seconds`` after their parent was closed. With 0, those
        that are hidden now are shown at once."""
        self._hidden_for = seconds
        if not seconds:
            for shard in self._shards.values():
                shard.visible_at = 0.0

    def keep_parents_open(self, seconds: float) -> None:
        """From now on, a shard that ends looks open for ``seconds`` although its children are there: it is listed
        without a last number, and its pages name a next iterator. With 0, those that look open now end at once."""
        self._open_for = seconds
        if not seconds:
            for shard in self._shards.values():
                shard.looks_open_until = 0.0

    def freeze_listing(self, *, frozen: bool = True) -> None:
        """DescribeStream goes on to show what it shows now, as it may: it is eventually consistent."""
        self._frozen = [shard.info(self.clock.monotonic()) for shard in self._visible()] if frozen else None

    def trim(self, shard_id: str, upto: str | None = None) -> None:
        """Drop the records up to and including the SequenceNumber ``upto``; all of them by default."""
        shard = self._shards[shard_id]
        limit = int(upto) if upto is not None else max(shard.numbers, default=0)
        count = bisect_right(shard.numbers, limit)
        shard.trimmed = max(shard.trimmed, limit)
        del shard.numbers[:count], shard.bodies[:count]

    def vanish(self, shard_id: str) -> None:
        """Remove a shard, as happens 24 hours after its end. Its children keep naming it as their parent."""
        del self._shards[shard_id]

    def listed(self) -> list[ShardInfo]:
        """The shards that DescribeStream shows now."""
        if self.blank:
            return []
        if self.missing:
            raise ResourceMissing(self.arn, "DescribeStream says so")
        now = self.clock.monotonic()
        shown = self._frozen if self._frozen is not None else [shard.info(now) for shard in self._visible()]
        return [shard for shard in shown if shard.shard_id not in self.omitted]

    def _visible(self) -> list[MemoryShard]:
        now = self.clock.monotonic()
        return [shard for shard in self._shards.values() if shard.visible_at <= now]

    def _open_shard(self, key: Any) -> MemoryShard:
        place = int.from_bytes(hashlib.blake2b(_encode(to_wire(key)), digest_size=4).digest())  # short keys spread too
        for shard in self._shards.values():
            if shard.end is None and shard.low <= place < shard.high:
                return shard
        raise ValueError(f"no open shard takes the key {key!r}: the stream is {self.status}")

    def _add_shard(self, parent: str | None, low: int, high: int, visible_at: float) -> str:
        self._made += 1
        if self.dated:
            self._made = max(self._made, int(self.clock.wall() * 1000))
        shard_id = f"shardId-{self._made:020d}-{low:08x}"
        self._lineage[shard_id] = parent
        if parent is not None:  # a shard is never shown before its parent
            visible_at = max(visible_at, self._shards[parent].visible_at)
        self._shards[shard_id] = MemoryShard(shard_id, parent, low, high, self._next_number(), visible_at)
        return shard_id

    def _close(self, shard_id: str) -> MemoryShard:
        shard = self._shards[shard_id]
        if shard.end is not None:
            raise ValueError(f"shard {shard_id} is closed already")
        shard.looks_open_until = self.clock.monotonic() + self._open_for
        shard.end = self._next_number()  # above its last record's, as on AWS: only the missing iterator means the end
        return shard

    def _next_number(self) -> int:
        """The next SequenceNumber of the whole stream: increasing, not consecutive, and now and then a digit longer."""
        self._written += 1
        self._number += 1 + self._written * 7919 % 997
        digits = len(str(self._number))
        if digits < LONGEST and self._written % self._jump_every == 0:
            self._number = 10**digits
        return self._number
