"""Whole workers and shards that the listing does not show, lease rows that somebody deletes, tombstones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from consumer.domain.errors import DependencyError, PermissionDenied
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.shards import TOMBSTONE_AGE, ShardInfo
from consumer.worker.fleet import shard_discovery
from tests.unit.worker.harness import DURATION, Worker, World, of, until

MakeWorld = Callable[..., World]


def leave_out(worker: Worker, shard_id: str, times: int) -> list[int]:
    """The next complete listings of this worker do not show the shard. Returns a counter of the listings made."""
    source = worker.context.ports.source
    honest, made = source.list_shards, [0]

    async def listing() -> list[ShardInfo]:
        made[0] += 1
        return [s for s in await honest() if s.shard_id != shard_id or made[0] > times]

    source.list_shards = listing  # type: ignore[method-assign]
    return made


# --- the listing --------------------------------------------------------------------------------------


async def test_one_listing_without_the_shard_is_not_its_end(make_world: MakeWorld) -> None:
    """The service forgets a shard for a moment and then knows it again: no gap, and every record."""
    world = make_world(shards=2)  # a listing without the only shard would be empty, which is another case
    shard = world.stream.open_shards()[0]
    world.write(10)
    worker = await world.worker("a")
    await until(world.everything_handled)
    made = leave_out(worker, shard, 1)
    hidden = world.stream._shards.pop(shard)
    await until(lambda: made[0] >= 1)
    world.stream._shards[shard] = hidden
    world.write(10)
    await until(world.everything_handled, 30)
    assert world.losses() == []
    world.assert_in_order()


async def test_a_child_waits_for_a_parent_that_the_listing_left_out(make_world: MakeWorld) -> None:
    """The first listing shows the child and not its parent (H11): nothing of the child is handled before the parent."""
    world = make_world()
    world.write(20)
    parent = world.stream.open_shards()[0]
    world.stream.roll(parent)
    world.write(20)
    worker = Worker(world, "a", None)
    world.workers.append(worker)
    await worker.start()
    made = leave_out(worker, parent, 1)
    await until(world.everything_handled)
    assert made[0] >= 2
    world.assert_in_order()


async def test_a_parent_that_is_gone_holds_nobody_up(make_world: MakeWorld) -> None:
    """Trimmed before the application was registered: after the second look a tombstone stands for it."""
    world = make_world()
    parent = world.stream.open_shards()[0]
    child = world.stream.roll(parent)
    world.stream.vanish(parent)
    world.write(10)
    await world.worker("a")
    await until(world.everything_handled)
    row = world.rows()[parent]
    assert (row.state, row.owner, row.epoch) == ("done", None, 0)
    assert world.rows()[child].parents == (parent,)


async def test_a_young_parent_is_waited_for(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id it cannot have been trimmed: two looks a moment apart prove nothing."""
    monkeypatch.setattr(shard_discovery, "is_young", lambda shard_id, now: True)
    world = make_world()
    parent = world.stream.open_shards()[0]
    world.stream.roll(parent)
    world.stream.vanish(parent)
    world.write(10)
    worker = await world.worker("a")
    await until(lambda: worker.source_link.calls["list_shards"] >= 4)
    assert world.seen == []
    assert parent not in world.rows()


async def test_a_removed_row_of_a_finished_parent_is_not_read_again(make_world: MakeWorld) -> None:
    """Its child has been started, so it was settled; it is registered as done."""
    world = make_world()
    world.write(10)
    parent = world.stream.open_shards()[0]
    first = await world.worker("a")
    child = world.stream.roll(parent)
    world.write(10)
    await until(world.everything_handled)
    await until(lambda: world.rows()[parent].state == "done" and world.rows()[child].state == "open")
    await first.drain()
    world.table.drop_lease("app", world.stream.label, parent)
    await world.worker("b")
    await until(lambda: parent in world.rows())
    assert world.rows()[parent].state == "done"
    world.write(5)
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


# --- tombstones ---------------------------------------------------------------------------------------


async def finished_lineage(world: World) -> tuple[str, str]:
    world.write(10)
    parent = world.stream.open_shards()[0]
    worker = await world.worker("a")
    child = world.stream.roll(parent)
    world.write(10)
    await until(world.everything_handled)
    await until(lambda: world.rows()[parent].state == "done" and world.rows()[child].state == "open")
    await worker.drain()
    return parent, child


