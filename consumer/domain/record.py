"""A change record: decoded from the wire by msgspec straight into this type, images kept as slices of their page.

The field names on the wire are those of GetRecords *and* of the Lambda event (they differ only in
``userIdentity``'s case, ``eventSourceARN`` and the type of the creation time), so the daemon and a worker process
use the same type. Images are decoded on first use; most records are handled without anyone looking at them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .attribute_values import item_from_json

_NOTHING = Raw(b"")


class Change(msgspec.Struct, gc=False, omit_defaults=True):
    """The ``dynamodb`` part of a record. Everything is optional so that one odd record cannot fail a page."""

    SequenceNumber: str
    ApproximateCreationDateTime: float = 0.0
    Keys: Raw = _NOTHING
    NewImage: Raw = _NOTHING
    OldImage: Raw = _NOTHING
    SizeBytes: int = 0
    StreamViewType: str = ""


class Record(msgspec.Struct, gc=False):
    """One change of one item, in the order of its shard.

    Attributes for handlers: ``event_id``, ``event_name`` (INSERT, MODIFY, REMOVE), ``sequence_number`` (text; compare
    as ``int``), ``approximate_creation_time``, ``keys``, ``new_image``, ``old_image``, ``size_bytes``,
    ``stream_view_type``, ``user_identity``, ``event_source_arn`` and ``as_event()``.
    """

    dynamodb: Change
    event_id: str = msgspec.field(name="eventID", default="")
    event_name: str = msgspec.field(name="eventName", default="")
    event_version: str = msgspec.field(name="eventVersion", default="1.1")
    event_source: str = msgspec.field(name="eventSource", default="aws:dynamodb")
    aws_region: str = msgspec.field(name="awsRegion", default="")
    user_identity_wire: dict[str, str] | None = msgspec.field(name="userIdentity", default=None)
    event_source_arn: str = msgspec.field(name="eventSourceARN", default="")
    cached: dict[str, Any] | None = msgspec.field(name="__cached", default=None)

    @property
    def sequence_number(self) -> str:
        return self.dynamodb.SequenceNumber

    @property
    def approximate_creation_time(self) -> dt.datetime:
        """When DynamoDB wrote the change (UTC, rounded down to the second by the service)."""
        return dt.datetime.fromtimestamp(self.dynamodb.ApproximateCreationDateTime, tz=dt.UTC)

    @property
    def size_bytes(self) -> int:
        return self.dynamodb.SizeBytes

    @property
    def stream_view_type(self) -> str:
        return self.dynamodb.StreamViewType

    @property
    def keys(self) -> dict[str, Any]:
        """The item's primary key as Python values. ValueError when the record carries no usable key."""
        keys = self._decoded("keys", self.dynamodb.Keys)
        if keys is None:
            raise ValueError(f"record {self.sequence_number} has no Keys")
        return keys

    @property
    def new_image(self) -> dict[str, Any] | None:
        """The item after the change; None when the view type or the kind of change has none."""
        return self._decoded("new", self.dynamodb.NewImage)

    @property
    def old_image(self) -> dict[str, Any] | None:
        """The item before the change; None when the view type or the kind of change has none."""
        return self._decoded("old", self.dynamodb.OldImage)

    @property
    def user_identity(self) -> dict[str, str] | None:
        """``{"type": "Service", "principalId": "dynamodb.amazonaws.com"}`` for TTL deletions, else None."""
        wire = self.user_identity_wire
        if not wire:
            return None
        return {name[:1].lower() + name[1:]: value for name, value in wire.items()}

    def as_event(self) -> dict[str, Any]:
        """The record exactly as Lambda's DynamoDB event carries it (see ``event_json``)."""
        event: dict[str, Any] = json.loads(event_json(self))
        return event

    def forget(self) -> None:
        """Drop decoded values, so that the next attempt does not see what a handler did to them."""
        self.cached = None

    def detach(self) -> int:
        """Copy this record out of its page (a slice keeps the whole page in memory); returns bytes held now."""
        change = self.dynamodb
        change.Keys = change.Keys.copy()
        change.NewImage = change.NewImage.copy()
        change.OldImage = change.OldImage.copy()
        return self.wire_size

    @property
    def wire_size(self) -> int:
        change = self.dynamodb
        sizes = (memoryview(raw).nbytes for raw in (change.Keys, change.NewImage, change.OldImage))
        return sum(sizes) + 400

    @property
    def event_size(self) -> int:
        """No less than the bytes of ``event_json`` and a comma, without building it, and at most 100 bytes more: the
        6 MB of a batch are counted in it."""
        change = self.dynamodb
        identity = sum(len(name) + len(value) + 6 for name, value in (self.user_identity_wire or {}).items())
        texts = (
            self.event_id,
            self.event_name,
            self.event_version,
            self.event_source,
            self.aws_region,
            self.event_source_arn,
            change.SequenceNumber,
            change.StreamViewType,
        )
        images = (change.Keys, change.NewImage, change.OldImage)
        size = sum(map(len, texts)) + sum(memoryview(raw).nbytes for raw in images)
        return _EVENT_NAMES + size + identity + len(str(change.SizeBytes))

    def _decoded(self, name: str, raw: Raw) -> dict[str, Any] | None:
        if self.cached is None:
            self.cached = {}
        elif name in self.cached:
            known: dict[str, Any] | None = self.cached[name]
            return known
        text = memoryview(raw)
        value = item_from_json(text) if text.nbytes > 4 or bytes(text) not in (b"", b"null") else None
        self.cached[name] = value
        return value


