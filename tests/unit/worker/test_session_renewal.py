"""The heartbeat: the validity counts from before the send, and ends when the worker may not renew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.lease import SessionRow, SessionValidity
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import SLOWEST, Link
from consumer.testing.virtual_loop import Process, VirtualLoop
from consumer.worker.fleet.session_renewal import SessionRenewal

ME = "host/1/me/10s"
DURATION = 10.0
TIMED_OUT = DependencyError("UpdateItem", "Timeout")


class Renewed:
    """A process that renews one session, in virtual time, and a network to hurt."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(random.Random("renewal"))
        self.process = Process(self.loop, "worker")
        self.table, self.validity = MemoryTable(), SessionValidity()
        self.link = Link(self.process, "session", random.Random("network"), timeout=DURATION)
        self.store = MemoryLeaseStore(self.table, "app", self.process.wall, self.link)
        self.store_without_faults = MemoryLeaseStore(self.table, "app", self.process.wall)
        self.may_renew = True
        self.renewal = SessionRenewal(
            self.store,
            self.process,
            SessionRow(ME),
            self.validity,
            may_renew=lambda: self.may_renew,
        )

    def start(self) -> asyncio.Task[None]:
        return self.process.spawn(self.renewal.run(), "renewal")

    @property
    def counter(self) -> int:
        """How often the table has seen a renewal."""
        return self.table.sessions["app"][ME].row.counter

    @property
    def valid(self) -> bool:
        return self.validity.holds(self.process.monotonic())

    def run(self, scenario: Callable[[Renewed], Awaitable[None]]) -> None:
        async def body() -> None:
            await self.store_without_faults.open_session(SessionRow(ME))
            await scenario(self)

        self.loop.run_until(body())
        self.loop.close()
        assert self.loop.failures == []


def test_a_late_answer_never_stretches_the_validity() -> None:
    async def scenario(session: Renewed) -> None:
        held = session.link.hold_response("bump_session", times=1)
        session.link.refuse(TIMED_OUT, "bump_session")  # no second renewal
        sent_at = session.process.monotonic()
        session.start()
        await asyncio.sleep(0.9 * DURATION)
        assert (session.counter, session.validity.valid_until) == (1, float("-inf"))
        held.end()
        await asyncio.sleep(SLOWEST)
        assert session.validity.valid_until == sent_at + DURATION

    Renewed().run(scenario)


def test_it_stops_renewing_when_it_may_not() -> None:
    async def scenario(session: Renewed) -> None:
        running = session.start()
        await asyncio.sleep(2 * DURATION)
        assert session.valid
        session.may_renew, counter = False, session.counter
        await asyncio.sleep(2 * DURATION)
        assert (session.valid, session.counter, running.done()) == (False, counter, False)
        session.may_renew = True
        await asyncio.sleep(DURATION)
        assert session.valid

    Renewed().run(scenario)


def test_it_goes_on_after_failures() -> None:
    async def scenario(session: Renewed) -> None:
        refused = session.link.refuse(TIMED_OUT, "bump_session")
        session.start()
        await asyncio.sleep(DURATION)
        assert not session.valid
        assert refused.taken >= 6
        refused.end()
        await asyncio.sleep(DURATION)
        assert session.valid

    Renewed().run(scenario)


@pytest.mark.parametrize("how", ["fenced", "deleted"])
def test_a_fenced_session_ends_the_validity_for_good(how: str) -> None:
    async def scenario(session: Renewed) -> None:
        running = session.start()
        await asyncio.sleep(DURATION)
        assert session.valid
        if how == "fenced":
            assert await session.store.fence_session(ME, session.counter)
        else:
            session.table.drop_session("app", ME)
        await asyncio.sleep(DURATION / 2)
        assert running.done()
        session.validity.renewed(session.process.monotonic(), 100.0)
        assert not session.valid

    Renewed().run(scenario)


def test_opening_counts_from_before_the_send_and_closing_never_fails() -> None:
    async def scenario(session: Renewed) -> None:
        held = session.link.hold_response("open_session", times=1)
        await session.store_without_faults.close_session(ME)
        sent_at = session.process.monotonic()
        opening = asyncio.create_task(session.renewal.open())
        await asyncio.sleep(3.0)
        assert not session.valid
        held.end()
        await opening
        assert session.validity.valid_until == sent_at + DURATION
        session.link.refuse(TIMED_OUT, "close_session")
        await session.renewal.close()
        assert ME in session.table.sessions["app"], "it expires by itself"

    Renewed().run(scenario)
