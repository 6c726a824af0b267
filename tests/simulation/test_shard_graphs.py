"""Shard graph conformance: start position x lineage x what the lease table already holds, all generated.

A stream lives for a while before the application comes: shards roll over and split, some are trimmed away with all they
held. Then the application registers, the table is filled as an earlier crash would have left it, and two workers start.
The checkers hold for all of it: exactly what the start position asks for is handled, parents before children.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
from typing import Any

import pytest

from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.shards import missing_leases
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.simulated_worker import Scripted
from consumer.testing.simulation import APPLICATION, Simulation
from consumer.testing.virtual_loop import EPOCH
from consumer.worker.fleet.registration import register_start

POSITIONS = ("trim_horizon", "latest", "timestamp")
CONTENTS = ("empty", "registered", "some rows", "all rows", "crash in the first sync")
GRAPHS = (
    "one shard",
    "rollovers",
    "splits",
    "both",
    "both, old ones trimmed",
    "both, children hidden",
    "both, parents open",
)
APPEARS = 40.0  # virtual seconds at which the application comes


async def handle(call: HandlerCall) -> Outcome:
    await asyncio.sleep(0.05)
    return OK


@pytest.mark.parametrize(("position", "content", "graph"), list(itertools.product(POSITIONS, CONTENTS, GRAPHS)))
def test_what_the_start_position_asks_for_is_handled_once_and_in_order(position: str, content: str, graph: str) -> None:
    name = f"{position}, {content}, {graph}"
    start: Any = position
    if position == "timestamp":
        start = dt.datetime.fromtimestamp(EPOCH + APPEARS / 2, tz=dt.UTC)
    world = Simulation(name, shards=2, config={"source": {"table": "orders", "starting_position": start}})
    rng = world.rng("graph")

    async def scenario(world: Simulation) -> None:
        await _history_of_the_stream(world, graph, rng)
        workers = [world.add_worker(f"w{number}", Scripted(handle)) for number in range(2)]
        if content == "crash in the first sync":
            workers[0].start()
            await asyncio.sleep(rng.uniform(0.02, 0.3))
            workers[0].kill()
        elif content != "empty":
            await _fill(world, content, start, rng)
        for worker in workers:
            worker.start()
        for _ in range(20):
            await asyncio.sleep(rng.uniform(0.0, 2.0))
            _one_change(world, graph, rng)
        world.stream.hide_children(0.0)
        world.stream.keep_parents_open(0.0)
        await world.until(world.everything_settled, 120.0, "everything settled")
        await world.until(world.closed_shards_done, 120.0, "all closed shards done")
        await world.finish()

    history = world.run(scenario)
    assert not history.violations, [str(violation) for violation in history.violations[:5]]
    assert any(item.settled_at is not None for item in history.items.values())
    if content != "crash in the first sync":
        assert history.duplicates == []
    if position == "trim_horizon":
        assert not any(item.before_start for item in history.items.values())


async def _history_of_the_stream(world: Simulation, graph: str, rng: random.Random) -> None:
    while world.loop.now < APPEARS:
        _one_change(world, graph, rng)
        await asyncio.sleep(rng.uniform(0.5, 3.0))
    if "trimmed" in graph:
        closed = world.stream.closed_shards()
        for shard_id in closed[: len(closed) // 2]:
            world.vanish(shard_id)


def _one_change(world: Simulation, graph: str, rng: random.Random) -> None:
    stream = world.stream
    for _ in range(rng.randint(0, 4)):
        world.put(f"k{rng.randint(0, 9)}")
    if "hidden" in graph:
        stream.hide_children(rng.uniform(0.1, 20.0))
    if "parents open" in graph:
        stream.keep_parents_open(rng.uniform(0.1, 20.0))
    verbs = {"one shard": (), "rollovers": ("roll",), "splits": ("split",)}.get(graph, ("roll", "split"))
    if verbs and rng.random() < 0.3:
        verb = rng.choice(verbs)
        if verb == "roll" or len(stream.open_shards()) < 6:
            getattr(stream, verb)(rng.choice(stream.open_shards()))


async def _fill(world: Simulation, content: str, start: Any, rng: random.Random) -> None:
    """The table as an application left it that registered and then died while it wrote rows, parents first."""
    source = MemoryStreamSource(world.stream)
    store = MemoryLeaseStore(world.table, APPLICATION, world.clock.wall)
    stream = await source.describe()
    registration = await register_start(source, store, stream, start, "w0/1", world.clock)
    rows = missing_leases(await source.list_shards(), ())
    count = {"registered": 0, "some rows": rng.randint(1, len(rows)), "all rows": len(rows)}[content]
    for shard in rows[:count]:
        skip = shard.shard_id in registration.skip_shards
        row = LeaseRow(
            shard_id=shard.shard_id,
            parents=shard.parents,
            state="done" if skip else "waiting",
            starting_sequence_number=shard.starting_sequence_number,
        )
        assert await store.add_lease(stream.label, row)
