"""The dead-letter document: Lambda's on-failure document field for field, plus the records themselves.

Shapes and rules as observed on AWS: ``responseContext`` is absent when the function was
never asked or the record expired; ``functionError`` is null for a valid partial failure; DynamoDB's arrival times have
second precision. Ours: ``payload`` (the whole event), ``application``, ``error`` and ``idempotencyKey``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from dataclasses import dataclass

from consumer.domain.record import batch_event_json
from consumer.domain.settlement import GiveUp


@dataclass(frozen=True, slots=True)
class DeadLetterContext:
    """Where the batch came from. ``target`` stands in for Lambda's function ARN."""

    application: str
    target: str
    stream_arn: str
    shard_id: str
    request_id: str


def idempotency_key(context: DeadLetterContext, step: GiveUp) -> str:
    """The same for every delivery of the same records: a consumer can drop the second of two."""
    numbers = ",".join(record.sequence_number for record in step.records)
    text = f"{context.application}\0{context.stream_arn}\0{context.shard_id}\0{numbers}"
    return hashlib.sha256(text.encode()).hexdigest()


def document(context: DeadLetterContext, step: GiveUp, now: float) -> bytes:
    """The document as ASCII JSON (SQS refuses control characters; escapes are safe everywhere)."""
    first, last = step.records[0], step.records[-1]
    fault = step.fault
    body: dict[str, object] = {
        "requestContext": {
            "requestId": context.request_id,
            "functionArn": context.target,
            "condition": step.condition,
            "approximateInvokeCount": step.invocations,
        }
    }
    if step.condition == "RetryAttemptsExhausted":
        unhandled = fault is not None and fault.kind not in ("bad_response", "reported")
        body["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled" if unhandled else None,
        }
    body |= {
        "version": "1.0",
        "timestamp": _time(now, "milliseconds"),
        "DDBStreamBatchInfo": {
            "shardId": context.shard_id,
            "startSequenceNumber": first.sequence_number,
            "endSequenceNumber": last.sequence_number,
            "approximateArrivalOfFirstRecord": _time(first.dynamodb.ApproximateCreationDateTime, "seconds"),
            "approximateArrivalOfLastRecord": _time(last.dynamodb.ApproximateCreationDateTime, "seconds"),
            "batchSize": len(step.records),
            "streamArn": context.stream_arn,
        },
        "application": context.application,
        "error": None
        if fault is None
        else {
            "kind": fault.kind,
            "errorType": fault.type,
            "errorMessage": fault.message,
            "stackTrace": list(fault.stack),
        },
        "idempotencyKey": idempotency_key(context, step),
    }
    text = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return text[:-1] + b',"payload":' + _ascii(batch_event_json(list(step.records))) + b"}"


_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _ascii(event: bytes) -> bytes:
    """The event with escapes for everything beyond ASCII, not decoded otherwise: a letter must never fail because of
    what is in it (2,000 nested levels, a broken image). Bytes that are not UTF-8 become lone surrogates."""
    if event.isascii():
        return event
    text = event.decode("utf-8", "surrogateescape")  # beyond ASCII there is nothing but the insides of JSON strings
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text).encode("ascii")


_LAST_MOMENT = 253402300799.0  # 9999-12-31T23:59:59Z


def _time(seconds: float, precision: str) -> str:
    moment = dt.datetime.fromtimestamp(min(max(0.0, seconds), _LAST_MOMENT), tz=dt.UTC)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
