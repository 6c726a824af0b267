"""The family of runs in which some keys fail for a long time, until the handler is mended: the others must not notice.

Default settings but for the bounds of memory, which are small so that they are met within minutes. Every other way to
disturb the fleet comes, too: crashes, hand-overs, shards that roll over and split, a destination that refuses, records
that are trimmed. Promptness is judged whenever nothing of that is under way.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

from consumer.domain.batching import KeyBounds
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import Scripted, SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.simulation.user_code import UserCode

PROMPT = 2.0  # seconds from the write of a record to its end, while nothing disturbs the fleet
CALM_AGAIN = 45.0  # seconds after a disturbance: a lease that is taken over, and the backlog of that time
CAUGHT_UP_WITHIN = 600.0


class Disturbances:
    """What happens to the fleet of a run while its keys fail. Each returns after its effects are over."""

    def __init__(self, world: Simulation, rng: random.Random, failing: set[str]) -> None:
        self._world = world
        self._rng = rng
        self._failing = failing

    def any(self) -> Callable[[], Any]:
        return self._rng.choice((self.crash, self.replace, self.roll, self.split, self.refuse, self.join, self.relapse))

    async def relapse(self) -> None:
        """The handler is mended, but not for long: keys fail again while their records are read again."""
        failing = set(self._failing)
        for _ in range(4):
            self._failing.clear()
            await asyncio.sleep(self._rng.uniform(0.2, 10.0))
            self._failing.update(failing)
            await asyncio.sleep(self._rng.uniform(0.2, 10.0))

    async def crash(self) -> None:
        worker = self._rng.choice(list(self._world.workers.values()))
        worker.kill()
        _start(worker)

    async def replace(self) -> None:
        """As a deploy does."""
        worker = self._rng.choice(list(self._world.workers.values()))
        await worker.stop()
        _start(worker)

    async def join(self) -> None:
        """One worker more, or one less: shards are handed over."""
        running = [worker for worker in self._world.workers.values() if worker.running]
        if len(running) > 1 and self._rng.random() < 0.5:
            await running[-1].stop()
            await asyncio.sleep(20.0)
            _start(running[-1])
        else:
            self._world.add_worker(f"n{len(self._world.workers)}", running[0].handler).start()

    async def roll(self) -> None:
        self._world.stream.roll(self._rng.choice(self._world.stream.open_shards()))

    async def split(self) -> None:
        self._world.stream.split(self._rng.choice(self._world.stream.open_shards()))

    async def refuse(self) -> None:
        """The destination takes no letter for a while."""
        links = [worker.links["dead_letters"] for worker in self._world.workers.values() if worker.links]
        for link in links:
            link.weather = Weather(throttle=1.0)
        await asyncio.sleep(30.0)
        for link in links:
            link.weather = Weather()


def _start(worker: SimulatedWorker) -> None:
    if not worker.running:  # another disturbance may have been faster
        worker.start()


def failing_keys(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """Eight virtual minutes of some keys that fail, then the mended handler."""
    rng = random.Random(f"{seed}/failing_keys")
    retries = rng.choice((-1, -1, 2))
    # Records so large that all that waits behind failing keys is too much before it is for a single key, in pages so
    # small that keys are read again for long; but not so much that the keys are tried with it: for that a shard pauses.
    large = rng.random() < 0.25
    note = "x" * 3000 * large
    config: dict[str, dict[str, Any]] = {
        "source": {
            "table": "orders",
            "on_gap": "continue",
            "poll": {"idle_backoff_max": "1s", "max_records": 30 if large else 1000},
        },
        "retry": {"max_retry_attempts": retries, "bisect_on_error": rng.random() < 0.7},
        "batch": {
            "batch_size": 1 if large else rng.choice((1, 10, 100, 100)),
            "parallelization_factor": rng.choice((1, 2, 8, 8)),
            "report_batch_item_failures": rng.random() < 0.5,
        },
        "limits": {"buffer": "1MiB" if large else rng.choice(("1MiB", "64MiB"))},
    }
    line = rng.choice((10, 10, 40))
    bounds = KeyBounds(line_records=line, line_bytes=64 * 1024, failing_keys=64, deferred_keys=64)
    world = Simulation(seed, shards=rng.randint(1, 3), config=config, on_event=on_event, bounds=bounds)
    user_code = UserCode(world, busy=0.01, failing=0.0)
    keys = [f"k{number}" for number in range(60)]
    user_code.failing_keys = failing = set(keys[: rng.choice((1, 1, 3, 12))])
    hot = rng.random() < 0.5 and not large
    disturbances = Disturbances(world, rng, failing)
    throttled = rng.choice((0.0, 0.0, 0.05))
    refused: set[str] = set()

    async def behave(call: HandlerCall) -> Outcome:
        """Now and then the handler cannot be reached at all, which is no failure of a record; once for a record, or
        the pauses alone take longer than any key may wait."""
        first = call.records[0].sequence_number
        if rng.random() < throttled and first not in refused:
            refused.add(first)
            return Outcome("not_invoked")
        return await user_code.outcome(call)

    for number in range(rng.randint(1, 2)):
        world.add_worker(f"w{number}", Scripted(behave)).start()

    async def write() -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.0, 0.2))
            for _ in range(rng.choice((1, 2, 4))):
                world.put(rng.choice(keys), note=note)
            if hot:
                world.put(keys[0], note=note)

    async def scenario(world: Simulation) -> None:
        await world.until(world.balanced, 60.0, "the first balance")
        writing = asyncio.create_task(write())
        affected = set(failing)
        for _ in range(4):
            world.checkers.expect_prompt(PROMPT, affected)
            await asyncio.sleep(rng.uniform(20.0, 60.0))
            world.checkers.check_prompt()
            world.checkers.expect_prompt(math.inf, affected)
            await (disturbances.relapse if large and rng.random() < 0.5 else disturbances.any())()
            await world.until(world.balanced, 60.0, "balance")
            await asyncio.sleep(CALM_AGAIN)
        user_code.failing_keys.clear()
        await asyncio.sleep(rng.uniform(0.0, 60.0))
        writing.cancel()
        await world.until(world.everything_settled, CAUGHT_UP_WITHIN, "everything settled")
        await world.until(world.closed_shards_done, CAUGHT_UP_WITHIN, "all closed shards done")
        await world.until(lambda: not any(row.frontier.deferred for row in world.rows().values()), 60.0, "caught up")
        await world.finish()
        user_code.sink.check()

    return world, scenario
