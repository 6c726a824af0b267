"""A change record: decoded from the wire by msgspec straight into this type, images kept as slices of their page.

The field names on the wire are those of GetRecords *and* of the Lambda event (they differ only in
``userIdentity``'s case, ``eventSourceARN`` and the type of the creation time), so the daemon and a worker process
use the same type. Images are decoded on first use; most records are handled without anyone looking at them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .compiled_values import item_from_json
from .stream_record import StreamRecord, encode
from .typed_items import UnlikeItem, decoder_of, name_of

T = TypeVar("T")
_NOTHING: Final = Raw(b"")
_ABSENT: Final = (_NOTHING, Raw(b"null"))  # what there is of an image that is not there
# By what ``decode`` calls them: the field, and the words for it.
_IMAGES: Final = {"new": ("NewImage", "new image"), "old": ("OldImage", "old image"), "keys": ("Keys", "keys")}
# Stands for keys or an image that cannot be read: valid JSON, but no item, so that looking at it raises ValueError.
UNREADABLE: Final = Raw(b'{"unreadable":{"unreadable":true}}')


class Change(msgspec.Struct, gc=False, omit_defaults=True):
    """The ``dynamodb`` part of a record. Everything is optional so that one odd record cannot fail a page."""

    SequenceNumber: str
    ApproximateCreationDateTime: float = 0.0
    Keys: Raw = _NOTHING
    NewImage: Raw = _NOTHING
    OldImage: Raw = _NOTHING
    SizeBytes: int = 0
    StreamViewType: str = ""


class Record(StreamRecord, gc=False):
    """One change of one item, in the order of its shard.

    Attributes for handlers: ``event_id``, ``event_name`` (INSERT, MODIFY, REMOVE), ``sequence_number`` (text; compare
    as ``int``), ``approximate_creation_time``, ``keys``, ``new_image``, ``old_image``, ``size_bytes``,
    ``stream_view_type``, ``user_identity``, ``event_source_arn``, ``table_name`` (through Kinesis; else empty),
    ``as_event()``, and ``decode(type)`` for the image as a type of yours.
    """

    dynamodb: Change
    event_id: str = msgspec.field(name="eventID", default="")
    event_name: str = msgspec.field(name="eventName", default="")
    event_version: str = msgspec.field(name="eventVersion", default="1.1")
    event_source: str = msgspec.field(name="eventSource", default="aws:dynamodb")
    aws_region: str = msgspec.field(name="awsRegion", default="")
    user_identity_wire: dict[str, str] | None = msgspec.field(name="userIdentity", default=None)
    event_source_arn: str = msgspec.field(name="eventSourceARN", default="")
    table_name: str = msgspec.field(name="tableName", default="")
    cached: dict[str, Any] | None = msgspec.field(name="__cached", default=None)

    @property
    def number(self) -> str:
        return self.dynamodb.SequenceNumber

    @property
    def sequence_number(self) -> str:
        return self.dynamodb.SequenceNumber

    @property
    def created(self) -> float:
        return self.dynamodb.ApproximateCreationDateTime

    @property
    def approximate_creation_time(self) -> dt.datetime:
        """When DynamoDB wrote the change (UTC): to the second in DynamoDB Streams, through Kinesis to the milli- or
        microsecond."""
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

    def decode(self, type_: type[T], /, image: Literal["new", "old", "keys"] = "new") -> T:
        """The image, or the keys, as a ``msgspec.Struct``, a dataclass, a TypedDict or ``dict[str, ...]``.

        Only the attributes that the type has are decoded, and nothing is kept: each call makes a new value. The rules:

        * ``str`` takes S, ``int``, ``float`` and ``Decimal`` take N, ``bytes`` B, ``bool`` BOOL, ``None`` NULL;
          ``list[...]`` and ``tuple[..., ...]`` take L, ``dict[str, ...]`` and classes M, ``set[...]`` and
          ``frozenset[...]`` SS, NS or BS. ``X | None`` takes NULL as well, and ``Any`` what ``new_image`` would show.
          Times and UUIDs are read from text, enumerations and ``Literal`` from text or numbers; ``msgspec.Meta`` holds.
        * A number is exact in ``int`` and ``Decimal``; one with a fraction is no ``int``. ``float`` rounds.
        * An attribute that is missing has its default; without one it is an error.

        Raises:
            ValueError: there is no such image (a REMOVE has no new one), or it is not as the type says. The text names
                the attribute, what was expected and what was found, and shows nothing of the item.
            TypeError: no item can become this type.
        """
        if image not in _IMAGES:
            raise ValueError(f"decode(): image is 'new', 'old' or 'keys', and not {image!r}")
        field, words = _IMAGES[image]
        raw = getattr(self.dynamodb, field)
        if raw in _ABSENT:
            raise ValueError(f"record {self.sequence_number}, a {self.event_name}, has no {words} to decode")
        if raw == UNREADABLE:  # a type without required attributes would take it for an item that has none of them
            raise ValueError(f"record {self.sequence_number}: its {words} cannot be read")
        decode: Callable[[Raw], T] = decoder_of(type_)  # type: ignore[arg-type]  # classes are hashable, which mypy does not see of type[T]
        try:
            return decode(raw)
        except UnlikeItem as error:
            raise ValueError(
                f"record {self.sequence_number}: decode({name_of(type_)}) of its {words}: {error}"
            ) from None

    @property
    def user_identity(self) -> dict[str, str] | None:
        """``{"type": "Service", "principalId": "dynamodb.amazonaws.com"}`` for TTL deletions, else None."""
        wire = self.user_identity_wire
        if not wire:
            return None
        return {name[:1].lower() + name[1:]: value for name, value in wire.items()}

    def forget(self) -> None:
        self.cached = None

    def detach(self) -> int:
        change = self.dynamodb
        change.Keys = change.Keys.copy()
        change.NewImage = change.NewImage.copy()
        change.OldImage = change.OldImage.copy()
        return self.wire_size

    @property
    def wire_size(self) -> int:
        change = self.dynamodb
        return len(change.Keys) + len(change.NewImage) + len(change.OldImage) + 400

    @property
    def event_size(self) -> int:
        """At most 100 bytes more than it is."""
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
        size = sum(map(len, texts)) + sum(map(len, images))
        table = len(self.table_name) + _TABLE_NAME if self.table_name else 0
        return _EVENT_NAMES + size + identity + len(str(change.SizeBytes)) + table

    def in_event(self) -> msgspec.Struct:
        """Spliced from the page without decoding images.

        Rules observed on AWS (shared by LocalStack's recorded snapshots): ``eventVersion`` 1.1, creation time a float
        of seconds, binary as base64 text (as on the wire), absent images omitted, ``userIdentity`` with lower-case keys
        and omitted when there is none, ``eventSourceARN`` added.
        """
        change = self.dynamodb
        keys, new, old = change.Keys, change.NewImage, change.OldImage
        return _EventRecord(
            self.event_id,
            self.event_name,
            self.event_version,
            self.event_source,
            self.aws_region,
            _EventChange(
                float(change.ApproximateCreationDateTime),
                UNSET if keys in _ABSENT else keys,
                UNSET if new in _ABSENT else new,
                UNSET if old in _ABSENT else old,
                change.SequenceNumber,
                change.SizeBytes,
                change.StreamViewType,
            ),
            (self.user_identity or UNSET) if self.user_identity_wire else UNSET,
            self.event_source_arn,
            self.table_name or UNSET,
        )

    def _decoded(self, name: str, raw: Raw) -> dict[str, Any] | None:
        if self.cached is None:
            self.cached = {}
        elif name in self.cached:
            known: dict[str, Any] | None = self.cached[name]
            return known
        value = None if raw in _ABSENT else item_from_json(raw)
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
    "table_name": "tableName",
}


class _EventRecord(msgspec.Struct, gc=False, rename=_NAMES_IN_EVENT):
    """A record as Lambda's DynamoDB event shows it; ``tableName`` is ours, where one stream holds several tables."""

    event_id: str
    event_name: str
    event_version: str
    event_source: str
    aws_region: str
    dynamodb: _EventChange
    user_identity: dict[str, str] | UnsetType
    event_source_arn: str
    table_name: str | UnsetType


# Names and punctuation of the event of a record that has all its fields, a time of the longest kind, and a comma.
_EVENT_NAMES = len(
    encode(
        _EventRecord(
            "",
            "",
            "",
            "",
            "",
            _EventChange(-1.2345678901234567e-300, Raw(b""), Raw(b""), Raw(b""), "", 0, ""),
            {},
            "",
            UNSET,
        )
    )
)
_TABLE_NAME: Final = len('"tableName":"",')
