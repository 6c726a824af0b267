"""Records that the fast decoder refuses: each is rebuilt alone, so that one odd record never fails its page.

Fields of the wrong type fall back to their defaults. An image that cannot be read becomes valid JSON that is no
attribute value: reading it raises ValueError, which makes the record poison instead of one without that image.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Final

import msgspec
from msgspec import Raw

from consumer.aws.answers import Flaw
from consumer.aws.errors import StrangeAnswer
from consumer.domain.record import UNREADABLE, Change, Record

ABSENT: Final = Raw(b"")

# What msgspec raises for bodies it cannot take: its own errors, UnicodeDecodeError, and recursion that is too deep.
REFUSED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _LeastChange(msgspec.Struct, gc=False):
    SequenceNumber: str


class _LeastRecord(msgspec.Struct, gc=False):
    dynamodb: _LeastChange


_decode_record = msgspec.json.Decoder(Record).decode
_decode_least = msgspec.json.Decoder(_LeastRecord).decode


def undecodable(what: str) -> StrangeAnswer:
    """The error of a page that does not decode: it is read again. ``what`` goes on after "the answer"."""
    return StrangeAnswer("GetRecords", Flaw("Malformed", what))


def without_number(index: int, event_id: object) -> StrangeAnswer:
    return undecodable(f"has a record without usable SequenceNumber: number {index}, eventID {event_id!r}")


def decode_alone(index: int, record: object) -> Record:
    """One record of a page that msgspec refused, either a slice of the body or what json made of it.

    Raises:
        StrangeAnswer: it has no sequence number, so it cannot be placed in its shard.
    """
    if not isinstance(record, Raw):
        return rebuild(index, record)
    try:
        return _decode_record(record)
    except REFUSED:
        pass
    text = bytes(record)
    try:
        return rebuild(index, json.loads(text.decode("utf-8", "surrogateescape")))
    except (ValueError, RecursionError):
        pass
    try:
        number = _decode_least(text).dynamodb.SequenceNumber
    except REFUSED as error:
        raise without_number(index, "unknown") from error
    return Record(Change(number, Keys=UNREADABLE, NewImage=UNREADABLE, OldImage=UNREADABLE))


def rebuild(index: int, wire: object) -> Record:
    """A record from Python objects: fields of the wrong type fall back to their defaults, images become JSON again."""
    outer = wire if isinstance(wire, dict) else {}
    change = outer.get("dynamodb")
    if not isinstance(change, dict):
        raise without_number(index, outer.get("eventID"))
    number = change.get("SequenceNumber")
    if isinstance(number, int) and not isinstance(number, bool):
        number = str(number)
    if not isinstance(number, str):
        raise without_number(index, outer.get("eventID"))
    return Record(
        Change(
            number,
            ApproximateCreationDateTime=_seconds(change.get("ApproximateCreationDateTime")),
            Keys=_image(change.get("Keys")),
            NewImage=_image(change.get("NewImage")),
            OldImage=_image(change.get("OldImage")),
            SizeBytes=_whole(change.get("SizeBytes")),
            StreamViewType=text_or(change.get("StreamViewType"), ""),
        ),
        event_id=text_or(outer.get("eventID"), ""),
        event_name=text_or(outer.get("eventName"), ""),
        event_version=text_or(outer.get("eventVersion"), "1.1"),
        event_source=text_or(outer.get("eventSource"), "aws:dynamodb"),
        aws_region=text_or(outer.get("awsRegion"), ""),
        user_identity_wire=_identity(outer.get("userIdentity")),
    )


def _image(value: object) -> Raw:
    if value is None:
        return ABSENT
    try:
        return Raw(json.dumps(value, allow_nan=False, default=_base64, separators=(",", ":")).encode())
    except (ValueError, TypeError, RecursionError):
        return UNREADABLE


def _base64(value: object) -> str:
    if isinstance(value, bytes):  # botocore has decoded binary attributes
        return base64.b64encode(value).decode()
    raise TypeError(f"not a JSON value: {type(value)}")


def _seconds(value: object) -> float:
    if isinstance(value, dt.datetime):
        return value.timestamp()
    if isinstance(value, int | float) and abs(value) < 1e12:  # also false for NaN
        return float(value)
    return 0.0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def text_or(value: object, default: str) -> str:
    """Text without lone surrogates, which could not be encoded again."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else default


def _identity(value: object) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    texts = {name: inner for name, inner in value.items() if isinstance(inner, str)}
    return {text_or(name, ""): text_or(inner, "") for name, inner in texts.items() if name}
