"""Dead-letter documents against those of Lambda."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Literal

import pytest
from msgspec import Raw

from consumer.domain.dead_letter import DeadLetterContext, document, idempotency_key
from consumer.domain.deferred import digest_of
from consumer.domain.outcome import HandlerFault
from consumer.domain.record import Change, Record
from consumer.domain.settlement import GiveUp
from consumer.domain.source_format import dynamodb_format
from tests.unit.domain.support import ARN, records

CONTEXT = DeadLetterContext(
    "app",
    "module:handler",
    ARN,
    "shardId-00000001789651619772-2a9e5aad",
    "6a7a7d45",
    dynamodb_format("pk"),
    "2026-09-17T13:26:53.746",
)
RAISED = HandlerFault("raised", "ValueError", "bad é", ("line 1", "line 2"))
REPORTED = HandlerFault("reported", "BatchItemFailures", "the handler reported failed records")
NOW = 1789651752.967
REFUSED_BY_SQS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NEVER_CALLED = ["requestContext"]
CALLED = ["requestContext", "responseContext"]
REST = ["version", "timestamp", "DDBStreamBatchInfo", "application", "error", "idempotencyKey", "deadLetter", "payload"]


def batch() -> list[Record]:
    first, *others = records("2900002759746085485437", "3000000000000000000000", "3400002963608751851120")
    first.dynamodb.ApproximateCreationDateTime = 1789651658.0
    for one in others:
        one.dynamodb.ApproximateCreationDateTime = 1789651660.0
    return [first, *others]


def give_up(
    condition: Literal["RetryAttemptsExhausted", "RecordAgeExceeded"] = "RetryAttemptsExhausted",
    fault: HandlerFault | None = RAISED,
    of: list[Record] | None = None,
    invocations: int = 2,
) -> GiveUp:
    invoked = condition == "RetryAttemptsExhausted" or fault is not None
    return GiveUp(of or batch(), condition, invocations, fault, invoked=invoked)


def letter(step: GiveUp) -> dict[str, Any]:
    body = document(CONTEXT, step, NOW)
    assert REFUSED_BY_SQS.search(body.decode("utf-8")) is None
    found: dict[str, Any] = json.loads(body)
    return found


def test_exhausted_retries_field_for_field() -> None:
    """Lambda's document in Lambda's order, then ours."""
    found = letter(give_up())
    payload = found.pop("payload")
    key = found.pop("idempotencyKey")
    assert json.dumps(found) == json.dumps(
        {
            "requestContext": {
                "requestId": "6a7a7d45",
                "functionArn": "module:handler",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 2,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "version": "1.0",
            "timestamp": "2026-09-17T13:29:12.967Z",
            "DDBStreamBatchInfo": {
                "shardId": "shardId-00000001789651619772-2a9e5aad",
                "startSequenceNumber": "2900002759746085485437",
                "endSequenceNumber": "3400002963608751851120",
                "approximateArrivalOfFirstRecord": "2026-09-17T13:27:38Z",
                "approximateArrivalOfLastRecord": "2026-09-17T13:27:40Z",
                "batchSize": 3,
                "streamArn": ARN,
            },
            "application": "app",
            "error": {
                "kind": "raised",
                "errorType": "ValueError",
                "errorMessage": "bad é",
                "stackTrace": ["line 1", "line 2"],
            },
            "deadLetter": {
                "keyDigest": digest_of(b'{"S":"a"}'),
                "sequenceNumber": "2900002759746085485437",
                "handler": "module:handler",
                "streamLabel": "2026-09-17T13:26:53.746",
            },
        }
    )
    assert payload == {"Records": [one.as_event() for one in batch()]}
    assert len(key) == 64
    assert list(letter(give_up())) == CALLED + REST


@pytest.mark.parametrize("kind", ["raised", "timeout", "crashed", "cancelled"])
def test_errors_of_user_code_are_unhandled(kind: Any) -> None:
    """An exception, a time-out or a dead process is a function error."""
    assert letter(give_up(fault=HandlerFault(kind, "T", "m")))["responseContext"]["functionError"] == "Unhandled"


@pytest.mark.parametrize("fault", [REPORTED, HandlerFault("bad_response", "BadResponse", "m"), None])
def test_answered_failures_have_no_function_error(fault: HandlerFault | None) -> None:
    """A reported failure, or an answer that names no record, is null with status 200."""
    found = letter(give_up(fault=fault))
    assert found["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}


@pytest.mark.parametrize("fault", [None, RAISED])
def test_expired_records_have_no_response(fault: HandlerFault | None) -> None:
    """``responseContext`` is absent, also when the function was called before the record got too old."""
    found = letter(give_up("RecordAgeExceeded", fault, invocations=1))
    assert list(found) == NEVER_CALLED + REST
    assert found["requestContext"]["approximateInvokeCount"] == 1
    assert (found["error"] is None) is (fault is None)


def test_an_event_that_was_never_sent_has_no_response() -> None:
    """Too large for a handler: the retries are spent, but nobody answered, so ``responseContext`` is absent."""
    found = letter(GiveUp(batch(), "RetryAttemptsExhausted", 3, None, invoked=False))
    assert list(found) == NEVER_CALLED + REST
    assert found["requestContext"]["condition"] == "RetryAttemptsExhausted"


def test_the_key_is_the_same_for_every_delivery_of_the_same_records() -> None:
    """Request, attempt, time, condition and fault do not matter; records, shard, stream and application do."""
    other_request = replace(CONTEXT, target="other:target", request_id="another request")
    key = idempotency_key(CONTEXT, give_up())
    assert idempotency_key(other_request, give_up("RecordAgeExceeded", None, invocations=7)) == key
    assert json.loads(document(other_request, give_up(), NOW + 60))["idempotencyKey"] == key
    different = {
        idempotency_key(CONTEXT, give_up(of=batch()[:2])),
        idempotency_key(CONTEXT, give_up(of=records("29000027597460854854373000000000000000000000"))),
        *(
            idempotency_key(replace(CONTEXT, application=application, stream_arn=stream, shard_id=shard), give_up())
            for application, stream, shard in (
                ("b", ARN, CONTEXT.shard_id),
                ("app", "x", CONTEXT.shard_id),
                ("app", ARN, "s"),
            )
        ),
    }
    assert len(different) == 5
    assert key not in different


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b'"\\ud800"', "\ud800"),
        (b'"\\u0000"', "\0"),
        ('"é"'.encode(), "é"),
        ('"\u202e\ufeff"'.encode(), "\u202e\ufeff"),
        ('"😀 x 😀😀"'.encode(), "😀 x 😀😀"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\\\ \\" \\n"', '\\ " \n'),
        ('"\\\\é\\"é"'.encode(), '\\é"é'),
        (b'"\x7f"', "\x7f"),
        (b'"\xff"', "\udcff"),
        (b'"\xed\xa0\x80"', "\udced\udca0\udc80"),
        ('"\ufffe \uffff \ufffd"'.encode(), "\ufffe \uffff \ufffd"),
        (b'"\\ufffe \\u0022 \\u005c \\u005cu6f22 \\\\u6f22 \\u6F22\\u000a"', '\ufffe " \\ \\u6f22 \\u6f22 漢\n'),
    ],
    ids=ascii,
)
def test_exotic_values_survive(wire: bytes, value: str) -> None:
    """Lone surrogates, NUL, emoji, quotes; bytes that are not UTF-8 are kept as lone surrogates, not dropped."""
    one = Record(Change("1", NewImage=Raw(b'{"a":{"S":' + wire + b"}}")), event_id="é")
    (event,) = letter(give_up(of=[one]))["payload"]["Records"]
    assert event["dynamodb"]["NewImage"] == {"a": {"S": value}}
    assert event["eventID"] == "é"


def test_two_thousand_levels_still_become_a_letter() -> None:
    """Poison that nothing can decode must not block its shard: the letter carries it as it came."""
    image = b'{"a":' + b'{"L":[' * 2000 + b"]}" * 2000 + b"}"
    body = document(CONTEXT, give_up(of=[Record(Change("1", NewImage=Raw(image)))]), NOW)
    assert image in body


@pytest.mark.parametrize("created", [0.0, -1.0, 1789651658000.0, 1e300, float("inf")])
def test_impossible_times_do_not_fail_the_letter(created: float) -> None:
    """Unknown is 1970; milliseconds mistaken for seconds end in the year 9999."""
    one = Record(Change("1", ApproximateCreationDateTime=created))
    body = document(CONTEXT, give_up(of=[one]), NOW)
    assert (b'"1970-01-01T00:00:00Z"' if created <= 0 else b'"9999-12-31T23:59:59Z"') in body


def test_faults_with_any_text() -> None:
    """Error messages of user code may hold anything."""
    found = letter(give_up(fault=HandlerFault("raised", "Ü", "\ud800\0\n", ("\x1b[31m",))))
    assert found["error"]["errorMessage"] == "\ud800\0\n"
