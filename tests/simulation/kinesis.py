"""The family of runs on a Kinesis stream: changes come late, twice and in the wrong order, among records of other
producers; shards split and merge; reads are limited and iterators short-lived; what is trimmed is never said to be.

Twelve virtual minutes of faults, over which days may pass, then all are healed. Everything must be settled then, the
last version of each item must be its last effect, every loss must have left its trace, and there must be no trace
without a loss.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.errors import DependencyError, Throttled
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.domain.shards import DAY
from consumer.testing.faults import Nemesis
from consumer.testing.kinesis_simulation import TABLE, KinesisSimulation
from consumer.testing.memory_kinesis import Trimmed
from consumer.testing.simulated_worker import Scripted
from tests.support import kpl_aggregates

SECONDS = 720.0
SETTLED_WITHIN = 400.0  # seconds after healing
MOST_OPEN_SHARDS = 6
MOST_STREAMS = 2
HOURS = 24.0  # of a day

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
    "reshard": 2,
    "list_in_pages": 2,
    "fail_keys": 3,
    "hours_pass": 4,
    "down_for_days": 1,
    "fall_behind": 2,
    "idle_for_days": 1,
    "change_retention": 1,
    "make_anew": 1,
}
MODES: tuple[Trimmed, ...] = ("horizon", "stuck", "invalid")


class KinesisNemesis(Nemesis):
    """Faults of workers, networks and tables, and those of a Kinesis stream."""

    _world: KinesisSimulation

    def __init__(self, world: KinesisSimulation, verbs: dict[str, int], pause: float, failing: set[str]) -> None:
        """``failing``: items of which every call fails."""
        super().__init__(world, verbs, pause)
        self._failing = failing
        self._repairs.append(failing.clear)

    # --- the graph of shards ---

    def split(self) -> None:
        stream = self._world.stream
        if len(stream.open_shards()) < MOST_OPEN_SHARDS:
            self._update()
            stream.split(self._rng.choice(stream.open_shards()))

    def merge(self) -> None:
        stream = self._world.stream
        shards = stream.open_shards()
        if len(shards) > 1:
            self._update()
            at = self._rng.randrange(len(shards) - 1)
            stream.merge(shards[at], shards[at + 1])

    def reshard(self) -> None:
        """As UpdateShardCount does it: several generations at once."""
        for _ in range(self._rng.randint(2, 5)):
            self._rng.choice((self.split, self.merge))()

    def _update(self) -> None:
        self._world.stream.status = "UPDATING"
        self._set_later(self._up_to(3.0), self._world.stream, status="ACTIVE")

    def list_in_pages(self) -> None:
        self._world.stream.shards_per_page = self._rng.randint(1, 4)
        self._set_later(self._up_to(6.0), self._world.stream, shards_per_page=1000)

    def delete_row(self) -> None:
        """Not of a stream that is gone: nothing but its rows says what was in it."""
        if self._reads_newest() and not self._world.stream.gone:
            super().delete_row()

    # --- reading ---

    def expire_iterators(self) -> None:
        self._world.stream.expire_iterators()

    def invalid_end(self) -> None:
        """Pages of shards that go on have no next iterator and no children; some of these were closed just before."""
        self._world.stream.invalid_ends = self._rng.randint(1, 3)
        if self._rng.random() < 0.5:
            self._rng.choice((self.split, self.merge))()

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

    def fail_keys(self) -> None:
        """The handler fails for some items until it is mended."""
        self._failing.update(f"item-{self._rng.randint(0, 11)}" for _ in range(2))
        self._later(self._rng.uniform(5.0, 90.0), self._failing.clear)

    # --- time ---

    def hours_pass(self) -> None:
        """No call was answered for hours; nothing comes later than it may."""
        self._pass(self._rng.uniform(0.05, 0.95) * HOURS)

    def down_for_days(self) -> None:
        """No worker runs for about as long as records are kept."""
        for worker in self._world.workers.values():
            worker.kill()
            self._restart(worker, self._up_to(2.0))
        self._pass(self._rng.uniform(0.5, 1.5) * HOURS)

    def fall_behind(self) -> None:
        """What is to be read next is trimmed within seconds, before it is read or after."""
        for worker in self._world.workers.values():
            worker.stall(self._rng.uniform(0.0, 8.0))
        self._pass(self._world.stream.retention / 3600.0 - self._rng.uniform(0.0, 20.0) / 3600.0)

    def idle_for_days(self, days: int = 4) -> None:
        """The fleet looks on while little is written: whatever reading goes on at is gone then."""
        self._pass(0.9 * HOURS)
        if days > 1:
            self._later(20.0, partial(self.idle_for_days, days - 1))

    def change_retention(self) -> None:
        """It is raised, and lowered again: what is older goes at once then."""
        self._world.stream.retention = 3 * DAY
        self._set_later(self._rng.uniform(20.0, 200.0), self._world.stream, retention=DAY)

    def _pass(self, hours: float) -> None:
        world = self._world
        if world.stream.gone:
            return
        world.stream.trimmed_answers = self._rng.choice(MODES)
        world.put_all()
        world.loop.pass_days(hours / HOURS)
        world.expire_records()

    def make_anew(self) -> None:
        """The stream is deleted, and one of its name made."""
        if self._reads_newest() and len(self._world.streams) < MOST_STREAMS and not self._world.stream.gone:
            self._world.make_anew(self._rng.randint(1, 3))

    def _heal_streams(self) -> None:
        for stream in self._world.streams:
            stream.invalid_ends, stream.refuses, stream.names_children = 0, None, True
            stream.shards_per_page, stream.status, stream.retention = 1000, "ACTIVE", DAY


def kinesis(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """Workers on a stream with one to three shards at first; they see the changes of a table, or all records."""
    rng = random.Random(f"{seed}/kinesis")
    config: dict[str, dict[str, Any]] = {
        "source": {
            "on_gap": "continue",
            "poll": {"idle_backoff_max": rng.choice(("1s", "5s")), "max_records": rng.choice((20, 100, 1000))},
            "table": rng.choice((TABLE, None)),
            "starting_position": rng.choice(("trim_horizon", "trim_horizon", "latest")),
        },
        "batch": {"batch_size": rng.choice((1, 10, 100)), "parallelization_factor": rng.choice((1, 8))},
        "retry": {"max_retry_attempts": rng.choice((-1, 2)), "backoff": {"initial": "200ms", "max": "5s"}},
        "checkpoint": {"interval": rng.choice(("1s", "5s"))},
        "limits": {"buffer": rng.choice(("1MiB", "64MiB"))},
    }
    few = KeyBounds(line_records=rng.choice((10, 40)), line_bytes=64 * 1024, failing_keys=64, deferred_keys=64)
    world = KinesisSimulation(
        seed,
        shards=rng.randint(1, 3),
        config=config,
        on_event=on_event,
        bounds=rng.choice((BOUNDS, few)),
        doubled=rng.choice((0.0, 0.1, 0.3)),
        swapped=rng.choice((0.0, 0.1, 0.3)),
    )
    failing: set[str] = set()
    handler = Scripted(_Handler(world, failing, rng.choice((0.0, 0.03))).outcome)
    for number in range(rng.randint(1, 3)):
        world.add_worker(f"w{number}", handler)
    items = [f"item-{number}" for number in range(rng.choice((3, 12, 40)))]

    async def scenario(world: KinesisSimulation) -> None:
        for worker in world.workers.values():
            world.loop.after(rng.uniform(0.0, 3.0), worker.start)
        writing = [asyncio.create_task(work) for work in (_write(world, items), _trim(world))]
        await KinesisNemesis(world, VERBS, rng.uniform(8.0, 30.0), failing).run(SECONDS)
        writing[0].cancel()
        anew = (len(world.streams) - 1) * 600.0  # a stream that is gone is missed for long before it is given up
        await world.until(world.all_put_and_settled, SETTLED_WITHIN + anew, "everything settled")
        await world.until(world.balanced, 100.0 + anew, "balance")
        writing[1].cancel()
        await world.finish()
        world.check_last_effects()

    return world, scenario


class _Handler:
    """Takes a while; fails as a whole now and then, and always for the records of some items."""

    def __init__(self, world: KinesisSimulation, failing: set[str], share: float) -> None:
        self._world = world
        self._rng = world.rng("handler")
        self._failing = failing
        self._share = share

    async def outcome(self, call: HandlerCall) -> Outcome:
        await asyncio.sleep(self._rng.uniform(0.0, 0.1))
        numbers = [record.sequence_number for record in call.records]
        bad = [one for one in numbers if self._world.checkers.item(call.shard_id, one).key in self._failing]
        if bad:
            return Outcome("partial", failed=tuple(bad))
        if self._world.loop.now < SECONDS and self._rng.random() < self._share:
            return Outcome("failed", fault=HandlerFault("raised", "ValueError", "as the seed wants it"))
        return OK


async def _write(world: KinesisSimulation, items: Sequence[str]) -> None:
    """Changes over few items, and what others put."""
    rng = world.rng("writes")
    while True:
        await asyncio.sleep(rng.uniform(0.0, 0.6))
        for _ in range(rng.choice((1, 1, 3))):
            item = rng.choice(items)
            if rng.random() < 0.1:
                world.remove(item)
            else:
                world.put(item)
        if rng.random() < 0.2:
            key = f"producer-{rng.randint(0, 4)}"
            packed = [b"%d" % number for number in range(rng.randint(2, 6))]
            world.put_record(kpl_aggregates.plain(packed, key) if rng.random() < 0.5 else b"plain", key)


async def _trim(world: KinesisSimulation) -> None:
    """Records that get too old go at once."""
    while True:
        await asyncio.sleep(1.0)
        if not world.stream.gone:
            world.expire_records()
