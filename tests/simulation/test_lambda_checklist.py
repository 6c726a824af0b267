"""What was recorded of Lambda's DynamoDB mappings on AWS, case by case, in the order of the reference (section 3).
With ``order: shard``, which is Lambda's; what ``order: key`` makes of the same is in ``test_batch_orders.py``.

Each test names its case. Those that are covered elsewhere are in the second table of ``docs/lambda-parity.md``; what
every answer of a function means is in ``unit/domain/test_outcome.py``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from consumer.domain.dead_letter import lambda_document
from consumer.domain.outcome import OK, HandlerCall, Outcome
from tests.support.simulated_shards import (
    FAILED,
    Recorder,
    answers,
    append_too_old,
    checkpointed,
    fails,
    keys,
    letters,
    metric,
    run,
    shard_world,
    start,
    until,
    write,
)

Items = list[dict[str, Any]]

# As a mapping that sets nothing but the size, the retries and ReportBatchItemFailures.
LIKE_LAMBDA: dict[str, dict[str, Any]] = {
    "batch": {"batch_size": 3, "order": "shard", "parallelization_factor": 1, "report_batch_item_failures": True},
    "retry": {"max_retry_attempts": 3, "bisect_on_error": False},
}


def image(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"dynamodb": {"NewImage": attributes}}


# --- test_dynamodb_event_filter ----------------------------------------------------------------------------

ONE: Items = [{"id": "id_value"}, {"id": "id_value"}]
CHANGED: Items = [{"id": "id_value"}, {"id": "id_value", "other": "x"}]
TWO: Items = [{"id": "id_value", "present": "x"}, {"id": "id_value_1"}]
EVENT_FILTERS: dict[str, tuple[dict[str, Any], Items, tuple[int, ...]]] = {
    "insert_same_entry_twice": ({"eventName": ["INSERT"]}, ONE, (0,)),
    "content_or_filter": ({"eventName": ["INSERT", "MODIFY"]}, CHANGED, (0, 1)),
    "content_multiple_filters": ({"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}, CHANGED, (0,)),
    "content_filter_type": (image({"id": {"S": ["id_value"]}}), TWO, (0,)),
    "exists_filter_type": (image({"present": {"S": [{"exists": True}]}}), TWO, (0,)),
    "exists_false_filter": (image({"absent": [{"exists": False}]}), TWO, (0, 1)),
    "numeric_filter": (
        image({"n": {"N": [{"numeric": [">", 100]}, {"anything-but": "101"}]}}),
        [{"id": "a", "n": 100}, {"id": "b", "n": 101}],
        (0,),
    ),
    "prefix_filter": (
        image({"place": {"S": [{"prefix": "us-1"}]}}),
        [{"id": "a", "place": "us-1-a"}, {"id": "b", "place": "eu-1-a"}],
        (0,),
    ),
    "date_time_conversion": ({"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 0]}]}}, CHANGED, (0, 1)),
}


@pytest.mark.parametrize("name", EVENT_FILTERS)
def test_event_filter(name: str) -> None:
    """Two writes, one record for each call: as many calls as AWS made, with the same records. What is filtered out
    advances the checkpoint."""
    pattern, items, matching = EVENT_FILTERS[name]
    config = LIKE_LAMBDA | {"batch": {"batch_size": 1, "parallelization_factor": 1}}
    world = shard_world(name, config, filters=[pattern])

    async def scenario() -> None:
        # The checkers expect a call for every record of ``world.write``, none for one that only the stream has.
        numbers = [
            world.write(item) if index in matching else world.stream.put(item) for index, item in enumerate(items)
        ]
        written = [number for number in numbers if number is not None]
        handler = Recorder()
        worker = start(world, "worker", handler)
        await checkpointed(world, written[-1])
        called = [[record.sequence_number for record in call.records] for call in handler.calls]
        assert called == [[numbers[index]] for index in matching]
        assert metric(worker, "filtered") == len(written) - len(matching)

    run(world, scenario)


# --- test_dynamodb_report_batch_item_failures ------------------------------------------------------------------


def test_report_batch_item_failures() -> None:
    """6 items, size 3, retries 3, item 5 bad: items 0 to 4 are handled once, item 5 five times (its first batch and
    four times alone); the letter has batchSize 1, count 4 and a null functionError."""
    world = shard_world("failures", LIKE_LAMBDA)

    async def scenario() -> None:
        numbers = [world.put(f"item{index}") for index in range(6)]
        bad = {"batchItemFailures": [{"itemIdentifier": numbers[5]}]}
        handler = Recorder(answers(lambda call: bad if "item5" in keys(call) else None))
        start(world, "worker", handler)
        await checkpointed(world, numbers[5])
        assert handler.keys == [["item0", "item1", "item2"], ["item3", "item4", "item5"], *[["item5"]] * 4]
        (found,) = letters(world)
        assert found["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert found["requestContext"]["approximateInvokeCount"] == 4
        assert found["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}
        info = found["DDBStreamBatchInfo"]
        assert info["batchSize"] == 1
        assert info["startSequenceNumber"] == info["endSequenceNumber"] == numbers[5]

    run(world, scenario)


# --- test_dynamodb_report_batch_item_failure_scenarios -------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [({"batchItemFailures": [{"itemIdentifier": "123"}]}, None), (FAILED, "Unhandled")],
    ids=["item_identifier_not_present_failure", "unhandled_exception_in_function"],
)
def test_report_batch_item_failure_scenarios(answer: Any, error: str | None) -> None:
    """The whole batch failed: with 3 retries 4 calls with one request id, then a letter that says so."""
    world = shard_world("failure", LIKE_LAMBDA)

    async def scenario() -> None:
        number = world.put("only")
        handler = Recorder(fails if answer is FAILED else answers(lambda _: answer))
        start(world, "worker", handler)
        await checkpointed(world, number)
        assert handler.keys == [["only"]] * 4
        (request_id,) = {call.request_id for call in handler.calls}
        (found,) = letters(world)
        context = found["requestContext"]
        assert (context["condition"], context["approximateInvokeCount"]) == ("RetryAttemptsExhausted", 4)
        assert context["requestId"] == request_id
        assert found["responseContext"]["functionError"] == error

    run(world, scenario)


def test_report_batch_item_success_scenarios() -> None:
    """One call, no letter."""
    world = shard_world("success", LIKE_LAMBDA)

    async def scenario() -> None:
        number = world.put("only")
        handler = Recorder(answers(lambda _: {"batchItemFailures": []}))
        start(world, "worker", handler)
        await checkpointed(world, number)
        assert len(handler.calls) == 1
        assert letters(world) == []

    run(world, scenario)


# --- destinations -------------------------------------------------------------------------------------------------


def test_on_failure_destination() -> None:
    """One retry, count 2; the same letter in Lambda's format is Lambda's document."""
    world = shard_world("destination", LIKE_LAMBDA | {"retry": LIKE_LAMBDA["retry"] | {"max_retry_attempts": 1}})

    async def scenario() -> None:
        numbers = [world.put(key) for key in ("a", "b")]
        handler = Recorder(fails)
        start(world, "worker", handler)
        await checkpointed(world, numbers[-1])
        assert handler.keys == [["a", "b"]] * 2
        (found,) = letters(world)
        assert found["requestContext"]["approximateInvokeCount"] == 2
        assert found["responseContext"]["functionError"] == "Unhandled"
        assert [one["dynamodb"]["SequenceNumber"] for one in found["payload"]["Records"]] == numbers
        assert list(found)[:5] == ["requestContext", "responseContext", "version", "timestamp", "DDBStreamBatchInfo"]
        message = lambda_document(world.dead_letters.delivered[0].document, "fn", with_payload=False)
        assert message.endswith(b'"streamArn":"' + world.stream.arn.encode() + b'"}}')

    run(world, scenario)


# --- disabling, enabling, and two mappings -------------------------------------------------------------------------


def test_disabled_event_source_mapping() -> None:
    """Stopped: no further call. Started again: it goes on after the last record, without a repetition."""
    world = shard_world("disabled", LIKE_LAMBDA)

    async def scenario() -> None:
        before, after = Recorder(), Recorder()
        number = world.put("before")
        first = start(world, "a", before)
        await checkpointed(world, number)
        await first.stop()
        number = world.put("while disabled")
        await world.sleep(60.0)
        assert before.keys == [["before"]]
        start(world, "b", after)
        await checkpointed(world, number)
        assert after.keys == [["while disabled"]]

    run(world, scenario)


def test_duplicate_event_source_mappings_share_the_work() -> None:
    """AWS refuses a second mapping of one function (409). A second daemon of one application is welcome, and the two
    never handle a record both."""
    world = shard_world("two mappings", LIKE_LAMBDA, shards=2)

    async def scenario() -> None:
        handlers = [Recorder(), Recorder()]
        for name, handler in zip("ab", handlers, strict=True):
            start(world, name, handler)
        await until(world, lambda: sorted(world.owned().values()) == [1, 1], "each worker has a shard")
        write(world, 60)
        await until(world, world.everything_settled, "everything is handled")
        assert sum(sum(handler.sizes) for handler in handlers) == 60
        assert all(handler.calls for handler in handlers)

    run(world, scenario)


def test_deletion_of_the_table_does_not_end_the_mapping() -> None:
    """What is left of the stream is handled, and the daemon stays."""
    world = shard_world("table deleted", LIKE_LAMBDA)

    async def scenario() -> None:
        write(world, 5)
        world.stream.disable()
        worker = start(world, "worker")
        await until(world, world.everything_settled, "everything is handled")
        session = worker.incarnation
        await world.sleep(600.0)
        assert worker.incarnation == session != ""

    run(world, scenario)


# --- Kinesis cases that hold for both ------------------------------------------------------------------------------


def test_empty_provided() -> None:
    """No call without records, whatever the filters leave."""
    world = shard_world("empty", LIKE_LAMBDA, filters=[{"eventName": ["REMOVE"]}])

    async def scenario() -> None:
        numbers = [world.stream.put({"id": f"k{index}"}) for index in range(21)]
        handler = Recorder()
        worker = start(world, "worker", handler)
        assert numbers[-1] is not None
        await checkpointed(world, numbers[-1])
        assert handler.calls == []
        assert metric(worker, "filtered") == 21

    run(world, scenario)


def test_trim_horizon_in_batches_in_order() -> None:
    """Everything that is there, oldest first, in batches of the size."""
    world = shard_world("horizon", LIKE_LAMBDA | {"batch": {"batch_size": 10, "parallelization_factor": 1}})

    async def scenario() -> None:
        numbers = [world.put(f"k{index:02}") for index in range(30)]
        handler = Recorder()
        start(world, "worker", handler)
        await checkpointed(world, numbers[-1])
        calls = [[one.sequence_number for one in call.records] for call in handler.calls]
        assert calls == [numbers[:10], numbers[10:20], numbers[20:]]

    run(world, scenario)


# --- ParallelizationFactor and BatchSize ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 10, 256])
def test_parallelization_factor(factor: int) -> None:
    """So many batches of one shard run at the same time, no more, and a key is in at most one of them."""
    world = shard_world("factor", {"batch": {"batch_size": 1, "parallelization_factor": factor}})
    running, most = 0, 0
    full = asyncio.Event()

    async def wait_for_the_others(call: HandlerCall) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == factor:
            await asyncio.sleep(5.0)  # one more that is on its way would begin meanwhile
            full.set()
        await full.wait()
        running -= 1
        return OK

    async def scenario() -> None:
        write(world, 3 * factor, among=factor + 20)
        start(world, "worker", Recorder(wait_for_the_others))
        await until(world, world.everything_settled, "everything is handled")

    run(world, scenario)
    assert most == factor


def test_a_batch_may_be_larger_than_a_read() -> None:
    """GetRecords gives 1,000 at most and BatchSize goes to 10,000: a full batch is made of ten reads."""
    batch = {"batch_size": 10_000, "parallelization_factor": 1, "batching_window": "300s"}
    world = shard_world("large batch", {"batch": batch})

    async def scenario() -> None:
        write(world, 10_000, among=10_000)
        handler = Recorder()
        start(world, "worker", handler)
        await until(world, world.everything_settled, "everything is handled")
        assert handler.sizes == [10_000]

    run(world, scenario)


# --- MaximumRecordAgeInSeconds --------------------------------------------------------------------------------------

YOUNG = LIKE_LAMBDA | {"retry": {"max_retry_attempts": -1, "max_record_age": "1m"}}


def lambda_letters(delivered: list[Any]) -> list[Any]:
    """Dead letters as Lambda's own documents."""
    return [msgspec.json.decode(lambda_document(letter.document, "fn", with_payload=False)) for letter in delivered]


