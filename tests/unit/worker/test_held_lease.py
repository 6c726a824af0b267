"""The one writer of a lease row: every kind of write finds a deleted row again, and none is made without the lease."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer.domain.batching import PageHold
from consumer.domain.deferred import DeferredKey, digest_of
from consumer.domain.errors import DependencyError, LeaseDeleted, LeaseLost
from consumer.domain.filters.filters import compile_filters
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, SessionRow, SessionValidity
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.source_format import dynamodb_format
from consumer.domain.windows import TimeWindow, TumblingWindow, WindowState
from consumer.operate.metrics import Metrics
from consumer.ports.leases import Loss
from consumer.ports.source import StreamDescription
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.simulated_worker import ProcessRandomness, Scripted
from consumer.testing.virtual_loop import Process
from consumer.worker.context import Ports, WorkerContext
from consumer.worker.handler_places import HandlerPlaces
from consumer.worker.memory_budget import BudgetAccount, ByteBudget
from consumer.worker.parked_keys import ParkedKeys
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.subscription import Subscription
from tests.support.virtual_time import in_virtual_time
from tests.unit.domain.support import records

APPLICATION, LABEL, SHARD, ME = "app", "label", "shardId-1", "w/1/1"
LOSS = Loss("gap", SHARD, None, None, "trimmed", 0.0)


async def _settles(_: HandlerCall) -> Outcome:
    return OK


class LateBadNews(MemoryLeaseStore):
    """A table whose answer that a row is gone arrives when ``arrives`` is set."""

    arrives: asyncio.Event | None = None

    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        try:
            await super().save(label, held, window)
        except LeaseDeleted:
            if self.arrives is not None:
                await self.arrives.wait()
            raise


class Owner:
    """A worker that has taken the only lease of a table in memory."""

    def __init__(self, clock: Process, **sections: Any) -> None:
        self.clock = clock
        self.table = MemoryTable()
        self.store = LateBadNews(self.table, APPLICATION, clock.wall)
        self.validity = SessionValidity()
        self.validity.renewed(clock.monotonic(), 1e9)
        stream = MemoryStream(clock)
        config = {
            "application": APPLICATION,
            "source": {"table": "orders"},
            "handler": {"kind": "lambda", "target": "m:h"},
            **sections,
        }
        ports = Ports(
            MemoryStreamSource(stream), self.store, Scripted(_settles), None, clock, ProcessRandomness(random.Random(0))
        )
        self.context = WorkerContext(
            settings=Settings.model_validate(config),
            ports=ports,
            metrics=Metrics(),
            stream=StreamDescription(stream.arn, LABEL, "orders", "ENABLED", "NEW_IMAGE", dynamodb_format("pk"), 0.0),
            incarnation=ME,
            validity=self.validity,
            budget=ByteBudget(1 << 20),
            places=HandlerPlaces(ports.handler),
            start_at=None,
            filters=compile_filters([]),
            parked=ParkedKeys(MemoryLeaseStore(MemoryTable(), "app", clock.wall)),
        )

    async def take(self) -> HeldLease:
        await self.store.open_session(SessionRow(ME))
        await self.store.add_lease(LABEL, LeaseRow(SHARD))
        row = await self.store.take(LABEL, LeaseRow(SHARD), ME, "nonce")
        assert row is not None
        self.subscription = Subscription(self.context, row.frontier, BudgetAccount(self.context.budget))
        return HeldLease(self.context, row, self.subscription)

    def settle(self, *numbers: int) -> None:
        """These records are read and handled."""
        hold = PageHold(BudgetAccount(self.context.budget), 0, left=0, event_bytes=0)
        self.subscription.settle(self.subscription.accept(records(*numbers), hold), "handled")

    async def row(self) -> LeaseRow:
        row = await self.store.lease(LABEL, SHARD)
        assert row is not None
        return row


def with_owner(work: Callable[[Owner, HeldLease], Awaitable[None]], **sections: Any) -> None:
    """Run ``work`` in virtual time."""

    async def with_clock(clock: Process) -> None:
        owner = Owner(clock, **sections)
        await work(owner, await owner.take())

    in_virtual_time(with_clock)


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
