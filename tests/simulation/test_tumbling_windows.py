"""Tumbling windows, through whole simulated workers."""

from __future__ import annotations

import asyncio
import json

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.windows import MAX_STATE
from tests.support.simulated_shards import (
    FAILED,
    Refusal,
    append,
    checkpoint,
    letters,
    metric,
    run,
    start,
    until,
)
from tests.support.windows import NOON, Counting, answer, at, events, minute, stored_states, window_world

UNREADABLE = DependencyError("GetRecords", "InternalServerError")

# --- where windows begin and end -------------------------------------------------------------------------


def test_a_later_record_closes_the_window_with_an_empty_call() -> None:
    """Lambda's observed order: the records of a window, an empty final call with its state, the next window."""
    world, handler = window_world("later record"), Counting()

    async def scenario() -> None:
        at(world, 0, 10, 59, 60, 61, 190)
        start(world, "a", handler)
        await events(world, handler, 7)

    run(world, scenario)
    minutes = [(0, 2, False), (0, 1, False), (0, 0, True), (1, 1, False), (1, 1, False), (1, 0, True), (3, 1, False)]
    assert handler.shapes == minutes
    assert handler.totals == [3, 2]
    first, final = handler.events[0], handler.events[2]
    assert first["state"] == {}
    assert " ".join(first) == (
        "Records window state shardId eventSourceARN isFinalInvokeForWindow isWindowTerminatedEarly"
    )
    assert [first["shardId"], first["eventSourceARN"]] == [*world.stream.open_shards(), world.stream.arn]
    assert (final["Records"], final["isWindowTerminatedEarly"]) == ([], False)


def test_a_late_record_belongs_to_the_open_window() -> None:
    """The service's clock may go back; a record belongs to exactly one window and none is opened twice."""
    world, handler = window_world("late record", batch={"batch_size": 100}), Counting()

    async def scenario() -> None:
        at(world, 60, 59, 70, 120)
        start(world, "a", handler)
        await events(world, handler, 3)

    run(world, scenario)
    assert handler.shapes == [(1, 3, False), (1, 0, True), (2, 1, False)]


def test_the_end_of_a_shard_closes_its_window_before_the_children_start() -> None:
    world, handler = window_world("end of shard"), Counting()
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        at(world, 0)
        world.stream.roll(shard)
        at(world, 1)
        start(world, "a", handler)
        await events(world, handler, 3)
        await until(world, lambda: world.rows()[shard].state == "done", "the shard is done")

    run(world, scenario)
    assert handler.shapes == [(0, 1, False), (0, 0, True), (0, 1, False)]
    assert [event["shardId"] == shard for event in handler.events] == [True, True, False]
    assert handler.events[2]["state"] == {}, "children start afresh"


def test_an_idle_window_closes_when_its_time_is_over() -> None:
    """Half a minute later: until then records of it may become readable."""
    world, handler = window_world("idle"), Counting()

    async def scenario() -> None:
        world.put("k")  # now, which is the first second of a minute
        start(world, "a", handler)
        await events(world, handler, 1)
        await world.sleep(88.0 - world.loop.now)
        assert handler.totals == []
        await until(world, lambda: handler.totals == [1], "the window closes", 12.0)
        await until(world, lambda: not any(map(json.loads, stored_states(world))), "its end is stored", 2.0)
        await world.sleep(300.0)
        assert len(handler.events) == 2, "a window closes once"

    run(world, scenario)


def test_a_window_stays_open_while_its_reader_cannot_see_what_else_is_in_it() -> None:
    """Reading fails for hours, from before the window's end on: records of it may lie there unread."""
    world, handler = window_world("unread"), Counting()

    async def scenario() -> None:
        world.put("k")
        worker = start(world, "a", handler)
        await events(world, handler, 1)
        pages = world.calls["get_records"]
        await until(world, lambda: world.calls["get_records"] > pages + 2, "the reader finds nothing more")
        refusal = Refusal(worker.links["stream"], UNREADABLE, "get_records")
        await world.sleep(59.5 - world.loop.now)
        assert refusal.taken > 0
        world.put("k")  # the last second of the window
        await world.sleep(600.0)
        world.loop.pass_days(0.1)
        await world.sleep(60.0)
        assert handler.totals == []
        refusal.end()
        await until(world, lambda: handler.totals == [2], "the window closes with all of it")

    run(world, scenario)


