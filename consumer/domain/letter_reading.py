"""Dead letters read again: every form in which this program writes a document, and Lambda's.

``dead_letter.py`` makes them. A letter whose records are kept elsewhere is read in two steps: ``location`` says where,
and ``with_payload`` takes what was found there. The payload is cut out of a document, not decoded with it: what is in
it decides nothing about the letter, and comes back as it was.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .dead_letter import Parked, split_payload
from .deferred import digest_of
from .events import deep_records_from_event, records_from_event
from .kinesis_records import KinesisChange, through_kinesis
from .letter_text import as_json
from .record import Record
from .stream_record import StreamRecord

MOST_BYTES: Final = 256 << 20  # of a payload that was compressed
ANY_ATTRIBUTE: Final = "*"
PAYLOAD_SUFFIX: Final = ".payload.json"  # of objects that hold records alone; they are no letters

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReadLetter:
    """What a letter says.

    ``key`` is its idempotency key. ``given_up_at`` in Unix seconds, 0 when unknown. ``first_number`` as the handler saw
    it; empty for the last call of a window. ``key_digest`` is None when the letter does not say it: its records are of
    several keys, or an older version wrote it. ``location`` says where the payload is while it is not in ``payload``.
    ``in_window``: the handler saw the records with the state of a tumbling window. ``redacted``: the paths of what was
    removed, so that the records are not what the handler would get; empty when they are.
    """

    key: str
    application: str
    stream_arn: str
    stream_label: str
    shard_id: str
    condition: str
    handler: str
    given_up_at: float
    first_number: str
    count: int
    error_type: str = ""
    error_message: str = ""
    key_digest: str | None = None
    parked: Parked | None = None
    in_window: bool = False
    redacted: tuple[str, ...] = ()
    through_kinesis: bool = False
    location: str = ""
    payload: bytes = b""

    def with_payload(self, payload: bytes) -> ReadLetter:
        """The same letter with the records that were found at ``location``."""
        return replace(self, payload=payload)

    def records(self) -> Sequence[StreamRecord]:
        """The records, exactly as the handler got them. ValueError when there are none, or they do not decode."""
        if not self.payload:
            raise ValueError(f"its records are at {self.location}")
        try:
            records = records_from_event(self.payload)
        except ValueError:
            records = deep_records_from_event(self.payload)
        if not records:
            raise ValueError("holds no record")
        if self.through_kinesis:
            return [_through_kinesis(record) for record in records]
        return records

    def key_digests(self, key_of: Callable[[StreamRecord], bytes]) -> frozenset[str]:
        """The digests of the ordering keys of its records; of the records only when the letter does not say it.
        ValueError as ``records``."""
        if self.key_digest is not None:
            return frozenset([self.key_digest])
        return frozenset(digest_of(key_of(record)) for record in self.records())

    def is_about(self, reason: str) -> bool:
        """Whether ``reason`` is its condition or the type of its error."""
        return reason in (self.condition, self.error_type)


def read_letter(document: bytes, attributes: Mapping[str, str]) -> ReadLetter:
    """The letter in a document. ``attributes`` are those of its message or object (``dead_letter.Letter.attributes``):
    Lambda's documents have no other place for them. ValueError says why it is no letter."""
    head, payload = split_payload(document)
    fields = _object(head)
    if fields.get("Type") == "Notification" and isinstance(fields.get("Message"), str):  # a topic put it into the queue
        return read_letter(str(fields["Message"]).encode(), _of_notification(fields) | dict(attributes))
    info = batch_info_in(fields)
    if not info:
        raise ValueError("is no dead letter: it has neither DDBStreamBatchInfo nor KinesisBatchInfo")
    if not payload and "payload" in fields:
        payload = _payload_bytes(payload_in(fields))
    location = str(fields.get("payloadLocation") or attributes.get("payload_location") or "")
    if not payload and not location:
        raise ValueError(records_elsewhere(fields))
    context, error, own = (_part(fields, name) for name in ("requestContext", "error", "deadLetter"))
    arn = str(info.get("streamArn") or "")
    return ReadLetter(
        key=str(fields.get("idempotencyKey") or attributes.get("idempotency_key") or _key_of(info)),
        application=str(fields.get("application") or attributes.get("application") or ""),
        stream_arn=arn,
        stream_label=str(own.get("streamLabel") or arn.rpartition("stream/")[2]),
        shard_id=str(info.get("shardId") or ""),
        condition=str(context.get("condition") or ""),
        handler=str(own.get("handler") or attributes.get("handler") or context.get("functionArn") or ""),
        given_up_at=_seconds(fields.get("timestamp")),
        first_number=str(info.get("startSequenceNumber") or ""),
        count=int(info.get("batchSize") or 0),
        error_type=str(error.get("errorType") or attributes.get("error_type") or ""),
        error_message=str(error.get("errorMessage") or ""),
        key_digest=_text(own.get("keyDigest") or attributes.get("key_digest")),
        parked=_parked(own, attributes),
        in_window="timeWindowInfo" in fields,
        redacted=_redacted(fields) or _redacted(own),
        through_kinesis="KinesisBatchInfo" in fields,
        location="" if payload else location,
        payload=payload,
    )


