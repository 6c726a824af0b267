"""The dead-letter document: Lambda's on-failure document field for field, plus the records themselves.

Shapes and rules as observed on AWS: ``responseContext`` is absent when the function was never asked or the record
expired; ``functionError`` is null for a valid partial failure; DynamoDB's arrival times have second precision. Added
here: ``application``, ``error``, ``idempotencyKey``, ``deadLetter`` (what tools sort by) and, always last, ``payload``
(the whole event). The key of a record is in the payload only; everywhere else it is its digest.
``lambda_document`` takes these away again, for readers that want Lambda's documents exactly.

A ``Letter`` is such a document before its form is chosen. A destination that does not take the plain one may take it
compressed, or in parts, or pointing to a payload that is kept elsewhere.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .deferred import digest_of
from .events import batch_event_json
from .function_name import function_arn
from .letter_text import as_ascii, as_json, as_utf8, time_text
from .redaction import RedactedRecords, Redaction
from .settlement import GiveUp
from .source_format import SourceFormat
from .windows import WindowCall

GZIP_LEVEL: Final = 3  # half the time of the usual 6 (70 ms for 6 MB of items), and 8 % larger
PART_BYTES: Final = 300 * 1024  # of a payload in one row of the lease table; an item holds 400 KB

MOST_OF_AN_ATTRIBUTE: Final = 256  # characters of a name that users have chosen

_ADDED: Final = (
    "application", "error", "idempotencyKey", "part", "deadLetter", "redacted", "redactedAttributes"
)  # fmt: skip
_PAYLOAD: Final = b',"payload":'
_EVENT_STARTS: Final = b'{"Records":['
_EVENT_ENDS: Final = (b"]}", b'"isWindowTerminatedEarly":false}', b'"isWindowTerminatedEarly":true}')


@dataclass(frozen=True, slots=True)
class DeadLetterContext:
    """Where the batch came from. ``target`` stands in for Lambda's function ARN; ``label`` is that of the stream
    (``StreamDescription.label``), under which the lease table keeps its rows."""

    application: str
    target: str
    stream_arn: str
    shard_id: str
    request_id: str
    source: SourceFormat
    label: str


@dataclass(frozen=True, slots=True)
class Parked:
    """The place of a letter among those of a parked key: ``ordinal`` counts the letters of the key in this shard of
    this stream from 1, in the order of the records. ``park_id`` names the time that the key is parked for."""

    park_id: str
    ordinal: int


@dataclass(frozen=True, slots=True)
class Part:
    """Which records of a batch a letter holds, when one letter could not hold all that were given up together:
    ``first`` to ``last``, counted from 1, of ``records``. ``of`` is the idempotency key of the whole."""

    of: str
    first: int
    last: int
    records: int


@dataclass(frozen=True, slots=True)
class PayloadPart:
    """A piece of a payload that is kept in the lease table: ``number`` (from 0) of ``count``, under the letter's
    idempotency key."""

    key: str
    number: int
    count: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """What has to be delivered: the records (none for the final call of a window), and why they are given up.

    ``now`` is in Unix seconds. ``part`` is None for a letter that holds all records of its batch, ``parked`` for one
    whose key goes on. ``redaction`` takes attributes out of the records; the fault has lost their values before
    (``HandlerCall.redacted``).
    """

    context: DeadLetterContext
    step: GiveUp
    now: float
    window: WindowCall | None = None
    part: Part | None = None
    parked: Parked | None = None
    redaction: Redaction | None = None

    @property
    def key(self) -> str:
        """``idempotencyKey``: of exactly these records, so a part has one of its own."""
        return idempotency_key(self.context, self.step, self.window)

    @property
    def attributes(self) -> dict[str, str]:
        """What messages and objects carry beside the document: ten at most, which is what a message takes."""
        step = self.step
        found = {
            "application": self.context.application,
            "shard_id": self.context.shard_id,
            "condition": step.condition,
            "idempotency_key": self.key,
            "handler": self.context.target[:MOST_OF_AN_ATTRIBUTE],
        }
        if step.fault is not None:
            found["error_type"] = step.fault.type[:MOST_OF_AN_ATTRIBUTE] or "unknown"
        if step.records:
            found["sequence_number"] = step.records[0].sequence_number
        if (digest := key_digest(self.context, step)) is not None:
            found["key_digest"] = digest
        if self.parked is not None:
            found |= {"park_id": self.parked.park_id, "ordinal": str(self.parked.ordinal)}
        return found

    def document(self) -> bytes:
        """The document with everything in it that may leave."""
        fields = self.window.event_fields(self.context.shard_id) if self.window is not None else b""
        kept = RedactedRecords(self.step.records)
        if self.redaction is not None:
            kept = self.redaction.records(self.step.records)
        return document(
            self.context,
            self.step,
            self.now,
            window=self.window,
            event=batch_event_json(kept.records, fields),
            part=self.part,
            parked=self.parked,
            redacted=kept.paths,
        )

    def halves(self) -> tuple[Letter, Letter]:
        """Two letters of the same batch, each complete by itself. ValueError with fewer than two records.

        Halves, not as many as fit: which records share a letter, and so its key, then rarely depends on sizes.
        """
        records = self.step.records
        if len(records) < 2:
            raise ValueError("one record cannot be split")
        whole = self.part or Part(self.key, 1, len(records), len(records))
        half = len(records) // 2
        middle = whole.first + half
        return (
            replace(self, step=replace(self.step, records=records[:half]), part=replace(whole, last=middle - 1)),
            replace(self, step=replace(self.step, records=records[half:]), part=replace(whole, first=middle)),
        )


def idempotency_key(context: DeadLetterContext, step: GiveUp, window: WindowCall | None = None) -> str:
    """The same for every delivery of the same records: a consumer can drop the second of two. The final call of a
    window has no records; then the window and its state stand for them: one that ended early may end again."""
    numbers = ",".join(record.sequence_number for record in step.records)
    if window is not None and not numbers:
        state = hashlib.sha256(window.state).hexdigest()
        numbers = f"window {window.window.start}-{window.window.end} {state}"
    text = f"{context.application}\0{context.stream_arn}\0{context.shard_id}\0{numbers}"
    return hashlib.sha256(text.encode()).hexdigest()


def key_digest(context: DeadLetterContext, step: GiveUp) -> str | None:
    """The digest of the ordering key of the records (``deferred.digest_of``); None unless all are of one key."""
    keys = {context.source.key_of(record) for record in step.records}
    return digest_of(keys.pop()) if len(keys) == 1 else None


def document(
    context: DeadLetterContext,
    step: GiveUp,
    now: float,
    *,
    window: WindowCall | None = None,
    event: bytes | None = None,
    part: Part | None = None,
    parked: Parked | None = None,
    redacted: Sequence[str] = (),
) -> bytes:
    """The document as UTF-8 JSON. Characters that a destination may refuse or replace are escaped.

    Args:
        context: where the batch came from.
        step: the records (none for the final call of a window) and why they are given up.
        now: Unix seconds.
        window: adds ``timeWindowInfo``.
        event: the JSON that the handler got, when it is more than the records; by default made from these.
        part: adds ``part``.
        parked: adds ``parkId`` and ``ordinal`` to ``deadLetter``.
        redacted: the paths of what ``event`` lacks; adds ``redacted`` and ``redactedAttributes``.
    """
    fault = step.fault
    body: dict[str, object] = {
        "requestContext": {
            "requestId": context.request_id,
            "functionArn": context.target,
            "condition": step.condition,
            "approximateInvokeCount": step.invocations,
        }
    }
    if step.condition == "RetryAttemptsExhausted" and step.invoked:  # an event too large to be sent was never answered
        unhandled = fault is not None and fault.kind not in ("bad_response", "reported")
        body["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled" if unhandled else None,
        }
    body |= {
        "version": "1.0",
        "timestamp": time_text(now),
        context.source.batch_info: _batch_info(context, step),
    }
    if window is not None:
        body["timeWindowInfo"] = window.info
    body |= {
        "application": context.application,
        "error": None
        if fault is None
        else {
            "kind": fault.kind,
            "errorType": fault.type,
            "errorMessage": fault.message,
            "stackTrace": list(fault.stack),
        },
        "idempotencyKey": idempotency_key(context, step, window),
    }
    if part is not None:
        body["part"] = {"of": part.of, "first": part.first, "last": part.last, "records": part.records}
    body["deadLetter"] = _dead_letter(context, step, parked)
    if redacted:
        body |= {"redacted": True, "redactedAttributes": list(redacted)}
    payload = batch_event_json(list(step.records)) if event is None else event
    return as_json(body)[:-1] + _PAYLOAD + as_utf8(payload) + b"}"


def _batch_info(context: DeadLetterContext, step: GiveUp) -> dict[str, object]:
    info: dict[str, object] = {"shardId": context.shard_id}
    if step.records:
        first, last = step.records[0], step.records[-1]
        info |= {
            "startSequenceNumber": first.sequence_number,
            "endSequenceNumber": last.sequence_number,
            "approximateArrivalOfFirstRecord": context.source.arrival_text(first.created),
            "approximateArrivalOfLastRecord": context.source.arrival_text(last.created),
            "batchSize": len(step.records),
        }
    return info | {"streamArn": context.stream_arn}


def _dead_letter(context: DeadLetterContext, step: GiveUp, parked: Parked | None) -> dict[str, object]:
    """What the attributes say and no other field does, for tools that have the document alone."""
    found: dict[str, object] = {}
    if (digest := key_digest(context, step)) is not None:
        found["keyDigest"] = digest
    if step.records:
        found["sequenceNumber"] = step.records[0].sequence_number
    found |= {"handler": context.target, "streamLabel": context.label}
    if parked is not None:
        found |= {"parkId": parked.park_id, "ordinal": parked.ordinal}
    return found


def split_payload(document: bytes) -> tuple[bytes, bytes]:
    """A document without its ``payload``, and that payload; an empty payload when it has none.

    The payload is cut, not decoded: a record may be nested deeper than any parser goes. It is the last field, and an
    unescaped quote after a comma opens a key, so the first match is a key, not the inside of a text; only the payload
    holds keys that users have chosen.
    """
    head, _, tail = document.partition(_PAYLOAD)
    payload = tail[:-1]
    if tail.endswith(b"}") and payload.startswith(_EVENT_STARTS) and payload.endswith(_EVENT_ENDS):
        return head + b"}", payload
    return document, b""


def letter_fields(document: bytes) -> dict[str, Any]:
    """``deadLetter`` of a document in any form. ValueError when it has none."""
    found = json.loads(split_payload(document)[0])
    if not isinstance(found, dict) or not isinstance(found.get("deadLetter"), dict):
        raise ValueError("the document has no field deadLetter: it was not made by this version")
    fields: dict[str, Any] = found["deadLetter"]
    return fields


# --- other forms of a document ---------------------------------------------------------------------


def compressed_document(document: bytes) -> bytes:
    """The document with its payload as a text, ``payloadEncoding`` says how: gzip, then base64. All of it is ASCII.
    ValueError when it has no payload."""
    rest, payload = _with_payload(document)
    packed = base64.b64encode(gzip.compress(payload, GZIP_LEVEL, mtime=0))
    return as_ascii(rest)[:-1] + b',"payloadEncoding":"gzip+base64"' + _PAYLOAD + b'"' + packed + b'"}'


def pointing_documents(document: bytes, location: str) -> Iterator[bytes]:
    """The document with ``payloadLocation`` in the place of its payload, all of it ASCII; then the same without the
    stack and most of the message of the error, for destinations that take very little."""
    rest, _ = split_payload(document)
    pointer = b',"payloadLocation":' + json.dumps(location).encode("ascii") + b"}"
    yield as_ascii(rest)[:-1] + pointer
    body: dict[str, Any] = json.loads(rest)
    if body["error"] is not None:
        body["error"] |= {"errorMessage": body["error"]["errorMessage"][:256], "stackTrace": []}
        yield as_ascii(as_json(body))[:-1] + pointer


def payload_parts(key: str, payload: bytes) -> list[PayloadPart]:
    """A payload in pieces of at most PART_BYTES, under the idempotency key of its letter."""
    pieces = [payload[start : start + PART_BYTES] for start in range(0, len(payload), PART_BYTES)]
    return [PayloadPart(key, number, len(pieces), piece) for number, piece in enumerate(pieces)]


def location_in_table(table: str, application: str, label: str, key: str) -> str:
    """``payloadLocation`` of a payload whose parts are in the lease table."""
    return f"dynamodb://{table}/{application}/{label}/{key}"


def lambda_document(document: bytes, function_name: str, *, with_payload: bool) -> bytes:
    """A document of ``document`` as Lambda writes it: no added field, the same order of fields.

    Args:
        document: the full one.
        function_name: names the function that Lambda would have called, for ``functionArn``.
        with_payload: as in S3, ``payload`` after ``version``: a *text* that holds the event's JSON. Messages of SQS
            and SNS have none.

    Raises:
        ValueError: the bytes are no such document.
    """
    metadata, payload = _with_payload(document)
    body: dict[str, Any] = json.loads(metadata)
    for name in _ADDED:
        body.pop(name, None)
    body["requestContext"]["functionArn"] = function_arn(_batch_info_in(body)["streamArn"], function_name)
    fields: dict[str, Any] = {}
    for name, value in body.items():
        fields[name] = value
        if name == "version" and with_payload:
            fields["payload"] = payload.decode("utf-8")
    return as_json(fields)


def _batch_info_in(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the records are, whatever the source calls that."""
    return next(value for name, value in body.items() if name.endswith("BatchInfo"))


def _with_payload(document: bytes) -> tuple[bytes, bytes]:
    rest, payload = split_payload(document)
    if not payload:
        raise ValueError("the document has no payload at its end")
    return rest, payload
