"""The one writer of a lease row: every kind of write finds a deleted row again, and none is made without the lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import patch

import pytest

from consumer.domain.batching import PageHold
from consumer.domain.deferred import DeferredKey, digest_of
from consumer.domain.errors import DependencyError, LeaseDeleted, LeaseLost
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow
from consumer.domain.windows import TimeWindow, TumblingWindow, WindowState
from consumer.ports.leases import Loss
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.worker.context import Ports, WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.held_lease import HeldLease
from tests.unit.domain.support import records
from tests.unit.worker.lease_owner import APPLICATION, LABEL, ME, SHARD, Owner, with_owner

LOSS = Loss("gap", SHARD, None, None, "trimmed", 0.0)


WRITES: dict[str, Callable[[HeldLease], Awaitable[None]]] = {
    "a state": lambda lease: lease.change_state("draining"),
    "a discard": lambda lease: lease.record_loss(LOSS),
    "a gap": lambda lease: lease.record_gap(LOSS),
    "a release": lambda lease: lease.release(None),
    "a hand-over": lambda lease: lease.release("w/2/2"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_deleted_row_is_put_back_whatever_the_write_was(name: str) -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        owner.settle(5, 6)
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        await WRITES[name](lease)
        row = await owner.row()
        assert row.frontier == FrontierSnapshot("6", "5", ())
        assert row.owner == {"a release": None, "a hand-over": "w/2/2"}.get(name, ME)

    with_owner(work)


def test_a_checkpoint_puts_a_deleted_row_back_too() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        owner.settle(7)
        await asyncio.sleep(1.5)
        assert (await owner.row()).frontier.low == "7"
        assert lease.is_saved
        saving.cancel()

    with_owner(work)


def test_a_state_is_not_written_beside_a_checkpoint_which_could_bring_the_old_one_back() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        states: list[str] = []
        arrives, save = asyncio.Event(), owner.store.save

        async def saved(label: str, held: LeaseRow, window: WindowState | None = None) -> None:
            if held.state == "open":
                await arrives.wait()
            states.append(held.state)
            await save(label, held, window)

        with patch.object(owner.store, "save", saved):
            saving = asyncio.create_task(lease.checkpoint_for_ever())
            owner.settle(5)
            await asyncio.sleep(0.5)
            changing = asyncio.create_task(lease.change_state("deferred"))
            await asyncio.sleep(0.5)
            assert states == [], "the change does not overtake the checkpoint"
            arrives.set()
            await changing
            await asyncio.sleep(1.5)
            assert states == ["open", "deferred"]
            saving.cancel()

    with_owner(work)


def test_what_a_change_of_the_state_has_stored_is_not_stored_again() -> None:
    """Although a checkpoint was due, and waited for its turn."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        writes: list[str] = []
        owner.table.on_write = lambda operation, before, after: writes.append(after.state)
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(0)
        async with lease.writing:
            changing = asyncio.create_task(lease.change_state("deferred"))
            await asyncio.sleep(0)
            owner.settle(5)
            await asyncio.sleep(0.5)
        await changing
        await asyncio.sleep(1.5)
        assert writes == ["deferred"]
        saving.cancel()

    with_owner(work)


def test_a_row_that_is_put_back_twice_never_goes_back() -> None:
    """The answer that the row is gone comes late; meanwhile the supervisor has put back what is newer."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        lows: list[int] = []
        owner.settle(5)
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        owner.table.on_write = lambda _, before, after: lows.append(int(after.frontier.low or 0))
        arrives = owner.store.arrives = asyncio.Event()
        saving = asyncio.create_task(lease.change_state("open"))
        await asyncio.sleep(0.5)
        owner.settle(6)
        await lease.put_back()
        arrives.set()
        await saving
        assert lows == [6, 6]

    with_owner(work)


@pytest.mark.parametrize("name", WRITES)
def test_an_owner_that_is_not_valid_puts_nothing_back(name: str) -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        owner.validity.lost()
        with pytest.raises(LeaseDeleted):
            await WRITES[name](lease)
        assert await owner.store.lease(LABEL, SHARD) is None

    with_owner(work)


@pytest.mark.parametrize("name", WRITES)
def test_an_owner_that_was_fenced_puts_nothing_back_though_it_does_not_know(name: str) -> None:
    """It slept between its look at the clock and the write."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        assert await owner.store.fence_session(ME, 0)
        with pytest.raises(LeaseDeleted):
            await WRITES[name](lease)
        assert await owner.store.lease(LABEL, SHARD) is None

    with_owner(work)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_after_the_lease_moved_on_is_refused(name: str) -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        assert await owner.store.take(LABEL, await owner.row(), "w/2/2", "another nonce") is not None
        with pytest.raises(LeaseLost):
            await WRITES[name](lease)
        row = await owner.row()
        assert (row.owner, row.state, row.frontier) == ("w/2/2", "waiting", FrontierSnapshot())

    with_owner(work)


