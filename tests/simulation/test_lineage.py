"""Whole workers and shards that the listing does not show, lease rows that are deleted by hand, tombstones."""

from __future__ import annotations

import re

import pytest

from consumer.domain.errors import DependencyError, PermissionDenied
from consumer.domain.lease import LeaseRow
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support.simulated_fleet import (
    Gate,
    LogEvents,
    add,
    checked,
    owners,
    until_checkpointed,
    until_ended,
    until_owned,
    until_settled,
    versions,
    write,
)

BAD_LISTINGS = {
    "fails": DependencyError("DescribeStream", "InternalServerError"),
    "denied": PermissionDenied("dynamodb:DescribeStream", "the stream"),
}


async def until_listed(world: Simulation, times: int, seconds: float = 300.0) -> None:
    """Wait for so many more calls of DescribeStream."""
    enough = world.calls["list_shards"] + times
    await world.until(lambda: world.calls["list_shards"] >= enough, seconds, f"{times} more listings")


# --- the listing --------------------------------------------------------------------------------------


def test_one_listing_without_the_shard_is_not_its_end() -> None:
    """The service forgets a shard for a moment and then knows it again: no gap, and every record."""
    world = Simulation("forgotten for a moment", shards=2)  # without its only shard a listing would be empty

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        add(world, "a")
        await until_settled(world)
        world.stream.omitted = frozenset(world.stream.open_shards()[:1])
        await until_listed(world, 1)
        world.stream.omitted = frozenset()
        write(world, 10)
        await until_settled(world)
        assert world.gaps_recorded() == set()
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_child_waits_for_a_parent_that_the_listing_left_out() -> None:
    """The first listing shows the child and not its parent: nothing of the child is handled before the parent."""
    world = Simulation("parent left out")

    async def scenario(world: Simulation) -> None:
        write(world, 20)
        parent = world.stream.open_shards()[0]
        child = world.stream.roll(parent)
        write(world, 20)
        world.stream.omitted = frozenset({parent})
        _, handler = add(world, "a")
        await world.until(lambda: child in world.rows(), 30.0, "the child is registered")
        assert (parent in world.rows(), handler.calls) == (False, [])
        world.stream.omitted = frozenset()
        await until_settled(world)
        assert handler.calls[0].shard_id == parent
        assert world.gaps_recorded() == set()
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_parent_that_is_gone_holds_nobody_up() -> None:
    """Trimmed before the application was registered: after the second look a tombstone stands for it."""
    world = Simulation("parent gone")

    async def scenario(world: Simulation) -> None:
        parent = world.stream.open_shards()[0]
        child = world.stream.roll(parent)
        world.vanish(parent)
        write(world, 10)
        add(world, "a")
        await until_settled(world)
        row = world.rows()[parent]
        assert (row.state, row.owner, row.epoch) == ("done", None, 0)
        assert world.rows()[child].parents == (parent,)
        await world.finish()

    checked(world, scenario)


def test_a_young_parent_is_waited_for() -> None:
    """By its id it cannot have been trimmed: looks a few seconds apart prove nothing, ten minutes do."""
    world = Simulation("young parent", stream={"dated": True})

    async def scenario(world: Simulation) -> None:
        parent = world.stream.open_shards()[0]
        world.stream.roll(parent)
        world.vanish(parent)
        write(world, 10)
        _, handler = add(world, "a")
        await until_listed(world, 4)
        await world.sleep(300.0)
        assert handler.calls == []
        assert parent not in world.rows()
        await until_settled(world, 700.0)
        await world.finish()

    checked(world, scenario)


async def finished_lineage(world: Simulation, name: str = "a") -> tuple[str, str]:
    """A parent that is done and its open child, both handled; no worker runs."""
    write(world, 10)
    parent = world.stream.open_shards()[0]
    worker, _ = add(world, name)
    await world.until(lambda: parent in world.rows(), 30.0, "the first shard is registered")
    child = world.stream.roll(parent)
    write(world, 10)
    await until_settled(world)
    await world.until(world.closed_shards_done, 60.0, "the parent is done")
    await worker.stop()
    assert world.rows()[child].state == "open"
    return parent, child


