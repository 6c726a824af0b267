"""What a Kinesis stream holds: changes of tables, which are shown as DynamoDB's stream records, and anything else.

Sources of the rules: Lambda's Kinesis event (Lambda developer guide, "Using AWS Lambda with Kinesis"); what DynamoDB
puts into a stream is not specified, and taken from public samples (see ``KinesisChange``).
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from .kinesis_numbers import book_number
from .record import Record
from .stream_record import StreamRecord, encode

_WHOLE: Final = book_number("")  # behind the number of a record that is not aggregated
NO_SUB: Final = -1  # the place inside of a record that is not aggregated


def identifier(sequence_number: str, sub_sequence_number: int) -> str:
    """What a handler sees as the sequence number: ``NUMBER``, and ``NUMBER:PLACE`` for one of an aggregated record,
    because a partial answer must be able to name it."""
    return sequence_number if sub_sequence_number == NO_SUB else f"{sequence_number}:{sub_sequence_number}"


def _number(shown: str) -> str:
    if ":" not in shown:
        return shown + _WHOLE
    sequence_number, _, place = shown.partition(":")
    return book_number(sequence_number, int(place))


class KinesisChange(Record, gc=False):
    """A change of an item that DynamoDB has put into a Kinesis stream, shown as a record of DynamoDB Streams.

    What DynamoDB leaves out is filled in: ``eventVersion`` 1.1, ``StreamViewType`` NEW_AND_OLD_IMAGES, the stream's ARN
    as ``eventSourceARN``. ``SequenceNumber`` is that of Kinesis: it names the record, and does not order changes.
    ``ApproximateCreationDateTime`` is in seconds, as in DynamoDB Streams, to the milli- or microsecond; ``tableName``
    stays.

    ``in_micros``: whether DynamoDB gave the time in microseconds.
    """

    in_micros: bool = False

    @property
    def number(self) -> str:
        return _number(self.dynamodb.SequenceNumber)

    @property
    def event_size(self) -> int:
        """Who writes into a stream may write any text, so these are measured as JSON has them."""
        identity = self.user_identity_wire or {}
        texts = (self.event_id, self.event_name, self.aws_region, self.table_name, *identity, *identity.values())
        added_by_list = 3 * len(texts) + 1  # quotes, commas, brackets
        return super().event_size + len(encode(texts)) - sum(map(len, texts)) - added_by_list


def through_kinesis(record: Record, table_name: str = "") -> KinesisChange:
    """The record as one that came through Kinesis; of ``table_name`` if it does not tell its table."""
    micros = round(record.created * 1_000_000) % 1000 != 0  # they are there, so they were not cut off
    fields = {name: getattr(record, name) for name in Record.__struct_fields__}
    return KinesisChange(**fields | {"table_name": record.table_name or table_name}, in_micros=micros)


class Data(msgspec.Struct, gc=False):
    """The ``kinesis`` part of a record. ``data`` is base64 text on the wire."""

    sequenceNumber: str  # noqa: N815 - Lambda's name
    data: bytes = b""
    partitionKey: str = ""  # noqa: N815 - Lambda's name
    approximateArrivalTimestamp: float = 0.0  # noqa: N815 - Lambda's name
    kinesisSchemaVersion: str = "1.0"  # noqa: N815 - Lambda's name


class KinesisRecord(StreamRecord, gc=False):
    """A record of a Kinesis stream that is no change of a table.

    Attributes for handlers: ``data`` (bytes), ``partition_key``, ``sequence_number`` (text; ``NUMBER:PLACE`` for one
    that the KPL has aggregated), ``approximate_arrival_time``, ``event_id``, ``event_source_arn`` and ``as_event()``.
    """

    kinesis: Data
    event_id: str = msgspec.field(name="eventID", default="")
    event_name: str = msgspec.field(name="eventName", default="aws:kinesis:record")
    event_version: str = msgspec.field(name="eventVersion", default="1.0")
    event_source: str = msgspec.field(name="eventSource", default="aws:kinesis")
    aws_region: str = msgspec.field(name="awsRegion", default="")
    event_source_arn: str = msgspec.field(name="eventSourceARN", default="")

    @property
    def number(self) -> str:
        return _number(self.kinesis.sequenceNumber)

    @property
    def sequence_number(self) -> str:
        return self.kinesis.sequenceNumber

    @property
    def created(self) -> float:
        return self.kinesis.approximateArrivalTimestamp

    @property
    def data(self) -> bytes:
        """What the producer has put."""
        return self.kinesis.data

    @property
    def partition_key(self) -> str:
        """By which Kinesis chose the shard; also the ordering key."""
        return self.kinesis.partitionKey

    @property
    def approximate_arrival_time(self) -> dt.datetime:
        """When Kinesis took the record (UTC, to the millisecond). The service does not promise that it grows."""
        return dt.datetime.fromtimestamp(self.created, tz=dt.UTC)

    @property
    def wire_size(self) -> int:
        return len(self.kinesis.data) + len(self.kinesis.partitionKey) + 400

    @property
    def event_size(self) -> int:
        part = self.kinesis
        texts = (self.event_id, self.event_name, self.aws_region, part.sequenceNumber)
        escaped = len(encode((self.event_source_arn, part.partitionKey)))
        return _NAMES + sum(map(len, texts)) + escaped + (len(part.data) + 2) // 3 * 4

    def in_event(self) -> msgspec.Struct:
        """As Lambda writes it. ``invokeIdentityArn`` is there and empty: nothing has invoked this with a role."""
        return _DataRecord(
            self.kinesis,
            self.event_source,
            self.event_version,
            self.event_id,
            self.event_name,
            "",
            self.aws_region,
            self.event_source_arn,
        )

    def detach(self) -> int:
        return self.wire_size  # its data is a copy already

    def forget(self) -> None:
        """Nothing is decoded into it."""


_NAMES_IN_EVENT = {
    "event_source": "eventSource",
    "event_version": "eventVersion",
    "event_id": "eventID",
    "event_name": "eventName",
    "invoke_identity_arn": "invokeIdentityArn",
    "aws_region": "awsRegion",
    "event_source_arn": "eventSourceARN",
}


class _DataRecord(msgspec.Struct, gc=False, rename=_NAMES_IN_EVENT):
    kinesis: Data
    event_source: str
    event_version: str
    event_id: str
    event_name: str
    invoke_identity_arn: str
    aws_region: str
    event_source_arn: str


_LONGEST_TIME: Final = -1.2345678901234567e-300
_NAMES: Final = len(
    encode(_DataRecord(Data("", approximateArrivalTimestamp=_LONGEST_TIME), "aws:kinesis", "1.0", "", "", "", "", ""))
)
