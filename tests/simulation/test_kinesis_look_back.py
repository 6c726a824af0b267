"""What a new owner reads once more, so that it knows which changes come too late."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from consumer.domain.batching import KeyBounds
from consumer.testing.kinesis_simulation import KinesisSimulation
from tests.support.kinesis_scenarios import Seen, run, settled


async def replace_worker(world: KinesisSimulation) -> None:
    """A crash; what the process has remembered is gone with it."""
    worker = world.workers["w0"]
    worker.kill()
    worker.start()
    await world.until(world.balanced, 60.0)


async def deferred_in_its_shard(world: KinesisSimulation, seen: Seen) -> str:
    """All changes of the item fail, and it is deferred. Returns the shard."""
    seen.failing = {"a": range(2, 99)}
    shard = world.shard_of_item("a")
    for _ in range(30):
        world.put("a")
        await world.sleep(0.1)
    assert await world.until(lambda: bool(world.rows()[shard].frontier.deferred), 60.0)
    return shard


async def never_the_first_version(world: KinesisSimulation, seen: Seen) -> None:
    """The handler is mended; what came too late was not handled."""
    seen.failing = {}
    await settled(world)
    assert 1 not in seen.versions("a")
    await world.finish()


class TestShardsBefore:
    """Version 2 is handled, and version 1 comes after it, when another worker has gone on in another shard."""

    def test_the_shard_had_just_begun(self) -> None:
        """Something of the child is settled, so it is the child that is looked back into, and it is too young."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            late = world.change("a")
            world.put("a")
            await settled(world)
            world.stream.merge(*world.stream.split(world.shard_of_item("a")))
            world.put("b")
            await settled(world)
            await world.sleep(5.0)
            await replace_worker(world)
            world.send(late)
            await world.sleep(30.0)
            assert seen.versions("a") == [2]
            await world.finish()

        run(scenario)

    @pytest.mark.parametrize("between", ["nothing", "other items"])
    def test_it_was_split_and_merged_twice_at_once(self, between: str) -> None:
        """As UpdateShardCount does. The shards between have no record, or some of the last seconds."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            late = world.change("a")
            world.put("a")
            await settled(world)
            for _ in range(2):
                world.stream.merge(*world.stream.split(world.shard_of_item("a")))
                if between == "other items":
                    world.put("b")
                    await settled(world)
            await world.until(world.closed_shards_done, 60.0)
            await replace_worker(world)
            world.send(late)
            await world.sleep(30.0)
            assert seen.versions("a") == [2]
            await world.finish()

        run(scenario)

    def test_a_shard_that_is_older_than_the_period_is_enough(self) -> None:
        """Its parents are not read: they may hold a day of records."""

        async def scenario(world: KinesisSimulation) -> None:
            Seen(world)
            world.put("a")
            await settled(world)
            parent = world.shard_of_item("a")
            world.stream.merge(*world.stream.split(parent))
            for _ in range(60):
                world.put("a")
                await world.sleep(1.0)
            await settled(world)
            pages = world.stream.pages_of(parent)
            await replace_worker(world)
            assert world.stream.pages_of(parent) == pages
            await world.finish()

        run(scenario)


def test_the_period_goes_by_the_arrival_of_the_last_record() -> None:
    """Not by how far that is from the tip: a backlog of ten hours lies between."""

    async def scenario(world: KinesisSimulation) -> None:
        seen = Seen(world)
        late = world.change("a")
        world.put("a")
        await settled(world)
        await world.workers["w0"].stop()
        world.loop.pass_days(0.4)
        world.put("b")
        world.send(late)
        world.workers["w0"].start()
        await settled(world)
        assert (seen.versions("a"), seen.versions("b")) == ([2], [1])
        await world.finish()

    run(scenario)


def test_a_change_that_was_put_hours_late_is_no_reason_to_read_hours() -> None:
    async def scenario(world: KinesisSimulation) -> None:
        Seen(world)
        late = world.change("late")
        for number in range(60):
            world.put(f"early-{number}")
            await world.sleep(1.0)
        world.loop.pass_days(0.4)
        world.send(late)
        await settled(world)
        before = world.stream.served
        await replace_worker(world)
        assert world.stream.served - before < 10, "records that were given out once more"
        await world.finish()

    run(scenario)


class TestDeferredKeys:
    """They go on at a place of their own, behind that of the others. Version 1 is late, and has to be known for it."""

    FEW = KeyBounds(line_records=10, line_bytes=64 * 1024, failing_keys=16, deferred_keys=16)

    @pytest.mark.parametrize("pause", [0.1, 1.5, 5.0], ids=["all within the period", "some of them", "the last ones"])
    def test_of_another_owner(self, pause: float) -> None:
        """Version 2 is settled, and what follows it fails. What comes after that does not count: it is newer."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            shard = world.shard_of_item("a")
            late = world.change("a")
            seen.failing = {"a": range(2, 99)}
            world.put("a")
            world.send(late)
            for _ in range(30):
                world.put("a")
                await world.sleep(pause)
            assert await world.until(lambda: bool(world.rows()[shard].frontier.deferred), 60.0)
            seen.failing = {"a": range(3, 99)}
            assert await world.until(lambda: any(k.passed for k in world.rows()[shard].frontier.deferred), 60.0)
            await replace_worker(world)
            await never_the_first_version(world, seen)

        run(scenario, bounds=self.FEW)

    @pytest.mark.parametrize("ended", [False, True], ids=["open", "read to its end"])
    def test_of_a_parent(self, *, ended: bool) -> None:
        """The parent is through, the child holds the key back for itself by now."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            late = world.change("a")
            parent = await deferred_in_its_shard(world, seen)
            child = world.stream.merge(*world.stream.split(parent))  # no sibling that looks back, too
            beside = next(name for name in map(str, count()) if world.shard_of_item(name) == child)
            world.send(late)
            world.put("a")
            assert await world.until(lambda: world.rows()[parent].state == "deferred", 60.0)
            for _ in range(60):
                world.put(beside)
                await world.sleep(1.0)
            seen.failing = {"a": range(32, 99)}
            if ended:
                world.stream.split(child)
                assert await world.until(lambda: world.rows()[child].state == "deferred", 60.0)
            assert await world.until(lambda: world.rows()[parent].state == "done", 60.0)
            await world.sleep(10.0)
            assert world.rows()[child].frontier.deferred
            await replace_worker(world)
            await never_the_first_version(world, seen)

        run(scenario, bounds=self.FEW)

    def test_that_only_a_parent_had(self) -> None:
        """Another worker has handled them there; in the child nothing is to be read again."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world, workers=2)
            late = world.change("a")
            parent = await deferred_in_its_shard(world, seen)
            child = world.stream.merge(*world.stream.split(parent))
            await world.sleep(30.0)
            rows = world.rows()
            assert rows[child].owner != rows[parent].owner
            seen.failing = {}
            assert await world.until(lambda: world.rows()[parent].state == "done", 60.0)
            await world.sleep(10.0)
            world.send(late)
            await settled(world)
            await world.sleep(10.0)
            assert 1 not in seen.versions("a")
            await world.finish()

        run(scenario, bounds=self.FEW)


def test_throttled_again_and_again_it_goes_on_where_it_was() -> None:
    """Another consumer takes most of the reads of a busy shard, whose end both children's owners look back into. It
    takes a while; from the beginning each time it would take for ever."""

    async def scenario(world: KinesisSimulation) -> None:
        parent = world.stream.open_shards()[0]
        seen = Seen(world, workers=2)
        for step in range(280):
            world.put(f"item-{step % 40}")
            await asyncio.sleep(0.1)
        await settled(world)
        world.stream.split(parent)
        await world.until(world.closed_shards_done, 60.0)
        for worker in world.workers.values():
            worker.kill()

        async def other() -> None:
            while True:
                world.stream.read_by_another(parent)
                await asyncio.sleep(0.25)

        reading = asyncio.create_task(other())
        for worker in world.workers.values():
            worker.start()
        for number in range(40):
            world.put(f"item-{number}")
        assert await world.until(world.all_put_and_settled, 240.0)
        reading.cancel()
        assert all(seen.versions(f"item-{number}")[-1] == 8 for number in range(40))
        await world.finish()

    run(scenario, config={"source": {"poll": {"max_records": 10}}})