# --- its state -------------------------------------------------------------------------------------------


def test_the_state_survives_a_hand_over() -> None:
    """Lambda promises that nowhere; ours is stored with the frontier."""
    world, before, after = window_world("hand-over"), Counting(), Counting()

    async def scenario() -> None:
        at(world, 0, 1, 2)
        first = start(world, "a", before)
        await events(world, before, 2)
        await first.stop()
        at(world, 3, 60)
        start(world, "b", after)
        await events(world, after, 3)

    run(world, scenario)
    assert after.shapes == [(0, 1, False), (0, 0, True), (1, 1, False)]
    assert after.totals == [4]


def test_the_state_survives_a_crash_with_its_records() -> None:
    """State and frontier are one write: whatever is repeated is repeated on the state before it."""

    async def hangs_on_the_last_two(call: HandlerCall, outcome: Outcome) -> Outcome:
        if len(before.events) == 3:
            await asyncio.Event().wait()
        return outcome

    world, before, after = window_world("crash"), Counting(hangs_on_the_last_two), Counting()

    async def scenario() -> None:
        at(world, *range(6))
        first = start(world, "a", before)
        await events(world, before, 3)
        await until(world, lambda: stored_states(world) == [b'{"count":4}'], "the state of four records is stored")
        first.kill()
        at(world, 60)
        start(world, "b", after)
        await until(world, lambda: after.totals == [6], "the window closes with all six")

    run(world, scenario)


def test_a_state_that_was_deleted_with_its_lease_comes_back() -> None:
    """The owner remembers both, although only the frontier has changed since (by a record that no filter takes)."""
    filters = [{"dynamodb": {"Keys": {"id": {"S": ["k"]}}}}]
    world, handler = window_world("deleted", filters=filters), Counting()
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        at(world, 0)
        start(world, "a", handler)
        await until(world, lambda: stored_states(world) == [b'{"count":1}'], "the state is stored")
        low = checkpoint(world, shard)
        world.delete_row(shard)
        world.table.windows.clear()
        world.stream.append("other", {"ApproximateCreationDateTime": NOON + 1})
        await until(world, lambda: checkpoint(world, shard) > low, "the row is there again, and further on")
        assert stored_states(world) == [b'{"count":1}']

    run(world, scenario)


def test_a_worker_that_cannot_read_the_window_still_lets_its_shard_go() -> None:
    world, handler = window_world("cannot read"), Counting()

    async def scenario() -> None:
        at(world, 0)
        first = start(world, "a", handler)
        refusal = Refusal(first.links["table"], UNREADABLE, "window_state")
        await until(world, lambda: refusal.taken > 0, "the window cannot be read")
        await first.stop()
        assert [row.owner for row in world.rows().values()] == [None]
        assert handler.events == []
        start(world, "b", handler)

    run(world, scenario)
    assert handler.shapes == [(0, 1, False)]


# --- failing calls ---------------------------------------------------------------------------------------


def test_a_call_without_state_has_failed() -> None:
    """And a failed call leaves the state as it was; retries exhausted, its records are dead letters."""

    async def forgetful(call: HandlerCall, outcome: Outcome) -> Outcome:
        return answer(call, {}) if len(call.records) == 2 else outcome

    world = window_world("no state", retry={"max_retry_attempts": 0, "bisect_on_error": False})
    handler = Counting(forgetful)

    async def scenario() -> None:
        at(world, 0, 1, 2, 60)
        start(world, "a", handler)
        await until(world, lambda: handler.totals == [1], "the window closes with the one record that was handled")
        (document,) = letters(world)
        assert document["DDBStreamBatchInfo"]["batchSize"] == 2
        assert "state" in document["error"]["errorMessage"]

    run(world, scenario)