def test_a_removed_row_of_a_finished_parent_is_not_read_again() -> None:
    """Its child has been started, so it was settled; it is registered as done."""
    world = Simulation("removed row")

    async def scenario(world: Simulation) -> None:
        parent, child = await finished_lineage(world)
        world.delete_row(parent)
        _, handler = add(world, "b")
        await world.until(lambda: parent in world.rows(), 60.0, "the parent has a row again")
        assert world.rows()[parent].state == "done"
        write(world, 5)
        await until_settled(world)
        assert {call.shard_id for call in handler.calls} == {child}
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_removed_row_of_a_finished_parent_whose_child_is_idle_is_not_read_again() -> None:
    """The child has not saved anything, so its row says nothing of its parent: the worker remembers that."""
    world = Simulation("removed row, idle child")

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        parent = world.stream.open_shards()[0]
        add(world, "a")
        await world.until(lambda: parent in world.rows(), 30.0, "the first shard is registered")
        child = world.stream.roll(parent)
        await world.until(world.closed_shards_done, 60.0, "the parent is done")
        await world.until(lambda: child in world.rows() and world.rows()[child].owner is not None, 30.0, "it is taken")
        assert world.rows()[child].state == "waiting"
        await world.sleep(30.0)
        world.delete_row(parent)
        await world.until(lambda: parent in world.rows(), 120.0, "the parent has a row again")
        assert world.rows()[parent].state == "done"
        write(world, 5)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_row_that_is_deleted_right_after_its_shard_was_finished_is_not_read_again() -> None:
    """No worker has read it since: its last owner knows."""
    world = Simulation("row of a shard just finished")

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        parent = world.stream.open_shards()[0]
        worker, _ = add(world, "a")
        await world.until(world.everything_settled, 30.0)
        await world.sleep(30.0)
        write(world, 10)
        unread = worker.links["table"].refuse(DependencyError("Query", "Timeout"), "leases")
        world.stream.roll(parent)
        await world.until(world.closed_shards_done, 60.0, "the parent is done")
        world.delete_row(parent)
        unread.end()
        await world.until(lambda: parent in world.rows(), 120.0, "the parent has a row again")
        await until_settled(world)
        assert world.rows()[parent].state == "done"
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


# --- tombstones ---------------------------------------------------------------------------------------


def test_a_tombstone_goes_days_after_its_shard() -> None:
    world = Simulation("tombstone")

    async def scenario(world: Simulation) -> None:
        parent, child = await finished_lineage(world)
        world.vanish(parent)
        worker, _ = add(world, "b")
        await until_listed(world, 4)
        assert parent in world.rows(), "not long enough ago"
        world.loop.pass_days(3.0)
        await world.until(lambda: parent not in world.rows(), 300.0, "the tombstone goes")
        assert world.rows()[child].state == "open"
        await worker.stop()
        write(world, 5)
        add(world, "c")  # and the child is still taken, although its parent has no row any more
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


@pytest.mark.parametrize("listing", ["empty", "fails", "denied"])
def test_no_bad_listing_removes_or_makes_a_tombstone(listing: str) -> None:
    """Neither goes an old one, nor does a parent that is not known count as gone."""
    world = Simulation(f"a listing that {listing}")

    async def scenario(world: Simulation) -> None:
        parent, _ = await finished_lineage(world)
        world.vanish(parent)
        world.loop.pass_days(3.0)
        store = MemoryLeaseStore(world.table, APPLICATION, world.clock.wall)
        assert await store.add_lease(world.stream.label, LeaseRow("orphan", parents=("unknown",)))
        worker, _ = add(world, "b")
        if listing == "empty":
            world.stream.blank = True
        else:
            worker.links["stream"].refuse(BAD_LISTINGS[listing], "list_shards")
        await until_listed(world, 30, 3600.0)
        assert parent in world.rows()
        assert "unknown" not in world.rows()
        assert world.rows()["orphan"].owner is None
        await world.finish()

    checked(world, scenario)