async def test_a_tombstone_goes_days_after_its_shard(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_discovery, "REPAIR_INTERVAL", 0.1)
    world = make_world()
    parent, child = await finished_lineage(world)
    world.stream.vanish(parent)
    worker = await world.worker("b")
    await until(lambda: worker.source_link.calls["list_shards"] >= 4)
    assert parent in world.rows(), "not long enough ago"
    old = world.rows()[parent].updated_at - TOMBSTONE_AGE
    world.table.edit("app", world.stream.label, parent, updated_at=old)
    await until(lambda: parent not in world.rows())
    assert world.rows()[child].state == "open"
    await worker.drain()
    world.write(5)
    await world.worker("c")  # and the child is still taken, although its parent has no row any more
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


@pytest.mark.parametrize("listing", ["empty", "fails", "denied"])
async def test_no_bad_listing_removes_or_makes_a_tombstone(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, listing: str
) -> None:
    """Neither goes an old one, nor does a parent that nobody knows count as gone."""
    monkeypatch.setattr(shard_discovery, "REPAIR_INTERVAL", 0.05)
    world = make_world()
    parent, _ = await finished_lineage(world)
    world.stream.vanish(parent)
    world.table.edit("app", world.stream.label, parent, updated_at=1.0)
    worker = Worker(world, "b", None)
    world.workers.append(worker)
    made = 0

    async def bad() -> list[ShardInfo]:
        nonlocal made
        made += 1
        if listing == "fails":
            raise DependencyError("DescribeStream", "InternalServerError")
        if listing == "denied":
            raise PermissionDenied("dynamodb:DescribeStream", "the stream")
        return []

    await worker.start()
    worker.context.ports.source.list_shards = bad  # type: ignore[method-assign]
    await worker.store.add_lease(world.stream.label, LeaseRow("orphan", parents=("unknown",)))
    seen = made
    looks = 30 if listing == "empty" else 3  # a listing that fails is asked for again after a growing pause
    await until(lambda: made >= seen + looks)
    assert parent in world.rows()
    assert "unknown" not in world.rows()
    assert world.rows()["orphan"].owner is None


# --- rows that somebody deletes -----------------------------------------------------------------------


@pytest.mark.parametrize("busy", [True, False])
async def test_a_row_deleted_under_its_owner_comes_back_as_the_owner_knows_it(
    make_world: MakeWorld, *, busy: bool
) -> None:
    """Also of an idle shard. Nothing is repeated, the epoch stays, and the next owner goes on from there."""
    world = make_world()
    world.write(50)
    worker = await world.worker("a")
    await until(world.everything_handled)
    shard = world.stream.open_shards()[0]
    await until(lambda: world.rows()[shard].frontier.low is not None)
    world.table.drop_lease("app", world.stream.label, shard)
    if busy:
        world.write(50)
    await until(lambda: shard in world.rows())
    assert world.rows()[shard].frontier.low is not None
    assert (world.rows()[shard].owner, world.rows()[shard].epoch) == (worker.incarnation, 1)
    world.write(10)
    await until(world.everything_handled)
    await worker.drain()
    await world.worker("b")
    world.write(10)
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


@pytest.mark.parametrize("when", ["a drain", "a hand-over"])
async def test_a_row_deleted_before_it_is_passed_on_takes_its_frontier_along(make_world: MakeWorld, when: str) -> None:
    """The lease is being let go while a last call is under way; the row is deleted before that call ends."""
    world, go = make_world(shards=2), asyncio.Event()

    async def hold(call: HandlerCall) -> Outcome:
        if any(version > 2 for _, version in of(call)):
            await go.wait()
        return OK

    world.write(40)
    worker = await world.worker("a", hold)
    await until(world.everything_handled)
    world.write(20)
    await until(lambda: len(world.busy) == 20)
    draining = asyncio.create_task(worker.drain()) if when == "a drain" else None
    if when == "a hand-over":
        await world.worker("b")
    await until(lambda: any(w._letting_go.is_set() for w in worker.coordinator.workers), 5 * DURATION)
    for one in list(worker.coordinator.workers):
        if one._letting_go.is_set():
            world.table.drop_lease("app", world.stream.label, one.shard_id)
    go.set()
    if draining is not None:
        await draining
        assert len(world.rows()) == 2
        await world.worker("b")
    else:
        await until(lambda: sorted(world.owners().values()) == [1, 1])
    world.write(10)
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


