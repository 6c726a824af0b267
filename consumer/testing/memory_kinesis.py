"""A Kinesis stream in memory, as its API shows it, with the faults of the real one.

``MemoryKinesis`` is the stream: tests put records, split, merge, trim or expire at will. Workers read it through
``MemoryKinesisClient``, which has the calls of the SDK's client, so that everything above it is the real source.
Nothing here reads a clock or draws random numbers by itself.

    stream = MemoryKinesis(clock, shards=2)
    stream.put(b"data", "partition key")
    left, right = stream.split(stream.shard_of("partition key"))
"""

from __future__ import annotations

import datetime as dt
import hashlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

from consumer.domain.errors import DependencyError, ExpiredIterator, ResourceMissing, StreamConsumerError, Throttled
from consumer.domain.shards import DAY, ShardInfo
from consumer.ports.time import Clock

HASHES: Final = 1 << 128
ITERATOR_LIFETIME: Final = 300.0  # seconds
READS: Final = 5  # of a shard in a second, by all its readers; and so many iterators
PAGE_BYTES: Final = 10 * 1024 * 1024
BYTES_PER_SECOND: Final = 2 * 1024 * 1024  # of a shard, for all its readers
_FIRST: Final = 49590338271490256608559692538361571095921575989136588898  # 56 digits, as on AWS
_STEP: Final = 1 << 36

# What a position answers whose record was trimmed, which AWS does not say; all three were seen.
Trimmed = Literal["horizon", "stuck", "invalid"]


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