class _EventChange(msgspec.Struct, gc=False):
    """The ``dynamodb`` part as Lambda shows it. Raw fields are copied into the JSON as they are."""

    ApproximateCreationDateTime: float
    Keys: Raw | UnsetType
    NewImage: Raw | UnsetType
    OldImage: Raw | UnsetType
    SequenceNumber: str
    SizeBytes: int
    StreamViewType: str


_NAMES_IN_EVENT = {
    "event_id": "eventID",
    "event_name": "eventName",
    "event_version": "eventVersion",
    "event_source": "eventSource",
    "aws_region": "awsRegion",
    "user_identity": "userIdentity",
    "event_source_arn": "eventSourceARN",
}


class _EventRecord(msgspec.Struct, gc=False, rename=_NAMES_IN_EVENT):
    event_id: str
    event_name: str
    event_version: str
    event_source: str
    aws_region: str
    dynamodb: _EventChange
    user_identity: dict[str, str] | UnsetType
    event_source_arn: str


_encode = msgspec.json.Encoder().encode


def _present(raw: Raw) -> Raw | UnsetType:
    size = memoryview(raw).nbytes
    return UNSET if size == 0 or (size == 4 and bytes(raw) == b"null") else raw


def _event_record(record: Record) -> _EventRecord:
    change = record.dynamodb
    return _EventRecord(
        record.event_id,
        record.event_name,
        record.event_version,
        record.event_source,
        record.aws_region,
        _EventChange(
            float(change.ApproximateCreationDateTime),
            _present(change.Keys),
            _present(change.NewImage),
            _present(change.OldImage),
            change.SequenceNumber,
            change.SizeBytes,
            change.StreamViewType,
        ),
        record.user_identity or UNSET,
        record.event_source_arn,
    )


# Names and punctuation of the event of a record that has all its fields, a time of the longest kind, and a comma.
_EVENT_NAMES = len(
    _encode(
        _EventRecord(
            "", "", "", "", "", _EventChange(-1.2345678901234567e-300, Raw(b""), Raw(b""), Raw(b""), "", 0, ""), {}, ""
        )
    )
)


def event_json(record: Record) -> bytes:
    """The record as one JSON object of a Lambda DynamoDB event, spliced from the page without decoding images.

    Rules observed on AWS (shared by LocalStack's recorded snapshots): ``eventVersion`` 1.1, creation time a float of
    seconds, binary as base64 text (as on the wire), absent images omitted, ``userIdentity`` with lower-case keys and
    omitted when there is none, ``eventSourceARN`` added.
    """
    return _encode(_event_record(record))


def batch_event_json(records: Sequence[Record], fields: bytes = b"") -> bytes:
    """The Lambda event of a batch: ``{"Records": [...]}``; ``fields`` are further members of the object, as JSON. One
    call of msgspec for all records: 1.6 us for one of 2 KB, where joining the parts of each took 4."""
    event = _encode({"Records": [_event_record(record) for record in records]})
    return event[:-1] + b"," + fields + b"}" if fields else event


class _Event(msgspec.Struct):
    Records: list[Record]


_event_decoder = msgspec.json.Decoder(_Event)


def records_from_event(event: bytes) -> list[Record]:
    """The inverse of ``batch_event_json``. ValueError when it does not decode."""
    try:
        return _event_decoder.decode(event).Records
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            return [_leniently(record) for record in json.loads(event)["Records"]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ValueError(f"not a DynamoDB event: {error}") from error


def _leniently(wire: dict[str, Any]) -> Record:
    """A record with what the standard json module takes and msgspec does not (lone surrogates, NaN): one such record
    must not fail the others of its batch."""
    change = dict(wire["dynamodb"])
    images = {name: change.pop(name) for name in ("Keys", "NewImage", "OldImage") if name in change}
    record = msgspec.convert({**wire, "dynamodb": change}, Record)
    for name, value in images.items():
        setattr(record.dynamodb, name, Raw(json.dumps(value).encode()))
    return record
