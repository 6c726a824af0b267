"""A fleet that goes on behind the checkpoints of the KCL: nothing again, nothing lost, children after their parents.

The KCL is played by a worker whose rows are written down as the KCL has them, its cleanup included. Then the lease
table is as new, and everything that the next worker knows comes out of the import.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from consumer.aws.kcl_items import reading_of
from consumer.cli.kcl_import.survey import Reach, Request, Survey, survey
from consumer.cli.kcl_import.writing import write
from consumer.domain.kcl_leases import KclReading
from consumer.domain.lease import LeaseRow
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support.kcl_items import Item, lease_item
from tests.support.simulated_fleet import (
    Recorder,
    add,
    checked,
    settled,
    takes_a_while,
    until_settled,
)
from tests.support.simulated_fleet import (
    write as produce,
)

IN_ORDER = {"batch": {"batch_size": 10, "parallelization_factor": 1, "order": "shard"}}  # as the KCL: nothing is ahead
LATEST = {"source": {"starting_position": "latest"}}  # which must not count


class Kcl:
    def __init__(self, items: Iterable[Item]) -> None:
        self.items = list(items)

    async def check(self) -> None: ...

    async def read(self) -> KclReading:
        return reading_of(self.items)


def as_the_kcl_has_it(row: LeaseRow) -> Item:
    checkpoint = "SHARD_END" if row.settled else row.frontier.low or "TRIM_HORIZON"
    return lease_item(row.shard_id, checkpoint, parents=row.parents)


def cleaned_up(items: list[Item]) -> list[Item]:
    """What the KCL's cleanup leaves: a finished shard goes when its children are all past TRIM_HORIZON and its own
    parents have gone."""
    kept = {item["leaseKey"]["S"]: item for item in items}

    def parents(shard_id: str) -> list[str]:
        return list(kept[shard_id].get("parentShardId", {"SS": []})["SS"])

    while True:
        gone = {
            shard_id
            for shard_id, item in kept.items()
            if item["checkpoint"]["S"] == "SHARD_END"
            and not kept.keys() & set(parents(shard_id))
            and (children := [other for other in kept if shard_id in parents(other)])
            and all(kept[child]["checkpoint"]["S"] != "TRIM_HORIZON" for child in children)
        }
        if not gone:
            return list(kept.values())
        kept = {shard_id: item for shard_id, item in kept.items() if shard_id not in gone}


async def imported(world: Simulation, items: list[Item], *, caught_up: bool = False) -> Survey:
    """Into a lease table that is as new."""
    world.wipe_table()
    world.table.exists = True
    store = MemoryLeaseStore(world.table, APPLICATION, world.clock.wall)
    reach = Reach(MemoryStreamSource(world.stream), store, Kcl(items), world.clock)
    request = Request(world.settings, "kcl", 10.0, caught_up=caught_up)
    found = await survey(request, reach)
    assert found.refusals == ()
    await write(request, reach, found)
    return found


def begin(world: Simulation, name: str = "new") -> Recorder:
    handler = Recorder()
    world.add_worker(name, handler, LATEST).start()
    return handler


async def the_kcl_has_worked(world: Simulation, records: int) -> list[Item]:
    """A fleet that has handled so many records, in the middle of a backlog, and was stopped."""
    worker, _ = add(world, "kcl", takes_a_while)
    before = settled(world)
    await world.until(lambda: settled(world) >= before + records, 120.0, f"{records} records")
    await worker.stop()
    return [as_the_kcl_has_it(row) for row in world.rows().values()]


def test_it_goes_on_exactly_behind_the_checkpoints() -> None:
    world = Simulation("kcl import", shards=3, config=IN_ORDER)

    async def scenario(world: Simulation) -> None:
        produce(world, 300)
        items = await the_kcl_has_worked(world, 120)
        assert 120 <= settled(world) < 300
        await imported(world, items)
        produce(world, 30)
        begin(world)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_grandparents_whose_leases_were_removed_are_not_read_again() -> None:
    """The KCL's table knows the newest shard only; the stream still lists all that came before it."""
    world = Simulation("kcl cleanup", config=IN_ORDER)

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "kcl")
        for _ in range(4):
            produce(world, 20)
            await world.until(world.everything_settled, 60.0, "all is handled")
            world.stream.roll(world.stream.open_shards()[0])
            await world.until(world.closed_shards_done, 60.0, "the shard is done")
        produce(world, 20)
        await world.until(world.everything_settled, 60.0, "all is handled")
        await world.sleep(5.0)
        await worker.stop()
        items = cleaned_up([as_the_kcl_has_it(row) for row in world.rows().values()])
        assert len(items) == 1
        found = await imported(world, items)
        assert len(found.plan.rows) == 5
        produce(world, 20)
        handler = begin(world)
        await until_settled(world)
        assert len(handler.handled) == 20
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_new_children_wait_for_the_shards_that_were_imported() -> None:
    """Closed and split after the KCL's last checkpoint; the KCL has no lease of the children."""
    world = Simulation("kcl new children", config=IN_ORDER)

    async def scenario(world: Simulation) -> None:
        produce(world, 200)
        items = await the_kcl_has_worked(world, 50)
        parent = world.stream.open_shards()[0]
        children = set(world.stream.split(parent))
        produce(world, 60)
        found = await imported(world, items)
        assert set(found.plan.discovered) == children
        handler = begin(world)
        await until_settled(world)
        order = [call.shard_id for call in handler.calls]
        assert order[0] == parent
        assert order.index(parent) < min(order.index(child) for child in children)
        last_of_parent = max(place for place, shard_id in enumerate(order) if shard_id == parent)
        assert last_of_parent < min(order.index(child) for child in children)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


