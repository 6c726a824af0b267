"""User code starts right after the look at the ownership, however long it took until a handler process was ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.network import Weather
from consumer.testing.simulated_processes import ScriptedProcesses
from consumer.testing.simulation import Simulation

IMPORT = 30.0  # seconds of a cold import: three durations of a lease


async def _settles(call: HandlerCall) -> Outcome:
    return OK


class OneProcess(ScriptedProcesses):
    """It dies with the first call; the next one takes a while until it is ready. ``calls`` are those that reached user
    code."""

    def __init__(self) -> None:
        starts: Iterator[float] = iter((0.0, *[IMPORT] * 10))
        deaths = iter((True, *[False] * 1000))
        super().__init__(self._note, width=1, starts_in=lambda: next(starts), dies=lambda: next(deaths))
        self.calls: list[HandlerCall] = []

    async def _note(self, call: HandlerCall) -> Outcome:
        self.calls.append(call)
        return OK


def test_a_process_that_starts_after_the_next_owner_is_not_used() -> None:
    """The worker loses its lease while its only process imports the libraries; then the process is there."""
    world = Simulation("reserve, check, run")
    pool = OneProcess()

    async def scenario(world: Simulation) -> None:
        first = world.add_worker("first", pool)
        first.start()
        await world.until(world.balanced, 30.0, "the first worker has the lease")
        world.put("key")
        await asyncio.sleep(3.0)  # the call has failed, the next process is on its way
        for service in ("table", "session"):
            first.links[service].weather = Weather(lose_request=1.0)
        second = world.add_worker("second", ScriptedProcesses(_settles, width=1, starts_in=lambda: 0.0))
        second.start()
        await world.until(world.everything_settled, 25.0, "the second worker has handled the record")
        await asyncio.sleep(IMPORT)
        first.links["table"].weather = first.links["session"].weather = Weather()
        await world.until(world.balanced, 60.0, "balance")
        await world.finish()

    world.run(scenario)
    world.check()
    assert pool.calls == []  # a call that may not run costs no process either


@pytest.mark.parametrize("grace", ["25s", "0s"])
def test_a_shard_that_is_released_does_not_wait_for_a_process(grace: str) -> None:
    """Nothing is under way while a call waits for its process, so a drain is through at once."""
    world = Simulation("a drain without a process", config={"shutdown": {"grace": grace}})
    pool = OneProcess()
    seconds: list[float] = []

    async def scenario(world: Simulation) -> None:
        worker = world.add_worker("worker", pool)
        worker.start()
        await world.until(world.balanced, 30.0, "the worker has the lease")
        world.put("key")
        world.put("other key")
        await asyncio.sleep(3.0)
        before = world.loop.now
        await worker.stop()
        seconds.append(world.loop.now - before)
        assert not worker.killed
        await worker_again(world)

    async def worker_again(world: Simulation) -> None:
        world.workers["worker"].handler = ScriptedProcesses(_settles, width=1, starts_in=lambda: 0.0)
        world.workers["worker"].start()
        await world.until(world.everything_settled, 60.0, "everything settled")
        await world.finish()

    world.run(scenario)
    world.check()
    assert seconds[0] < 2.0


def test_a_reservation_that_is_not_used_is_there_for_the_next_call() -> None:
    """One process, and a hand-over of one shard while calls of two wait for it."""
    world = Simulation("hand-over with one process", shards=2)
    pool = ScriptedProcesses(_takes_a_second, width=1, starts_in=lambda: 0.0)

    async def scenario(world: Simulation) -> None:
        world.add_worker("first", pool).start()
        await world.until(world.balanced, 30.0, "the first worker has the leases")
        for number in range(40):
            world.put(f"key {number % 20}")
        await asyncio.sleep(2.0)
        world.add_worker("second", ScriptedProcesses(_settles, width=1, starts_in=lambda: 0.0)).start()
        await world.until(world.balanced, 60.0, "balance")
        await world.until(world.everything_settled, 60.0, "everything settled")
        await world.finish()

    world.run(scenario)
    world.check()
    assert not world.history.duplicates


async def _takes_a_second(call: HandlerCall) -> Outcome:
    await asyncio.sleep(1.0)
    return OK
