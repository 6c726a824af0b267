"""The loop under the simulator: virtual time, processes that freeze and die, clocks that differ."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from consumer.testing.virtual_loop import Process, SimulationStuck, VirtualLoop

Scenario = Callable[[VirtualLoop], Awaitable[None]]


def simulate(scenario: Scenario, seed: str = "seed") -> VirtualLoop:
    loop = VirtualLoop(random.Random(seed))

    async def body() -> None:
        await scenario(loop)

    loop.run_until(body())
    loop.close()
    return loop


def test_a_day_takes_no_time_and_ends_exactly() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        await asyncio.sleep(86400.0)

    assert simulate(scenario).now == 86400.0


def test_nothing_of_a_killed_process_happens() -> None:
    seen: list[str] = []
    at_the_end: list[str] = []

    async def victim() -> None:
        try:
            await asyncio.sleep(10.0)
            seen.append("woke up")
        finally:
            seen.append("finally")

    async def scenario(loop: VirtualLoop) -> None:
        process = Process(loop, "victim")
        task = process.spawn(victim(), "victim")
        await asyncio.sleep(1.0)
        loop.kill(process)
        task.cancel()
        await asyncio.sleep(60.0)
        at_the_end.extend(seen)

    simulate(scenario)
    assert at_the_end == []


def test_a_frozen_process_finds_everything_late() -> None:
    seen: list[tuple[float, float]] = []

    async def victim(loop: VirtualLoop) -> None:
        for _ in range(3):
            due = loop.time() + 1.0
            await asyncio.sleep(1.0)
            seen.append((due, loop.time()))

    async def scenario(loop: VirtualLoop) -> None:
        process = Process(loop, "victim")
        process.spawn(victim(loop), "victim")
        await asyncio.sleep(1.5)
        loop.pause(process)
        await asyncio.sleep(20.0)
        assert len(seen) == 1
        loop.resume(process)
        await asyncio.sleep(5.0)

    simulate(scenario)
    assert seen == [(1.0, 1.0), (2.0, 21.5), (22.5, 22.5)]


def test_a_stalled_thread_leaves_the_other_one_running() -> None:
    seen: list[tuple[str, float]] = []

    async def tick(name: str, loop: VirtualLoop) -> None:
        while True:
            await asyncio.sleep(1.0)
            seen.append((name, loop.now))

    async def scenario(loop: VirtualLoop) -> None:
        process = Process(loop, "both")
        process.spawn(tick("main", loop), "main")
        process.spawn(tick("control", loop), "control", process.control)
        await asyncio.sleep(0.5)
        loop.stall(process.main, 3.0)
        await asyncio.sleep(3.7)

    simulate(scenario)
    assert [now for name, now in seen if name == "control"] == [1.0, 2.0, 3.0, 4.0]
    assert [now for name, now in seen if name == "main"] == [3.5]


def test_time_outs_go_by_the_clock_of_their_process() -> None:
    ends: dict[str, float] = {}

    async def wait(name: str, loop: VirtualLoop) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100.0):
                await asyncio.Event().wait()
        ends[name] = loop.now

    async def scenario(loop: VirtualLoop) -> None:
        for name, rate in (("fast", 1.25), ("slow", 0.8)):
            process = Process(loop, name, rate=rate, base=1000.0)
            process.spawn(wait(name, loop), name)
        await asyncio.sleep(200.0)

    simulate(scenario)
    assert ends == {"fast": pytest.approx(80.0), "slow": pytest.approx(125.0)}


def test_the_order_of_processes_is_the_seeds() -> None:
    def order(seed: str) -> list[str]:
        seen: list[str] = []

        async def step(name: str) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
                seen.append(name)

        async def scenario(loop: VirtualLoop) -> None:
            for name in "abc":
                Process(loop, name).spawn(step(name), name)
                Process(loop, name)
            await asyncio.sleep(1.0)

        simulate(scenario, seed)
        return seen

    assert order("one") == order("one")
    assert order("one") != order("two")


def test_waiting_for_what_never_comes_is_an_error() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationStuck):
        simulate(scenario)


def test_waiting_for_less_than_a_clock_can_tell_is_an_error() -> None:
    """What is left of a pause by rounding, say: a real clock would move on, and this one never does."""

    async def scenario(loop: VirtualLoop) -> None:
        await asyncio.sleep(1600.0)
        while loop.time() < 1601.0:
            await asyncio.sleep(1e-14)

    with pytest.raises(SimulationStuck, match=r"too short to pass at virtual time 1600\.000 s"):
        simulate(scenario)
