"""The family of runs on a Kinesis stream: changes come late, twice and in the wrong order; shards split and merge;
reads are limited and iterators short-lived; what is trimmed is never said to be.

Twelve virtual minutes of faults, then all are healed. Everything must be settled then, the last version of each item
must be its last effect, every loss must have left its trace, and there must be no trace without a loss.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from consumer.domain.errors import DependencyError, Throttled
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.faults import Nemesis
from consumer.testing.kinesis_simulation import KinesisSimulation
from consumer.testing.simulated_worker import Scripted

SECONDS = 720.0
SETTLED_WITHIN = 400.0  # seconds after healing
MOST_OPEN_SHARDS = 6
MOST_STREAMS = 2

VERBS = {
    "freeze": 4,
    "freeze_before_answer": 3,
    "crash_before_answer": 3,
    "crash": 6,
    "replace": 4,
    "partition": 3,
    "slow_network": 3,
    "throttle": 3,
    "jump_wall_clock": 1,
    "delete_row": 2,
    "drop_table": 1,
    "split": 6,
    "merge": 6,
    "expire_iterators": 4,
    "invalid_end": 3,
    "no_children": 2,
    "change_precision": 2,
    "refuse": 2,
    "down_for_days": 1,
    "idle_for_days": 2,
    "make_anew": 1,
}


class KinesisNemesis(Nemesis):
    """Faults of workers, networks and tables, and those of a Kinesis stream."""

    _world: KinesisSimulation

    def split(self) -> None:
        stream = self._world.stream
        if len(stream.open_shards()) < MOST_OPEN_SHARDS:
            stream.split(self._rng.choice(stream.open_shards()))

    def merge(self) -> None:
        stream = self._world.stream
        shards = stream.open_shards()
        if len(shards) > 1:
            at = self._rng.randrange(len(shards) - 1)
            stream.merge(shards[at], shards[at + 1])

    def expire_iterators(self) -> None:
        self._world.stream.expire_iterators()

    def invalid_end(self) -> None:
        """Pages of open shards have no next iterator and no children."""
        self._world.stream.invalid_ends = self._rng.randint(1, 3)

    def no_children(self) -> None:
        """The last pages of shards do not name their children for a while."""
        self._world.stream.names_children = False
        self._set_later(self._up_to(3.0), self._world.stream, names_children=True)

    def change_precision(self) -> None:
        """The table's setting is changed: both precisions are in one shard."""
        self._world.millis = not self._world.millis

    def refuse(self) -> None:
        """Every call fails for a while."""
        errors = (
            Throttled("GetRecords", "KMSThrottlingException", "slow down"),
            DependencyError("GetRecords", "InternalFailure", "an error"),
        )
        self._world.stream.refuses = self._rng.choice(errors)
        self._set_later(self._up_to(2.0), self._world.stream, refuses=None)

    def down_for_days(self) -> None:
        """No worker runs for longer than records are kept, or nearly so; then those that are left are read."""
        world = self._world
        if world.on_their_way:
            return  # no change comes a day late
        world.stream.trimmed_answers = self._rng.choice(("horizon", "stuck", "invalid"))
        for worker in world.workers.values():
            worker.kill()
            self._restart(worker, self._up_to(2.0))
        world.loop.pass_days(self._rng.uniform(0.5, 1.5))
        world.expire_records()

    def idle_for_days(self) -> None:
        """Three days in which nothing is written, and the fleet looks on: whatever reading goes on at is gone then."""
        world = self._world
        if world.all_put_and_settled():
            world.stream.trimmed_answers = self._rng.choice(("horizon", "stuck", "invalid"))
            world.loop.pass_days(3.0)
            world.expire_records()

    def make_anew(self) -> None:
        """The stream is deleted, and one of its name made."""
        if self._reads_newest() and len(self._world.streams) < MOST_STREAMS and not self._world.stream.gone:
            self._world.make_anew(self._rng.randint(1, 3))

    def _heal_streams(self) -> None:
        for stream in self._world.streams:
            stream.invalid_ends, stream.refuses, stream.names_children = 0, None, True


def kinesis(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """Workers on a stream with one to three shards at first."""
    rng = random.Random(f"{seed}/kinesis")
    config: dict[str, dict[str, Any]] = {
        "source": {
            "on_gap": "continue",
            "poll": {"idle_backoff_max": rng.choice(("1s", "5s")), "max_records": rng.choice((20, 100, 1000))},
        },
        "batch": {"batch_size": rng.choice((1, 10, 100)), "parallelization_factor": rng.choice((1, 8))},
        "retry": {"max_retry_attempts": rng.choice((-1, 2)), "backoff": {"initial": "200ms", "max": "5s"}},
        "checkpoint": {"interval": rng.choice(("1s", "5s"))},
        "limits": {"buffer": rng.choice(("1MiB", "64MiB"))},
    }
    world = KinesisSimulation(
        seed,
        shards=rng.randint(1, 3),
        config=config,
        on_event=on_event,
        doubled=rng.choice((0.0, 0.1, 0.3)),
        swapped=rng.choice((0.0, 0.1, 0.3)),
    )
    behaviour = world.rng("handler")
    failing = rng.choice((0.0, 0.03))
    calm = False

    async def behave(call: HandlerCall) -> Outcome:
        await asyncio.sleep(behaviour.uniform(0.0, 0.1))
        if not calm and behaviour.random() < failing:
            return Outcome("failed", fault=HandlerFault("raised", "ValueError", "as the seed wants it"))
        return OK

    for number in range(rng.randint(1, 3)):
        world.add_worker(f"w{number}", Scripted(behave))
    items = [f"item-{number}" for number in range(rng.choice((3, 12, 40)))]

    async def write() -> None:
        writes = world.rng("writes")
        while True:
            await asyncio.sleep(writes.uniform(0.0, 0.6))
            for _ in range(writes.choice((1, 1, 3))):
                item = writes.choice(items)
                if writes.random() < 0.1:
                    world.remove(item)
                else:
                    world.put(item)

    async def scenario(world: KinesisSimulation) -> None:
        nonlocal calm
        for worker in world.workers.values():
            world.loop.after(rng.uniform(0.0, 3.0), worker.start)
        writing = asyncio.create_task(write())
        await KinesisNemesis(world, VERBS, rng.uniform(8.0, 30.0)).run(SECONDS)
        calm = True
        writing.cancel()
        anew = (len(world.streams) - 1) * 600.0  # a stream that is gone is missed for long before it is given up
        await world.until(world.all_put_and_settled, SETTLED_WITHIN + anew, "everything settled")
        await world.until(world.balanced, 100.0 + anew, "balance")
        await world.finish()
        world.check_last_effects()

    return world, scenario