def test_maximum_record_age_exceeded_expire_while_retrying() -> None:
    """AWS called 8 times within the 60 s, then gave up. How long it waits is not documented; pauses that double from
    200 ms, as ours do, make 9 calls of a function that takes no time, the last after 51 s."""
    world = shard_world("expires", YOUNG)

    async def scenario() -> None:
        handler = Recorder(fails)
        start(world, "worker", handler)
        await world.sleep(10.0)
        number = world.put("poison")
        await checkpointed(world, number)
        (document,) = lambda_letters(world.dead_letters.delivered)
        assert len(handler.calls) == document["requestContext"]["approximateInvokeCount"] == 9
        assert document["requestContext"]["condition"] == "RecordAgeExceeded"
        assert "responseContext" not in document

    run(world, scenario)


def test_maximum_record_age_exceeded_expire_before_ingestion() -> None:
    """Too old when it comes: never sent, and yet the count is 1; ``responseContext`` is absent."""
    world = shard_world("expired", YOUNG)

    async def scenario() -> None:
        item = append_too_old(world, "old", 62.0)
        handler = Recorder()
        start(world, "worker", handler)
        await checkpointed(world, str(item.number))
        assert handler.calls == []
        (document,) = lambda_letters(world.dead_letters.delivered)
        assert document["requestContext"]["approximateInvokeCount"] == 1
        assert document["requestContext"]["condition"] == "RecordAgeExceeded"
        assert "responseContext" not in document

    run(world, scenario)


def test_maximum_record_age_exceeded_discard_records() -> None:
    """Old records go to the destination unseen; younger ones behind them are handled."""
    world = shard_world("old and young", YOUNG)

    async def scenario() -> None:
        for key in ("old1", "old2"):
            append_too_old(world, key, 100.0)
        number = world.put("young")
        handler = Recorder()
        start(world, "worker", handler)
        await checkpointed(world, number)
        assert handler.keys == [["young"]]
        assert sum(len(letter["payload"]["Records"]) for letter in letters(world)) == 2
        assert {letter["requestContext"]["condition"] for letter in letters(world)} == {"RecordAgeExceeded"}
        assert not any("responseContext" in letter for letter in letters(world))

    run(world, scenario)
