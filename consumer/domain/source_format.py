"""What differs between change streams, in one place: how records are ordered and named, what the service says and what
it leaves out. Nothing above asks which source it is.

A source hands its format out with ``StreamDescription``; ``kinesis_format.py`` has the other one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .frontier import MAX_RUNS_BYTES
from .keys import partition_key_reader
from .stream_record import StreamRecord
from .windows import second_text

FIVE_A_SECOND: Final = 0.2  # seconds; near the tip no shard is read more often


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """How a shard may be read.

    ``interval``: least seconds between two reads of the main reader, which is how it reads while it is behind.
    ``near_tip``: the same when there is nothing more to read, but for a user who asks for more (``polling.py``).
    ``second_reader``: seconds between two pages of a reader that catches up beside the main one.
    ``bytes_per_second``: what the service gives of a shard; after a page the next one is asked for when its bytes are
    paid for. ``page_bytes``: a page of so many is full. ``wanted_bytes``: larger pages are not asked for, as far as the
    size of records is known; 0 where the service's own limit is small enough.
    """

    interval: float = 0.0
    near_tip: float = 0.2
    second_reader: float = 0.2
    bytes_per_second: float = math.inf
    page_bytes: int = 700_000
    wanted_bytes: int = 0

    def is_full(self, wire_bytes: int, records: int, most: int) -> bool:
        """Whether a page of so many bytes and records, of ``most`` asked for, leaves more to be read."""
        return records >= most or wire_bytes >= self.page_bytes

    def pause_behind(self, wire_bytes: int) -> float:
        """Seconds until the next read after a page of so many bytes, with more to read."""
        return max(self.interval, self.paid_after(wire_bytes))

    def paid_after(self, wire_bytes: int) -> float:
        """Seconds after a page of so many bytes until the service gives the next one."""
        return wire_bytes / self.bytes_per_second


def plain_number(sequence_number: str, place: int) -> str:
    """Where no record holds others, its sequence number."""
    if place:
        raise ValueError(f"sub-sequence number {place} of {sequence_number}: no record of this stream holds others")
    return sequence_number


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """The facts of one source.

    Attributes:
        ordered_by: what orders records, in a word.
        key_of: the ordering key of a record: equal for records that must be handled in order.
        batch_info: the field of dead letters that says where the records are.
        arrival_text: a time (Unix seconds) as that field has it.
        created: when a shard was made, by its id (Unix seconds); None where ids do not say.
        shown: a number of the books as the service writes it.
        book_number: the other way round: the number of a record in the books, from the sequence number that the service
            gave it and its place inside of an aggregated record. ValueError for a place that no record has.
        reading: how fast a shard may be read.
        runs_bytes: of what is settled above the low watermark, in a checkpoint.
        names_trims: the service refuses a position whose records were trimmed. Otherwise one that does not show its
            record again may have lost records, unless the shard was seen complete since (``Position.complete_at``).
        repeats: the source may give a change twice, or after a newer one of its item (``item_versions.py``).
    """

    ordered_by: str
    key_of: Callable[[StreamRecord], bytes] = field(compare=False)
    batch_info: str
    arrival_text: Callable[[float], str]
    created: Callable[[str], float | None]
    shown: Callable[[str], str] = str
    book_number: Callable[[str, int], str] = plain_number
    reading: ReadingLimits = ReadingLimits()
    runs_bytes: int = MAX_RUNS_BYTES
    names_trims: bool = True
    repeats: bool = False


_CREATED = re.compile(r"shardId-(\d{20})-")


def created_by_id(shard_id: str) -> float | None:
    """Ids of DynamoDB Streams begin with the milliseconds at which the shard was made."""
    found = _CREATED.match(shard_id)
    return int(found[1]) / 1000 if found else None


def dynamodb_format(partition_key: str) -> SourceFormat:
    """DynamoDB Streams of a table whose partition key is called so."""
    return SourceFormat(
        ordered_by=partition_key,
        key_of=partition_key_reader(partition_key),
        batch_info="DDBStreamBatchInfo",
        arrival_text=second_text,
        created=created_by_id,
    )
