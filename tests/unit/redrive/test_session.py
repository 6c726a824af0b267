"""A redrive is a fenced member of the fleet: two of one place, a dead one, and one that wakes up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from consumer.domain.lease import TAKE_MARGIN, SessionRow
from consumer.domain.planner import plan
from consumer.domain.redrive_claim import Claim
from consumer.redrive.session import RedriveFenced, RedriveSession, RedriveUnderWay
from consumer.testing.memory_claims import MemoryRedriveClaims
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.testing.virtual_loop import Process
from tests.support.virtual_time import in_virtual_time

PLACE = "arn:aws:sqs:us-east-1:123456789012:dlq"
DURATION = 10.0


class World:
    """One lease table, and redrives on it."""

    def __init__(self, clock: Process) -> None:
        self.clock = clock
        self.table = MemoryTable(service_time=time.time)
        self.store = MemoryLeaseStore(self.table, "app", time.time)
        self.claims = MemoryRedriveClaims()
        self.count = 0

    def session(self) -> RedriveSession:
        self.count += 1
        return RedriveSession(self.store, self.clock, "host/1", f"token-{self.count}", DURATION)


def in_world(work: Callable[[World], Awaitable[None]]) -> None:
    async def body(clock: Process) -> None:
        await work(World(clock))

    in_virtual_time(body)


def test_a_session_holds_as_long_as_it_is_renewed_and_goes_with_its_row() -> None:
    async def work(world: World) -> None:
        session = world.session()
        assert not session.holds()
        async with session.opened():
            await asyncio.sleep(20 * DURATION)
            assert session.holds()
            assert 0 < session.left() <= DURATION
            assert [one.incarnation for one in await world.store.sessions()] == [session.incarnation]
        assert await world.store.sessions() == []

    in_world(work)


def test_no_worker_gives_it_a_lease() -> None:
    async def work(world: World) -> None:
        async with world.session().opened():
            (row,) = await world.store.sessions()
            assert row.leaving
            assert plan(row.incarnation, [row], (), {}).take == ()

    in_world(work)


def test_the_second_of_two_is_told_who_works() -> None:
    async def work(world: World) -> None:
        first, second = world.session(), world.session()
        async with first.opened(), second.opened():
            claim = await first.take(world.claims, PLACE)
            assert (claim.owner, claim.epoch) == (first.incarnation, 1)
            with pytest.raises(RedriveUnderWay, match=first.incarnation):
                await second.take(world.claims, PLACE)
            assert first.holds()
            await second.take(world.claims, "s3://another/place")

    in_world(work)


def test_what_was_given_back_is_free_at_once() -> None:
    async def work(world: World) -> None:
        first, second = world.session(), world.session()
        async with first.opened(), second.opened():
            await first.give_back(world.claims, await first.take(world.claims, PLACE))
            begun = world.clock.monotonic()
            await second.take(world.claims, PLACE)
            assert world.clock.monotonic() - begun < 0.1

    in_world(work)


def test_two_at_once_do_not_both_get_it() -> None:
    async def work(world: World) -> None:
        sessions = [world.session() for _ in range(4)]

        async def one(session: RedriveSession) -> Claim | RedriveUnderWay:
            async with session.opened():
                try:
                    taken = await session.take(world.claims, PLACE)
                except RedriveUnderWay as error:
                    return error
                await asyncio.sleep(3 * DURATION)
                return taken

        found = await asyncio.gather(*map(one, sessions))
        assert sum(isinstance(result, Claim) for result in found) == 1

    in_world(work)


def test_a_dead_one_is_fenced_first_and_outwaited() -> None:
    """The claim of a process that was killed falls to the next, not before nobody can rely on it any more."""

    async def work(world: World) -> None:
        dead, heir = world.session(), world.session()
        await dead._renewal.open()  # and is killed: nothing renews it
        died_at = world.clock.monotonic()
        await dead.take(world.claims, PLACE)
        async with heir.opened():
            claim = await heir.take(world.claims, PLACE)
            assert (claim.owner, claim.epoch) == (heir.incarnation, 2)
            assert world.clock.monotonic() - died_at >= TAKE_MARGIN * DURATION
            assert not dead.holds()
            fenced = {one.incarnation for one in await world.store.sessions() if one.fenced}
            assert fenced == {dead.incarnation}

    in_world(work)


def test_one_that_wakes_up_can_do_nothing_any_more() -> None:
    async def work(world: World) -> None:
        frozen, heir = world.session(), world.session()
        async with frozen.opened():
            held = await frozen.take(world.claims, PLACE)
            (row,) = await world.store.sessions()
            assert await world.store.fence_session(frozen.incarnation, row.counter)
            await asyncio.wait_for(frozen.lost.wait(), DURATION)
            assert not frozen.holds()
            with pytest.raises(RedriveFenced, match="run it again") as refused:
                frozen.require()
            assert refused.value.exit_code == 69, "as for a redrive that finds another one"
            async with heir.opened():
                taken = await heir.take(world.claims, PLACE)
                await frozen.give_back(world.claims, held)
                assert await world.claims.claim(PLACE) == taken, "it gives back what is not its own any more: nothing"

    in_world(work)


def test_a_claim_without_a_session_is_outwaited_too() -> None:
    """Its row may have been deleted by hand; the process may still believe in it."""

    async def work(world: World) -> None:
        world.claims.rows[PLACE] = Claim(PLACE, f"host/9/gone/{DURATION:g}s", 7)
        begun = world.clock.monotonic()
        heir = world.session()
        async with heir.opened():
            assert (await heir.take(world.claims, PLACE)).epoch == 8
        assert world.clock.monotonic() - begun >= TAKE_MARGIN * DURATION

    in_world(work)


def test_owners_are_asked_to_look() -> None:
    async def work(world: World) -> None:
        session = world.session()
        async with session.opened():
            await session.ask_owners_to_look()
            await session.ask_owners_to_look()
            (row,) = await world.store.sessions()
            assert (row.handoffs, row.leaving) == (2, True)

    in_world(work)


def test_another_member_is_dead_when_it_was_silent_for_long_enough_and_is_fenced_then() -> None:
    async def work(world: World) -> None:
        me, other = world.session(), world.session()
        async with me.opened():
            await world.store.open_session(SessionRow(other.incarnation, started_at=1.0))
            assert not await me.is_dead(other.incarnation)
            await asyncio.sleep(DURATION)
            assert not await me.is_dead(other.incarnation), "it relies on itself for as long as this"
            await asyncio.sleep(TAKE_MARGIN * DURATION - DURATION)
            assert await me.is_dead(other.incarnation)
            (row,) = [one for one in await world.store.sessions() if one.incarnation == other.incarnation]
            assert row.fenced

    in_world(work)


def test_another_member_that_is_renewed_is_never_dead() -> None:
    async def work(world: World) -> None:
        me, other = world.session(), world.session()
        async with me.opened(), other.opened():
            for _ in range(10):
                assert not await me.is_dead(other.incarnation)
                await asyncio.sleep(DURATION / 2)
            assert other.holds()

    in_world(work)


def test_several_members_without_a_row_are_outwaited_together() -> None:
    """Being asked about one must not begin the wait for another anew: keys of two dead redrives are tried in turn."""

    async def work(world: World) -> None:
        me, others = world.session(), [world.session().incarnation for _ in range(2)]
        async with me.opened():
            for _ in range(12):
                dead = [await me.is_dead(one) for one in others]
                await asyncio.sleep(1.0)
            assert dead == [True, True]

    in_world(work)
