"""A whole worker near the tip of its shards: what it asks for, and what a record waits, in simulated time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measure import percentile
from benchmarks.polling import DEFAULT, outcome
from consumer.domain.errors import Throttled
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.polling import HORIZON
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import add, until_owned, until_settled
from tests.support.simulated_shards import Refusal, shard_world

KEYS = tuple("abcdefgh")


def near_tip(name: str, poll: dict[str, Any] | None = None, **options: Any) -> Simulation:
    source = {"table": "orders", "on_gap": "continue", "poll": poll or {}}
    return Simulation(name, config={"source": source}, **options)


async def reading(world: Simulation) -> SimulatedWorker:
    worker, _ = add(world, "w", None)
    await until_owned(world, worker, len(world.stream.open_shards()))
    return worker


async def waits(world: Simulation, records: int, rate: float) -> list[float]:
    """Of records that come by chance, so many a second: seconds until they are read, within a second or so."""
    chance, found = world.rng("arrivals"), []
    for _ in range(records):
        await world.sleep(chance.expovariate(rate))
        began = world.loop.now
        world.put(chance.choice(KEYS))
        while not world.everything_settled():
            await world.sleep(0.1)
        found.append(world.loop.now - began)
    return sorted(found)


def test_an_idle_shard_costs_720_reads_an_hour() -> None:
    world = near_tip("idle", shards=2)

    async def scenario(world: Simulation) -> None:
        await reading(world)
        await world.sleep(60.0)
        before = world.calls["get_records"]
        await world.sleep(900.0)
        assert world.calls["get_records"] - before == pytest.approx(2 * 720 / 4, rel=0.02)

    world.run(scenario)


def test_a_trickle_costs_a_whole_worker_what_the_page_says() -> None:
    """The table of docs/performance.md#polling is what the rules for pauses alone would do (test_polling_hours.py)."""
    world = near_tip("as on the page", shards=4)
    put: dict[str, float] = {}
    found: list[float] = []

    async def handle(call: HandlerCall) -> Outcome:
        found.extend(world.loop.now - put[record.sequence_number] for record in call.records)
        return OK

    async def write(seconds: float) -> None:
        chance, end = world.rng("arrivals"), world.loop.now + seconds
        while world.loop.now < end:
            await world.sleep(chance.expovariate(1.0))
            put[world.put(f"k{chance.randrange(1000)}")] = world.loop.now

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "w", handle)
        await until_owned(world, worker, 4)
        await write(300.0)
        found.clear()
        before, began = world.calls["get_records"], world.loop.now
        await write(600.0)
        calls = (world.calls["get_records"] - before) / (world.loop.now - began) * 3600.0
        page = outcome("1 record/s over 4 shards, by chance", DEFAULT)
        assert calls == pytest.approx(page.calls, rel=0.03)
        assert percentile(found, 0.95) <= 1.05 * page.p95

    world.run(scenario)


def test_a_trickle_is_read_within_the_target() -> None:
    world = near_tip("a trickle", {"target_latency": "1s"})

    async def scenario(world: Simulation) -> None:
        await reading(world)
        await waits(world, 60, 0.25)
        before, began = world.calls["get_records"], world.loop.now
        found = await waits(world, 200, 0.25)
        assert found[int(0.94 * len(found))] <= 1.2
        assert 0.9 <= (world.calls["get_records"] - before) / (world.loop.now - began) <= 1.15

    world.run(scenario)


def test_the_first_record_of_the_morning_waits_no_longer_than_the_longest_pause() -> None:
    world = near_tip("a morning", {"idle_backoff_max": "20s"})

    async def scenario(world: Simulation) -> None:
        await reading(world)
        await waits(world, 30, 0.5)
        await world.sleep(2 * HORIZON)
        before = world.calls["get_records"]
        await world.sleep(600.0)
        assert world.calls["get_records"] - before <= 600.0 / 18.0 + 1
        (first,) = await waits(world, 1, 1.0)
        assert first <= 20.0 * 1.1 + 0.5
        assert (await waits(world, 20, 0.5))[10] <= 2.0

    world.run(scenario)


def test_a_backlog_is_read_without_a_pause() -> None:
    """What piled up while the service refused to answer: full pages, one behind the other."""
    world = near_tip("a backlog", {"max_records": 10})

    async def scenario(world: Simulation) -> None:
        worker = await reading(world)
        refusal = Refusal(worker.links["stream"], Throttled("GetRecords", "slower"), "get_records")
        for number in range(400):
            world.put(f"k{number}")
        await world.sleep(30.0)
        refusal.end()
        await world.until(lambda: _has_read(worker, 1), 30.0, "it reads again")
        began = world.loop.now
        await world.until(lambda: _has_read(worker, 400), 30.0, "all is read")
        assert world.loop.now - began < 0.2 * 40
        await until_settled(world)

    world.run(scenario)


def test_records_that_filters_leave_out_are_not_waited_for() -> None:
    world = shard_world("left out", filters=[{"dynamodb": {"Keys": {"id": {"S": ["wanted"]}}}}])

    async def scenario(world: Simulation) -> None:
        await reading(world)
        await world.sleep(60.0)
        before = world.calls["get_records"]
        for _ in range(300):
            world.put("other")
            await world.sleep(1.0)
        assert world.calls["get_records"] - before <= 300.0 / 5.0 * 1.1

    world.run(scenario)


def test_a_closed_shard_is_read_to_its_end_at_once() -> None:
    world = near_tip("closed", {"idle_backoff_max": "60s"})
    (parent,) = world.stream.open_shards()

    async def scenario(world: Simulation) -> None:
        await reading(world)
        await world.sleep(300.0)
        world.stream.roll(parent)
        world.put("a")
        began = world.loop.now
        await world.until(lambda: world.rows()[parent].state == "done", 120.0, "the parent is done")
        assert world.loop.now - began <= 60.0 * 1.1 + 10.0

    world.run(scenario)


def _has_read(worker: SimulatedWorker, count: int) -> bool:
    assert worker.coordinator is not None
    return sum(one.reader.state.read for one in worker.coordinator.workers) >= count
