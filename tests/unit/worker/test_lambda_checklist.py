"""What was recorded of Lambda's DynamoDB mappings on AWS, case by case, in the order of the reference (section 3).

Each test names its case. Those that are covered elsewhere are in the second table of ``docs/lambda-parity.md``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer.domain.dead_letter import DeadLetterContext, lambda_document
from consumer.domain.dead_letter import document as dead_letter
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome, from_lambda_response
from consumer.domain.settlement import GiveUp, Invoke, RetryPolicy, Settlement
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from tests.unit.domain.support import record
from tests.unit.worker.harness import FAILED, World, until

MakeWorld = Callable[..., World]
Items = list[dict[str, Any]]

# As a mapping that sets nothing but the size, the retries and ReportBatchItemFailures.
LIKE_LAMBDA = {
    "batch": {"batch_size": 3, "parallelization_factor": 1, "report_batch_item_failures": True},
    "retry": {"max_retry_attempts": 3, "bisect_on_error": False, "backoff": {"initial": "5ms", "max": "10ms"}},
}


def image(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"dynamodb": {"NewImage": attributes}}


def answers(answer: Callable[[HandlerCall], Any]) -> Callable[[HandlerCall], Awaitable[Outcome]]:
    """A function whose return value is read by Lambda's rules."""

    async def behave(call: HandlerCall) -> Outcome:
        numbers = frozenset(one.sequence_number for one in call.records)
        return from_lambda_response(answer(call), numbers, report_failures=True)

    return behave


async def settled(world: World, number: str) -> None:
    """Until the checkpoint is at this record: nothing of it is repeated any more."""
    shard = world.stream.open_shards()[0]
    await until(lambda: shard in world.rows() and int(world.rows()[shard].frontier.low or 0) >= int(number))


def handled(call: HandlerCall) -> list[str]:
    return [one.keys["id"] for one in call.records]


# --- test_dynamodb_event_filter ----------------------------------------------------------------------------

