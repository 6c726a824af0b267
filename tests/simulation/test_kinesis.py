"""A fleet on a Kinesis stream, step by step: what comes late, what is trimmed, and shards with two parents."""

from __future__ import annotations

import asyncio

import pytest

from consumer.testing.kinesis_simulation import KinesisSimulation
from tests.support.kinesis_scenarios import DAY, MODES, Seen, run, settled


class TestOrder:
    def test_a_change_that_comes_after_a_newer_one_is_left_out(self) -> None:
        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            for version in range(200):
                world.put(f"item-{version % 7}")
                await asyncio.sleep(0.1)
            await settled(world)
            await world.finish()
            for number in range(7):
                versions = seen.versions(f"item-{number}")
                assert versions == sorted(set(versions)), "in their order, each once"
                assert versions[-1] == world.made[f"item-{number}"]
            skipped = 200 - sum(len(seen.versions(f"item-{number}")) for number in range(7))
            assert skipped > 5, "some came too late"

        run(scenario, doubled=0.2, swapped=0.3, shards=2)

    def test_with_keep_everything_is_given_to_the_handler(self) -> None:
        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            for _ in range(50):
                world.put("a")
                await asyncio.sleep(0.1)
            await world.sleep(20.0)
            assert len(seen.versions("a")) > 55
            world.history.violations.clear()  # of order: that is what was asked for
            await world.finish()

        run(scenario, doubled=0.3, swapped=0.3, config={"source": {"duplicates": "keep"}})

    def test_both_precisions_of_one_item_in_one_shard(self) -> None:
        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            for step in range(100):
                world.millis = step % 3 == 0
                world.put("a")
                await asyncio.sleep(0.05)
            await settled(world)
            await world.finish()
            versions = seen.versions("a")
            assert versions == sorted(set(versions))
            assert versions[-1] == 100

        run(scenario, doubled=0.2, swapped=0.3)

    @pytest.mark.parametrize("seed", range(3))
    def test_a_new_owner_looks_back(self, seed: int) -> None:
        """Over crashes, splits and merges: what was handled before by another worker is known."""

        async def scenario(world: KinesisSimulation) -> None:
            Seen(world, workers=2)
            for step in range(400):
                world.put(f"item-{step % 11}")
                await asyncio.sleep(0.1)
                if step % 80 == 40:
                    worker = world.workers[f"w{step // 80 % 2}"]
                    worker.kill()
                    worker.start()
                if step == 100:
                    world.stream.split(world.stream.open_shards()[0])
                if step == 220:
                    world.stream.merge(*world.stream.open_shards()[:2])
            await settled(world)
            await world.finish()
            world.check_last_effects()

        run(scenario, seed=seed, doubled=0.2, swapped=0.3, config={"leases": {"duration": "3s"}})