@pytest.mark.parametrize("name", [name for name in WRITES if name != "a discard"])
def test_a_write_is_repeated_until_the_session_is_fenced(name: str) -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        owner.table.exists = False  # ResourceMissing for every call
        loop = asyncio.get_running_loop()
        loop.call_later(60.0, owner.validity.lost)
        began = owner.clock.monotonic()
        with pytest.raises(LeaseLost, match="fenced"):
            await WRITES[name](lease)
        assert 60.0 <= owner.clock.monotonic() - began < 62.0

    with_owner(work)


def test_a_discard_is_one_attempt() -> None:
    """Its delivery repeats it, as it repeats any dead letter."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        class Down(MemoryLeaseStore):
            async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
                raise DependencyError("PutItem", "Timeout")

        down = Down(owner.table, APPLICATION, owner.clock.wall)
        ports = Ports(
            owner.context.ports.source,
            down,
            owner.context.ports.handler,
            None,
            owner.clock,
            owner.context.ports.random,
        )
        context = WorkerContext(
            **{name: getattr(owner.context, name) for name in WorkerContext.__slots__ if name != "ports"}, ports=ports
        )
        with pytest.raises(DependencyError):
            await HeldLease(context, lease.row, owner.subscription).record_loss(LOSS)

    with_owner(work)


def written(owner: Owner) -> list[tuple[float, int]]:
    """Gets what is written from now on: when, and up to which number everything is settled."""
    writes: list[tuple[float, int]] = []
    began = owner.clock.monotonic()

    def note(_: str, __: LeaseRow | None, after: LeaseRow) -> None:
        writes.append((round(owner.clock.monotonic() - began, 3), int(after.frontier.low or 0)))

    owner.table.on_write = note
    return writes


def test_what_is_settled_after_a_quiet_time_is_durable_at_once_and_the_rest_at_the_end_of_the_interval() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(5.0)
        writes = written(owner)
        for number in range(5, 25):
            owner.settle(number)
            await asyncio.sleep(0.09)
        assert writes == [(0.0, 5), (1.0, 16)]
        await asyncio.sleep(60.0)
        assert writes[2:] == [(2.0, 24)]
        owner.settle(25)
        await asyncio.sleep(0.01)
        assert writes[3:] == [(61.8, 25)]
        saving.cancel()

    with_owner(work)


def test_a_page_whose_records_settle_one_after_another_is_one_write() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(5.0)
        writes = written(owner)
        hold = PageHold(BudgetAccount(owner.context.budget), 0, left=0, event_bytes=0)
        entries = owner.subscription.accept(records(*range(1, 21)), hold)
        for entry in entries:
            await asyncio.sleep(0.02)
            owner.subscription.settle([entry], "handled")
        await asyncio.sleep(0.1)
        ((when, low),) = writes
        assert (low, when < 0.5) == (20, True)
        saving.cancel()

    with_owner(work)


def test_a_record_whose_call_takes_long_does_not_hold_back_the_others() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(5.0)
        hold = PageHold(BudgetAccount(owner.context.budget), 0, left=0, event_bytes=0)
        entries = owner.subscription.accept(records(1, 2, 3), hold)
        writes = written(owner)
        owner.subscription.settle(entries[:1], "handled")
        await asyncio.sleep(0.2)
        assert writes == [(0.05, 1)]
        saving.cancel()

    with_owner(work)


def test_where_a_shard_was_read_first_takes_no_write_from_its_first_settlement() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(5.0)
        writes = written(owner)
        hold = PageHold(BudgetAccount(owner.context.budget), 0, left=0, event_bytes=0)
        entries = owner.subscription.accept(records(1), hold)
        await asyncio.sleep(0.5)
        assert writes == []
        owner.subscription.settle(entries, "handled")
        await asyncio.sleep(0.01)
        assert writes == [(0.5, 1)]
        saving.cancel()

    with_owner(work)


def test_a_state_that_was_written_counts_as_a_checkpoint() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(5.0)
        owner.settle(1)
        await asyncio.sleep(3.0)
        writes = written(owner)
        await lease.change_state("deferred")
        owner.settle(2)
        await asyncio.sleep(5.0)
        assert writes == [(0.0, 1), (1.0, 2)]
        saving.cancel()

    with_owner(work)


def test_the_end_of_a_window_is_durable_at_once_and_its_beginning_waits() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        window = owner.subscription.window = TumblingWindow(10, await lease.read_window(asyncio.Event()))
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(5.0)
        hold = PageHold(BudgetAccount(owner.context.budget), 0, left=0, event_bytes=0)
        entries = owner.subscription.accept(records(1), hold)
        writes = written(owner)
        window.leading([100.0])
        await asyncio.sleep(0.5)
        assert writes == []
        window.aggregated(b'{"n":1}')
        owner.subscription.settle(entries, "handled")
        await asyncio.sleep(2.0)
        assert writes == [(0.5, 1)]
        window.close()
        owner.subscription.unsaved.set()
        await asyncio.sleep(0.01)
        assert writes[1:] == [(2.5, 1)]
        saving.cancel()

    with_owner(work, batch={"tumbling_window": "10s", "parallelization_factor": 1})


def test_an_idle_lease_costs_no_write() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        before = (await owner.row()).revision
        saving = asyncio.create_task(lease.checkpoint_for_ever())
        await asyncio.sleep(3600.0)
        assert (await owner.row()).revision == before
        assert lease.checkpoint_age == 0.0
        saving.cancel()

    with_owner(work)


def test_a_window_is_written_with_the_frontier_when_it_changed_and_put_back_with_a_deleted_row() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        durable = await lease.read_window(asyncio.Event())
        assert durable == WindowState()
        window = owner.subscription.window = TumblingWindow(10, durable)
        window.leading([100.0])
        window.aggregated(b'{"n":1}')
        owner.settle(5)
        await lease.change_state("open")
        held = WindowState(TimeWindow(100, 110), b'{"n":1}')
        assert await owner.store.window_state(LABEL, SHARD) == held
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        owner.settle(6)
        await lease.change_state("open")
        assert await owner.store.window_state(LABEL, SHARD) == held
        assert (await owner.row()).frontier.low == "6"

    with_owner(work, batch={"tumbling_window": "10s", "parallelization_factor": 1})


def test_what_is_settled_after_the_last_window_is_still_noticed() -> None:
    """The end of the windows is durable with the row, and its changes count for nothing afterwards."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        owner.subscription.window = TumblingWindow(60, WindowState(TimeWindow(0, 60), b'{"count":1}'))
        owner.settle(4)
        await lease.change_state("open")
        assert (await owner.row()).window_open
        await lease.end_windows()
        assert (lease.is_saved, lease.checkpoint_age) == (True, 0.0)
        assert not (await owner.row()).window_open
        assert await owner.store.window_state(LABEL, SHARD) == WindowState()
        for number in range(5, 10):
            owner.settle(number)
            assert not lease.is_saved
        assert not lease.row.window_open

    with_owner(work)


