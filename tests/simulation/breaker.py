"""The family of runs in which the handler fails for everything now and then: an outage must not drain the table into
the dead letters, and must be over soon after it is over.

Beside the outages a few keys are poison all the time, one of them hot in some runs, which must not open any breaker.
Workers crash, stop and hand shards over meanwhile, and shards roll over and split.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

from consumer.domain.breaker import FIRST_PAUSE, MOST_PAUSE, OUTCOMES
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.testing.simulated_worker import Scripted
from consumer.testing.simulation import Simulation
from consumer.worker.shard.breaker import ShardBreaker
from tests.simulation.failing_keys import CALM_AGAIN
from tests.simulation.user_code import UserCode

KEYS = 300
POISON = 12  # of them
CALM = 90.0  # seconds without an outage at the start, in which no breaker may open
UNDER_WAY = 5.0  # seconds after its opening in which letters may still arrive
CAUGHT_UP_WITHIN = 2 * MOST_PAUSE
LOOK = 0.25  # seconds between looks at the breakers

Kind = Literal["raises", "unreachable"]


class Failing(set[str]):
    """Poison keys, and every key during an outage."""

    outage: Kind | None = None

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        return self.outage is not None or super().__contains__(key)


class Watch:
    """Judges the breakers of a fleet from outside: when they open, and what goes to the dead letters meanwhile."""

    def __init__(self, world: Simulation, poison: set[str], is_outage: Callable[[], bool], *, in_order: bool) -> None:
        self._world = world
        self._is_outage = is_outage
        self._poison = poison
        self._in_order = in_order
        self._open_since: dict[ShardBreaker, tuple[str, float]] = {}
        self._deliver = world.checkers.dead_lettered
        self._outages = 0
        self.opened = 0
        self.leaked: Counter[tuple[str, str, int]] = Counter()  # letters of good keys by shard, owner and outage
        world.checkers.dead_lettered = self._delivered  # type: ignore[method-assign]  # of this world alone

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._look()

    def begin_outage(self) -> None:
        self._outages += 1

    def expect_closed(self, what: str) -> None:
        """No breaker may have opened so far."""
        if self.opened:
            self._world.history.violated("breaker", f"{self.opened} opened {what}")

    def expect_few_letters(self, width: int) -> None:
        """Those of the window, and what was called meanwhile, for every owner of a shard."""
        most = OUTCOMES // 2 + 1 + 2 * width
        for (shard_id, owner, outage), letters in self.leaked.items():
            if letters > most:
                found = f"{letters} letters of good keys of {shard_id} by {owner} in outage {outage}, not {most}"
                self._world.history.violated("breaker", found)

    def called(self, shard_id: str) -> None:
        """A call starts: while a breaker is open it must be a probe."""
        now = self._world.loop.now
        for breaker, (shard, since) in self._open_since.items():
            if shard == shard_id and now > since + UNDER_WAY and breaker.state == "open":
                self._world.history.violated("breaker", f"a call of {shard_id} {now - since:.1f} s after it has opened")

    def _look(self) -> None:
        now, seen = self._world.loop.now, set()
        for shard_id, breaker in self.breakers():
            if breaker.is_closed:
                continue
            seen.add(breaker)
            if breaker not in self._open_since:
                self.opened += 1
                self._open_since[breaker] = shard_id, now
        for breaker in self._open_since.keys() - seen:
            shard_id, since = self._open_since.pop(breaker)
            if self._is_outage() and (shard_id, breaker) in set(self.breakers()):
                found = f"the breaker of {shard_id} has closed {now - since:.1f} s later, in the middle of an outage"
                self._world.history.violated("breaker", found)

    def breakers(self) -> Iterator[tuple[str, ShardBreaker]]:
        for worker in self._world.workers.values():
            if worker.running and worker.coordinator is not None:
                for shard in worker.coordinator.workers:
                    if shard.breaker is not None:
                        yield shard.shard_id, shard.breaker

    def _delivered(self, document: bytes, shard_id: str, condition: str) -> None:
        self._deliver(document, shard_id, condition)
        keys = {record["dynamodb"]["Keys"]["id"]["S"] for record in json.loads(document)["payload"]["Records"]}
        if keys <= self._poison:
            return
        row = self._world.rows()[shard_id]
        self.leaked[shard_id, str(row.owner), self._outages] += 1
        self._look()
        # What nothing may overtake, and what is left of a shard that is at its end, is tried once more and given up.
        last_tries = self._in_order or shard_id not in self._world.stream.open_shards()
        for shard, since in self._open_since.values():
            if shard == shard_id and self._world.loop.now > since + UNDER_WAY and not last_tries:
                found = f"a letter of {shard_id} {self._world.loop.now - since:.1f} s after its breaker has opened"
                self._world.history.violated("breaker", found)


def breaker(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """About half an hour with one or two outages."""
    rng = random.Random(f"{seed}/breaker")
    order = rng.choice(("key", "key", "key", "shard"))
    width = rng.choice((1, 2, 8, 8)) if order == "key" else 1
    config: dict[str, dict[str, Any]] = {
        "source": {"table": "orders", "on_gap": "continue", "poll": {"idle_backoff_max": "1s"}},
        "retry": {"max_retry_attempts": rng.choice((0, 0, 1, 2, -1))},
        "batch": {
            "batch_size": rng.choice((1, 10, 100)),
            "parallelization_factor": width,
            "order": order,
            "report_batch_item_failures": rng.random() < 0.5,
        },
    }
    if order == "shard":  # one poison record would hold the shard for a day
        config["retry"] = {"max_retry_attempts": rng.choice((0, 1)), "backoff": {"initial": "200ms", "max": "1s"}}
    world = Simulation(seed, shards=rng.randint(1, 2), config=config, on_event=on_event)
    user_code = UserCode(world, busy=0.01, failing=0.0)
    keys = [f"k{number}" for number in range(KEYS)]
    poison = set(rng.sample(keys, POISON))
    user_code.failing_keys = failing = Failing(poison)
    # Where nothing may overtake, a hot poison key is most of what is tried: three good probes in a row are luck.
    hot = rng.choice((None, min(poison))) if order == "key" else None
    watch = Watch(world, poison, lambda: failing.outage is not None, in_order=order == "shard")

    async def behave(call: HandlerCall) -> Outcome:
        watch.called(call.shard_id)
        if failing.outage == "unreachable":
            return Outcome("not_invoked", fault=HandlerFault("crashed", "ConnectionError", "nobody listens"))
        return await user_code.outcome(call)

    async def write() -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.1, 0.4))
            for _ in range(rng.choice((1, 2, 3))):
                world.put(rng.choice(keys))
            if hot is not None:
                for _ in range(4):
                    world.put(hot)

    async def disturb() -> None:
        what = rng.choice(("nothing", "nothing", "crash", "replace", "roll", "split"))
        worker = rng.choice(list(world.workers.values()))
        if what == "crash":
            worker.kill()
            worker.start()
        elif what == "replace":
            await worker.stop()
            worker.start()
        elif what in ("roll", "split"):
            getattr(world.stream, what)(rng.choice(world.stream.open_shards()))

    async def scenario(world: Simulation) -> None:
        for number in range(rng.randint(1, 2)):
            world.add_worker(f"w{number}", Scripted(behave)).start()
        await world.until(world.balanced, 60.0, "the first balance")
        watching, writing = asyncio.create_task(watch.run()), asyncio.create_task(write())
        await asyncio.sleep(CALM)
        watch.expect_closed("without an outage")
        for _ in range(rng.choice((1, 1, 2))):
            watch.begin_outage()
            failing.outage = rng.choice(("raises", "raises", "unreachable"))
            for _ in range(2):
                await asyncio.sleep(rng.uniform(20.0, 4 * FIRST_PAUSE))
                await disturb()
            await asyncio.sleep(CALM_AGAIN)
            failing.outage = None
            # What is left of a shard at its end may be mostly poison: then some probes in a row are bad luck.
            await world.until(lambda: all(one.is_closed for _, one in watch.breakers()), 2 * MOST_PAUSE, "closed")
            await asyncio.sleep(rng.uniform(10.0, 60.0))
        writing.cancel()
        failing.clear()
        await world.until(world.everything_settled, CAUGHT_UP_WITHIN, "everything settled")
        await world.until(world.closed_shards_done, CAUGHT_UP_WITHIN, "all closed shards done")
        watching.cancel()
        watch.expect_few_letters(width)
        await world.finish()
        user_code.sink.check()

    return world, scenario
