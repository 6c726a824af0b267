"""Checkpoints in a whole worker: what a crash repeats at low rates, and what it costs."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import add, checked, until_owned, until_settled

INTERVAL = {"checkpoint": {"interval": "1s"}}


async def takes_20_ms(_: HandlerCall) -> Outcome:
    await asyncio.sleep(0.02)
    return OK


def revision(world: Simulation) -> int:
    (row,) = world.rows().values()
    return row.revision


@pytest.mark.parametrize("burst", [1, 30])
@pytest.mark.parametrize("batch_size", [1, 100])
def test_a_crash_in_a_quiet_moment_repeats_nothing(burst: int, batch_size: int) -> None:
    """Also of a page that is cut into many batches, of few keys: its records are settled one after another."""
    config = {**INTERVAL, "batch": {"batch_size": batch_size}}

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "w", takes_20_ms)
        for _ in range(5):
            await until_owned(world, worker)
            await world.sleep(3.0)
            before = revision(world)
            for number in range(burst):
                world.put(f"k{number % 3}")
            await until_settled(world)
            await world.sleep(0.3)
            worker.kill()
            assert revision(world) == before + 1, "one write"
            worker.start()
            await world.sleep(30.0)

    assert checked(Simulation("quiet crash", config=config), scenario).history.duplicates == []


def test_a_steady_trickle_costs_one_write_an_interval() -> None:
    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "w", takes_20_ms)
        await until_owned(world, worker)
        world.put("k")
        await until_settled(world)
        before = revision(world)
        for number in range(300):
            world.put(f"k{number}")
            await world.sleep(0.1)
        assert 20 <= revision(world) - before <= 30
        await until_settled(world)

    checked(Simulation("trickle", config=INTERVAL), scenario)


def test_hundreds_of_shards_at_once_write_once_each() -> None:
    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "w", takes_20_ms)
        await until_owned(world, worker, 200)
        await world.sleep(20.0)
        before = {shard: row.revision for shard, row in world.rows().items()}
        for number in range(4000):
            world.put(f"k{number}")
        await until_settled(world)
        await world.sleep(3.0)
        writes = [row.revision - before[shard] for shard, row in world.rows().items()]
        assert max(writes) <= 2
        assert sum(map(bool, writes)) > 150

    checked(Simulation("many shards", shards=200, config=INTERVAL), scenario)