def test_a_deferred_key_is_written_with_the_frontier_and_put_back_with_a_deleted_row() -> None:
    """The list of deferred keys is part of what is settled, whatever becomes of the row."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        hold = PageHold(BudgetAccount(owner.context.budget), 0, left=0, event_bytes=0)
        entries = owner.subscription.accept(records(5, 6, 7), hold)
        owner.subscription.defer(entries[0].key, entries[:1], entries[1:])
        assert not lease.is_saved
        await lease.change_state("deferred")
        stored = (await owner.row()).frontier
        assert stored == FrontierSnapshot("7", "5", deferred=(DeferredKey(digest_of(entries[0].key), "5"),))
        owner.table.drop_lease(APPLICATION, LABEL, SHARD)
        owner.subscription.settle(entries[:1], "handled")
        assert not lease.is_saved
        await lease.release("w/2/2")
        row = await owner.row()
        assert (row.owner, row.state) == ("w/2/2", "deferred")
        assert row.frontier.deferred == (DeferredKey(digest_of(entries[0].key), "5", passed=True),)

    with_owner(work)


@pytest.mark.parametrize("how", ["a checkpoint", "a state"])
def test_every_write_of_a_frontier_that_failed_is_counted(how: str) -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        failures = owner.context.metrics.checkpoint_failures
        owner.table.exists = False
        owner.settle(5)
        write = lease.checkpoint_for_ever() if how == "a checkpoint" else lease.change_state("draining")
        writing = asyncio.create_task(write)
        await asyncio.sleep(10.2)
        assert failures.value == (11 if how == "a checkpoint" else 21)
        owner.table.exists = True
        await asyncio.sleep(2.0)
        before = failures.value
        owner.settle(6)
        await asyncio.sleep(10.0)
        assert failures.value == before
        writing.cancel()

    with_owner(work)
