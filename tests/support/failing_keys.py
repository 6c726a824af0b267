"""Whole simulated workers with keys that fail until their handler is mended, and what the other keys notice of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_shards import FAILED, Config, Recorder, run, until

PROMPT = 2.0  # seconds from the write of a record to its end
SMALL = KeyBounds(line_records=40, line_bytes=64 * 1024, failing_keys=16, deferred_keys=16)

Says = Callable[[HandlerCall, list[str]], Outcome]


def raises(call: HandlerCall, failing: list[str]) -> Outcome:
    return FAILED


def names_all(call: HandlerCall, failing: list[str]) -> Outcome:
    return Outcome("partial", failed=tuple(failing))


def stops_at_first(call: HandlerCall, failing: list[str]) -> Outcome:
    return Outcome("partial", failed=(failing[0],), exact=False)


class Mendable(Recorder):
    """Takes 10 ms and fails, as ``says`` puts it, with records whose key begins with ``poison``, until ``mended``."""

    def __init__(self, says: Says = raises) -> None:
        super().__init__(self._handle)
        self.mended = False
        self._says = says

    async def _handle(self, call: HandlerCall) -> Outcome:
        await asyncio.sleep(0.01)
        failing = [one.sequence_number for one in call.records if one.keys["id"].startswith("poison")]
        return self._says(call, failing) if failing and not self.mended else OK


class Failing:
    """The keys that ``expect_prompt`` says nothing about."""

    def __contains__(self, key: str) -> bool:
        return key.startswith("poison")


def failing_world(
    seed: str, config: Config | None = None, *, shards: int = 1, bounds: KeyBounds = BOUNDS
) -> Simulation:
    """Default settings but for ``config``; ``bounds`` that are not the default ones save time, and prove less."""
    return Simulation(seed, shards=shards, config=config, bounds=bounds)


class Load:
    """Writes until ``end``: a record every so many seconds, of forty keys ``k0``, ``k1``, ... by turns, and one of the
    key ``poison`` with each. ``pad`` is about the size of an image in bytes."""

    def __init__(
        self, world: Simulation, *, every: float, others: int = 40, poison: bool = True, pad: int = 10
    ) -> None:
        self._world = world
        self._every = every
        self._others = [f"k{number}" for number in range(40)]
        self._poison = poison
        self._pad = "x" * pad
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        count = 0
        while True:
            self._world.put(self._others[count % len(self._others)], pad=self._pad)
            if self._poison:
                self._world.put("poison", pad=self._pad)
            count += 1
            await asyncio.sleep(self._every)

    def end(self) -> None:
        self._task.cancel()


async def others_are_prompt(world: Simulation, seconds: float, *workers: SimulatedWorker) -> int:
    """Judge the other keys for so long; returns the most bytes that any worker's budget held."""
    world.checkers.expect_prompt(PROMPT, Failing())
    most = 0
    for _ in range(int(seconds * 10)):
        await asyncio.sleep(0.1)
        most = max([most, *(one.context.budget.used for one in workers if one.context is not None)])
    world.checkers.check_prompt()
    world.checkers.expect_prompt(math.inf, Failing())
    return most


def open_of(world: Simulation, key: str) -> int:
    """Records of a key that are still to be settled."""
    return sum(item.key == key and item.open for item in world.history.items.values())


def deferred_in(world: Simulation, shard_id: str) -> list[str]:
    """Digests of the keys that the row of a shard lists."""
    return [key.digest for key in world.rows()[shard_id].frontier.deferred]


async def until_deferred(world: Simulation, *shards: str) -> None:
    await until(world, lambda: all(deferred_in(world, shard) for shard in shards), "the failing key is deferred")


async def started(world: Simulation, handler: Mendable, *names: str) -> list[SimulatedWorker]:
    """Workers that have shared the shards among them."""
    workers = [world.add_worker(name, handler) for name in names]
    for worker in workers:
        worker.start()
    await until(world, world.balanced, "balance")
    return workers


def with_every_record_once(world: Simulation, scenario: Callable[[], Awaitable[None]]) -> None:
    """``run``, which also raises for a record that was handled twice, or overtaken by a later one of its key."""
    run(world, scenario)
    assert all(item.settles == 1 or item.dead_lettered for item in world.history.items.values())