class MemoryKinesis:
    """One stream. All methods take effect at once, also for readers that are in the middle of a shard.

    ``trimmed_answers`` is how a position that was trimmed answers; ``names_children`` whether the last page of a shard
    does; ``limited`` whether reads are; ``invalid_ends`` so many pages of open shards have no next iterator;
    ``refuses`` is raised by every call, unless it is None.

    Args:
        clock: when records arrive and iterators expire.
        name: of the stream.
        shards: how many open shards there are at first.
        before: an earlier stream of its name.
    """

    def __init__(
        self, clock: Clock, *, name: str = "changes", shards: int = 1, before: MemoryKinesis | None = None
    ) -> None:
        self.clock = clock
        self.name = name
        self.stream_arn = f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"
        self.created: float = max(float(int(clock.wall())), before.created + 1 if before is not None else 0.0)
        self.retention = DAY
        self.trimmed_answers: Trimmed = "horizon"
        self.names_children = True
        self.limited = True
        self.invalid_ends = 0
        self.refuses: StreamConsumerError | None = None
        self.gone = False
        self.largest_page = 0  # wire bytes
        self.successor: MemoryKinesis | None = None
        self._shards: dict[str, KinesisShard] = {}
        self._lineage: dict[str, tuple[str, ...]] = {}
        self._made = (
            before.made if before is not None else 0
        )  # AWS begins at 0 again: the rules tell shards by their ids
        self._count = before.count if before is not None else 0
        self._generation = 0
        bounds = [HASHES * index // shards for index in range(shards + 1)]
        for low, high in pairwise(bounds):
            self._add_shard((), low, high - 1)

    @property
    def arn(self) -> str:
        """What names this very stream (``StreamDescription.stream_id``)."""
        return f"{self.stream_arn}@{int(self.created)}"

    @property
    def made(self) -> int:
        """How many shards there were."""
        return self._made

    @property
    def count(self) -> int:
        """How many numbers were given."""
        return self._count

    @property
    def label(self) -> str:
        """Of its lease rows."""
        return f"{self.name}@{int(self.created)}"

    # --- shards --------------------------------------------------------------------------------------------------

    def shard_of(self, partition_key: str) -> str:
        """The open shard that the next record of this partition key goes to."""
        return self._open_shard(partition_key).shard_id

    def open_shards(self) -> list[str]:
        """The shards that take records, by hash range."""
        return [s.shard_id for s in sorted(self._shards.values(), key=lambda s: s.low) if s.end is None]

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
            old = [one.number for one in shard.records if one.at < horizon]
            if old:
                lost.append((shard.shard_id, old[-1]))
                self.trim(shard.shard_id, str(old[-1]))
            if shard.end is not None and shard.ended_at < horizon:
                self.vanish(shard.shard_id)
        return lost

    def made_anew(self, shards: int = 1) -> MemoryKinesis:
        """The stream is deleted with all its records, and one of its name is created."""
        self.gone = True
        self.successor = MemoryKinesis(self.clock, name=self.name, shards=shards, before=self)
        return self.successor

    def expire_iterators(self) -> None:
        """Every iterator handed out so far is expired."""
        self._generation += 1

    # --- records -------------------------------------------------------------------------------------------------

    def put(self, data: bytes, partition_key: str) -> tuple[str, str]:
        """Store a record; its shard and its SequenceNumber."""
        shard = self._open_shard(partition_key)
        number = self._next_number()
        shard.records.append(Stored(number, self.clock.wall(), data, partition_key))
        return shard.shard_id, str(number)

    # --- what clients ask ----------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """DescribeStreamSummary."""
        return {
            "StreamDescriptionSummary": {
                "StreamName": self.name,
                "StreamARN": self.stream_arn,
                "StreamStatus": "ACTIVE",
                "RetentionPeriodHours": int(self.retention // 3600),
                "StreamCreationTimestamp": dt.datetime.fromtimestamp(self.created, tz=dt.UTC),
                "OpenShardCount": len(self.open_shards()),
            }
        }

    def page_of_shards(self, most: int, after: str | None) -> dict[str, Any]:
        """ListShards; the token is the last shard of the page before."""
        names = sorted(self._shards)
        start = bisect_right(names, after) if after else 0
        shown = names[start : start + most]
        answer: dict[str, Any] = {"Shards": [self._listed(self._shards[name]) for name in shown]}
        if start + most < len(names):
            answer["NextToken"] = shown[-1]
        return answer

    def iterator(self, shard_id: str, kind: str, number: str | None, at: float | None) -> str:
        """GetShardIterator: generation, time of issue, shard, the number it stands at, and whether it is stuck."""
        shard = self._readable(shard_id)
        self._limit(shard.iterators)
        stuck = False
        if kind == "TRIM_HORIZON":
            place = shard.trimmed + 1
        elif kind == "LATEST":
            place = (shard.records[-1].number if shard.records else shard.trimmed) + 1
        elif kind == "AT_TIMESTAMP":
            since = at if at is not None else 0.0
            if since > self.clock.wall():
                raise DependencyError("GetShardIterator", "InvalidArgumentException", "Timestamp is in the future")
            index = bisect_left(shard.records, since, key=lambda one: one.at)
            place = shard.records[index].number if index < len(shard.records) else self._count_number() + 1
        else:
            place = int(number or "0") + (kind == "AFTER_SEQUENCE_NUMBER")
            if int(number or "0") <= shard.trimmed:
                if self.trimmed_answers == "invalid":
                    text = f"StartingSequenceNumber {number} used in GetShardIterator on {shard_id} is invalid"
                    raise DependencyError("GetShardIterator", "InvalidArgumentException", text)
                stuck = self.trimmed_answers == "stuck"
        return self._issue(shard_id, place, stuck=stuck)

    def page(self, iterator: str, limit: int) -> dict[str, Any]:
        """GetRecords."""
        try:
            generation, issued, shard_id, place_text, stuck = iterator.split("/")
            place, age = int(place_text), self.clock.monotonic() - float(issued)
        except ValueError as error:
            raise DependencyError("GetRecords", "InvalidArgumentException", "invalid ShardIterator") from error
        if int(generation) != self._generation or age > ITERATOR_LIFETIME:
            raise ExpiredIterator("the shard iterator has expired")
        shard = self._readable(shard_id)
        self._limit(shard.reads)
        if self.limited and shard.paid_until > self.clock.monotonic():
            raise Throttled("GetRecords", "ProvisionedThroughputExceededException", "2 MB a second")
        if stuck == "1":
            again = self._issue(shard_id, place, stuck=True)
            return {"Records": [], "NextShardIterator": again, "MillisBehindLatest": int(self.retention * 1000)}
        return self._read(shard, place, limit)

    def _read(self, shard: KinesisShard, place: int, limit: int) -> dict[str, Any]:
        first = bisect_left(shard.records, place, key=lambda one: one.number)
        last, size = first, 0
        while last < min(len(shard.records), first + limit) and (last == first or size < PAGE_BYTES):
            size += len(shard.records[last].data)
            last += 1
        if self.limited:
            now = self.clock.monotonic()
            shard.paid_until = max(now, shard.paid_until) + max(0.0, size / BYTES_PER_SECOND - 1.0)
        shown = shard.records[first:last]
        self.largest_page = max(self.largest_page, sum(len(one.data) * 4 // 3 + 300 for one in shown))
        left = shard.records[last:]
        behind = int((self.clock.wall() - left[0].at) * 1000) + 1 if left else 0
        answer: dict[str, Any] = {
            "Records": [_shown(one) for one in shown],
            "MillisBehindLatest": behind,
        }
        ends = shard.end is not None and not left
        if not ends and self.invalid_ends:
            self.invalid_ends -= 1
            return answer
        if ends:
            if self.names_children:
                answer["ChildShards"] = [self._child(one) for one in self._children(shard.shard_id)]
            return answer
        following = shard.records[last - 1].number + 1 if last > first else place
        return answer | {"NextShardIterator": self._issue(shard.shard_id, following)}

    # --- inside --------------------------------------------------------------------------------------------------

    def _issue(self, shard_id: str, place: int, *, stuck: bool = False) -> str:
        return f"{self._generation}/{self.clock.monotonic()!r}/{shard_id}/{place}/{int(stuck)}"

    def _readable(self, shard_id: str) -> KinesisShard:
        if shard_id not in self._shards:
            raise ResourceMissing(f"shard {shard_id} of {self.stream_arn}")
        return self._shards[shard_id]

    def _limit(self, calls: deque[float]) -> None:
        now = self.clock.monotonic()
        while calls and calls[0] <= now - 1.0:
            calls.popleft()
        if self.limited and len(calls) >= READS:
            raise Throttled("GetRecords", "ProvisionedThroughputExceededException", "five a second")
        calls.append(now)

    def _listed(self, shard: KinesisShard) -> dict[str, Any]:
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
        ending = {} if shard.end is None else {"EndingSequenceNumber": str(shard.end)}
        return {
            "ShardId": shard.shard_id,
            **parents,
            "HashKeyRange": {"StartingHashKey": str(shard.low), "EndingHashKey": str(shard.high)},
            "SequenceNumberRange": {"StartingSequenceNumber": str(shard.start), **ending},
        }

    def _children(self, shard_id: str) -> Sequence[KinesisShard]:
        return [shard for shard in self._shards.values() if shard_id in shard.parents]

    @staticmethod
    def _child(shard: KinesisShard) -> Mapping[str, Any]:
        return {"ShardId": shard.shard_id, "ParentShards": list(shard.parents)}

    def _open_shard(self, partition_key: str) -> KinesisShard:
        place = int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())
        return next(s for s in self._shards.values() if s.end is None and s.low <= place <= s.high)

    def _add_shard(self, parents: tuple[str, ...], low: int, high: int) -> str:
        shard_id = f"shardId-{self._made:012d}"
        self._made += 1
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
        self._count += 1
        return self._count_number()

    def _count_number(self) -> int:
        return _FIRST + self._count * _STEP


def _shown(record: Stored) -> dict[str, Any]:
    return {
        "SequenceNumber": str(record.number),
        "ApproximateArrivalTimestamp": dt.datetime.fromtimestamp(record.at, tz=dt.UTC),
        "Data": record.data,
        "PartitionKey": record.partition_key,
    }