ONE: Items = [{"id": "id_value"}, {"id": "id_value"}]
CHANGED: Items = [{"id": "id_value"}, {"id": "id_value", "other": "x"}]
EVENT_FILTERS: dict[str, tuple[dict[str, Any], Items, int]] = {
    "insert_same_entry_twice": ({"eventName": ["INSERT"]}, ONE, 1),
    "content_or_filter": ({"eventName": ["INSERT", "MODIFY"]}, CHANGED, 2),
    "content_multiple_filters": ({"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}, CHANGED, 1),
    "content_filter_type": (
        image({"id": {"S": ["id_value"]}}),
        [{"id": "id_value", "present": "x"}, {"id": "id_value_1"}],
        1,
    ),
    "exists_filter_type": (
        image({"present": {"S": [{"exists": True}]}}),
        [{"id": "id_value", "present": "x"}, {"id": "id_value_1"}],
        1,
    ),
    "exists_false_filter": (
        image({"absent": [{"exists": False}]}),
        [{"id": "id_value", "present": "x"}, {"id": "id_value_1"}],
        2,
    ),
    "numeric_filter": (
        image({"n": {"N": [{"numeric": [">", 100]}, {"anything-but": "101"}]}}),
        [{"id": "a", "n": 100}, {"id": "b", "n": 101}],
        1,
    ),
    "prefix_filter": (
        image({"place": {"S": [{"prefix": "us-1"}]}}),
        [{"id": "a", "place": "us-1-a"}, {"id": "b", "place": "eu-1-a"}],
        1,
    ),
    "date_time_conversion": ({"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 0]}]}}, CHANGED, 2),
}


@pytest.mark.parametrize("name", EVENT_FILTERS)
async def test_event_filter(make_world: MakeWorld, name: str) -> None:
    """Two writes, one record for each call: as many calls as AWS made. What is filtered out advances the checkpoint."""
    pattern, items, calls = EVENT_FILTERS[name]
    world = make_world(config=LIKE_LAMBDA | {"batch": {"batch_size": 1, "parallelization_factor": 1}})
    world.settings = world.settings.model_copy(update={"filters": (pattern,)})
    numbers = [number for item in items if (number := world.stream.put(item)) is not None]
    worker = await world.worker()
    await settled(world, numbers[-1])
    assert len(worker.handler.calls) == calls
    assert worker.metric("filtered") == len(numbers) - calls


# --- test_dynamodb_report_batch_item_failures ------------------------------------------------------------------


async def test_report_batch_item_failures(make_world: MakeWorld) -> None:
    """6 items, size 3, retries 3, item 5 bad: items 0 to 4 are handled once, item 5 five times (its first batch and
    four times alone); the letter has batchSize 1, count 4 and a null functionError."""
    letters = MemoryDeadLetters()
    world = make_world(config=LIKE_LAMBDA, dead_letters=letters)
    numbers = [world.put(f"item{index}") for index in range(6)]
    bad = {"batchItemFailures": [{"itemIdentifier": numbers[5]}]}
    worker = await world.worker("a", answers(lambda call: bad if "item5" in handled(call) else None))
    await settled(world, numbers[5])
    calls = [handled(call) for call in worker.handler.calls]
    assert calls == [["item0", "item1", "item2"], ["item3", "item4", "item5"], *[["item5"]] * 4]
    (letter,) = letters.delivered
    found = letter.json()
    assert found["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert found["requestContext"]["approximateInvokeCount"] == 4
    assert found["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}
    info = found["DDBStreamBatchInfo"]
    assert (info["batchSize"], info["startSequenceNumber"], info["endSequenceNumber"]) == (1, numbers[5], numbers[5])


# --- test_dynamodb_report_batch_item_failure_scenarios -------------------------------------------------------------

FAILURE_SCENARIOS: dict[str, Any] = {
    "item_identifier_not_present_failure": {"batchItemFailures": [{"itemIdentifier": "123"}]},
    "empty_string_item_identifier_failure": {"batchItemFailures": [{"itemIdentifier": ""}]},
    "null_item_identifier_failure": {"batchItemFailures": [{"itemIdentifier": None}]},
    "invalid_key_foo_failure": {"batchItemFailures": [{"foo": "123"}]},
    "invalid_key_foo_null_value_failure": {"batchItemFailures": [{"foo": None}]},
    "unhandled_exception_in_function": FAILED,
}


@pytest.mark.parametrize("name", FAILURE_SCENARIOS)
async def test_report_batch_item_failure_scenarios(make_world: MakeWorld, name: str) -> None:
    """The whole batch failed: with 3 retries 4 calls with one request id, then a letter that says so."""
    answer = FAILURE_SCENARIOS[name]
    letters = MemoryDeadLetters()
    world = make_world(config=LIKE_LAMBDA, dead_letters=letters)
    number = world.put("only")

    async def raises(call: HandlerCall) -> Outcome:
        return FAILED

    worker = await world.worker("a", raises if answer is FAILED else answers(lambda _: answer))
    await settled(world, number)
    assert [handled(call) for call in worker.handler.calls] == [["only"]] * 4
    assert len({call.request_id for call in worker.handler.calls}) == 1
    (letter,) = letters.delivered
    context = letter.json()["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetryAttemptsExhausted", 4)
    assert context["requestId"] == worker.handler.calls[0].request_id
    error = letter.json()["responseContext"]["functionError"]
    assert error == ("Unhandled" if answer is FAILED else None)


# --- test_dynamodb_report_batch_item_success_scenarios, and of Kinesis "empty_string_success" ------------------------

SUCCESS_SCENARIOS: dict[str, Any] = {
    "empty_string_success": "",
    "empty_list_success": [],
    "null_success": None,
    "empty_dict_success": {},
    "empty_batch_item_failure_success": {"batchItemFailures": []},
    "null_batch_item_failure_success": {"batchItemFailures": None},
}


@pytest.mark.parametrize("name", SUCCESS_SCENARIOS)
async def test_report_batch_item_success_scenarios(make_world: MakeWorld, name: str) -> None:
    """One call, no letter."""
    letters = MemoryDeadLetters()
    world = make_world(config=LIKE_LAMBDA, dead_letters=letters)
    number = world.put("only")
    worker = await world.worker("a", answers(lambda _: SUCCESS_SCENARIOS[name]))
    await settled(world, number)
    assert len(worker.handler.calls) == 1
    assert letters.delivered == []


# --- destinations -------------------------------------------------------------------------------------------------


async def test_on_failure_destination(make_world: MakeWorld) -> None:
    """One retry, count 2; the same letter in Lambda's format is Lambda's document."""
    letters = MemoryDeadLetters()
    config = LIKE_LAMBDA | {"retry": LIKE_LAMBDA["retry"] | {"max_retry_attempts": 1}}
    world = make_world(config=config, dead_letters=letters)
    numbers = [world.put(key) for key in ("a", "b")]

    async def raises(call: HandlerCall) -> Outcome:
        return FAILED

    worker = await world.worker("a", raises)
    await settled(world, numbers[-1])
    assert [handled(call) for call in worker.handler.calls] == [["a", "b"]] * 2
    (letter,) = letters.delivered
    found = letter.json()
    assert found["requestContext"]["approximateInvokeCount"] == 2
    assert found["responseContext"]["functionError"] == "Unhandled"
    assert [one["dynamodb"]["SequenceNumber"] for one in found["payload"]["Records"]] == numbers
    assert list(found)[:5] == ["requestContext", "responseContext", "version", "timestamp", "DDBStreamBatchInfo"]
    message = lambda_document(letter.document, "fn", with_payload=False)
    assert message.endswith(b'"streamArn":"' + world.stream.arn.encode() + b'"}}')


# --- disabling, enabling, and two mappings -------------------------------------------------------------------------


async def test_disabled_event_source_mapping(make_world: MakeWorld) -> None:
    """Stopped: no further call. Started again: it goes on after the last record, without a repetition."""
    world = make_world(config=LIKE_LAMBDA)
    number = world.put("before")
    first = await world.worker("a")
    await settled(world, number)
    await first.drain()
    number = world.put("while disabled")
    assert [handled(call) for call in first.handler.calls] == [["before"]]
    second = await world.worker("b")
    await settled(world, number)
    assert [handled(call) for call in second.handler.calls] == [["while disabled"]]


async def test_duplicate_event_source_mappings_share_the_work(make_world: MakeWorld) -> None:
    """AWS refuses a second mapping of one function (409). A second daemon of one application is welcome, and the two
    never handle a record both."""
    world = make_world(config=LIKE_LAMBDA, shards=2)
    workers = [await world.worker(name) for name in ("a", "b")]
    await until(lambda: len(world.owners()) == 2)
    world.write(60)
    await until(world.everything_handled)
    assert len(world.seen) == 60
    assert all(worker.handler.calls for worker in workers)
    world.assert_in_order()


async def test_deletion_of_the_table_does_not_end_the_mapping(make_world: MakeWorld) -> None:
    """What is left of the stream is handled, and the daemon stays."""
    world = make_world(config=LIKE_LAMBDA)
    world.write(5)
    world.stream.disable()
    worker = await world.worker()
    await until(world.everything_handled)
    assert not worker.running.done()


# --- Kinesis cases that hold for both ------------------------------------------------------------------------------


async def test_empty_provided(make_world: MakeWorld) -> None:
    """No call without records, whatever the filters leave."""
    world = make_world(config=LIKE_LAMBDA)
    world.settings = world.settings.model_copy(update={"filters": ({"eventName": ["REMOVE"]},)})
    world.write(20)
    number = world.put("last")
    worker = await world.worker()
    await settled(world, number)
    assert worker.handler.calls == []
    assert worker.metric("filtered") == 21


async def test_trim_horizon_in_batches_in_order(make_world: MakeWorld) -> None:
    """Everything that is there, oldest first, in batches of the size."""
    world = make_world(config=LIKE_LAMBDA | {"batch": {"batch_size": 10, "parallelization_factor": 1}})
    numbers = [world.put(f"k{index:02}") for index in range(30)]
    worker = await world.worker()
    await settled(world, numbers[-1])
    calls = [[one.sequence_number for one in call.records] for call in worker.handler.calls]
    assert calls == [numbers[:10], numbers[10:20], numbers[20:]]


# --- ParallelizationFactor and BatchSize ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 10, 256])
async def test_parallelization_factor(make_world: MakeWorld, factor: int) -> None:
    """So many batches of one shard run at the same time, no more, and a key is in at most one of them."""
    world = make_world(config={"batch": {"batch_size": 1, "parallelization_factor": factor}})
    world.write(3 * factor, keys=factor + 20)
    running, most = 0, 0
    full = asyncio.Event()

    async def wait_for_the_others(call: HandlerCall) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == factor:
            for _ in range(10):  # whoever else is on the way begins now
                await asyncio.sleep(0)
            full.set()
        await full.wait()
        running -= 1
        return OK

    await world.worker("a", wait_for_the_others)
    await until(world.everything_handled)
    assert most == factor
    world.assert_in_order()


async def test_a_batch_may_be_larger_than_a_read(make_world: MakeWorld) -> None:
    """GetRecords gives 1,000 at most and BatchSize goes to 10,000: a full batch is made of ten reads."""
    batch = {"batch_size": 10_000, "parallelization_factor": 1, "batching_window": "300s"}
    world = make_world(config={"batch": batch})
    world.write(10_000, keys=10_000)
    worker = await world.worker()
    await until(world.everything_handled)
    assert [len(call.records) for call in worker.handler.calls] == [10_000]


NOW = 1_800_000_000.0
CONTEXT = DeadLetterContext("app", "m:h", "arn:aws:dynamodb:eu-west-1:1:table/T/stream/x", "shardId-1", "request")


def expire(arrived: float) -> tuple[int, GiveUp, dict[str, Any]]:
    """Runs a record that always fails, with a maximum age of 60 s, in simulated time: calls and letter."""
    fault = HandlerFault("raised", "ValueError", "poison")
    settlement = Settlement(RetryPolicy(max_age=60.0), [record(1, created=arrived)])
    now, calls = NOW, 0
    while isinstance(step := settlement.next(now), Invoke):
        now += step.after
        if not isinstance(settlement.next(now), Invoke):
            continue
        calls += 1
        settlement.answered(Outcome("failed", fault=fault))
    assert isinstance(step, GiveUp)
    body = lambda_document(dead_letter(CONTEXT, step, now), "fn", with_payload=False)
    return calls, step, json.loads(body)


def test_maximum_record_age_exceeded_expire_while_retrying() -> None:
    """AWS called 8 times within the 60 s, then gave up. How long it waits is not documented; pauses that double from
    200 ms, as ours do, make 9 calls of a function that takes no time, the last after 51 s."""
    calls, step, document = expire(NOW)
    assert calls == step.invocations == document["requestContext"]["approximateInvokeCount"] == 9
    assert document["requestContext"]["condition"] == "RecordAgeExceeded"
    assert "responseContext" not in document


def test_maximum_record_age_exceeded_expire_before_ingestion() -> None:
    """Too old when it comes: never sent, and yet the count is 1; ``responseContext`` is absent."""
    calls, step, document = expire(NOW - 61)
    assert (calls, step.invoked) == (0, False)
    assert document["requestContext"]["approximateInvokeCount"] == 1
    assert document["requestContext"]["condition"] == "RecordAgeExceeded"
    assert "responseContext" not in document


async def test_maximum_record_age_exceeded_discard_records(make_world: MakeWorld) -> None:
    """Old records go to the destination unseen; younger ones behind them are handled."""
    letters = MemoryDeadLetters()
    config = LIKE_LAMBDA | {"retry": LIKE_LAMBDA["retry"] | {"max_record_age": "1m"}}
    world = make_world(config=config, dead_letters=letters)
    created = world.clock.wall()
    for key in ("old1", "old2"):
        change = {"ApproximateCreationDateTime": created - 100, "NewImage": {"id": {"S": key}}}
        world.stream.append(key, change)
    number = world.put("young")
    worker = await world.worker()
    await settled(world, number)
    assert [handled(call) for call in worker.handler.calls] == [["young"]]
    given_up = [len(letter.json()["payload"]["Records"]) for letter in letters.delivered]
    assert sum(given_up) == 2
    for letter in letters.delivered:
        assert letter.json()["requestContext"]["condition"] == "RecordAgeExceeded"
        assert "responseContext" not in letter.json()