# --- rows that are deleted by hand --------------------------------------------------------------------


@pytest.mark.parametrize("busy", [True, False])
def test_a_row_deleted_under_its_owner_comes_back_as_the_owner_knows_it(*, busy: bool) -> None:
    """Also of an idle shard. Nothing is repeated, the epoch stays, and the next owner goes on from there."""
    world = Simulation(f"row deleted, {busy}")

    async def scenario(world: Simulation) -> None:
        write(world, 50)
        worker, _ = add(world, "a")
        await until_settled(world)
        await until_checkpointed(world)
        (shard,) = world.rows()
        world.delete_row(shard)
        if busy:
            write(world, 50)
        await world.until(lambda: shard in world.rows(), 60.0, "the row is put back")
        row = world.rows()[shard]
        assert (row.owner, row.epoch, row.frontier.low is not None) == (worker.incarnation, 1, True)
        write(world, 10)
        await until_settled(world)
        await worker.stop()
        add(world, "b")
        write(world, 10)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


@pytest.mark.parametrize("when", ["a drain", "a hand-over"])
def test_a_row_deleted_before_it_is_passed_on_takes_its_frontier_along(when: str) -> None:
    """The lease is being given away while a last call is under way; the row is deleted before that call ends."""
    log = LogEvents()
    world = Simulation(f"deleted in {when}", shards=2, on_event=log)

    async def scenario(world: Simulation) -> None:
        gate = Gate(lambda call: any(version > 2 for _, version in versions(call)))
        write(world, 40)
        worker, handler = add(world, "a", gate)
        await until_settled(world)
        await until_checkpointed(world)
        write(world, 20)
        await world.until(lambda: sum(len(c.records) for c in handler.running) == 20, 30.0, "20 records in calls")
        if when == "a drain":
            worker.terminate()
            await world.sleep(1.0)
            leaving = set(world.rows())
        else:
            add(world, "b")
            await world.until(lambda: bool(log.of("lease.handing_over")), 60.0, "the hand-over begins")
            leaving = set(re.findall(r"'shard_id': '([^']+)'", log.of("lease.handing_over")[0]))
        assert leaving
        for shard in leaving:
            world.delete_row(shard)
        gate.open()
        if when == "a drain":
            await until_ended(world, worker)
            assert len(world.rows()) == 2
            add(world, "b")
        else:
            await world.until(lambda: sorted(world.owned().values()) == [1, 1], 60.0, "one shard each")
        write(world, 10)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_deleted_row_that_nobody_owns_comes_back_from_anybodys_memory() -> None:
    """Its owner is dead; another worker has read the row before."""
    world = Simulation("from memory", shards=2)

    async def scenario(world: Simulation) -> None:
        write(world, 100)
        first, _ = add(world, "a")
        add(world, "b")
        await world.until(lambda: sorted(world.owned().values()) == [1, 1], 60.0, "one shard each")
        await until_settled(world)
        await until_checkpointed(world)
        await world.sleep(world.settings.leases.duration)  # every worker reads all rows twice as often
        (mine,) = (row.shard_id for row in world.rows().values() if row.owner == first.incarnation)
        before = world.rows()[mine]
        first.kill()
        world.delete_row(mine)
        await world.until(lambda: mine in world.rows(), 60.0, "the row is put back")
        assert world.rows()[mine].epoch > before.epoch
        assert world.rows()[mine].frontier == before.frontier
        write(world, 10)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_worker_unsure_of_its_lease_puts_nothing_back() -> None:
    """Cut off from its session it may be fenced any moment. Neither does its regular look put the row back as its own,
    nor the end of a call that began in time: that gives the lease up, and the row comes back free, with a new epoch."""
    world = Simulation("unsure")

    async def scenario(world: Simulation) -> None:
        gate = Gate(lambda call: ("last", 1) in versions(call))
        worker, handler = add(world, "a", gate)
        write(world, 10)
        await until_settled(world)
        await until_checkpointed(world)
        (shard,) = world.rows()
        lost = worker.links["session"].lose_request()
        await world.sleep(0.5 * world.settings.leases.duration)
        world.put("last")
        await world.until(lambda: bool(handler.running), 5.0, "the last call")
        await world.sleep(0.6 * world.settings.leases.duration)
        world.delete_row(shard)
        await world.sleep(5.0)
        assert shard not in world.rows()
        gate.open()
        await world.until(lambda: shard in world.rows(), 5.0, "the row is put back")
        assert world.rows()[shard].epoch >= 2, "its own epoch was 1"
        lost.end()
        write(world, 10)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_dropped_table_stops_the_work_and_its_return_resumes_it() -> None:
    """No call starts when the validity is over; the next incarnation puts the rows back as this process knew them."""
    world = Simulation("dropped table", shards=2)

    async def scenario(world: Simulation) -> None:
        write(world, 100)
        _, handler = add(world, "a")
        await until_settled(world)
        await until_checkpointed(world)
        world.wipe_table()
        await world.sleep(world.settings.leases.duration)
        calls = len(handler.calls)
        write(world, 20)
        await world.sleep(60.0)
        assert len(handler.calls) == calls
        world.table.exists = True
        await until_settled(world)
        assert all(row.epoch >= 2 for row in world.rows().values())
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


