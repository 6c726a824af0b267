"""No root task dies silently, not even during the shutdown."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import (
    Gate,
    LogEvents,
    add,
    checked,
    until_checkpointed,
    until_settled,
    versions,
    write,
)


def test_a_coordinator_that_dies_during_the_drain_fails_the_process() -> None:
    """At once: the drain would wait for a call that takes longer than the whole grace."""
    world = Simulation("bug in a drain")

    async def scenario(world: Simulation) -> None:
        world.put("key")
        worker, handler = add(world, "a", Gate())
        await world.until(lambda: bool(handler.running), 30.0, "a call is under way")
        worker.terminate()
        await world.sleep(1.0)
        assert worker.running
        worker.links["table"].refuse(RuntimeError("a bug"), "sessions")
        await world.until(lambda: not worker.running, 5.0, "the end of the process")
        assert not worker.killed

    checked(world, scenario, expected=["ended by itself", "coordinator"])


@pytest.mark.parametrize("times", [1, 2])
def test_two_memory_errors_end_the_process(times: int) -> None:
    """One is survived like any failure of a shard; a second one means that the process has grown too large."""
    world, left = Simulation(f"memory errors: {times}"), times

    async def hungry(call: HandlerCall) -> Outcome:
        nonlocal left
        if left and any(version > 1 for _, version in versions(call)):
            left -= 1
            raise MemoryError
        return OK

    async def scenario(world: Simulation) -> None:
        write(world, 3, keys=3)
        worker, _ = add(world, "a", hungry)
        await until_settled(world)
        await until_checkpointed(world)
        write(world, 3, keys=3)
        if times == 2:
            await world.until(lambda: not worker.running, 30.0, "the end of the process")
            assert not worker.killed
            worker.start()
        await until_settled(world)
        await world.finish()

    checked(world, scenario, expected=["shard.worker_failed", "for want of memory"][:times])
    assert left == 0


def test_a_helper_that_is_cancelled_by_nobody_ends_the_coordinator() -> None:
    """A TaskGroup would forget it, and no hand-over would be announced any more."""
    world = Simulation("cancelled announcement", shards=2)

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "a")
        await world.until(lambda: set(world.owned().values()) == {2}, 30.0, "it owns both shards")
        worker.links["table"].refuse(asyncio.CancelledError(), "announce", times=1)
        add(world, "b")
        await world.until(lambda: not worker.running, 30.0, "the end of the process")
        assert not worker.killed
        await world.finish()

    checked(world, scenario, expected=["announcements"])


@pytest.mark.parametrize(("service", "operation"), [("table", "save"), ("stream", "get_records")])
def test_a_shard_whose_work_is_cancelled_by_nobody_starts_again(service: str, operation: str) -> None:
    """Neither its reader nor its checkpoints may be missing from then on; the log says so."""
    log = LogEvents()
    world = Simulation(f"cancelled {operation}", on_event=log)

    async def scenario(world: Simulation) -> None:
        write(world, 3)
        worker, _ = add(world, "a")
        await until_settled(world)
        await until_checkpointed(world)
        (before,) = world.rows().values()
        worker.links[service].refuse(asyncio.CancelledError(), operation, times=1)
        write(world, 3)
        await world.until(lambda: bool(log.of("shard.worker_failed")), 30.0, "the shard worker fails")
        await until_settled(world)
        write(world, 3)
        await until_settled(world)
        newest = max(item.number for item in world.history.items.values())
        await world.until(
            lambda: int(world.rows()[before.shard_id].frontier.low or 0) == newest, 30.0, "a checkpoint of everything"
        )
        await world.finish()

    checked(world, scenario, expected=["shard.worker_failed"])
