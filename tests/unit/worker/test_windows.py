"""Tumbling windows, through a whole worker on the memory adapters."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.outcome import HandlerCall, Outcome, from_window_response
from consumer.domain.windows import MAX_STATE
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from consumer.worker.shard import dispatcher, tumbling_windows
from tests.unit.worker.harness import FAILED, Worker, World, until

MakeWorld = Callable[..., World]
NOON = int(time.time()) // 60 * 60 + 3600  # the start of a window of a minute that is not over while a test runs


class Counting:
    """A Lambda-style aggregation: the state counts the records of the window; every event is kept."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.fail: Callable[[dict[str, Any]], bool] = lambda event: False
        self.padding = 0

    async def __call__(self, call: HandlerCall) -> Outcome:
        event = json.loads(call.event())
        self.events.append(event)
        if self.fail(event):
            return FAILED
        state = {"count": event["state"].get("count", 0) + len(event["Records"])}
        if self.padding and event["Records"]:
            state["padding"] = "x" * self.padding
        numbers = {record.sequence_number for record in call.records}
        return from_window_response({"state": state}, numbers, report_failures=True)

    @property
    def shapes(self) -> list[tuple[int, int, bool]]:
        """Of each call: the minute of its window, its records, and whether it was the final one."""
        return [
            (minute(event["window"]["start"]), len(event["Records"]), event["isFinalInvokeForWindow"])
            for event in self.events
        ]

    @property
    def totals(self) -> list[int]:
        """The counts that the final calls saw."""
        return [event["state"].get("count", 0) for event in self.events if event["isFinalInvokeForWindow"]]


def minute(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() - NOON) // 60


def windowed(**config: Any) -> dict[str, Any]:
    batch = {"tumbling_window": "60s", "parallelization_factor": 1, "batch_size": 2} | config.pop("batch", {})
    return {"batch": batch, "handler": {"kind": "lambda", "isolation": "process"}, **config}


def at(world: World, seconds: int, key: str = "k") -> None:
    """Write a record that was created ``seconds`` after noon."""
    world.stream.append(key, {"ApproximateCreationDateTime": NOON + seconds})


async def test_a_later_record_closes_the_window_with_an_empty_call(make_world: MakeWorld) -> None:
    """Lambda's observed order: the records of a window, an empty final call with its state, the next window."""
    handler = Counting()
    world = make_world(config=windowed())
    for seconds in (0, 10, 59, 60, 61, 190):
        at(world, seconds)
    await world.worker("a", handler)
    await until(lambda: len(handler.events) == 7)
    assert handler.shapes == [
        (0, 2, False),
        (0, 1, False),
        (0, 0, True),
        (1, 1, False),
        (1, 1, False),
        (1, 0, True),
        (3, 1, False),
    ]
    assert handler.totals == [3, 2]
    first, final = handler.events[0], handler.events[2]
    assert first["state"] == {}
    assert list(first) == [
        "Records",
        "window",
        "state",
        "shardId",
        "eventSourceARN",
        "isFinalInvokeForWindow",
        "isWindowTerminatedEarly",
    ]
    assert first["shardId"] == world.stream.open_shards()[0]
    assert first["eventSourceARN"] == world.stream.arn
    assert final["Records"] == []
    assert final["isWindowTerminatedEarly"] is False


async def test_a_late_record_belongs_to_the_open_window(make_world: MakeWorld) -> None:
    """The service's clock may go back; a record belongs to exactly one window and none is opened twice."""
    handler = Counting()
    world = make_world(config=windowed(batch={"batch_size": 100}))
    for seconds in (60, 59, 70, 120):
        at(world, seconds)
    await world.worker("a", handler)
    await until(lambda: len(handler.events) == 3)
    assert handler.shapes == [(1, 3, False), (1, 0, True), (2, 1, False)]


async def test_the_end_of_a_shard_closes_its_window_before_the_children_start(make_world: MakeWorld) -> None:
    handler = Counting()
    world = make_world(config=windowed())
    at(world, 0)
    shard = world.stream.open_shards()[0]
    world.stream.roll(shard)
    at(world, 1)
    await world.worker("a", handler)
    await until(lambda: len(handler.events) == 3)
    assert handler.shapes == [(0, 1, False), (0, 0, True), (0, 1, False)]
    assert [event["shardId"] == shard for event in handler.events] == [True, True, False]
    assert handler.events[2]["state"] == {}, "children start afresh"
    await until(lambda: world.rows()[shard].state == "done")