@pytest.mark.parametrize("allowed", [True, False])
def test_a_dropped_table_is_made_anew_only_if_allowed(*, allowed: bool) -> None:
    config = {"leases": {"duration": "10s", "create_table": allowed}}
    world = Simulation(f"dropped table, {allowed}", config=config)

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "a")
        await until_owned(world, worker)
        world.table.exists = False
        looks = world.calls["bulletin"]
        if allowed:
            await world.until(lambda: world.table.exists, 60.0, "the table is made anew")
        else:
            await world.sleep(300.0)
            assert (world.table.exists, world.calls["bulletin"] > looks + 5) == (False, True)
            world.table.exists = True
        await world.until(lambda: bool(worker.incarnation) and owners(world) == {worker.incarnation}, 60.0, "its lease")
        await world.finish()

    checked(world, scenario)


def test_an_idle_owner_notices_that_its_row_names_somebody_else() -> None:
    """A person edited the table. Without a record there is no write to be refused; the next reading shows it."""
    log = LogEvents()
    world = Simulation("edited owner", on_event=log)

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        _, handler = add(world, "a")
        await until_settled(world)
        await until_checkpointed(world)
        (shard,) = world.rows()
        before = len(handler.calls)
        world.edit_row(shard, owner="stranger", epoch=7)
        await world.until(lambda: bool(log.of("lease.lost")), 60.0, "it notices")
        write(world, 10)
        await until_settled(world)
        epochs = {call.lease_epoch for call in handler.calls[before:]}
        assert epochs == {8}, "taken again by the rules, when the stranger was fenced"
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_wiped_table_makes_nobody_list_over_and_over() -> None:
    """Without sessions no lister is among the living: the turns to list go on all the same, some seconds apart."""
    world = Simulation("listings of a wiped table", config={"leases": {"duration": "40s"}})

    async def scenario(world: Simulation) -> None:
        for name in "abc":
            add(world, name)
        await world.until(world.balanced, 60.0, "balanced")
        await world.sleep(30.0)
        before = world.calls["list_shards"]
        world.wipe_table()
        world.table.exists = True
        await world.sleep(30.0)
        assert world.calls["list_shards"] - before <= 3 + 30.0 / 5.0, "one of each worker at once, then in turns"
        await world.until(world.balanced, 120.0, "balanced again")
        await world.finish()

    checked(world, scenario)
