"""A table whose stream was disabled and enabled again: the old stream first, then the new one, no silent gap."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.lease import SessionRow
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.simulation import APPLICATION, Simulation
from consumer.worker.fleet.stream_replacement import GONE_FOR
from tests.support.simulated_fleet import (
    Gate,
    LogEvents,
    add,
    checked,
    metric,
    until_owned,
    until_settled,
    versions,
    write,
)

SWITCHED_WITHIN = 300.0  # seconds: two looks at the table, and half a minute in which the old stream looks finished


def followed(world: Simulation) -> str:
    """The ARN of the stream that the application reads, as the table has it."""
    return world.table.streams[APPLICATION]


async def until_followed(world: Simulation, stream: MemoryStream, seconds: float = SWITCHED_WITHIN) -> None:
    await world.until(lambda: followed(world) == stream.arn, seconds, f"the pointer moves to {stream.label}")


def test_the_old_stream_is_finished_before_the_pointer_moves() -> None:
    """One record of the old stream is still being handled: the new one, although it has records, must wait."""
    world = Simulation("finished first", shards=2, config={"batch": {"batch_size": 1}})

    async def scenario(world: Simulation) -> None:
        gate = Gate(lambda call: ("slow", 1) in versions(call))
        old = world.stream
        _, handler = add(world, "a", gate)
        world.put("slow")
        write(world, 20)
        await world.until(lambda: world.checkers.left == 1, 30.0, "all but one settled")
        world.enable_again()
        world.put("slow")
        await world.sleep(600.0)
        assert followed(world) == old.arn
        assert ("slow", 2) not in handler.handled
        gate.open()
        await until_followed(world, world.stream)
        assert all(row.settled for shard, row in world.rows().items() if old.knows(shard))
        registered = world.table.registrations[APPLICATION, world.stream.label]
        assert (registered.start_at, registered.skip_shards) == (None, frozenset())
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_stream_that_is_gone_before_its_shards_had_rows_is_left() -> None:
    """The first worker died right after it had written down which stream it reads. Nobody can find a shard of it any
    more, so none is settled; there is nothing to wait for either."""
    world = Simulation("no rows")

    async def scenario(world: Simulation) -> None:
        old = world.stream
        worker, handler = add(world, "a")
        await until_owned(world, worker)
        worker.kill()
        world.delete_row(old.open_shards()[0])
        world.enable_again()
        old.expire()
        world.put("new")
        worker.start()
        await until_followed(world, world.stream, GONE_FOR + SWITCHED_WITHIN)
        await until_settled(world)
        assert handler.handled == [("new", 1)]
        await world.finish()

    checked(world, scenario)


def test_a_new_stream_is_read_whole_also_by_an_application_that_started_at_latest() -> None:
    """``latest`` was resolved for the first stream; what the second one holds came later."""
    world = Simulation("latest", config={"source": {"table": "orders", "starting_position": "latest"}})

    async def scenario(world: Simulation) -> None:
        world.put("before the start")
        await world.sleep(5.0)
        worker, handler = add(world, "a")
        await until_owned(world, worker)
        world.enable_again()
        world.put("early")
        await until_settled(world, SWITCHED_WITHIN)
        assert handler.handled == [("early", 1)]
        await world.finish()

    checked(world, scenario)


def test_whoever_finds_the_pointer_moved_goes_along() -> None:
    """Another worker of the fleet was faster. This one could not know that the old stream is finished: for the next
    minutes its listing is empty."""
    world = Simulation("pointer moved")

    async def scenario(world: Simulation) -> None:
        old = world.stream
        worker, _ = add(world, "a")
        await until_owned(world, worker)
        old.blank = True
        world.enable_again()
        world.put("key")
        await world.sleep(120.0)
        assert followed(world) == old.arn
        world.table.streams[APPLICATION] = world.stream.arn
        await until_settled(world, 120.0)
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("policy", ["halt", "continue"])
def test_an_old_stream_that_is_gone_leaves_a_gap(policy: str) -> None:
    """Its 24 hours ended before it was read: a durable trace for each shard, and ``on_gap`` decides."""
    world = Simulation(f"gone, {policy}", shards=2, config={"source": {"table": "orders", "on_gap": policy}})

    async def scenario(world: Simulation) -> None:
        old, shards = world.stream, set(world.stream.open_shards())
        worker, _ = add(world, "a")
        write(world, 10)
        await until_settled(world)
        world.enable_again()
        old.expire()
        await world.until(lambda: world.gaps_recorded() == shards, 600.0, "a gap row for both shards")
        assert metric(worker, "gaps") == 2
        if policy == "continue":
            await until_followed(world, world.stream, 600.0)
            write(world, 10)
            await until_settled(world)
        else:
            await world.until(lambda: {row.state for row in world.rows().values()} == {"halted"}, 60.0, "both halted")
            await world.sleep(1200.0)
            assert followed(world) == old.arn
        await world.finish()

    checked(world, scenario)


def test_a_stream_that_is_gone_without_a_successor_is_waited_for() -> None:
    """The table was deleted, or an endpoint lies: nothing is given up, nothing is written."""
    world = Simulation("gone without a successor")

    async def scenario(world: Simulation) -> None:
        add(world, "a")
        write(world, 10)
        await until_settled(world)
        world.stream.expire()
        await world.sleep(3600.0)
        assert world.gaps_recorded() == set()
        assert {row.state for row in world.rows().values()} == {"open"}
        await world.finish()

    checked(world, scenario)


def test_trouble_while_looking_is_waited_out() -> None:
    world = Simulation("trouble")

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "a")
        await until_owned(world, worker)
        error = DependencyError("DescribeTable", "Timeout")
        look = worker.links["stream"].refuse(error, "latest_stream")
        switch = worker.links["table"].refuse(error, "switch_stream")
        world.enable_again()
        for refused in (look, switch):
            await world.until(lambda refused=refused: refused.taken >= 3, 600.0, "three refusals")  # type: ignore[misc]  # mypy infers no lambda with a default
            refused.end()
        await until_followed(world, world.stream)
        write(world, 10)
        await until_settled(world)
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("old_stream", ["readable", "gone"])
def test_a_start_finds_the_stream_that_is_not_finished(old_stream: str) -> None:
    """The table has a new stream already, but the application has not read the old one to its end: that comes first,
    also when it is gone. The start after that reads the new one at once."""
    log = LogEvents()
    world = Simulation(f"start on the old one, {old_stream}", on_event=log)

    async def scenario(world: Simulation) -> None:
        old, (shard,) = world.stream, world.stream.open_shards()
        first, _ = add(world, "a")
        await until_owned(world, first)
        await first.stop()
        world.put("key")
        world.enable_again()
        if old_stream == "gone":
            old.expire()
            world.checkers.trimmed(shard)
        world.put("key")
        second, handler = add(world, "b")
        await world.until(lambda: bool(log.of("stream.replaced")), 30.0, "the start finds the old stream")
        assert followed(world) == old.arn
        await until_settled(world, 1200.0)
        assert handler.handled == [("key", 1), ("key", 2)][old_stream == "gone" :]
        assert world.gaps_recorded() == ({shard} if old_stream == "gone" else set())
        await second.stop()
        world.put("key")
        add(world, "c")
        await until_settled(world, 30.0)
        assert len(log.of("stream.replaced")) <= 2, "once at the start, once while it follows"
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_worker_on_another_stream_gets_no_lease_of_this_one() -> None:
    """While the fleet moves on, the ones that are ahead do not count for the share of those behind, and vice versa."""
    world = Simulation("ahead", shards=4)

    async def scenario(world: Simulation) -> None:
        store = MemoryLeaseStore(world.table, APPLICATION, world.clock.wall)
        await store.open_session(SessionRow("a/ahead", stream_id="arn:of:another"))

        async def stay_alive() -> None:
            for counter in range(1, 10_000):
                await store.bump_session("a/ahead", counter)
                await world.sleep(1.0)

        alive = asyncio.create_task(stay_alive())
        worker, _ = add(world, "b")
        await until_owned(world, worker, 4)
        moves = len(world.checkers.moves)
        await world.sleep(120.0)
        assert world.owned() == {worker.incarnation: 4}
        assert len(world.checkers.moves) == moves
        assert metric(worker, "lease_events", event="handed_over") == 0
        assert not alive.done()
        alive.cancel()
        await world.finish()

    checked(world, scenario)


def test_a_filter_that_the_new_stream_can_never_match_is_a_warning() -> None:
    """Who enables a stream again may choose another view type; records without images then pass no filter on images."""
    log = LogEvents()
    world = Simulation("another view type", on_event=log)
    pattern = {"dynamodb": {"NewImage": {"v": {"N": [{"exists": True}]}}}}
    world.settings = world.settings.model_copy(update={"filters": [pattern]})

    async def scenario(world: Simulation) -> None:
        add(world, "a")
        write(world, 3)
        await until_settled(world)
        assert log.of("filters.never_match") == []
        world.enable_again()
        world.stream.view_type = "KEYS_ONLY"
        await until_followed(world, world.stream)
        await world.until(lambda: bool(log.of("filters.never_match")), 30.0, "the warning")
        (line,) = log.of("filters.never_match")
        assert "filters[0].dynamodb.NewImage.v.N" in line
        assert "KEYS_ONLY" in line
        await world.finish()

    checked(world, scenario)