async def test_an_idle_window_closes_when_its_time_is_over(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Counting()
    monkeypatch.setattr(tumbling_windows, "IDLE_MARGIN", 0.0)
    world = make_world(config=windowed())
    world.put("k")  # now: its window is over in a minute at most
    await world.worker("a", handler)
    await until(lambda: len(handler.events) == 1)
    real = world.clock.wall
    monkeypatch.setattr(world.clock, "wall", lambda: real() + 61)
    await until(lambda: len(handler.events) == 2)
    assert handler.events[1]["isFinalInvokeForWindow"]
    assert handler.totals == [1]
    await asyncio.sleep(1.2)
    assert len(handler.events) == 2, "a window closes once"


async def test_the_state_survives_a_hand_over(make_world: MakeWorld) -> None:
    """Lambda promises that nowhere; ours is stored with the frontier."""
    world = make_world(config=windowed())
    before, after = Counting(), Counting()
    for seconds in (0, 1, 2):
        at(world, seconds)
    first = await world.worker("a", before)
    await until(lambda: len(before.events) == 2)
    await first.drain()
    at(world, 3)
    at(world, 60)
    await world.worker("b", after)
    await until(lambda: len(after.events) == 3)
    assert after.shapes == [(0, 1, False), (0, 0, True), (1, 1, False)]
    assert after.totals == [4]


async def test_the_state_survives_a_crash_with_its_records(make_world: MakeWorld) -> None:
    """State and frontier are one write: whatever is repeated is repeated on the state before it."""
    world = make_world(config=windowed(checkpoint={"interval": "20ms"}))
    before, after = Counting(), Counting()
    for seconds in range(6):
        at(world, seconds)

    async def hangs_on_the_last_two(call: HandlerCall) -> Outcome:
        outcome = await before(call)
        if len(before.events) == 3:
            await asyncio.Event().wait()
        return outcome

    first = await world.worker("a", hangs_on_the_last_two)
    await until(lambda: len(before.events) == 3)
    await until(lambda: any(b"4" in window.state for window in world.table.windows.values()))
    await first.kill()
    at(world, 60)
    await world.worker("b", after)
    await until(lambda: after.totals == [6])


async def test_a_state_that_was_deleted_with_its_lease_comes_back(make_world: MakeWorld) -> None:
    """The owner remembers both, although only the frontier has changed since (by a record that no filter takes)."""
    handler = Counting()
    world = make_world(config=windowed(checkpoint={"interval": "20ms"}))
    world.settings = world.settings.model_copy(update={"filters": ({"dynamodb": {"Keys": {"id": {"S": ["k"]}}}},)})
    at(world, 0)
    await world.worker("a", handler)
    shard = world.stream.open_shards()[0]
    await until(lambda: any(b"1" in window.state for window in world.table.windows.values()))
    await until(lambda: world.rows()[shard].frontier.low is not None)
    low = world.rows()[shard].frontier.low
    world.table.drop_lease("app", world.stream.label, shard)
    world.table.windows.clear()
    at(world, 1, key="other")
    await until(lambda: shard in world.rows() and world.rows()[shard].frontier.low not in (None, low))
    assert [window.state for window in world.table.windows.values()] == [b'{"count":1}']


async def test_a_call_without_state_has_failed(make_world: MakeWorld) -> None:
    """And a failed call leaves the state as it was; retries exhausted, its records are dead letters."""
    letters = MemoryDeadLetters()
    handler = Counting()
    world = make_world(dead_letters=letters, config=windowed(retry={"max_retry_attempts": 0, "bisect_on_error": False}))
    for seconds in (0, 1, 2, 60):
        at(world, seconds)

    async def forgetful(call: HandlerCall) -> Outcome:
        outcome = await handler(call)
        if len(call.records) == 2:
            return from_window_response({}, {r.sequence_number for r in call.records}, report_failures=True)
        return outcome

    await world.worker("a", forgetful)
    await until(lambda: handler.totals == [1])
    assert len(letters.delivered) == 1
    info = letters.delivered[0].json()
    assert info["DDBStreamBatchInfo"]["batchSize"] == 2
    assert "state" in info["error"]["errorMessage"]


async def test_an_oversized_state_ends_the_window_early(make_world: MakeWorld) -> None:
    """An empty call gets all of it; the next record starts the same window afresh."""
    handler = Counting()
    handler.padding = MAX_STATE + 1
    world = make_world(config=windowed())
    at(world, 0)
    worker = await world.worker("a", handler)
    await until(lambda: len(handler.events) == 2 and worker.metric("in_flight_records") == 0)
    handler.padding = 0
    at(world, 1)
    at(world, 60)
    await until(lambda: len(handler.events) == 5)
    assert handler.shapes == [(0, 1, False), (0, 0, True), (0, 1, False), (0, 0, True), (1, 1, False)]
    early = handler.events[1]
    assert early["isWindowTerminatedEarly"] is True
    assert len(json.dumps(early["state"])) > MAX_STATE
    assert handler.events[2]["state"] == {}
    assert handler.events[3]["isWindowTerminatedEarly"] is False


async def test_a_failing_final_call_blocks_until_it_is_given_up(make_world: MakeWorld) -> None:
    letters = MemoryDeadLetters()
    handler = Counting()
    handler.fail = lambda event: event["isFinalInvokeForWindow"] and minute(event["window"]["start"]) == 0
    world = make_world(dead_letters=letters, config=windowed(retry={"max_retry_attempts": 2}))
    at(world, 0)
    at(world, 60)
    await world.worker("a", handler)
    await until(lambda: handler.shapes[-1:] == [(1, 1, False)])
    assert handler.shapes == [(0, 1, False), *[(0, 0, True)] * 3, (1, 1, False)]
    assert len(letters.delivered) == 1
    document = letters.delivered[0].json()
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert set(document["DDBStreamBatchInfo"]) == {"shardId", "streamArn"}
    window = document["timeWindowInfo"]
    assert window["isFinalInvokeForWindow"] is True
    assert document["payload"]["Records"] == []
    assert document["payload"]["state"] == {"count": 1}


@pytest.mark.parametrize("bisect", [False, True], ids=["partial", "bisect"])
async def test_a_window_that_ends_early_within_a_batch_goes_on_afresh(make_world: MakeWorld, bisect: bool) -> None:
    """The first record of a batch brings a state that is too large, the second one is handled later: by then its window
    has been closed, so it starts again."""
    handler = Counting()
    handler.padding = MAX_STATE + 1
    world = make_world(config=windowed(retry={"max_retry_attempts": 3, "bisect_on_error": bisect}))
    at(world, 0)
    at(world, 1)

    async def behave(call: HandlerCall) -> Outcome:
        outcome = await handler(call)
        if len(call.records) == 2 and bisect:
            return FAILED
        if call.records:
            handler.padding = 0
        if len(call.records) == 2:
            return Outcome("partial", failed=(call.records[1].sequence_number,), state=outcome.state)
        return outcome

    await world.worker("a", behave)
    await until(lambda: bool(handler.events) and len(handler.events[-1]["Records"]) == 1)
    if bisect:
        await until(lambda: len(handler.events) == 4)
    at(world, 60)
    await until(lambda: handler.shapes[-1:] == [(1, 1, False)])
    tried = [(0, 2, False), (0, 1, False)] if bisect else [(0, 2, False)]
    assert handler.shapes == [*tried, (0, 0, True), (0, 1, False), (0, 0, True), (1, 1, False)]
    assert [e["isWindowTerminatedEarly"] for e in handler.events if e["isFinalInvokeForWindow"]] == [True, False]
    assert handler.totals[-1] == 1, "the second window holds the rest alone"


async def test_records_keep_their_window_when_batches_are_cut_at_six_megabytes(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What did not fit into a batch comes next in stream order, whatever its keys: a record that a later window has
    overtaken would be counted there."""
    monkeypatch.setattr(dispatcher, "MAX_EVENT", 4 * 1024)
    handler = Counting()
    world = make_world(config=windowed(batch={"batch_size": 6}))
    for index in range(18):  # two keys by turns, three minutes
        at(world, index * 10, key="ab"[index % 2])
    at(world, 180)
    await world.worker("a", handler)
    await until(lambda: len(handler.totals) == 3)
    assert handler.totals == [6, 6, 6]
    numbers = [int(r["dynamodb"]["SequenceNumber"]) for event in handler.events for r in event["Records"]]
    assert numbers == sorted(numbers)


async def test_a_window_stays_open_while_nobody_knows_what_else_is_in_it(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading fails for minutes, from before the window's end on: records of it may lie there unread."""
    handler = Counting()
    monkeypatch.setattr(tumbling_windows, "IDLE_MARGIN", 0.0)
    world = make_world(config=windowed())
    at(world, 0)
    worker = await world.worker("a", handler)
    await until(lambda: len(handler.events) == 1)
    pages = worker.source_link.calls["get_records"]
    await until(lambda: worker.source_link.calls["get_records"] > pages + 2)
    worker.source_link.refuse["get_records"] = DependencyError("GetRecords", "InternalServerError")
    pages = worker.source_link.calls["get_records"]
    await until(lambda: worker.source_link.calls["get_records"] > pages)
    at(world, 59)
    real = world.clock.wall
    monkeypatch.setattr(world.clock, "wall", lambda: real() + 7200)
    await asyncio.sleep(1.2)  # the look for windows that are over comes every second
    assert handler.totals == []
    del worker.source_link.refuse["get_records"]
    await until(lambda: handler.totals == [2])


async def test_a_worker_that_cannot_read_the_window_still_lets_its_shard_go(make_world: MakeWorld) -> None:
    world = make_world(config=windowed())
    at(world, 0)
    worker = Worker(world, "a", None)
    world.workers.append(worker)
    await worker.start()
    worker.link.refuse["window_state"] = DependencyError("Query", "InternalServerError")
    await until(lambda: worker.link.calls["window_state"] > 0)
    await worker.drain()
    assert all(row.owner is None for row in world.rows().values())
