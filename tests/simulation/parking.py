"""The family of runs in which keys are parked (``on_failure.order: park_key`` or ``block``) and brought
back while records go on coming.

Workers crash, hand over, are replaced; shards roll over and split; the destination refuses; redrives run into handlers
that fail, are killed, and run beside each other. In the end one redrive after the other brings everything back: every
record is handled, in order per key, and no key is parked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from consumer.domain.batching import KeyBounds
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.testing.network import Link, Weather
from consumer.testing.simulated_redrive import SimulatedRedrive
from consumer.testing.simulated_worker import Scripted, SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.simulation.failing_keys import Disturbances
from tests.simulation.user_code import UserCode

SETTLED_WITHIN = 600.0
FREED_WITHIN = 900.0


class ParkingDisturbances(Disturbances):
    """Also to redrives."""

    def __init__(
        self, world: Simulation, rng: random.Random, failing: set[str], redrives: list[SimulatedRedrive]
    ) -> None:
        super().__init__(world, rng, failing)
        self._redrives = redrives

    def any(self) -> Callable[[], Any]:
        others = (self.crash, self.replace, self.roll, self.split, self.refuse, self.join, self.relapse)
        return self._rng.choice((*others, self.redrive, self.redrive, self.redrive, self.stall))

    async def redrive(self) -> None:
        """One is started, or killed at any moment; two may run at once."""
        for redrive in self._redrives:
            if redrive.process is None:
                redrive.start()
            elif self._rng.random() < 0.3:
                redrive.kill()
            await asyncio.sleep(self._rng.uniform(0.0, 5.0))

    async def stall(self) -> None:
        """A worker, or a redrive, sleeps."""
        seconds = self._rng.uniform(1.0, 40.0)
        sleeping = self._rng.choice(self._redrives).process
        if sleeping is not None and self._rng.random() < 0.5:
            self._world.loop.pause(sleeping)
            await asyncio.sleep(seconds)
            if sleeping.alive:
                self._world.loop.resume(sleeping)
        else:
            self._rng.choice(list(self._world.workers.values())).stall(seconds)


def parking(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """Six virtual minutes of failing keys, redrives and disturbances; then the handler is mended."""
    rng = random.Random(f"{seed}/parking")
    config: dict[str, dict[str, Any]] = {
        "source": {"table": "orders", "on_gap": "continue", "poll": {"idle_backoff_max": "1s"}},
        "retry": {"max_retry_attempts": rng.choice((0, 1, 2)), "backoff": {"initial": "100ms", "max": "2s"}},
        "batch": {
            "batch_size": rng.choice((1, 10, 100)),
            "parallelization_factor": rng.choice((1, 2, 8)),
            "report_batch_item_failures": rng.random() < 0.5,
        },
        "checkpoint": {"interval": rng.choice(("100ms", "1s", "5s"))},
        "on_failure": {"order": rng.choice(("park_key", "park_key", "block"))},
    }
    bounds = KeyBounds(
        line_records=rng.choice((5, 10, 40)),
        line_bytes=64 * 1024,
        failing_keys=64,
        deferred_keys=64,
        blocked_keys=rng.choice((1, 100)),
        parked_keys=40,
    )
    world = Simulation(seed, shards=rng.randint(1, 3), config=config, on_event=on_event, bounds=bounds)
    user_code = UserCode(world, busy=0.01, failing=rng.choice((0.0, 0.002)))
    keys = [f"k{number}" for number in range(30)]
    user_code.failing_keys = failing = set(keys[: rng.choice((1, 3, 12))])
    written = [f"k{number}" for number in range(rng.choice((3, 12, 30)))]

    def handles(shard_id: str, number: str) -> bool:
        return world.checkers.item(shard_id, number).key not in failing

    redrives = [SimulatedRedrive(world, f"r{number}", handles) for number in range(2)]
    disturbances = ParkingDisturbances(world, rng, failing, redrives)

    async def behave(call: HandlerCall) -> Outcome:
        return await user_code.outcome(call)

    for number in range(rng.randint(1, 2)):
        world.add_worker(f"w{number}", Scripted(behave)).start()

    async def write() -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.0, 0.3) * len(keys) / len(written))
            for _ in range(rng.choice((1, 2, 4))):
                world.put(rng.choice(written))

    async def crash_often() -> None:
        """At moments that no other disturbance chooses: in the middle of a closing, between a letter and its count."""
        while True:
            await asyncio.sleep(rng.uniform(0.5, 15.0))
            if rng.random() < 0.5:
                worker = rng.choice(list(world.workers.values()))
                if worker.running and not worker.stopping:
                    worker.kill()
                    worker.start()
            else:
                redrive = rng.choice(redrives)
                redrive.kill()
                redrive.start()

    def links() -> list[Link]:
        of_workers = [link for worker in world.workers.values() for link in worker.links.values()]
        return of_workers + [link for redrive in redrives for link in redrive.links]

    async def bad_weather() -> None:
        while True:
            hurt = links()
            for link in hurt:
                link.weather = Weather(
                    lose_request=0.02, lose_response=0.05, slow=0.05, slowest=4.0, throttle=0.02, broken=0.02
                )
            await asyncio.sleep(1.0)
            for link in hurt:
                link.weather = Weather()
            await asyncio.sleep(rng.uniform(0.0, 5.0))

    def free() -> bool:
        if not world.table.parked:
            return True
        for redrive in redrives[:1]:
            if redrive.process is None:
                redrive.start()
        return False

    async def scenario(world: Simulation) -> None:
        await world.until(world.balanced, 60.0, "the first balance")
        writing = asyncio.create_task(write())
        hurting = [asyncio.create_task(hurt()) for hurt in (crash_often, bad_weather) if rng.random() < 0.4]
        for _ in range(rng.choice((6, 12))):
            await asyncio.sleep(rng.uniform(2.0, 40.0))
            await disturbances.any()()
            if rng.random() < 0.3:  # mended, or broken in another way
                failing.clear()
                failing.update(rng.sample(keys, rng.choice((0, 1, 4))))
        for task in hurting:
            task.cancel()
        for link in links():
            link.weather = Weather()
        failing.clear()
        user_code.calm = True
        if rng.random() < 0.5:  # the last keys are freed under traffic
            await world.until(free, FREED_WITHIN, "all keys free")
        writing.cancel()
        await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled")
        await world.until(free, FREED_WITHIN, "all keys free")
        await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled")
        for redrive in redrives:
            redrive.kill()
        await world.finish()
        world.parking.at_the_end()

    return world, scenario


class FailingHandler:
    """Its calls fail with the keys in ``failing``, and those of one redrive do: nothing else goes wrong."""

    def __init__(self, world: Simulation, failing: set[str]) -> None:
        self._world = world
        self.failing = failing
        self._user_code = UserCode(world, busy=0.01, failing=0.0)
        self._user_code.failing_keys = failing
        self._user_code.calm = True
        self.redrive = SimulatedRedrive(world, "r", self._handles)

    def worker(self, name: str) -> SimulatedWorker:
        """A worker that has begun."""
        worker = self._world.add_worker(name, Scripted(self._user_code.outcome))
        worker.start()
        return worker

    def _handles(self, shard_id: str, number: str) -> bool:
        return self._world.checkers.item(shard_id, number).key not in self.failing

    async def brings_all_back(self) -> None:
        """It is mended: every record is handled in the end, and no key is parked."""
        world = self._world
        self.failing.clear()
        await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled")
        await world.until(self._free, FREED_WITHIN, "all keys free")
        await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled")
        self.redrive.kill()
        await world.finish()
        world.parking.at_the_end()

    def _free(self) -> bool:
        if self._world.table.parked and self.redrive.process is None:
            self.redrive.start()
        return not self._world.table.parked


def parked_child(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """A child holds back a key that fails in its parent, which another worker has, and which parks the key in the end.
    No other key is parked, and nobody tells the child's worker: it has to look before it goes on, and to notice the
    redrive."""
    rng = random.Random(f"{seed}/parked child")
    retries = rng.randint(8, 14)
    config: dict[str, dict[str, Any]] = {
        "source": {"table": "orders", "poll": {"idle_backoff_max": "1s"}},
        "retry": {"max_retry_attempts": retries, "backoff": {"initial": "5s", "max": "5s"}},
        "batch": {"batch_size": 1, "parallelization_factor": rng.choice((1, 4))},
        "on_failure": {"order": "park_key"},
    }
    bounds = KeyBounds(line_records=rng.choice((5, 40)), line_bytes=64 * 1024, failing_keys=16, deferred_keys=16)
    world = Simulation(seed, shards=1, config=config, on_event=on_event, bounds=bounds)
    handler = FailingHandler(world, {"bad"})

    def apart() -> bool:
        return len({row.owner for row in world.rows().values()}) == 2

    def put(records: int) -> None:
        for number in range(records):
            world.put("bad")
            world.put(f"k{number % 3}")

    async def scenario(world: Simulation) -> None:
        (parent,) = world.stream.open_shards()
        handler.worker("w0")
        put(rng.randint(2, 20))
        await asyncio.sleep(rng.uniform(3.0, 8.0))
        world.stream.roll(parent)
        put(rng.randint(1, 10))
        handler.worker("w1")
        await world.until(apart, 60.0, "each worker has one of them")
        await world.until(lambda: bool(world.table.parked), 60.0 + 6.0 * retries, "the parent parks the key")
        handler.failing.clear()
        await world.until(lambda: world.rows()[parent].settled, SETTLED_WITHIN, "the parent is through")
        put(rng.randint(0, 2))
        await handler.brings_all_back()

    return world, scenario


def blocked(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """More keys fail than may be blocked, and their worker lives on: a restart would try all of them afresh, and hide
    that one was forgotten. Those beyond the bound are parked; when the handler is mended all get through."""
    rng = random.Random(f"{seed}/blocked")
    most, count = rng.choice((1, 2, 3)), rng.randint(4, 8)
    config: dict[str, dict[str, Any]] = {
        "source": {"table": "orders", "poll": {"idle_backoff_max": "1s"}},
        "retry": {"max_retry_attempts": rng.choice((0, 2)), "backoff": {"initial": "100ms", "max": "1s"}},
        "batch": {"batch_size": rng.choice((1, 10)), "parallelization_factor": rng.choice((1, 4))},
        "on_failure": {"order": "block", "breaker": False},
    }
    world = Simulation(seed, shards=1, config=config, on_event=on_event, bounds=KeyBounds(blocked_keys=most))
    handler = FailingHandler(world, {f"bad{number}" for number in range(count)})

    async def scenario(world: Simulation) -> None:
        handler.worker("w0")
        for _ in range(rng.randint(1, 3)):
            for key in rng.sample([*sorted(handler.failing), "k0", "k1"], count + 2):
                world.put(key)
                await asyncio.sleep(rng.uniform(0.0, 2.0))
        parked = count - most
        await world.until(lambda: len(world.table.parked) == parked, 120.0, f"{parked} of {count} keys are parked")
        await handler.brings_all_back()

    return world, scenario


def older_view(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """A worker parks key after key while it reads which are parked, and the answer comes late: it says nothing of the
    key that was parked meanwhile, whose next records must follow it all the same."""
    rng = random.Random(f"{seed}/older view")
    config: dict[str, dict[str, Any]] = {
        "source": {"table": "orders", "poll": {"idle_backoff_max": "1s"}},
        "retry": {"max_retry_attempts": 0, "backoff": {"initial": "100ms", "max": "1s"}},
        "batch": {"batch_size": rng.choice((1, 10)), "parallelization_factor": rng.choice((1, 4))},
        "on_failure": {"order": "park_key", "breaker": False},
    }
    world = Simulation(seed, shards=1, config=config, on_event=on_event)
    count = rng.randint(3, 6)
    handler = FailingHandler(world, {f"bad{number}" for number in range(count)})

    async def scenario(world: Simulation) -> None:
        table = handler.worker("w0").links["table"]
        world.put("bad0")
        await world.until(lambda: len(world.table.parked) == 1, 30.0, "the first key is parked")
        for number in range(1, count):
            late = table.hold_response("parked", times=1)
            if handler.redrive.process is None:
                handler.redrive.start()  # its steps are what the worker reads everything again for
            await world.until(lambda late=late: bool(late.taken), 60.0, "the worker reads which keys are parked")
            world.put(f"bad{number}")
            await asyncio.sleep(rng.uniform(0.0, 0.9) * table.timeout)
            late.end()
            for _ in range(rng.randint(1, 3)):
                await asyncio.sleep(rng.uniform(0.0, 1.0))
                world.put(f"bad{rng.randint(0, number)}")
        await handler.brings_all_back()

    return world, scenario
