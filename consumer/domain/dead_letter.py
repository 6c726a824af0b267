"""The dead-letter document: Lambda's on-failure document field for field, plus the records themselves.

Shapes and rules as observed on AWS: ``responseContext`` is absent when the function was never asked or the record
expired; ``functionError`` is null for a valid partial failure; DynamoDB's arrival times have second precision. Added
here: ``application``, ``error``, ``idempotencyKey`` and, always last, ``payload`` (the whole event).
``lambda_document`` takes these away again, for readers that want Lambda's documents exactly.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from consumer.domain.function_name import function_arn
from consumer.domain.record import batch_event_json
from consumer.domain.settlement import GiveUp
from consumer.domain.windows import WindowCall, second_text

_ADDED: Final = ("application", "error", "idempotencyKey")
_PAYLOAD: Final = b',"payload":'
_EVENT_STARTS: Final = b'{"Records":['
_EVENT_ENDS: Final = (b"]}", b'"isWindowTerminatedEarly":false}', b'"isWindowTerminatedEarly":true}')


@dataclass(frozen=True, slots=True)
class DeadLetterContext:
    """Where the batch came from. ``target`` stands in for Lambda's function ARN."""

    application: str
    target: str
    stream_arn: str
    shard_id: str
    request_id: str


def idempotency_key(context: DeadLetterContext, step: GiveUp, window: WindowCall | None = None) -> str:
    """The same for every delivery of the same records: a consumer can drop the second of two. The final call of a
    window has no records; then the window and its state stand for them: one that ended early may end again."""
    numbers = ",".join(record.sequence_number for record in step.records)
    if window is not None and not numbers:
        state = hashlib.sha256(window.state).hexdigest()
        numbers = f"window {window.window.start}-{window.window.end} {state}"
    text = f"{context.application}\0{context.stream_arn}\0{context.shard_id}\0{numbers}"
    return hashlib.sha256(text.encode()).hexdigest()


def document(
    context: DeadLetterContext,
    step: GiveUp,
    now: float,
    *,
    window: WindowCall | None = None,
    event: bytes | None = None,
) -> bytes:
    """The document as ASCII JSON (SQS refuses control characters; escapes are safe everywhere).

    Args:
        context: where the batch came from.
        step: the records (none for the final call of a window) and why they are given up.
        now: Unix seconds.
        window: adds ``timeWindowInfo``.
        event: the JSON that the handler got, when it is more than the records; by default made from these.
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
        "timestamp": _time(now),
        "DDBStreamBatchInfo": _batch_info(context, step),
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
    payload = batch_event_json(list(step.records)) if event is None else event
    return _json(body)[:-1] + _PAYLOAD + _ascii(payload) + b"}"


def _batch_info(context: DeadLetterContext, step: GiveUp) -> dict[str, object]:
    info: dict[str, object] = {"shardId": context.shard_id}
    if step.records:
        first, last = step.records[0], step.records[-1]
        info |= {
            "startSequenceNumber": first.sequence_number,
            "endSequenceNumber": last.sequence_number,
            "approximateArrivalOfFirstRecord": second_text(first.dynamodb.ApproximateCreationDateTime),
            "approximateArrivalOfLastRecord": second_text(last.dynamodb.ApproximateCreationDateTime),
            "batchSize": len(step.records),
        }
    return info | {"streamArn": context.stream_arn}


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
    metadata, payload = split_payload(document)
    if not payload:
        raise ValueError("the document has no payload at its end")
    body: dict[str, Any] = json.loads(metadata)
    for name in _ADDED:
        body.pop(name, None)
    body["requestContext"]["functionArn"] = function_arn(body["DDBStreamBatchInfo"]["streamArn"], function_name)
    fields: dict[str, Any] = {}
    for name, value in body.items():
        fields[name] = value
        if name == "version" and with_payload:
            fields["payload"] = payload.decode("ascii")
    return _json(fields)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")


_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _ascii(event: bytes) -> bytes:
    """The event with escapes for everything beyond ASCII, not decoded otherwise: a letter must never fail because of
    what is in it (2,000 nested levels, a broken image). Bytes that are not UTF-8 become lone surrogates."""
    if event.isascii():
        return event
    text = event.decode("utf-8", "surrogateescape")  # beyond ASCII there is nothing but the insides of JSON strings
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text).encode("ascii")


_LAST_MOMENT = 253402300799.0  # 9999-12-31T23:59:59Z


def _time(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(min(max(0.0, seconds), _LAST_MOMENT), tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
