"""The format of a Kinesis stream: changes of tables in it, and anything else."""

from __future__ import annotations

import datetime as dt
from typing import Final

from .keys import item_key
from .kinesis_numbers import book_number, service_number
from .kinesis_records import KinesisChange, KinesisRecord
from .source_format import ReadingLimits, SourceFormat
from .stream_record import StreamRecord

# A shard serves five reads a second and 2 MB a second, to all consumers together (Kinesis quotas; GetRecords: a call
# that returns 10 MiB blocks the next five seconds). Near the tip once a second is what Lambda asks, too.
READING: Final = ReadingLimits(
    interval=0.3,
    near_tip=1.0,
    second_reader=0.7,
    bytes_per_second=2_000_000,
    page_bytes=4_000_000,
    wanted_bytes=2_000_000,
)
# Numbers have 63 digits instead of 25: the same stretches take three times the room.
RUNS_BYTES: Final = 12 * 1024
_LAST_SECOND: Final = 253402300799.0  # 9999-12-31T23:59:59Z


def ordering_key(record: StreamRecord) -> bytes:
    """Of a change its item: table and primary key. Not the partition key of the Kinesis record, which DynamoDB does not
    explain. ``b""`` without a usable key. Of any other record that partition key."""
    if isinstance(record, KinesisChange):
        item = item_key(record.dynamodb.Keys)
        return b"\0".join((record.table_name.encode(), item)) if item else b""
    if isinstance(record, KinesisRecord):
        return b"\1" + record.partition_key.encode()
    raise TypeError(f"{type(record).__name__} is no record of a Kinesis stream")


def milliseconds_text(moment: float) -> str:
    """Unix seconds as ``KinesisBatchInfo`` has them: ``2026-11-14T00:38:06.021Z``."""
    seconds = min(max(0.0, moment), _LAST_SECOND)
    text = dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _unknown(_shard_id: str) -> None:
    """Shards are counted: their ids say nothing about their age."""


def _shown(number: str) -> str:
    sequence_number, place = service_number(number)
    return f"{sequence_number}:{place}" if place else sequence_number


KINESIS_FORMAT: Final = SourceFormat(
    ordered_by="item",
    key_of=ordering_key,
    batch_info="KinesisBatchInfo",
    arrival_text=milliseconds_text,
    created=_unknown,
    shown=_shown,
    book_number=book_number,
    reading=READING,
    runs_bytes=RUNS_BYTES,
    names_trims=False,
    repeats=True,
)