class TestShards:
    def test_a_merge_waits_for_both_parents(self) -> None:
        """One is finished two hours before the other, whose handler takes so long."""

        async def scenario(world: KinesisSimulation) -> None:
            one, two = world.stream.open_shards()
            seen = Seen(world, slow=two)
            names = [f"key-{number}" for number in range(40)]
            for name in names:
                world.put(name)
            await world.sleep(5.0)
            child = world.stream.merge(one, two)
            for name in names:
                world.put(name)
            await world.sleep(7200.0)
            assert world.rows()[one].settled
            assert {shard_id for shard_id, _ in seen.calls} == {one, two}, "the child waits"
            seen.mended.set()
            await settled(world)
            assert {shard_id for shard_id, _ in seen.calls} == {one, two, child}
            assert all(seen.versions(name) == [1, 2] for name in names)
            await world.finish()

        slow = {"kind": "python", "isolation": "inline", "target": "simulated:handler", "timeout": "24h"}
        run(scenario, shards=2, config={"handler": slow})

    def test_a_chain_of_empty_shards(self) -> None:
        """Splits and merges of shards that never got a record: each takes a read or two."""

        async def scenario(world: KinesisSimulation) -> None:
            for _ in range(5):
                left, right = world.stream.split(world.stream.open_shards()[0])
                world.stream.merge(left, right)
            world.put("a")
            seen = Seen(world)
            await settled(world)
            assert seen.versions("a") == [1]
            await world.until(world.closed_shards_done, 60.0)
            await world.finish()

        run(scenario)

    @pytest.mark.parametrize("names_children", [True, False])
    def test_an_end_that_is_none_is_not_believed(self, *, names_children: bool) -> None:
        """A page without next iterator, of an open shard and of a closed one with more records."""

        async def scenario(world: KinesisSimulation) -> None:
            world.stream.names_children = names_children
            Seen(world)
            for step in range(60):
                world.put(f"item-{step % 5}")
                world.stream.invalid_ends = 2 if step % 20 == 10 else world.stream.invalid_ends
                await asyncio.sleep(0.2)
            for step in range(100):
                world.put(f"item-{step % 5}")
            world.stream.split(world.stream.open_shards()[0])
            world.stream.invalid_ends = 3
            world.put("item-0")
            await settled(world)
            await world.finish()

        run(scenario, config={"source": {"poll": {"max_records": 10}}})

    def test_iterators_live_five_minutes(self) -> None:
        """A handler that takes ten holds the reader up for longer; reading goes on behind the last record."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world, seconds=600.0)
            for number in range(40):
                world.put(f"item-{number}", note="x" * 40_000)
            await world.sleep(5.0)
            for number in range(40):
                world.put(f"late-{number}", note="x" * 40_000)
            await world.until(world.all_put_and_settled, 20_000.0)
            assert len(seen.calls) == len({str(call) for call in seen.calls}), "nothing was repeated"
            await world.finish()

        run(
            scenario,
            config={
                "limits": {"buffer": "1MiB"},
                "batch": {"batch_size": 20, "parallelization_factor": 2},
                "handler": {
                    "kind": "python",
                    "isolation": "inline",
                    "target": "simulated:handler",
                    "timeout": "900s",
                },
            },
        )


@pytest.mark.parametrize("mode", MODES)
class TestTrims:
    def test_days_of_silence_are_no_gap(self, mode: str) -> None:
        """An idle shard loses the record that reading goes on at. Then a restart, a crash and a hand-over."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            world.stream.trimmed_answers = mode
            world.put("a")
            await settled(world)
            await world.sleep(30.0)
            for day in range(4):
                world.loop.pass_days(0.9)
                world.expire_records()
                await world.sleep(30.0)
                worker = world.workers["w0"]
                if day % 2:
                    worker.kill()
                else:
                    await worker.stop()
                worker.start()
                await world.sleep(30.0)
            world.put("a")
            await settled(world)
            assert seen.versions("a") == [1, 2]
            assert not world.gaps_recorded()
            await world.finish()

        run(scenario)

    @pytest.mark.parametrize("later", [True, False], ids=["with later records", "without"])
    def test_what_is_trimmed_while_nobody_reads_is_a_gap(self, mode: str, *, later: bool) -> None:
        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            world.stream.trimmed_answers = mode
            world.put("a")
            await settled(world)
            await world.workers["w0"].stop()
            world.put("a")
            world.put("b")
            world.loop.pass_days(1.5)
            if later:
                world.put("a")
            world.expire_records()
            world.workers["w0"].start()
            await world.sleep(60.0)
            assert len(world.gaps_recorded()) == 1
            world.put("a")
            await settled(world)
            assert seen.versions("a") == ([1, 3, 4] if later else [1, 3])
            await world.finish()

        run(scenario, config={"source": {"on_gap": "continue"}})

    def test_a_longer_retention_keeps_what_a_shorter_one_loses(self, mode: str) -> None:
        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world)
            world.stream.trimmed_answers = mode
            world.stream.retention = 7 * DAY
            world.put("a")
            await settled(world)
            await world.workers["w0"].stop()
            world.put("a")
            world.loop.pass_days(3.0)
            world.expire_records()
            world.workers["w0"].start()
            await settled(world)
            assert (seen.versions("a"), world.gaps_recorded()) == ([1, 2], set())
            await world.workers["w0"].stop()
            world.put("a")
            world.loop.pass_days(3.0)
            world.stream.retention = DAY
            world.expire_records()
            world.workers["w0"].start()
            await world.sleep(60.0)
            assert len(world.gaps_recorded()) == 1
            await world.finish()

        run(scenario, config={"source": {"on_gap": "continue"}})


class TestAnotherStream:
    def test_a_stream_that_was_made_anew_is_read_whole(self) -> None:
        """What was read before is not lost, and what was lost with the old one has its trace."""

        async def scenario(world: KinesisSimulation) -> None:
            seen = Seen(world, workers=2)
            world.put("a")
            await settled(world)
            world.make_anew(2)
            await world.sleep(30.0)
            for number in range(20):
                world.put(f"new-{number}")
            await world.until(world.all_put_and_settled, 1500.0)
            assert all(seen.versions(f"new-{number}") == [1] for number in range(20))
            assert world.gaps_recorded()
            await world.finish()

        run(scenario, config={"source": {"on_gap": "continue"}})


def test_a_read_limit_is_shared_with_others() -> None:
    """Another consumer takes half of the reads: everything is handled, and nothing twice."""

    async def scenario(world: KinesisSimulation) -> None:
        seen = Seen(world)

        async def other() -> None:
            while True:
                shard = world.stream.open_shards()[0]
                world.stream.read_by_another(shard)
                await asyncio.sleep(0.3)

        reading = asyncio.create_task(other())
        for step in range(200):
            world.put(f"item-{step % 9}")
            await asyncio.sleep(0.05)
        await settled(world)
        reading.cancel()
        assert len(seen.calls) == len({str(call) for call in seen.calls})
        await world.finish()

    run(scenario)