# --- parts that other documents of a letter have, too --------------------------------------------------------


def payload_in(letter: Fields) -> object:
    """``payload`` of a dead letter: an event, in Lambda's format for S3 the text of one, or the text of one that was
    compressed. ValueError."""
    payload, encoding = letter["payload"], letter.get("payloadEncoding")
    if encoding is None:
        return payload
    if encoding != "gzip+base64" or not isinstance(payload, str):
        raise ValueError(f"holds a payload in an encoding that this version does not know: {encoding!r}")
    try:
        unpacking = zlib.decompressobj(wbits=31)
        text = unpacking.decompress(base64.b64decode(payload, validate=True), MOST_BYTES)
    except (binascii.Error, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"holds a payload that is no {encoding}: {error}") from error
    if not unpacking.eof:
        raise ValueError("holds a compressed payload that is cut off, or too large")
    return text.decode()


def batch_info_in(letter: Fields) -> Fields:
    """Where the records of a letter are, whatever the source calls that; empty for what is no letter."""
    found: object = next((letter[name] for name in ("DDBStreamBatchInfo", "KinesisBatchInfo") if name in letter), {})
    return found if isinstance(found, Mapping) else {}


def records_elsewhere(letter: Fields) -> str:
    """Why a letter without ``payload`` holds no records, and where they are."""
    if where := letter.get("payloadLocation"):
        return f"is a dead letter whose records are at {where}: fetch that, and give it instead"
    return (
        "is a dead letter in Lambda's format, which holds no records: they are in the stream from "
        f"{batch_info_in(letter).get('startSequenceNumber')} on, or under on_failure.overflow"
    )


# --- fields --------------------------------------------------------------------------------------------------


def _object(document: bytes) -> dict[str, Any]:
    try:
        found = json.loads(document)
    except RecursionError as error:
        raise ValueError("is nested too deeply, and not as this program writes it") from error
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"is {type(found).__name__}, not an object")
    return found


def _part(fields: Fields, name: str) -> Fields:
    found = fields.get(name)
    return found if isinstance(found, Mapping) else {}


def _of_notification(fields: Fields) -> dict[str, str]:
    found = _part(fields, "MessageAttributes")
    return {name: str(one.get("Value") or "") for name, one in found.items() if isinstance(one, Mapping)}


def _payload_bytes(payload: object) -> bytes:
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    return as_json(payload)  # a document that was formatted anew: by hand, or by a tool


def _parked(own: Fields, attributes: Mapping[str, str]) -> Parked | None:
    park_id = own.get("parkId") or attributes.get("park_id")
    if not park_id:
        return None
    ordinal = str(own.get("ordinal") or attributes.get("ordinal") or "")
    if not ordinal.isdecimal():
        raise ValueError(f"is a letter of a parked key without its place: ordinal is {ordinal!r}")
    return Parked(str(park_id), int(ordinal))


def _redacted(fields: Fields) -> tuple[str, ...]:
    """Any attribute, where it is not said which."""
    if not fields.get("redacted"):
        return ()
    named = fields.get("redactedAttributes")
    paths = tuple(path for path in named if isinstance(path, str)) if isinstance(named, list) else ()
    return paths or (ANY_ATTRIBUTE,)


def _seconds(timestamp: object) -> float:
    try:
        return dt.datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return 0.0


def _text(value: object) -> str | None:
    return str(value) if value else None


def _key_of(info: Fields) -> str:
    """For documents of Lambda without attributes: the same for equal records."""
    names = ("streamArn", "shardId", "startSequenceNumber", "endSequenceNumber")
    return hashlib.sha256("\0".join(str(info.get(name)) for name in names).encode()).hexdigest()


def _through_kinesis(record: StreamRecord) -> StreamRecord:
    if isinstance(record, Record) and not isinstance(record, KinesisChange):
        return through_kinesis(record)
    return record
