"""The heartbeat: the validity counts from before the send, and ends when nobody may renew."""

from __future__ import annotations

import asyncio
import time

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.lease import SessionRow, SessionValidity
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.worker.clock import SystemClock
from consumer.worker.fleet.session_renewal import SessionRenewal
from tests.unit.worker.harness import Faults, until

ME = "host/1/me"


class Kept:
    """A keeper of one session with a duration of 0.4 s."""

    duration = 0.4

    def __init__(self) -> None:
        self.table, self.link, self.validity, self.lost = MemoryTable(), Faults(), SessionValidity(), asyncio.Event()
        self.store = MemoryLeaseStore(self.table, "app", time.time, self.link)
        self.may_renew = True
        self.keeper = SessionRenewal(
            self.store,
            SystemClock(),
            self.validity,
            ME,
            self.duration,
            may_renew=lambda: self.may_renew,
            on_lost=self.lost.set,
        )

    @property
    def counter(self) -> int:
        return self.table.sessions["app"][ME].row.counter


@pytest.fixture
async def kept() -> Kept:
    kept = Kept()
    await kept.store.open_session(SessionRow(ME))
    return kept


async def test_a_late_answer_never_stretches_the_belief(kept: Kept) -> None:
    clock = SystemClock()
    kept.link.hold["bump_session"] = asyncio.Event()
    sent_before = clock.monotonic()
    running = asyncio.create_task(kept.keeper.run())
    await until(lambda: kept.counter == 1)
    sent_after = clock.monotonic()
    await asyncio.sleep(0.15)
    assert kept.validity.valid_until == float("-inf")
    kept.link.refuse["bump_session"] = DependencyError("UpdateItem", "Timeout")  # no second one
    kept.link.hold.pop("bump_session").set()
    await until(lambda: kept.validity.valid_until > 0)
    assert sent_before + kept.duration <= kept.validity.valid_until <= sent_after + kept.duration
    running.cancel()


async def test_it_stops_renewing_when_it_may_not(kept: Kept) -> None:
    running = asyncio.create_task(kept.keeper.run())
    await until(lambda: kept.counter >= 2)
    kept.may_renew = False
    counter = kept.counter
    await until(lambda: not kept.validity.holds(SystemClock().monotonic()))
    assert kept.counter <= counter + 1
    assert not running.done()
    kept.may_renew = True
    await until(lambda: kept.validity.holds(SystemClock().monotonic()))
    running.cancel()


async def test_it_goes_on_after_failures(kept: Kept) -> None:
    kept.link.refuse["bump_session"] = DependencyError("UpdateItem", "Timeout")
    running = asyncio.create_task(kept.keeper.run())
    await until(lambda: kept.link.calls["bump_session"] >= 6)
    assert not kept.validity.holds(SystemClock().monotonic())
    kept.link.refuse.clear()
    await until(lambda: kept.validity.holds(SystemClock().monotonic()))
    running.cancel()


@pytest.mark.parametrize("how", ["fenced", "deleted"])
async def test_a_fenced_session_ends_the_belief_for_good(kept: Kept, how: str) -> None:
    running = asyncio.create_task(kept.keeper.run())
    await until(lambda: kept.validity.holds(SystemClock().monotonic()))
    if how == "fenced":
        while not await kept.store.fence_session(ME, kept.counter):
            pass
    else:
        kept.table.drop_session("app", ME)
    await until(running.done)
    assert kept.lost.is_set()
    kept.validity.renewed(SystemClock().monotonic(), 100)
    assert not kept.validity.holds(SystemClock().monotonic())
