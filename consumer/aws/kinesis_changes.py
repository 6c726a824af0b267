"""Changes of tables in the data of Kinesis records, as DynamoDB puts them there.

What makes data a change: it is a JSON object with ``eventSource`` "aws:dynamodb", a ``recordFormat`` and
``dynamodb.Keys``. All public samples have them, and nothing else is promised. A change is decoded once; its images stay
slices of the record's own data.

Of a change with odd parts (a field of the wrong type, an image that is no attribute value or no UTF-8) the rest is
kept, and what cannot be read raises ValueError for who reads it, as in ``odd_records``: filters let it pass and the
handler of changes sees it in its item's order, as poison. Data that no parser can read (nested too deep, cut) is no
change for anybody: DynamoDB nests 32 levels and writes JSON. It is shown as it is, so not a byte of it is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from consumer.aws.odd_records import ABSENT, REFUSED, rebuild, text_or
from consumer.domain.kinesis_records import KinesisChange
from consumer.domain.record import UNREADABLE, Change

SOURCE: Final = "aws:dynamodb"
VIEW_TYPE: Final = "NEW_AND_OLD_IMAGES"  # a Kinesis stream always gets the images that there are
VERSION: Final = "1.1"
_MARK: Final = b'"aws:dynamodb"'  # no writer of JSON escapes any of it

# Units of ApproximateCreationDateTime. Tables on MILLISECOND, and all before 2024, do not name theirs.
_PER_SECOND: Final = {"MICROSECOND": 1_000_000, "MILLISECOND": 1000}
_MICROS_FROM: Final = 10**14  # as microseconds the year 1973, as milliseconds 5138
_MILLIS_FROM: Final = 10**11  # as milliseconds the year 1973; below are seconds, which some emulators write
_LAST_SECOND: Final = 253402300799  # 9999-12-31T23:59:59Z


class _Change(msgspec.Struct, gc=False):
    Keys: Raw
    ApproximateCreationDateTime: int | float = 0
    NewImage: Raw = ABSENT
    OldImage: Raw = ABSENT
    SizeBytes: int = 0
    ApproximateCreationDateTimePrecision: str | None = None


class _TableChange(msgspec.Struct, gc=False):
    dynamodb: _Change
    eventSource: Literal["aws:dynamodb"]  # noqa: N815 - DynamoDB's name
    recordFormat: str  # noqa: N815 - DynamoDB's name
    eventID: str = ""  # noqa: N815 - DynamoDB's name
    eventName: str = ""  # noqa: N815 - DynamoDB's name
    awsRegion: str = ""  # noqa: N815 - DynamoDB's name
    tableName: str = ""  # noqa: N815 - DynamoDB's name
    userIdentity: dict[str, str] | None = None  # noqa: N815 - DynamoDB's name


_decode = msgspec.json.Decoder(_TableChange).decode


def change_in(data: bytes, sequence_number: str, stream_arn: str) -> KinesisChange | None:
    """The change in the data of a record; None when it is anything else. ``sequence_number``: what a handler sees."""
    if not _begins_an_object(data):
        return None
    try:
        wire = _decode(data)
        if not data.isascii():
            data.decode()  # msgspec does not look into slices, and in an event such bytes would spoil its whole batch
    except REFUSED:
        return _odd_change_in(data, sequence_number, stream_arn)
    inner = wire.dynamodb
    seconds, in_micros = creation_time(inner.ApproximateCreationDateTime, inner.ApproximateCreationDateTimePrecision)
    return KinesisChange(
        Change(sequence_number, seconds, inner.Keys, inner.NewImage, inner.OldImage, inner.SizeBytes, VIEW_TYPE),
        wire.eventID,
        wire.eventName,
        VERSION,
        SOURCE,
        wire.awsRegion,
        wire.userIdentity,
        stream_arn,
        wire.tableName,
        None,
        in_micros,
    )


def creation_time(value: object, precision: object) -> tuple[float, bool]:
    """Unix seconds, exact to the microsecond, and whether they are; 0 for what is no time.

    The unit is the one that ``precision`` names, else it is told by the size of the number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0, False
    per_second = _PER_SECOND.get(precision) if isinstance(precision, str) else None
    if per_second is None:
        per_second = 1_000_000 if value >= _MICROS_FROM else 1000 if value >= _MILLIS_FROM else 1
    if not 0 < value <= _LAST_SECOND * per_second:  # also false for NaN
        return 0.0, False
    return value / per_second, per_second == 1_000_000


def _begins_an_object(data: bytes) -> bool:
    first = data[:1]
    return first == b"{" or (first in (b" ", b"\n", b"\r", b"\t") and data[:64].lstrip(b" \n\r\t")[:1] in (b"{", b""))


def _odd_change_in(data: bytes, sequence_number: str, stream_arn: str) -> KinesisChange | None:
    """What the fast decoder refused: mostly something else, which is told from the text."""
    if _MARK not in data:
        return None
    try:
        wire = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    inner = wire.get("dynamodb") if isinstance(wire, dict) else None
    if not isinstance(inner, dict) or wire.get("eventSource") != SOURCE:
        return None
    return _rebuilt(wire, inner, sequence_number, stream_arn) if "Keys" in inner and "recordFormat" in wire else None


def _rebuilt(wire: Mapping[str, Any], inner: Mapping[str, Any], sequence_number: str, stream_arn: str) -> KinesisChange:
    seconds, in_micros = creation_time(
        inner.get("ApproximateCreationDateTime"), inner.get("ApproximateCreationDateTimePrecision")
    )
    filled_in = {
        "SequenceNumber": sequence_number,
        "ApproximateCreationDateTime": seconds,
        "StreamViewType": VIEW_TYPE,
    }
    record = rebuild(0, {**wire, "eventVersion": VERSION, "dynamodb": {**inner, **filled_in}})
    if inner["Keys"] is None:
        record.dynamodb.Keys = UNREADABLE
    record.event_source_arn = stream_arn
    fields = msgspec.structs.asdict(record)
    return KinesisChange(**{**fields, "table_name": text_or(wire.get("tableName"), "")}, in_micros=in_micros)
