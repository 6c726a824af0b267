"""A fleet stops, a replay sets it back, the fleet starts: everything from the position on once more, nothing before."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection

import pytest

from consumer.domain.errors import MisconfiguredResource
from consumer.domain.parking import ParkedKey
from consumer.domain.replay import Position
from consumer.replay.run import in_place
from consumer.replay.survey import Survey, survey_in_place
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support.simulated_fleet import Recorder, add, checked, until_settled, write

# What a replay is for, and the rules know of no other reason: checkpoints go back, settled records are handled again.
MEANT = re.compile(r"G4 fenced: \w+ (moved the checkpoint of \S+|took \S+ from \w+) back$|G5 duplicates: ")


async def replayed(world: Simulation, position: Position, chosen: Collection[str] = ()) -> Survey:
    """As the command does it."""
    store = MemoryLeaseStore(world.table, APPLICATION, world.clock.wall)
    found = await survey_in_place(MemoryStreamSource(world.stream), store, position, chosen)
    assert found.plan.problems == ()
    duration = world.settings.leases.duration
    await in_place(store, world.clock, duration, found, "a test", lambda seconds: None)
    return found


async def three_generations(world: Simulation) -> float:
    """A fleet handles records of parent, children and grandchild, and stops. Returns a time in the middle."""
    workers = [add(world, name)[0] for name in ("a", "b")]
    write(world, 60)
    await until_settled(world)
    world.stream.split(world.stream.open_shards()[0])
    write(world, 60)
    await world.sleep(30.0)
    middle = float(int(world.clock.wall()))
    await world.sleep(2.0)
    write(world, 60)
    await until_settled(world)
    world.stream.roll(world.stream.open_shards()[0])
    write(world, 60)
    await until_settled(world)
    await world.sleep(5.0)
    for worker in workers:
        await worker.stop()
    return middle


def in_order(handler: Recorder) -> None:
    seen: dict[str, int] = defaultdict(int)
    for key, version in handler.handled:
        assert version > seen[key], f"{key} v{version} after v{seen[key]}"
        seen[key] = version


def expected_from(world: Simulation, since: float) -> set[tuple[str, int]]:
    return {(item.key, item.version) for item in world.history.items.values() if item.created >= since}


async def handled_again(world: Simulation, wanted: set[tuple[str, int]]) -> None:
    """By a worker that starts now: these records and no others, in order per key."""
    _, handler = add(world, "c")
    await world.until(lambda: len(handler.handled) >= len(wanted), 120.0, "all is handled again")
    await world.sleep(10.0)
    assert set(handler.handled) == wanted
    in_order(handler)
    await world.finish()


def no_others(world: Simulation) -> None:
    """Nothing is violated but what a replay is for."""
    others = [str(one) for one in world.history.violations if not MEANT.search(str(one))]
    assert not others, others[:5]


def test_by_time_the_whole_stream_is_handled_again_from_there_in_order() -> None:
    world = Simulation("replay by time", shards=1)

    async def scenario(world: Simulation) -> None:
        middle = await three_generations(world)
        found = await replayed(world, Position(middle))
        assert len(found.plan.rows) == 4
        write(world, 20)  # produced while nobody runs
        wanted = expected_from(world, middle)
        workers = [add(world, name) for name in ("c", "d")]
        handlers = [handler for _, handler in workers]

        def all_again() -> bool:
            return sum(len(handler.handled) for handler in handlers) >= len(wanted) and not world.checkers.left

        await world.until(all_again, 120.0, "all is handled again")
        await world.sleep(10.0)
        handled = [one for handler in handlers for one in handler.handled]
        assert set(handled) == wanted
        assert len(handled) == len(wanted)
        calls = sorted(call.attempt for handler in handlers for call in handler.calls)
        assert set(calls) == {1}
        await world.finish()

    world.run(scenario)
    no_others(world)


def test_one_shard_and_its_descendants_in_order_per_key() -> None:
    world = Simulation("replay of a child", shards=1)

    async def scenario(world: Simulation) -> None:
        await three_generations(world)
        child = next(row for row in world.rows().values() if row.parents and row.state == "done")
        found = await replayed(world, Position(0.0), (child.shard_id,))
        lineage = set(found.plan.shards)
        assert len(lineage) == 2
        wanted = {(i.key, i.version) for i in world.history.items.values() if i.shard_id in lineage}
        await handled_again(world, wanted)

    world.run(scenario)
    no_others(world)


def test_by_number_the_record_is_the_first() -> None:
    world = Simulation("replay by number", shards=1)

    async def scenario(world: Simulation) -> None:
        await three_generations(world)
        root = next(row for row in world.rows().values() if not row.parents)
        number = sorted(i.number for i in world.history.items.values() if i.shard_id == root.shard_id)[40]
        text = next(i for i in world.history.items if i.split()[1] == str(number) or int(i.split()[1]) == number)
        found = await replayed(world, Position(0.0, text.split()[1], root.shard_id))
        assert len(found.plan.rows) == 4
        wanted = {
            (i.key, i.version)
            for i in world.history.items.values()
            if i.shard_id != root.shard_id or i.number >= number
        }
        await handled_again(world, wanted)

    world.run(scenario)
    no_others(world)


def test_a_worker_that_runs_is_not_disturbed() -> None:
    world = Simulation("replay beside a worker", shards=1)

    async def scenario(world: Simulation) -> None:
        _, handler = add(world, "a")
        write(world, 40)
        await until_settled(world)
        with pytest.raises(MisconfiguredResource, match="workers of this application are running: a/1"):
            await replayed(world, Position(0.0))
        await world.sleep(10.0)
        assert len(handler.handled) == 40
        await world.finish()

    checked(world, scenario)


def test_workers_that_start_meanwhile_cannot_read_ahead() -> None:
    """They start while the replay writes: whoever wins, the order of keys holds."""
    for seed in range(8):
        world = Simulation(f"replay race {seed}", shards=1)

        async def scenario(world: Simulation, seed: int = seed) -> None:
            await three_generations(world)
            duration = world.settings.leases.duration
            task = asyncio.ensure_future(replayed(world, Position(0.0)))
            await world.sleep(0.1 * seed)
            _, handler = add(world, "c")
            try:
                await task
            except MisconfiguredResource:
                assert handler.handled == []
            else:
                await world.until(lambda: len(handler.handled) >= 240, 10 * duration, "all is handled again")
            in_order(handler)
            await world.finish()

        world.run(scenario)
        no_others(world)


def test_while_a_key_is_parked_nothing_is_set_back() -> None:
    world = Simulation("replay of parked", shards=1)

    async def scenario(world: Simulation) -> None:
        await three_generations(world)
        before = world.rows()
        world.table.parked[APPLICATION, "digest"] = ParkedKey("digest", "park", since=1.0, reason="a test")
        with pytest.raises(MisconfiguredResource, match="1 keys are parked"):
            await replayed(world, Position(0.0))
        assert world.rows() == before

    world.run(scenario)


@pytest.mark.parametrize(("position", "said"), [(1e12, "in the future"), (1.0, "records exist from")])
def test_a_position_that_is_not_there_is_refused(position: float, said: str) -> None:
    world = Simulation("replay from nowhere", shards=1)

    async def scenario(world: Simulation) -> None:
        await three_generations(world)
        with pytest.raises(MisconfiguredResource, match=said):
            await replayed(world, Position(position))

    world.run(scenario)
