"""A tumbling window that is open when ``batch.tumbling_window`` is turned off or changed, through whole workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support.simulated_shards import (
    Refusal,
    checkpointed,
    letters,
    log_events,
    losses,
    named,
    run,
    start,
    until,
)
from tests.support.windows import (
    NO_WINDOW,
    NOON,
    Counting,
    append,
    at,
    deploy,
    events,
    minute,
    stored_states,
    window_world,
)

OFF: dict[str, Any] = {"tumbling_window": "0s", "parallelization_factor": 8}
HALVES: dict[str, Any] = {"tumbling_window": "30s"}
UNREADABLE = DependencyError("Query", "InternalServerError")


async def leave_open(world: Simulation) -> None:
    """A worker that has handled three records of one window, and is stopped."""
    handler = Counting()
    at(world, 0, 1, 2)
    worker = start(world, "before", handler)
    await events(world, handler, 2)
    await worker.stop()
    assert stored_states(world) == [b'{"count":3}']
    assert [row.window_open for row in world.rows().values()] == [True]


def is_closed(world: Simulation) -> bool:
    return not any(row.window_open for row in world.rows().values()) and stored_states(world) in ([], [b"{}"])


@pytest.mark.parametrize(
    ("batch", "then"),
    [(OFF, [(NO_WINDOW, 2, False)]), (HALVES, [(0, 2, False), (0, 0, True)])],
    ids=["off", "another size"],
)
def test_it_ends_with_a_final_call_before_anything_else(
    batch: dict[str, Any], then: list[tuple[int, int, bool]]
) -> None:
    """Its records may go on to come, outside of it: the call says that the window was ended early."""
    world, handler = window_world("changed"), Counting()

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=batch)
        at(world, 3, 4)
        start(world, "after", handler)
        if batch is HALVES:
            at(world, 30)
        await until(world, lambda: len(handler.events) >= 1 + len(then), "it goes on")

    run(world, scenario)
    assert handler.shapes[: 1 + len(then)] == [(0, 0, True), *then]
    first = handler.events[0]
    assert (first["state"], first["isWindowTerminatedEarly"]) == ({"count": 3}, True)
    assert [minute(first["window"]["end"]), handler.totals.count(3)] == [1, 1]


def test_the_same_size_goes_on() -> None:
    world, handler = window_world("same size"), Counting()

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch={"batch_size": 10})
        at(world, 3, 60)
        start(world, "after", handler)
        await events(world, handler, 3)

    run(world, scenario)
    assert handler.shapes == [(0, 1, False), (0, 0, True), (1, 1, False)]
    assert handler.totals == [4]


def test_checkpoints_go_on_when_windows_are_off() -> None:
    """Each record is stored as soon as it is handled, as in a shard that never had a window."""
    world, handler = window_world("checkpoints"), Counting()

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF)
        start(world, "after", handler)
        await until(world, lambda: is_closed(world), "the end of the window is stored", 20.0)
        for second in range(3, 9):
            await checkpointed(world, str(append(world, "k", created=NOON + second).number), 10.0)

    run(world, scenario)
    assert handler.totals == [3]


def test_windows_that_are_on_again_begin_afresh() -> None:
    """Nothing of the old one comes back, and a shard without windows does not look for one."""
    world, plain, handler = window_world("on again"), Counting(), Counting()

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF)
        reads = world.calls["window_state"]
        for name in ("off", "still off"):
            worker = start(world, name, plain)
            await until(world, lambda: is_closed(world) and world.balanced(), "no window is open")
            await worker.stop()
        assert world.calls["window_state"] == reads + 1
        assert plain.totals == [3]
        deploy(world, batch={"tumbling_window": "60s", "parallelization_factor": 1})
        at(world, 5, 60)
        start(world, "on", handler)
        await events(world, handler, 3)

    run(world, scenario)
    assert handler.totals == [1]


def test_a_final_call_that_fails_becomes_a_dead_letter() -> None:
    """With its state, after the retries of any call; then the shard goes on."""
    world, handler = window_world("fails", retry={"max_retry_attempts": 2}), Counting()
    handler.fail = lambda event: event.get("isFinalInvokeForWindow", False)

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF)
        at(world, 3)
        start(world, "after", handler)
        await events(world, handler, 4)
        (letter,) = letters(world)
        assert letter["timeWindowInfo"]["isFinalInvokeForWindow"] is True
        assert letter["payload"]["state"] == {"count": 3}

    run(world, scenario)
    assert handler.shapes == [*[(0, 0, True)] * 3, (NO_WINDOW, 1, False)]


def test_a_hand_over_in_the_middle_leaves_it_to_the_next_owner() -> None:
    world = window_world("hand-over", retry={"max_retry_attempts": -1})
    failing, handler = Counting(), Counting()
    failing.fail = lambda event: True

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF)
        at(world, 3)
        second = start(world, "second", failing)
        await events(world, failing, 3)
        await second.stop()
        assert [(row.owner, row.window_open) for row in world.rows().values()] == [(None, True)]
        start(world, "third", handler)
        await events(world, handler, 2)

    run(world, scenario)
    assert set(failing.shapes) == {(0, 0, True)}
    assert handler.shapes == [(0, 0, True), (NO_WINDOW, 1, False)]
    assert handler.totals == [3]


def test_a_crash_during_the_final_call_repeats_it_with_the_same_state() -> None:
    async def hangs(call: HandlerCall, outcome: Outcome) -> Outcome:
        await asyncio.Event().wait()
        return outcome

    world, hanging, handler = window_world("crash"), Counting(hangs), Counting()

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF)
        second = start(world, "second", hanging)
        await events(world, hanging, 1)
        second.kill()
        start(world, "third", handler)
        await until(world, lambda: is_closed(world), "the window is closed")

    run(world, scenario)
    assert (hanging.totals, handler.totals) == ([3], [3])


def test_it_does_not_pass_the_end_of_its_shard() -> None:
    world, handler = window_world("end of shard"), Counting()
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        await leave_open(world)
        at(world, 3)
        world.stream.roll(shard)
        at(world, 4)
        deploy(world, batch=OFF)
        start(world, "after", handler)
        await events(world, handler, 3)
        await until(world, lambda: world.rows()[shard].state == "done", "the shard is done")

    run(world, scenario)
    assert handler.shapes == [(0, 0, True), *[(NO_WINDOW, 1, False)] * 2]
    assert [event["Records"] == [] for event in handler.events] == [True, False, False]


def test_a_halted_shard_ends_it_when_it_goes_on() -> None:
    world, handler = window_world("halted", source={"on_gap": "halt"}), Counting()
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        await leave_open(world)
        world.trim(shard, str(append(world, "k", created=NOON + 3).number))
        at(world, 4)
        halting = start(world, "halting", Counting())
        await until(world, lambda: world.rows()[shard].state == "halted", "the shard is halted")
        await halting.stop()
        deploy(world, batch=OFF)
        halted = start(world, "halted", Counting())
        await until(world, world.balanced, "it is owned")
        await halted.stop()
        assert world.rows()[shard].window_open, "a halted shard keeps what it has"
        deploy(world, source={"on_gap": "continue"})
        start(world, "after", handler)
        await until(world, lambda: is_closed(world), "the window is closed")

    run(world, scenario)
    assert (handler.shapes[0], handler.totals) == ((0, 0, True), [3])


def test_a_worker_that_cannot_read_it_handles_nothing_and_lets_the_shard_go() -> None:
    world, second, handler = window_world("cannot read"), Counting(), Counting()

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF)
        at(world, 3)
        worker = start(world, "second", second)
        refusal = Refusal(worker.links["table"], UNREADABLE, "window_state")
        await until(world, lambda: refusal.taken > 2, "the window cannot be read")
        await worker.stop()
        assert [(row.owner, row.window_open) for row in world.rows().values()] == [(None, True)]
        start(world, "third", handler)
        await events(world, handler, 2)

    run(world, scenario)
    assert second.events == []
    assert handler.shapes == [(0, 0, True), (NO_WINDOW, 1, False)]


def test_a_python_handler_takes_no_final_call_so_a_trace_is_left() -> None:
    world, handler = window_world("python"), Counting()
    world.table.losses[APPLICATION, world.stream.label] = {}  # this loss is of no record

    async def scenario() -> None:
        await leave_open(world)
        deploy(world, batch=OFF, handler={"kind": "python"})
        at(world, 3)
        with log_events() as logged:
            worker = start(world, "after", handler)
            refusal = Refusal(worker.links["table"], UNREADABLE, "record_loss", times=2)
            await events(world, handler, 1)
            assert refusal.taken == 3, "nothing is handled before the trace is durable"
            (event,) = named(logged, "window.discarded")
        await until(world, lambda: is_closed(world), "the window is gone")
        (loss,) = losses(world)
        assert (loss.kind, loss.first_sequence_number) == ("discarded", None)
        assert "11 bytes" in loss.reason
        assert minute(event["window"]["start"]) == 0
        assert event["window"]["start"] in loss.reason

    run(world, scenario)
    assert handler.shapes == [(NO_WINDOW, 1, False)]
