"""A change stream in memory, with the shard tree and the faults of the real one.

``MemoryStream`` is the table with its stream: tests write items and re-shard, trim or expire at will. Every worker
opens its own ``MemoryStreamSource`` on it, so several workers can be run against each other in one process. Nothing
here reads a clock or draws random numbers by itself: time comes from the clock that is handed in, and everything else
follows from the calls made, so a run can be repeated exactly.

    stream = MemoryStream(clock, shards=2)
    stream.put({"id": "a", "total": 3})
    left, right = stream.split(stream.shard_of("a"))
    source = MemoryStreamSource(stream)  # in memory_source
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from consumer.domain.errors import DependencyError, ExpiredIterator, ResourceMissing, TrimmedData
from consumer.domain.events import records_from_event
from consumer.ports.source import Page, Position
from consumer.ports.time import Clock
from consumer.testing.memory_shards import MemoryShard, MemoryShards
from consumer.testing.wire import to_wire

ITERATOR_LIFETIME: Final = 900.0  # seconds, as on AWS
TTL_IDENTITY: Final = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}

_encode = msgspec.json.Encoder().encode


class MemoryStream(MemoryShards):
    """A table and its stream. All methods take effect at once, also for readers that are in the middle of a shard.

    Args:
        clock: when records are written and iterators expire.
        table: name of the table.
        partition_key: name of the partition key attribute.
        sort_key: name of the sort key attribute, if the table has one.
        shards: how many open shards there are at first; their hash ranges share the key space equally.
        page_records: most records in a page.
        page_bytes: size after which a page ends (1 MB on AWS).
        last_page: whether a closed shard's last records come together with the end, or an empty page follows them.
        jump_every: after so many records SequenceNumbers grow by a digit, from 21 up to 40.
        dated: whether the ids of shards name the time they were created, as on AWS; otherwise they look very old.
        shards_before: where ids begin to count: those of a stream do not repeat those of the stream before it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        table: str = "orders",
        label: str = "2026-01-01T00:00:00.000",
        partition_key: str = "id",
        sort_key: str | None = None,
        shards: int = 1,
        page_records: int = 1000,
        page_bytes: int = 1_000_000,
        last_page: Literal["with_records", "empty"] = "with_records",
        jump_every: int = 10,
        dated: bool = False,
        shards_before: int = 0,
    ) -> None:
        arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}/stream/{label}"
        super().__init__(clock, arn, shards=shards, jump_every=jump_every, dated=dated, shards_before=shards_before)
        self.table = table
        self.label = label
        self.partition_key = partition_key
        self.page_records = self.usual_page_records = page_records
        self.page_bytes = page_bytes
        self.last_page = last_page
        self.gone = False
        self.successor: MemoryStream | None = None
        self.key_names = [partition_key, *([sort_key] if sort_key else [])]
        self.items: dict[bytes, dict[str, Any]] = {}  # of the table, by key
        self.largest_page = 0  # wire bytes
        self._generation = 0

    # --- writing -------------------------------------------------------------------------------------------------

    def put(self, item: Mapping[str, Any]) -> str | None:
        """Write an item of Python values: an INSERT or a MODIFY. None when nothing changes: that makes no record."""
        image = to_wire(item)["M"]
        key = _encode({name: image[name] for name in self.key_names})
        old = self.items.get(key)
        if old == image:
            return None
        self.items[key] = image
        change = {"NewImage": image} if old is None else {"NewImage": image, "OldImage": old}
        return self.append(item[self.partition_key], change, "INSERT" if old is None else "MODIFY", keys=key)

    def delete(self, item: Mapping[str, Any], *, by_ttl: bool = False) -> str | None:
        """Delete the item with the key in ``item``: a REMOVE, or None when there is no such item."""
        image = to_wire(item)["M"]
        key = _encode({name: image[name] for name in self.key_names})
        old = self.items.pop(key, None)
        if old is None:
            return None
        fields = {"userIdentity": TTL_IDENTITY} if by_ttl else {}
        return self.append(item[self.partition_key], {"OldImage": old}, "REMOVE", keys=key, **fields)

    def append(
        self,
        key: Any,
        change: Mapping[str, Any],
        event_name: str = "MODIFY",
        *,
        keys: bytes | None = None,
        **fields: Any,
    ) -> str:
        """Append any record, also one no table would write, to the open shard that owns the partition key ``key``.

        Args:
            key: the partition key as a Python value.
            change: more members of ``dynamodb``, as on the wire: ``{"NewImage": {"id": {"S": "a"}}}``.
            event_name: INSERT, MODIFY, REMOVE or anything else.
            keys: JSON text of ``Keys``; the default is the partition key alone.
            fields: more members of the record, or others in place of its own.
        """
        shard = self._open_shard(key)
        number = self._next_number()
        body: dict[str, Any] = {
            "eventID": f"{self._written:032x}",
            "eventName": event_name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "eventSourceARN": self.arn,
        }
        inner: dict[str, Any] = {
            "ApproximateCreationDateTime": int(self.clock.wall()),
            "Keys": {self.partition_key: to_wire(key)} if keys is None else msgspec.Raw(keys),
            "SequenceNumber": str(number),
            "SizeBytes": len(_encode(change)),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
        body |= {"dynamodb": {**inner, **change}, **fields}
        shard.numbers.append(number)
        shard.bodies.append(_encode(body))
        return str(number)

    # --- what the service does to records and to the whole stream ------------------------------------------------

    def expire_iterators(self) -> None:
        """Every iterator handed out so far is expired."""
        self._generation += 1

    def empty_pages(self, shard_id: str, count: int) -> None:
        """The next ``count`` pages of this shard are empty although it has more records."""
        self._shards[shard_id].empty_pages = count

    def disable(self) -> None:
        """Disable the stream: all shards end without children; what they hold stays readable."""
        self.status = "DISABLED"
        for shard_id in self.open_shards():
            self._close(shard_id)

    def enable_again(self, label: str, *, shards: int = 1) -> MemoryStream:
        """Disable the stream if it is not, and give the table a new one, which takes all further writes. Its
        SequenceNumbers start anew; what the old one holds stays readable until ``expire``."""
        if self.status != "DISABLED":
            self.disable()
        self.freeze_listing(frozen=False)
        self.successor = MemoryStream(
            self.clock,
            table=self.table,
            label=label,
            partition_key=self.partition_key,
            shards=shards,
            page_records=self.usual_page_records,
            page_bytes=self.page_bytes,
            last_page=self.last_page,
            jump_every=self._jump_every,
            dated=self.dated,
            shards_before=self._made,
        )
        self.successor.key_names, self.successor.items = self.key_names, self.items
        return self.successor

    def expire(self) -> None:
        """The stream is gone, as 24 hours after it was disabled."""
        self.gone = True

    # --- what sources ask ----------------------------------------------------------------------------------------

    def iterator(self, shard_id: str, position: Position) -> str:
        """An iterator: generation, time of issue, shard, and the number it stands after."""
        shard = self._readable("GetShardIterator", shard_id)
        if position.kind == "TRIM_HORIZON":
            after = shard.trimmed
        elif position.kind == "LATEST":
            after = shard.numbers[-1] if shard.numbers else shard.trimmed
        else:
            text = position.sequence_number or ""
            if not text.isdecimal():
                raise DependencyError("GetShardIterator", "ValidationException", f"not a SequenceNumber: {text!r}")
            if int(text) <= shard.trimmed:
                raise TrimmedData(f"GetShardIterator on {shard_id}: {text} is older than what the stream keeps")
            after = int(text) - (position.kind == "AT_SEQUENCE_NUMBER")
        return self._issue(shard_id, after)

    def page(self, shard_id: str, iterator: str, limit: int) -> Page:
        """The records behind the iterator."""
        try:
            generation, issued, iterator_shard, after_text = iterator.split("|")
            after = int(after_text)
            age = self.clock.monotonic() - float(issued)
        except ValueError as error:
            raise DependencyError("GetRecords", "ValidationException", "invalid ShardIterator") from error
        if int(generation) != self._generation or age > ITERATOR_LIFETIME:
            raise ExpiredIterator(f"GetRecords on {shard_id}: the shard iterator has expired")
        shard = self._readable("GetRecords", iterator_shard)
        if after < shard.trimmed:
            raise TrimmedData(f"GetRecords on {shard_id}: the position is older than what the stream keeps")
        return self._read(shard, after, limit)

    def _read(self, shard: MemoryShard, after: int, limit: int) -> Page:
        first = bisect_right(shard.numbers, after)
        if shard.empty_pages and first < len(shard.numbers):
            shard.empty_pages -= 1
            return Page([], self._issue(shard.shard_id, after), len(b'{"Records":[]}'))
        last, size = first, 0
        end = min(len(shard.numbers), first + min(limit, self.page_records))
        while last < end and (last == first or size + len(shard.bodies[last]) <= self.page_bytes):
            size += len(shard.bodies[last])
            last += 1
        # Joined and decoded anew each time: records are mutable, and those of a page must share memory as real ones do.
        body = b'{"Records":[' + b",".join(shard.bodies[first:last]) + b"]}"
        ended = shard.ended(self.clock.monotonic())
        done = ended and last == len(shard.numbers) and (last == first or self.last_page != "empty")
        following = None if done else self._issue(shard.shard_id, shard.numbers[last - 1] if last > first else after)
        self.largest_page = max(self.largest_page, len(body))
        return Page(records_from_event(body), following, len(body))

    # --- inside --------------------------------------------------------------------------------------------------

    def _issue(self, shard_id: str, after: int) -> str:
        return f"{self._generation}|{self.clock.monotonic()!r}|{shard_id}|{after}"

    def _readable(self, operation: str, shard_id: str) -> MemoryShard:
        shard = self._shards.get(shard_id)
        if shard is None or self.missing or shard_id in self.omitted or shard.visible_at > self.clock.monotonic():
            raise ResourceMissing(f"shard {shard_id} of {self.arn}", f"{operation} says so")
        return shard