async def test_a_deleted_row_that_nobody_owns_comes_back_from_anybodys_memory(make_world: MakeWorld) -> None:
    """Its owner is dead; another worker has read the row before."""
    world = make_world(shards=2)
    world.write(100)
    first = await world.worker("a")
    second = await world.worker("b")
    await until(lambda: sorted(world.owners().values()) == [1, 1])
    await until(world.everything_handled)
    mine = next(row.shard_id for row in world.rows().values() if row.owner == first.incarnation)
    await until(
        lambda: (
            second.coordinator.memory.get(mine, LeaseRow(mine)).frontier == world.rows()[mine].frontier
            and world.rows()[mine].frontier != FrontierSnapshot()
        )
    )
    await first.kill()
    before = world.rows()[mine]
    world.table.drop_lease("app", world.stream.label, mine)
    await until(lambda: mine in world.rows(), 10 * DURATION)
    assert world.rows()[mine].epoch > before.epoch
    world.write(10)
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


async def test_a_worker_unsure_of_its_lease_puts_nothing_back(make_world: MakeWorld) -> None:
    """Cut off from its session it may be fenced any moment; what it remembers could be older than what others know."""
    world = make_world()
    world.write(10)
    worker = await world.worker("a")
    await until(world.everything_handled)
    shard = world.stream.open_shards()[0]
    worker.may_renew = False
    await until(lambda: not worker.context.validity.holds(world.clock.monotonic()))
    world.table.drop_lease("app", world.stream.label, shard)
    row = next(iter(worker.coordinator.workers)).row
    with pytest.raises(shard_discovery.LeaseDeleted):
        await worker.coordinator._discovery.save(row)
    assert shard not in world.rows()


async def test_a_dropped_table_stops_the_work_and_its_return_resumes_it(make_world: MakeWorld) -> None:
    """No call starts when the validity is over; the next incarnation puts the rows back as this process knew them."""
    world = make_world(shards=2)
    world.write(100)
    first = await world.worker("a")
    await until(world.everything_handled)
    await until(lambda: all(row.frontier.low for row in world.rows().values()))
    world.table.exists = False
    await until(lambda: not first.context.validity.holds(world.clock.monotonic()))
    calls = len(first.handler.calls)
    world.write(20)
    await asyncio.sleep(0.2)
    assert len(first.handler.calls) == calls
    world.table.leases.clear()
    world.table.sessions.clear()
    world.table.exists = True
    await until(first.lost.is_set)
    await asyncio.gather(first.running, return_exceptions=True)
    again = Worker(world, "a", None)
    again.remembered = first.coordinator.memory
    world.workers.append(again)
    await again.start()
    await until(world.everything_handled)
    assert all(row.epoch >= 2 for row in world.rows().values())
    world.assert_in_order(duplicates=0)


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_dropped_table_is_made_anew_only_if_allowed(make_world: MakeWorld, *, allowed: bool) -> None:
    leases = {"duration": f"{DURATION:g}s", "create_table": allowed}
    world = make_world(config={"leases": leases})
    worker = await world.worker("a")
    await until(lambda: world.owners().get(worker.incarnation) == 1)
    world.table.exists = False
    refused = worker.link.calls["sessions"]
    await until(lambda: world.table.exists or worker.link.calls["sessions"] > refused + 5)
    assert world.table.exists is allowed


async def test_an_idle_owner_notices_that_its_row_names_somebody_else(make_world: MakeWorld) -> None:
    """Somebody edited the table. Without a record there is no write to be refused; the next reading tells."""
    world = make_world()
    world.write(10)
    worker = await world.worker("a")
    await until(world.everything_handled)
    shard = world.stream.open_shards()[0]
    await until(lambda: world.rows()[shard].frontier.low is not None)
    (first,) = worker.coordinator.workers
    world.table.edit("app", world.stream.label, shard, owner="stranger", epoch=7)
    await until(lambda: first not in worker.coordinator.workers)
    world.write(10)
    await until(world.everything_handled)
    assert {one.epoch for one in world.seen[10:]} == {8}, "taken again by the rules, when the stranger was fenced"
    world.assert_in_order(duplicates=0)
