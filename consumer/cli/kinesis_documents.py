"""Records of Kinesis in what people have at hand, as the daemon would show them: changes of tables as such, and what
the KPL has packed taken apart.

They come in three spellings: as `aws kinesis get-records` prints them, as Lambda's Kinesis event has them (and so a
dead letter), and as the change that DynamoDB has put into the stream, without the record around it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from consumer.domain.kinesis_records import Data, KinesisChange, KinesisRecord, through_kinesis
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord

_PACKED: Final = ":"  # in the number of a record that was taken out of an aggregate

Wire = Mapping[str, Any]


def is_plain(document: Wire) -> bool:
    """As Lambda's event has a record."""
    return isinstance(document.get("kinesis"), dict)


def is_answered(document: Wire) -> bool:
    """As GetRecords has a record."""
    return "Data" in document and bool(document.keys() & {"PartitionKey", "SequenceNumber"})


def is_change(document: Wire) -> bool:
    """Whether a record with ``dynamodb`` came through Kinesis: as DynamoDB has put it there, or as a handler saw it."""
    return "recordFormat" in document or "tableName" in document or ":kinesis:" in str(document.get("eventSourceARN"))


def in_event(document: Wire) -> dict[str, Any]:
    """A record of a GetRecords answer as Lambda's event has it, as far as the answer says."""
    names = {
        "Data": "data",
        "SequenceNumber": "sequenceNumber",
        "PartitionKey": "partitionKey",
        "ApproximateArrivalTimestamp": "approximateArrivalTimestamp",
    }
    return {"kinesis": {ours: document[name] for name, ours in names.items() if document.get(name) is not None}}


def shown_records(document: Wire, place: int) -> Sequence[StreamRecord]:
    """What a handler sees of a record in the spelling of Lambda's event; ``place`` is its number if it has none.
    ValueError."""
    part, arn = document["kinesis"], str(document.get("eventSourceARN") or "")
    number, data = _text(part, "sequenceNumber", str(place)), _data(part)
    shard_id, _, _ = str(document.get("eventID") or "").rpartition(f":{number}")
    arrival = moment(part.get("approximateArrivalTimestamp", 0))
    plain = _text(part, "partitionKey", "")
    if _PACKED not in number:
        return _decoded(number, data, plain, arrival, arn, shard_id)
    record = KinesisRecord(Data(number, data, plain, arrival), str(document.get("eventID") or ""))
    return [msgspec.structs.replace(record, aws_region=str(document.get("awsRegion") or ""), event_source_arn=arn)]


def _decoded(
    number: str, data: bytes, partition_key: str, arrival: float, arn: str, shard_id: str
) -> Sequence[StreamRecord]:
    from consumer.aws.errors import StrangeAnswer  # with the SDK: a second, for these documents alone
    from consumer.aws.kinesis_pages import KinesisShard, convert_page

    wire = {
        "SequenceNumber": number,
        "Data": data,
        "PartitionKey": partition_key,
        "ApproximateArrivalTimestamp": arrival,
    }
    try:
        return convert_page({"Records": [wire]}, KinesisShard(arn, shard_id)).page.records
    except StrangeAnswer as error:
        raise ValueError(f"holds a record of Kinesis that cannot be read: {error}") from error


def whole_change(change: Wire) -> dict[str, Any]:
    """The ``dynamodb`` part of a change with what DynamoDB leaves out of it, its time in seconds."""
    from consumer.aws.kinesis_changes import VIEW_TYPE, creation_time

    written = change.get("ApproximateCreationDateTime")
    seconds, _ = creation_time(written, change.get("ApproximateCreationDateTimePrecision"))
    return {"StreamViewType": VIEW_TYPE, **change, "ApproximateCreationDateTime": seconds or written or 0.0}


def through_its_own_stream(record: KinesisChange) -> Record:
    """The record as one of the table's own stream."""
    fields = {name: getattr(record, name) for name in Record.__struct_fields__}
    return Record(**fields | {"table_name": ""})


def of_the_source(records: Sequence[StreamRecord], kind: str, table_name: str) -> Iterator[StreamRecord]:
    """Changes as the configured source would show them, whatever they were saved from."""
    for record in records:
        if kind == "kinesis" and isinstance(record, Record) and not isinstance(record, KinesisChange):
            yield through_kinesis(record, table_name)
        elif kind == "dynamodb" and isinstance(record, KinesisChange):
            yield through_its_own_stream(record)
        else:
            yield record


def moment(written: object) -> float:
    """Unix seconds of a time as seconds, or as the CLI prints it. ValueError."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        return float(written)
    text = str(written)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"holds the time {text[:64]!r}, which is neither seconds nor ISO 8601") from error
    return found.replace(tzinfo=found.tzinfo or dt.UTC).timestamp()


def _text(part: Wire, name: str, default: str) -> str:
    value = part.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"holds a record whose {name} is {type(value).__name__}, not a text")
    return value


def _data(part: Wire) -> bytes:
    try:
        return base64.b64decode(_text(part, "data", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"holds a record of Kinesis whose data is no base64: {error}") from error
