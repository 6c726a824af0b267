"""``format: lambda``: byte for byte the documents that were recorded on AWS, with our ids in them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    DynamoDBStreamLambdaOnFailureDestinationModel as PowertoolsModel,
)
from aws_lambda_powertools.utilities.parser.models import DynamoDBStreamModel
from msgspec import Raw
from pydantic import ValidationError

from consumer.domain.dead_letter import document, idempotency_key, lambda_document, split_payload
from consumer.domain.outcome import HandlerFault
from consumer.domain.record import Change, Record
from consumer.domain.settlement import GiveUp
from consumer.domain.windows import TimeWindow, WindowCall
from tests.unit.domain.test_dead_letter import CONTEXT, NOW, RAISED, REPORTED, batch, give_up

# Recorded from AWS (reference 1.6), with our shard, numbers and ARNs put in; the order of the fields is AWS's.
METADATA = (
    '{"requestContext":{"requestId":"6a7a7d45","functionArn":"arn:aws:lambda:eu-west-1:123456789012:function:fn",'
    '"condition":"RetryAttemptsExhausted","approximateInvokeCount":2},'
    '"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},'
    '"version":"1.0",'
    '"timestamp":"2026-09-17T13:29:12.967Z",'
    '"DDBStreamBatchInfo":{"shardId":"shardId-00000001789651619772-2a9e5aad",'
    '"startSequenceNumber":"2900002759746085485437","endSequenceNumber":"3400002963608751851120",'
    '"approximateArrivalOfFirstRecord":"2026-09-17T13:27:38Z",'
    '"approximateArrivalOfLastRecord":"2026-09-17T13:27:40Z","batchSize":3,'
    '"streamArn":"arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-09-17T13:26:53.746"}}'
)
STREAM = json.loads(METADATA)["DDBStreamBatchInfo"]["streamArn"]
EXPIRED = "RecordAgeExceeded"
WINDOW = WindowCall(TimeWindow(1789654270, 1789654300), final=True)


def full(step: GiveUp, **options: Any) -> bytes:
    context = dataclasses.replace(CONTEXT, stream_arn=STREAM)
    return document(context, step, NOW, **options)


def message(step: GiveUp, **options: Any) -> bytes:
    return lambda_document(full(step, **options), "fn", with_payload=False)


def stored(step: GiveUp, **options: Any) -> bytes:
    return lambda_document(full(step, **options), "fn", with_payload=True)


def test_a_message_is_lambdas_byte_for_byte() -> None:
    """Metadata only: no payload, and nothing of ours."""
    assert message(give_up()).decode() == METADATA


def test_an_object_is_the_message_with_its_payload_as_a_text_after_the_version() -> None:
    """``payload`` is JSON *in a string*, between ``version`` and ``timestamp``."""
    body = stored(give_up())
    found = json.loads(body)
    payload = found["payload"]
    assert isinstance(payload, str)
    assert json.loads(payload) == {"Records": [one.as_event() for one in batch()]}
    escaped = json.dumps(payload, ensure_ascii=True)
    assert body.decode() == METADATA.replace('"version":"1.0",', f'"version":"1.0","payload":{escaped},')
    assert "漢" in stored(give_up(of=[Record(Change("1", NewImage=Raw('{"a":{"S":"漢"}}'.encode())))])).decode()
    assert escaped.startswith('"{\\"Records\\":[{')


@pytest.mark.parametrize("make", [message, stored])
def test_expired_records_have_no_response_context(make: Any) -> None:
    for fault in (None, RAISED):
        found = json.loads(make(give_up(EXPIRED, fault, invocations=1)))
        assert [name for name in found if name != "payload"] == [
            "requestContext",
            "version",
            "timestamp",
            "DDBStreamBatchInfo",
        ]
        assert found["requestContext"]["condition"] == EXPIRED
        assert found["requestContext"]["approximateInvokeCount"] == 1


@pytest.mark.parametrize("make", [message, stored])
def test_an_oversized_event_has_no_response_context(make: Any) -> None:
    found = json.loads(make(GiveUp(batch(), "RetryAttemptsExhausted", 2, None, invoked=False)))
    assert "responseContext" not in found


def test_reported_failures_have_a_null_function_error() -> None:
    """As recorded: status 200, and the key is there with null."""
    assert b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":null}' in message(
        give_up(fault=REPORTED)
    )


@pytest.mark.parametrize("make", [full, message, stored])
def test_the_failed_final_call_of_a_window(make: Any) -> None:
    """No records: the batch is only shard and stream, and ``timeWindowInfo`` says which window."""
    step = GiveUp((), "RetryAttemptsExhausted", 2, RAISED, invoked=True)
    found = json.loads(make(step, window=WINDOW))
    assert found["DDBStreamBatchInfo"] == {"shardId": CONTEXT.shard_id, "streamArn": STREAM}
    assert found["timeWindowInfo"] == {
        "window": {"start": "2026-09-17T14:11:10Z", "end": "2026-09-17T14:11:40Z"},
        "isFinalInvokeForWindow": True,
        "isWindowTerminatedEarly": False,
    }
    assert list(found).index("timeWindowInfo") == list(found).index("DDBStreamBatchInfo") + 1


def test_a_window_with_records_keeps_them() -> None:
    """A call inside a window names its records as ever."""
    found = json.loads(message(give_up(), window=WindowCall(WINDOW.window, terminated_early=True)))
    assert found["DDBStreamBatchInfo"] == json.loads(METADATA)["DDBStreamBatchInfo"]
    assert found["timeWindowInfo"]["isWindowTerminatedEarly"] is True
    assert found["timeWindowInfo"]["isFinalInvokeForWindow"] is False


def test_a_whole_window_event_is_carried_when_it_is_given() -> None:
    """The state of a final call exists nowhere else, so the payload is the event and not only its records."""
    event = (
        b'{"Records":[],"window":{"start":"2026-09-17T14:11:10Z","end":"2026-09-17T14:11:40Z"},"state":{"\xc3\xa9":1},'
        b'"shardId":"s","eventSourceARN":"a","isFinalInvokeForWindow":true,"isWindowTerminatedEarly":false}'
    )
    step = GiveUp((), "RetryAttemptsExhausted", 2, RAISED, invoked=True)
    whole = full(step, window=WINDOW, event=event)
    assert json.loads(whole)["payload"] == json.loads(event)
    assert json.loads(split_payload(whole)[1]) == json.loads(event)
    assert json.loads(json.loads(stored(step, window=WINDOW, event=event))["payload"])["state"] == {"é": 1}


def test_windows_without_records_have_keys_of_their_own() -> None:
    """Two windows of a shard are two letters; so are two states of one window, which may end early and again. The same
    state is one letter, however often it is sent: a reader that drops the second of two must not lose a state."""
    step = GiveUp((), "RetryAttemptsExhausted", 2, RAISED, invoked=True)
    other = WindowCall(TimeWindow(1789654300, 1789654330), final=True)
    early = WindowCall(WINDOW.window, final=True, terminated_early=True)
    keys = [idempotency_key(CONTEXT, step, window) for window in (WINDOW, other, early)]
    assert keys[0] == keys[2] != keys[1]
    assert idempotency_key(CONTEXT, step, WindowCall(WINDOW.window, b'{"n":1}', final=True)) not in keys
    assert idempotency_key(CONTEXT, give_up(), WINDOW) == idempotency_key(CONTEXT, give_up())


@pytest.mark.parametrize(
    "image",
    [b'{"a":{"S":"\\"\\\\ \\u0000 \\ud800"}}', '{"a":{"S":"é😀"}}'.encode(), b'{"a":{"S":",\\"payload\\":{"}}'],
)
def test_any_text_survives_the_escaping(image: bytes) -> None:
    step = give_up(of=[Record(Change("1", NewImage=Raw(image)))])
    (event,) = json.loads(json.loads(stored(step))["payload"])["Records"]
    assert event["dynamodb"]["NewImage"] == json.loads(image)


def test_records_that_no_parser_reads_are_carried_all_the_same() -> None:
    deep = b'{"a":' + b'{"L":[' * 2000 + b"]}" * 2000 + b"}"
    step = give_up(of=[Record(Change("1", NewImage=Raw(deep)))])
    assert deep.decode() in json.loads(stored(step))["payload"]


@pytest.mark.parametrize("body", [b"{}", b'{"payload":{"Records":[]}}', b'{"a":1,"payload":{"Records":[]},"z":1}'])
def test_what_is_no_document_of_ours_is_an_error(body: bytes) -> None:
    """Never half a document: sending one without its records would lose them."""
    with pytest.raises(ValueError, match="no payload"):
        lambda_document(body, "fn", with_payload=True)


class TestPowertoolsParser:
    """``DynamoDBStreamLambdaOnFailureDestinationModel`` of the real package, on our documents as on AWS's."""

    @pytest.mark.parametrize("make", [full, message, stored], ids=["full", "message", "object"])
    @pytest.mark.parametrize("fault", [RAISED, REPORTED, HandlerFault("timeout", "T", "m")], ids=lambda f: f.kind)
    def test_exhausted_retries_parse(self, make: Any, fault: HandlerFault) -> None:
        found = PowertoolsModel.model_validate_json(make(give_up(fault=fault)))
        assert found.request_context.condition == "RetryAttemptsExhausted"
        assert found.request_context.approximate_invoke_count == 2
        assert found.response_context.function_error == (None if fault is REPORTED else "Unhandled")
        assert (found.ddb_stream_batch_info.batch_size, found.ddb_stream_batch_info.stream_arn) == (3, STREAM)
        assert found.ddb_stream_batch_info.approximate_arrival_of_last_record.timestamp() == 1789651660

    @pytest.mark.parametrize("make", [full, message, stored], ids=["full", "message", "object"])
    def test_what_it_refuses_of_lambda_it_refuses_of_ours(self, make: Any) -> None:
        """It asks for ``responseContext``, which AWS leaves out of these, too."""
        with pytest.raises(ValidationError, match="responseContext"):
            PowertoolsModel.model_validate_json(make(give_up(EXPIRED, None)))

    def test_the_payload_is_an_event_for_its_stream_model(self) -> None:
        change = Change(
            "1",
            ApproximateCreationDateTime=1789651658.0,
            Keys=Raw(b'{"id":{"S":"a"}}'),
            NewImage=Raw(b'{"id":{"S":"a"},"n":{"N":"1.5"}}'),
            SizeBytes=10,
            StreamViewType="NEW_IMAGE",
        )
        record = Record(change, "e", "INSERT", event_source_arn=STREAM, aws_region="eu-west-1", event_version="1.1")
        body = stored(give_up(of=[record]))
        (parsed,) = DynamoDBStreamModel.model_validate_json(json.loads(body)["payload"]).Records
        assert parsed.dynamodb.NewImage == {"id": "a", "n": 1.5}
