"""The shards of a Kinesis stream in memory: how they split, merge, lose their records and leave."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from consumer.domain.shards import DAY, ShardInfo
from consumer.ports.time import Clock

HASHES: Final = 1 << 128
_FIRST: Final = 49590338271490256608559692538361571095921575989136588898  # 56 digits, as on AWS
_STEP: Final = 1 << 36


@dataclass(slots=True)
class Stored:
    """One record; ``at`` is when it arrived (Unix seconds)."""

    number: int
    at: float
    data: bytes
    partition_key: str


@dataclass(slots=True)
class KinesisShard:
    """Partition keys whose hash is in [low, high]."""

    shard_id: str
    parents: tuple[str, ...]
    low: int
    high: int
    start: int
    records: list[Stored] = field(default_factory=list)
    end: int | None = None
    ended_at: float = 0.0
    trimmed: int = 0  # the newest number that is gone
    reads: deque[float] = field(default_factory=deque)  # when it was read in the last second
    iterators: deque[float] = field(default_factory=deque)
    paid_until: float = 0.0  # its bytes so far are paid for then
    pages: int = 0  # given out so far


class MemoryKinesisShards:
    """``retention`` in seconds; ``made`` and ``count`` are how many shards there were, and how many numbers were given.
    AWS counts shards from 0 again in a stream that is made anew; here they go on from
    ``before``, because the rules of the simulation tell shards by their ids."""

    def __init__(self, clock: Clock, *, shards: int, before: MemoryKinesisShards | None) -> None:
        self.clock = clock
        self.retention = DAY
        self._shards: dict[str, KinesisShard] = {}
        self._lineage: dict[str, tuple[str, ...]] = {}
        self.made: int = before.made if before is not None else 0
        self.count: int = before.count if before is not None else 0
        bounds = [HASHES * index // shards for index in range(shards + 1)]
        for low, high in pairwise(bounds):
            self._add_shard((), low, high - 1)

    def shard_of(self, partition_key: str) -> str:
        """The open shard that the next record of this partition key goes to."""
        return self._open_shard(partition_key).shard_id

    def open_shards(self) -> list[str]:
        """The shards that take records, by hash range."""
        return [s.shard_id for s in sorted(self._shards.values(), key=lambda s: s.low) if s.end is None]

    def pages_of(self, shard_id: str) -> int:
        """How many pages of a shard were given out."""
        return self._shards[shard_id].pages

    def closed_shards(self) -> list[str]:
        """Shards that take no more records and are still there, oldest first."""
        return [s.shard_id for s in self._shards.values() if s.end is not None]

    def parents_of(self, shard_id: str) -> tuple[str, ...]:
        """The parents of a shard, also of one that has vanished meanwhile."""
        return self._lineage.get(shard_id, ())

    def listed(self) -> list[ShardInfo]:
        """The shards that are there."""
        return [
            ShardInfo(shard.shard_id, shard.parents, str(shard.start), None if shard.end is None else str(shard.end))
            for shard in self._shards.values()
        ]

    def knows(self, shard_id: str) -> bool:
        """Whether the shard is or was one of this stream."""
        return shard_id in self._lineage

    def has(self, shard_id: str) -> bool:
        """Whether the shard is still there."""
        return shard_id in self._shards

    def split(self, shard_id: str) -> tuple[str, str]:
        """Close a shard and open two children, each with half of its keys."""
        parent = self._close(shard_id)
        middle = (parent.low + parent.high) // 2
        left = self._add_shard((shard_id,), parent.low, middle)
        return left, self._add_shard((shard_id,), middle + 1, parent.high)

    def merge(self, shard_id: str, adjacent: str) -> str:
        """Close two neighbours and open one child of both."""
        one, two = self._close(shard_id), self._close(adjacent)
        return self._add_shard((shard_id, adjacent), min(one.low, two.low), max(one.high, two.high))

    def trim(self, shard_id: str, upto: str | None = None) -> None:
        """Drop the records up to and including this number (of the books or of the service); all by default."""
        shard = self._shards[shard_id]
        limit = int(upto[:56]) if upto is not None else max((one.number for one in shard.records), default=0)
        shard.trimmed = max(shard.trimmed, limit)
        shard.records = [one for one in shard.records if one.number > limit]

    def vanish(self, shard_id: str) -> None:
        """A closed shard whose records have all expired. Its children keep naming it as their parent."""
        del self._shards[shard_id]

    def expire(self) -> list[tuple[str, int]]:
        """What retention does now: old records go, and closed shards without any left. Returns the shards that lost
        records, with the newest number lost."""
        horizon, lost = self.clock.wall() - self.retention, list[tuple[str, int]]()
        for shard in list(self._shards.values()):
            old = []
            if shard.records and shard.records[0].at < horizon:
                old = [one.number for one in shard.records if one.at < horizon]
            if old:
                lost.append((shard.shard_id, old[-1]))
                self.trim(shard.shard_id, str(old[-1]))
            if shard.end is not None and shard.ended_at < horizon:
                self.vanish(shard.shard_id)
        return lost

    def _children(self, shard_id: str) -> Sequence[KinesisShard]:
        return [shard for shard in self._shards.values() if shard_id in shard.parents]

    def _open_shard(self, partition_key: str) -> KinesisShard:
        place = int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())
        return next(s for s in self._shards.values() if s.end is None and s.low <= place <= s.high)

    def _add_shard(self, parents: tuple[str, ...], low: int, high: int) -> str:
        shard_id = f"shardId-{self.made:012d}"
        self.made += 1
        self._lineage[shard_id] = parents
        self._shards[shard_id] = KinesisShard(shard_id, parents, low, high, self._next_number())
        return shard_id

    def _close(self, shard_id: str) -> KinesisShard:
        shard = self._shards[shard_id]
        if shard.end is not None:
            raise ValueError(f"shard {shard_id} is closed already")
        shard.end, shard.ended_at = self._next_number(), self.clock.wall()
        return shard

    def _next_number(self) -> int:
        self.count += 1
        return self._count_number()

    def _count_number(self) -> int:
        return _FIRST + self.count * _STEP
