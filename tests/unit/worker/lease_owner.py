"""A worker that holds the only lease of a table in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from consumer.domain.batching import PageHold
from consumer.domain.errors import LeaseDeleted
from consumer.domain.lease import LeaseRow, SessionRow, SessionValidity
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.source_format import dynamodb_format
from consumer.domain.windows import WindowState
from consumer.operate.metrics import Metrics
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
from consumer.worker.running_config import RunningConfig
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.subscription import Subscription
from tests.support.virtual_time import in_virtual_time
from tests.unit.domain.support import records

APPLICATION, LABEL, SHARD, ME = "app", "label", "shardId-1", "w/1/1"


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
            config=RunningConfig(Settings.model_validate(config)),
            ports=ports,
            metrics=Metrics(),
            stream=StreamDescription(stream.arn, LABEL, "orders", "ENABLED", "NEW_IMAGE", dynamodb_format("pk"), 0.0),
            incarnation=ME,
            validity=self.validity,
            budget=ByteBudget(1 << 20),
            places=HandlerPlaces(ports.handler),
            start_at=None,
            parked=ParkedKeys(self.store),
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
