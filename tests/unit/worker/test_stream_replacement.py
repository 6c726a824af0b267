"""A table whose stream was disabled and enabled again: the old stream first, then the new one, no silent gap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.lease import SessionRow
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.memory_stream import MemoryStream
from consumer.worker.fleet import stream_replacement
from consumer.worker.fleet.stream_replacement import Follower, current_stream
from tests.unit.worker.harness import Worker, World, of, until

MakeWorld = Callable[..., World]
NEXT = "2026-02-02T00:00:00.000"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_replacement, "FOLLOW_INTERVAL", 0.05)
    monkeypatch.setattr(stream_replacement, "DRAIN_INTERVAL", 0.02)
    monkeypatch.setattr(stream_replacement, "FINISHED_FOR", 0.05)
    monkeypatch.setattr(stream_replacement, "GONE_FOR", 0.2)


async def started(world: World, behaviour: Callable[[HandlerCall], object] | None = None) -> tuple[Worker, Follower]:
    worker = Worker(world, "a", behaviour)  # type: ignore[arg-type]
    world.workers.append(worker)
    await worker.start()
    await worker.store.pin_application("orders")
    coordinator = worker.coordinator
    return worker, Follower(worker.context, worker.registration, lambda: coordinator.rows, coordinator.is_first)


def put(stream: MemoryStream, world: World, key: str) -> None:
    world.written[key] += 1
    stream.put({"id": key, "v": world.written[key]})


async def test_the_old_stream_is_finished_before_the_pointer_moves(make_world: MakeWorld) -> None:
    """One record of the old stream is still being handled: the new one, although it has records, must wait."""
    world, go = make_world(shards=2, config={"batch": {"batch_size": 1}}), asyncio.Event()

    async def hold(call: HandlerCall) -> Outcome:
        if ("slow", 1) in of(call):
            await go.wait()
        return OK

    worker, follower = await started(world, hold)
    world.put("slow")
    world.write(20)
    await until(lambda: world.handled == 20)
    old = world.stream.arn
    new = world.stream.enable_again(NEXT)
    put(new, world, "slow")
    switching = asyncio.create_task(follower.run())
    await until(lambda: worker.source_link.calls["latest_stream"] >= 5)
    assert not switching.done()
    assert world.table.streams["app"] == old
    go.set()
    assert await asyncio.wait_for(switching, 20) == new.arn
    assert world.table.streams["app"] == new.arn
    assert all(row.settled for row in world.rows().values())
    registered = world.table.registrations["app", NEXT]
    assert (registered.start_at, registered.skip_shards) == (None, frozenset())
    await worker.drain()
    world.stream = new
    await world.worker("b")
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


async def test_a_new_stream_is_read_whole_also_by_an_application_that_started_at_latest(make_world: MakeWorld) -> None:
    """``latest`` was resolved for the first stream; what the second one holds came later."""
    world = make_world(start_at="latest")
    worker, follower = await started(world)
    new = world.stream.enable_again(NEXT)
    put(new, world, "early")
    assert await asyncio.wait_for(follower.run(), 20) == new.arn
    await worker.drain()
    world.stream = new
    await world.worker("b")
    await until(world.everything_handled)


async def test_whoever_finds_the_pointer_moved_goes_along(make_world: MakeWorld) -> None:
    """Another worker of the fleet was faster."""
    world = make_world()
    _, follower = await started(world)
    new = world.stream.enable_again(NEXT)
    world.table.streams["app"] = new.arn
    assert await asyncio.wait_for(follower.run(), 20) == new.arn


@pytest.mark.parametrize("policy", ["halt", "continue"])
async def test_an_old_stream_that_is_gone_leaves_a_gap(make_world: MakeWorld, policy: str) -> None:
    """Its 24 hours ended before it was read: a durable trace for each shard, and ``on_gap`` decides."""
    world = make_world(shards=2, config={"source": {"table": "orders", "on_gap": policy}})
    worker, follower = await started(world)
    world.write(10)
    await until(world.everything_handled)
    new = world.stream.enable_again(NEXT)
    world.stream.expire()
    switching = asyncio.create_task(follower.run())
    await until(lambda: len(world.losses()) == 2)
    assert worker.metric("gaps") == 2
    if policy == "continue":
        assert await asyncio.wait_for(switching, 20) == new.arn
        return
    await until(lambda: {row.state for row in world.rows().values()} == {"halted"})
    assert world.table.streams["app"] == world.stream.arn
    switching.cancel()
    await asyncio.gather(switching, return_exceptions=True)


async def test_a_stream_that_is_gone_without_a_successor_is_waited_for(make_world: MakeWorld) -> None:
    """The table was deleted, or an endpoint lies: nothing is given up, nothing is written."""
    world = make_world()
    worker, _ = await started(world)
    world.write(10)
    await until(world.everything_handled)
    world.stream.expire()
    await until(lambda: worker.source_link.calls["latest_stream"] >= 1)
    assert world.losses() == []
    assert {row.state for row in world.rows().values()} <= {"waiting", "open"}


async def test_trouble_while_looking_is_waited_out(make_world: MakeWorld) -> None:
    world = make_world()
    worker, follower = await started(world)
    new = world.stream.enable_again(NEXT)
    refused = DependencyError("DescribeTable", "Timeout")
    worker.source_link.refuse["latest_stream"] = refused
    worker.link.refuse["switch_stream"] = refused
    switching = asyncio.create_task(follower.run())
    await until(lambda: worker.source_link.calls["latest_stream"] >= 3)
    worker.source_link.refuse.clear()
    await until(lambda: worker.link.calls["switch_stream"] >= 3)
    worker.link.refuse.clear()
    assert await asyncio.wait_for(switching, 20) == new.arn


async def test_a_start_finds_the_stream_that_is_not_finished(make_world: MakeWorld) -> None:
    """The table has a new stream already, but the application has not read the old one to its end."""
    world = make_world()
    worker, _ = await started(world)
    source, store = worker.context.ports.source, worker.store
    old = await source.describe()
    assert (await current_stream(source, store, old))[1] == old
    new = world.stream.enable_again(NEXT)
    latest = await source.of(new.arn).describe()
    found, stream = await current_stream(source, store, latest)
    assert (stream.label, (await found.describe()).status) == (old.label, "DISABLED")
    world.stream.expire()
    _, stream = await current_stream(source, store, latest)
    assert (stream.stream_arn, stream.label, stream.status) == (old.stream_arn, old.label, "DISABLED")
    assert await store.switch_stream(old.stream_arn, new.arn) == new.arn
    assert (await current_stream(source, store, latest))[1] == latest


async def test_a_worker_on_another_stream_gets_no_lease_of_this_one(make_world: MakeWorld) -> None:
    """While the fleet moves on, the ones that are ahead do not count for the share of those behind, and vice versa."""
    world = make_world(shards=4)
    worker = Worker(world, "b", None)
    world.workers.append(worker)
    await worker.start()
    counter = 0

    async def stay_alive() -> None:
        nonlocal counter
        while True:
            counter += 1
            await worker.store.bump_session("a/ahead", counter)
            await asyncio.sleep(0.1)

    await worker.store.open_session(SessionRow("a/ahead", label=NEXT))
    alive = asyncio.create_task(stay_alive())
    await until(lambda: world.owners() == {worker.incarnation: 4})
    looked = worker.link.calls["leases"]
    await until(lambda: worker.link.calls["leases"] >= looked + 3)
    alive.cancel()
    assert world.owners() == {worker.incarnation: 4}
    assert worker.metric("lease_events", event="handed_over") == 0