def test_a_failing_final_call_blocks_until_it_is_given_up() -> None:
    world, handler = window_world("final call fails", retry={"max_retry_attempts": 2}), Counting()
    handler.fail = lambda event: event["isFinalInvokeForWindow"] and minute(event["window"]["start"]) == 0

    async def scenario() -> None:
        at(world, 0, 60)
        start(world, "a", handler)
        await events(world, handler, 5)
        (document,) = letters(world)
        assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert set(document["DDBStreamBatchInfo"]) == {"shardId", "streamArn"}
        assert document["timeWindowInfo"]["isFinalInvokeForWindow"] is True
        assert (document["payload"]["Records"], document["payload"]["state"]) == ([], {"count": 1})

    run(world, scenario)
    assert handler.shapes == [(0, 1, False), *[(0, 0, True)] * 3, (1, 1, False)]


# --- windows that end early, and batches that are cut ----------------------------------------------------


def test_an_oversized_state_ends_the_window_early() -> None:
    """An empty call gets all of it; the next record starts the same window afresh."""
    world, handler = window_world("oversized"), Counting()
    handler.padding = MAX_STATE + 1

    async def scenario() -> None:
        at(world, 0)
        worker = start(world, "a", handler)
        await events(world, handler, 2)
        await until(world, lambda: metric(worker, "in_flight_records") == 0, "its record is settled")
        handler.padding = 0
        at(world, 1, 60)
        await events(world, handler, 5)

    run(world, scenario)
    assert handler.shapes == [(0, 1, False), (0, 0, True), (0, 1, False), (0, 0, True), (1, 1, False)]
    early = handler.events[1]
    assert early["isWindowTerminatedEarly"] is True
    assert len(json.dumps(early["state"])) > MAX_STATE
    assert (handler.events[2]["state"], handler.events[3]["isWindowTerminatedEarly"]) == ({}, False)


@pytest.mark.parametrize("bisect", [False, True], ids=["partial", "bisect"])
def test_a_window_that_ends_early_within_a_batch_goes_on_afresh(*, bisect: bool) -> None:
    """The first record of a batch brings a state that is too large, the second one is handled later: by then its window
    has been closed, so it starts again."""

    async def behave(call: HandlerCall, outcome: Outcome) -> Outcome:
        if len(call.records) == 2 and bisect:
            return FAILED
        if call.records:
            handler.padding = 0
        if len(call.records) == 2:
            return Outcome("partial", failed=(call.records[1].sequence_number,), state=outcome.state)
        return outcome

    world = window_world("early in a batch", retry={"max_retry_attempts": 3, "bisect_on_error": bisect})
    handler = Counting(behave)
    handler.padding = MAX_STATE + 1
    tried = [(0, 2, False), (0, 1, False)] if bisect else [(0, 2, False)]

    async def scenario() -> None:
        at(world, 0, 1)
        start(world, "a", handler)
        await events(world, handler, len(tried) + 2)
        at(world, 60)
        await events(world, handler, len(tried) + 4)

    run(world, scenario)
    assert handler.shapes == [*tried, (0, 0, True), (0, 1, False), (0, 0, True), (1, 1, False)]
    assert [event["isWindowTerminatedEarly"] for event in handler.finals] == [True, False]
    assert handler.totals[-1] == 1, "the second window holds the rest alone"


def test_records_keep_their_window_when_batches_are_cut_at_six_megabytes() -> None:
    """What did not fit into a batch comes next in stream order, whatever its keys: a record that a later window has
    overtaken would be counted there."""
    config = {"batch": {"batch_size": 6}, "limits": {"buffer": "256MiB"}}
    world, handler = window_world("cut", stream={"page_bytes": 100_000_000}, **config), Counting()

    async def scenario() -> None:
        image = {"text": {"S": "x" * 1_300_000}}  # four of them are less than six megabytes
        for index in range(18):  # two keys by turns, three minutes
            append(world, "ab"[index % 2], created=NOON + 10 * index, NewImage=image)
        at(world, 180)
        start(world, "a", handler)
        await until(world, lambda: len(handler.totals) == 3, "three windows close")

    run(world, scenario)
    assert handler.totals == [6, 6, 6]
    assert max(handler.sizes) == 4
    numbers = [int(r["dynamodb"]["SequenceNumber"]) for event in handler.events for r in event["Records"]]
    assert numbers == sorted(numbers)
