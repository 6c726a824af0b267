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
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal

from consumer.domain.errors import DependencyError, ExpiredIterator, ResourceMissing, StreamConsumerError, Throttled
from consumer.ports.time import Clock
from consumer.testing.memory_kinesis_shards import KinesisShard, MemoryKinesisShards, Stored

ITERATOR_LIFETIME: Final = 300.0  # seconds
TOKEN_LIFETIME: Final = 300.0  # seconds, of the next page of a listing
READS: Final = 5  # of a shard in a second, by all its readers; and so many iterators
PAGE_BYTES: Final = 10 * 1024 * 1024
BYTES_PER_SECOND: Final = 2 * 1024 * 1024  # of a shard, for all its readers

# What a position answers whose record was trimmed, which AWS does not say; all three were seen.
Trimmed = Literal["horizon", "stuck", "invalid"]


class MemoryKinesis(MemoryKinesisShards):
    """One stream. All methods take effect at once, also for readers that are in the middle of a shard.

    ``trimmed_answers`` is how a position that was trimmed answers; ``names_children`` whether the last page of a shard
    does; ``limited`` whether reads are; ``invalid_ends`` so many pages of open shards have no next iterator;
    ``shards_per_page`` are in a page of the listing at most; ``status`` is what the summary says;
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
        super().__init__(clock, shards=shards, before=before)
        self.name = name
        self.stream_arn = f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"
        self.created: float = max(float(int(clock.wall())), before.created + 1 if before is not None else 0.0)
        self.trimmed_answers: Trimmed = "horizon"
        self.names_children = True
        self.limited = True
        self.invalid_ends = 0
        self.refuses: StreamConsumerError | None = None
        self.shards_per_page = 1000
        self.status = "ACTIVE"
        self.gone = False
        self.largest_page = 0  # wire bytes
        self.served = 0  # records, each time that they were given out
        self.successor: MemoryKinesis | None = None
        self._generation = 0

    @property
    def arn(self) -> str:
        """What names this very stream (``StreamDescription.stream_id``)."""
        return f"{self.stream_arn}@{int(self.created)}"

    @property
    def label(self) -> str:
        """Of its lease rows."""
        return f"{self.name}@{int(self.created)}"

    def made_anew(self, shards: int = 1) -> MemoryKinesis:
        """The stream was deleted with all its records, and one of its name is created."""
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
                "StreamStatus": self.status,
                "RetentionPeriodHours": int(self.retention // 3600),
                "StreamCreationTimestamp": dt.datetime.fromtimestamp(self.created, tz=dt.UTC),
                "OpenShardCount": len(self.open_shards()),
            }
        }

    def page_of_shards(self, most: int, token: str | None) -> dict[str, Any]:
        """ListShards; a token is the last shard of the page before, and when that was asked for."""
        issued, _, after = (token or "").partition("/")
        if token and (self.clock.wall() - float(issued) > TOKEN_LIFETIME or after not in self._lineage):
            raise DependencyError("ListShards", "ExpiredNextTokenException", "the token has expired")
        names = sorted(self._shards)
        start, most = bisect_right(names, after), min(most, self.shards_per_page)
        shown = names[start : start + most]
        answer: dict[str, Any] = {"Shards": [self._listed(self._shards[name]) for name in shown]}
        if start + most < len(names):
            answer["NextToken"] = f"{self.clock.wall()!r}/{shown[-1]}"
        return answer

    def iterator(self, shard_id: str, kind: str, number: str | None, at: float | None) -> str:
        """GetShardIterator: generation, time of issue, shard, the number it stands at, and ``n`` when that is the place
        of a record, as behind one, which may be trimmed."""
        shard = self._readable(shard_id)
        self._limit(shard.iterators)
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
            if int(number or "0") <= shard.trimmed and self.trimmed_answers == "invalid":
                text = f"StartingSequenceNumber {number} used in GetShardIterator on {shard_id} is invalid"
                raise DependencyError("GetShardIterator", "InvalidArgumentException", text)
            if int(number or "0") == shard.trimmed and self.trimmed_answers == "stuck":
                place = shard.trimmed  # as if AT: behind what was trimmed nothing comes either
            return self._issue(shard_id, place)
        return self._issue(shard_id, place, kind="h")

    def page(self, iterator: str, limit: int) -> dict[str, Any]:
        """GetRecords."""
        try:
            generation, issued, shard_id, place_text, kind = iterator.split("/")
            place, age = int(place_text), self.clock.wall() - float(issued)
        except ValueError as error:
            raise DependencyError("GetRecords", "InvalidArgumentException", "invalid ShardIterator") from error
        if int(generation) != self._generation or age > ITERATOR_LIFETIME:
            raise ExpiredIterator("the shard iterator has expired")
        shard = self._readable(shard_id)
        self._limit(shard.reads)
        if self.limited and shard.paid_until > self.clock.monotonic():
            raise Throttled("GetRecords", "ProvisionedThroughputExceededException", "2 MB a second")
        if kind == "n" and place <= shard.trimmed and self.trimmed_answers == "stuck":
            again = self._issue(shard_id, place)
            return {"Records": [], "NextShardIterator": again, "MillisBehindLatest": int(self.retention * 1000)}
        return self._read(shard, place, kind, limit)

    def read_by_another(self, shard_id: str) -> None:
        """Another consumer reads a shard, which takes one of its reads."""
        self._readable(shard_id).reads.append(self.clock.monotonic())

    def _read(self, shard: KinesisShard, place: int, kind: str, limit: int) -> dict[str, Any]:
        first = bisect_left(shard.records, place, key=lambda one: one.number)
        last, size = first, 0
        while last < min(len(shard.records), first + limit) and (last == first or size < PAGE_BYTES):
            size += len(shard.records[last].data)
            last += 1
        if self.limited:  # what is above the rate of a second blocks the next ones; 10 MiB block five
            now = self.clock.monotonic()
            more = size if size >= PAGE_BYTES else max(0, size - BYTES_PER_SECOND)
            shard.paid_until = max(now, shard.paid_until) + more / BYTES_PER_SECOND
        shown = shard.records[first:last]
        shard.pages += 1
        self.served += len(shown)
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
        following = (shard.records[last - 1].number + 1, "n") if last > first else (place, kind)
        return answer | {"NextShardIterator": self._issue(shard.shard_id, *following)}

    # --- inside --------------------------------------------------------------------------------------------------

    def _issue(self, shard_id: str, place: int, kind: str = "n") -> str:
        """By the wall clock, so that days that are passed over count, too."""
        return f"{self._generation}/{self.clock.wall()!r}/{shard_id}/{place}/{kind}"

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

    @staticmethod
    def _child(shard: KinesisShard) -> Mapping[str, Any]:
        return {"ShardId": shard.shard_id, "ParentShards": list(shard.parents)}


def _shown(record: Stored) -> dict[str, Any]:
    return {
        "SequenceNumber": str(record.number),
        "ApproximateArrivalTimestamp": dt.datetime.fromtimestamp(record.at, tz=dt.UTC),
        "Data": record.data,
        "PartitionKey": record.partition_key,
    }
