"""The fields of an event that a pattern may name, for each kind of record, cheapest first.

A change of a table that came through Kinesis has two spellings: as its event shows it, and as Lambda's filters for
Kinesis name it, below ``data``, where it is as DynamoDB wrote it (Lambda developer guide, "Using event filtering with a
Kinesis event source").
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from consumer.domain.record import UNREADABLE, Record
from consumer.domain.stream_record import StreamRecord

Items = dict[str, dict[str, Any] | None]
Get = Callable[[Any, Items], Any]

DATA: Final = "data"
NULL: Final = object()  # what a getter returns for a field that is there and null; None: there is no such field

_decode = msgspec.json.Decoder().decode


class Undecodable(Exception):
    """An item of the record is no JSON object."""


def _item(name: str, record: Record, items: Items) -> dict[str, Any] | None:
    """Keys or an image in the wire form, ``{"status": {"S": "paid"}}``; decoded at most once for all patterns."""
    if name in items:
        return items[name]
    raw = getattr(record.dynamodb, name)
    if raw == UNREADABLE:
        raise Undecodable(f"dynamodb.{name} cannot be read")
    try:
        value = _decode(raw) if len(raw) else None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Undecodable(f"dynamodb.{name} does not decode: {error}") from error
    if value is not None and not isinstance(value, dict):
        raise Undecodable(f"dynamodb.{name} is not a JSON object")
    items[name] = value
    return value


def _data(record: KinesisRecord, _: Items) -> Any:
    """As Lambda sees it: what is JSON is decoded, and any other text is a text."""
    try:
        value = json.loads(record.data)
    except (ValueError, RecursionError):
        return record.data.decode("utf-8", "replace")
    return NULL if value is None else value


def _written_time(record: KinesisChange, _: Items) -> int:
    """A whole number of milliseconds or microseconds, as DynamoDB wrote it."""
    return round(record.created * (1_000_000 if record.in_micros else 1000))


# As the event has them; None means that the event has no such field.
CHANGE_FIELDS: Final[Mapping[str, Get]] = {
    "eventName": lambda record, _: record.event_name,
    "eventID": lambda record, _: record.event_id,
    "eventVersion": lambda record, _: record.event_version,
    "eventSource": lambda record, _: record.event_source,
    "awsRegion": lambda record, _: record.aws_region,
    "eventSourceARN": lambda record, _: record.event_source_arn,
    "userIdentity": lambda record, _: record.user_identity,
    "dynamodb.StreamViewType": lambda record, _: record.dynamodb.StreamViewType,
    "dynamodb.SizeBytes": lambda record, _: record.dynamodb.SizeBytes,
    "dynamodb.ApproximateCreationDateTime": lambda record, _: float(record.dynamodb.ApproximateCreationDateTime),
    "dynamodb.SequenceNumber": lambda record, _: record.dynamodb.SequenceNumber,
    "dynamodb.Keys": partial(_item, "Keys"),
    "dynamodb.NewImage": partial(_item, "NewImage"),
    "dynamodb.OldImage": partial(_item, "OldImage"),
}
_THROUGH_KINESIS: Final[Mapping[str, Get]] = {"tableName": lambda record, _: record.table_name, **CHANGE_FIELDS}
_AS_WRITTEN: Final[Mapping[str, Get]] = {
    "tableName": lambda record, _: record.table_name,
    "eventName": lambda record, _: record.event_name,
    "eventID": lambda record, _: record.event_id,
    "eventSource": lambda record, _: record.event_source,
    "awsRegion": lambda record, _: record.aws_region,
    "recordFormat": lambda _, __: "application/json",
    "userIdentity": lambda record, _: record.user_identity or NULL,
    "dynamodb.SizeBytes": lambda record, _: record.dynamodb.SizeBytes,
    "dynamodb.ApproximateCreationDateTime": _written_time,
    "dynamodb.ApproximateCreationDateTimePrecision": lambda record, _: "MICROSECOND" if record.in_micros else None,
    "dynamodb.Keys": partial(_item, "Keys"),
    "dynamodb.NewImage": partial(_item, "NewImage"),
    "dynamodb.OldImage": partial(_item, "OldImage"),
}
_DATA_FIELDS: Final[Mapping[str, Get]] = {
    "eventName": lambda record, _: record.event_name,
    "eventID": lambda record, _: record.event_id,
    "eventVersion": lambda record, _: record.event_version,
    "eventSource": lambda record, _: record.event_source,
    "awsRegion": lambda record, _: record.aws_region,
    "eventSourceARN": lambda record, _: record.event_source_arn,
    "kinesis.partitionKey": lambda record, _: record.partition_key,
    "kinesis.sequenceNumber": lambda record, _: record.sequence_number,
    "kinesis.approximateArrivalTimestamp": lambda record, _: record.created,
    "kinesis.kinesisSchemaVersion": lambda record, _: record.kinesis.kinesisSchemaVersion,
    "kinesis.data": lambda record, _: base64.b64encode(record.data).decode(),
    DATA: _data,
}
FIELDS: Final[Mapping[type[StreamRecord], Mapping[str, Get]]] = {
    Record: CHANGE_FIELDS,
    KinesisChange: {**_THROUGH_KINESIS, **{f"{DATA}.{name}": get for name, get in _AS_WRITTEN.items()}},
    KinesisRecord: _DATA_FIELDS,
}