@pytest.mark.parametrize("dated", [False, True])
def test_a_parent_that_is_gone_holds_up_no_child_that_was_not_begun(dated: bool) -> None:
    """No lease, not listed: the daemon's own rule about parents that are gone, at once or after ten minutes."""
    world = Simulation(f"kcl gone parent {dated}", shards=2, stream={"dated": dated}, config=IN_ORDER)

    async def scenario(world: Simulation) -> None:
        produce(world, 40)
        items = await the_kcl_has_worked(world, 40)
        parent = next(item["leaseKey"]["S"] for item in items)
        child = world.stream.roll(parent)
        world.vanish(parent)
        produce(world, 40)
        items = [item for item in items if item["leaseKey"]["S"] != parent]
        await imported(world, [*items, lease_item(child, "TRIM_HORIZON", parents=(parent,))])
        begin(world)
        await until_settled(world, 900.0)
        assert world.rows()[parent].state == "done"
        assert world.gaps_recorded() == set()
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_shard_that_was_trimmed_before_it_was_finished_leaves_its_trace() -> None:
    world = Simulation("kcl trimmed", shards=2, config=IN_ORDER)

    async def scenario(world: Simulation) -> None:
        produce(world, 200)
        items = await the_kcl_has_worked(world, 40)
        lost = world.stream.open_shards()[0]
        world.stream.roll(lost)
        world.vanish(lost)
        found = await imported(world, items)
        assert any(lost in note and "does not list its shard any more" in note for note in found.notes)
        begin(world)
        await until_settled(world, 120.0)
        await world.until(lambda: lost in world.gaps_recorded(), 60.0, "the gap is recorded")
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("caught_up", [False, True])
def test_a_quiet_shard_whose_records_are_all_gone(caught_up: bool) -> None:
    """Only somebody who knows that the KCL had caught up can say that nothing was lost."""
    world = Simulation(f"kcl quiet {caught_up}", config=IN_ORDER)

    async def scenario(world: Simulation) -> None:
        produce(world, 40)
        items = await the_kcl_has_worked(world, 40)
        [quiet] = world.stream.open_shards()
        world.trim(quiet)
        found = await imported(world, items, caught_up=caught_up)
        assert quiet in found.notes[0]
        handler = begin(world)
        produce(world, 20)
        await until_settled(world)
        assert len(handler.handled) == 20
        assert world.gaps_recorded() == (set() if caught_up else {quiet})
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


@pytest.mark.parametrize("seed", range(12))
def test_any_lineage_at_any_moment(seed: int) -> None:
    """Shards roll over and split while the KCL works and after it was stopped, with its cleanup or without."""
    world = Simulation(f"kcl any {seed}", shards=1 + seed % 3, config=IN_ORDER)
    rng = world.rng("lineage")

    def reshard() -> None:
        shard_id = rng.choice(world.stream.open_shards())
        (world.stream.split if rng.random() < 0.5 else world.stream.roll)(shard_id)

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "kcl", takes_a_while)
        for _ in range(rng.randint(1, 5)):
            produce(world, rng.randint(10, 80))
            await world.sleep(rng.random() * 8.0)
            reshard()
        await world.sleep(rng.random() * 8.0)
        await worker.stop()
        items = [as_the_kcl_has_it(row) for row in world.rows().values()]
        for _ in range(rng.randint(0, 2)):
            produce(world, rng.randint(10, 40))
            reshard()
        await imported(world, cleaned_up(items) if rng.random() < 0.7 else items)
        produce(world, 20)
        begin(world)
        await until_settled(world, 300.0)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []
