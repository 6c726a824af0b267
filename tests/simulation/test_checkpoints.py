"""Checkpoints in a whole worker: what a crash repeats at low rates, and what it costs."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import add, checked, until_owned, until_settled, write

INTERVAL = {"checkpoint": {"interval": "1s"}}


async def takes_20_ms(_: HandlerCall) -> Outcome:
    await asyncio.sleep(0.02)
    return OK


def checkpoints(world: Simulation) -> Counter[str]:
    """Gets how many are written from now on, by shard."""
    counts, before = Counter[str](), world.table.on_save

    def count(operation: str, held: LeaseRow) -> None:
        counts[held.shard_id] += 1
        if before is not None:
            before(operation, held)

    world.table.on_save = count
    return counts


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
            written = checkpoints(world)
            for number in range(burst):
                world.put(f"k{number % 3}")
            await until_settled(world)
            await world.sleep(0.3)
            worker.kill()
            assert list(written.values()) == [1]
            worker.start()
            await world.sleep(30.0)

    assert checked(Simulation("quiet crash", config=config), scenario).history.duplicates == []


def test_a_steady_trickle_costs_one_write_an_interval() -> None:
    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "w", takes_20_ms)
        await until_owned(world, worker)
        world.put("k")
        await until_settled(world)
        written = checkpoints(world)
        for number in range(300):
            world.put(f"k{number}")
            await world.sleep(0.1)
        assert 25 <= written.total() <= 30
        await until_settled(world)

    checked(Simulation("trickle", config=INTERVAL), scenario)


def test_hundreds_of_shards_at_once_write_once_each() -> None:
    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "w", takes_20_ms)
        await until_owned(world, worker, 100)
        await world.sleep(20.0)
        written = checkpoints(world)
        write(world, 1000, keys=1000)
        await until_settled(world)
        await world.sleep(3.0)
        assert len(written) > 80
        assert max(written.values()) == 1

    checked(Simulation("many shards", shards=100, config=INTERVAL), scenario)
