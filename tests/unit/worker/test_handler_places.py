"""Places of the handler: first come, first served, and half of them at most for retries."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.ports.handler import Reservation
from consumer.testing.simulated_processes import ScriptedProcesses
from consumer.worker.handler_places import LOOKS, HandlerPlaces
from tests.support.simulated_shards import Recorder
from tests.support.virtual_time import in_virtual_time


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _settles(call: HandlerCall) -> Outcome:
    return OK


async def places_of(width: int) -> HandlerPlaces:
    """The places of a handler that many processes wide, all of them ready."""
    handler = ScriptedProcesses(_settles, width=width, starts_in=lambda: 0.0)
    await handler.start()
    await asyncio.sleep(0.01)
    return HandlerPlaces(handler)


def taking(places: HandlerPlaces, *, again: bool) -> asyncio.Task[Reservation]:
    return asyncio.create_task(places.reserve(again=again))


@pytest.mark.parametrize(("width", "retries"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4)])
async def test_retries_get_half_of_the_places_and_one_at_least(width: int, retries: int) -> None:
    """The other half is always there for calls that are none."""
    places = await places_of(width)
    again = [taking(places, again=True) for _ in range(width + 2)]
    await settle()
    assert sum(task.done() for task in again) == retries
    fresh = [taking(places, again=False) for _ in range(width + 2)]
    await settle()
    assert sum(task.done() for task in fresh) == width - retries
    again[0].result().release()
    await settle()
    assert sum(task.done() for task in (*again, *fresh)) == width + 1
    for task in (*again, *fresh):
        task.cancel()
    await settle()


def test_saturation_is_what_was_taken_since_the_last_look() -> None:
    """Also what was taken and given back between two of them; and the mean of the last looks."""

    async def work() -> None:
        places, loop = await places_of(4), asyncio.get_running_loop()
        shares = [places.saturation()]
        held = [await places.reserve(again=False) for _ in range(2)]
        for count in range(LOOKS):
            await asyncio.sleep(1.0)
            if count == 4:
                for reservation in held:
                    reservation.release()
                    reservation.release()
            shares.append(places.saturation())
        assert shares[0] == 0.0
        assert shares[5] == pytest.approx(0.5 * 5 / 6)
        for _ in range(LOOKS):
            taken = await places.reserve(again=True)
            await asyncio.sleep(0.5)
            taken.release()
            await asyncio.sleep(0.5)
            shares.append(places.saturation())
        assert shares[-1] == pytest.approx(0.25 * 0.5)
        assert loop.time() > 2 * LOOKS

    in_virtual_time(lambda _: work())


async def test_a_handler_without_a_limit_has_no_saturation() -> None:
    assert HandlerPlaces(Recorder()).saturation() is None


async def test_calls_wait_in_line() -> None:
    """First come, first served, and as many as there are places."""
    places, served = await places_of(2), list[Reservation]()

    async def call() -> None:
        served.append(await places.reserve(again=False))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(call())
        await settle()
        assert len(served) == 2
        for count in (3, 4, 5):
            served[count - 3].release()
            await settle()
            assert len(served) == count


async def test_a_reservation_that_is_given_back_twice_is_one_place() -> None:
    places = await places_of(1)
    first = await places.reserve(again=False)
    first.release()
    first.release()
    await places.reserve(again=False)
    waiting = taking(places, again=False)
    await settle()
    assert not waiting.done()
    waiting.cancel()
    await settle()


@pytest.mark.parametrize("again", [False, True])
async def test_a_cancelled_wait_keeps_nothing(again: bool) -> None:
    """Neither of all places nor of those for retries nor a process, wherever it waited."""
    handler = ScriptedProcesses(_settles, width=2, starts_in=lambda: 0.0)
    places = HandlerPlaces(handler)
    for _ in range(3):  # there is a place, and no process yet
        waiting = taking(places, again=again)
        await settle()
        waiting.cancel()
        await settle()
        assert waiting.cancelled()
    await handler.start()
    held = [await places.reserve(again=False), await places.reserve(again=False)]
    for _ in range(3):  # there is no place
        waiting = taking(places, again=again)
        await settle()
        waiting.cancel()
        await settle()
        assert waiting.cancelled()
    for reservation in held:
        reservation.release()
    async with asyncio.timeout(1):
        await places.reserve(again=True)
        await places.reserve(again=False)


async def test_a_wait_that_is_cancelled_as_it_ends_gives_the_process_back() -> None:
    places = await places_of(1)
    first = await places.reserve(again=False)
    waiting = taking(places, again=False)
    await settle()
    first.release()  # the wait is over, but its task has not run yet
    waiting.cancel()
    await settle()
    async with asyncio.timeout(1):
        await places.reserve(again=False)


def test_a_call_that_is_dropped_when_its_loop_has_ended_gives_its_place_back() -> None:
    """As a coroutine does that is collected."""
    loop = asyncio.new_event_loop()
    try:
        places = loop.run_until_complete(places_of(1))
        held = loop.run_until_complete(places.reserve(again=True))
    finally:
        loop.close()
    assert places.are_taken
    held.release()
    assert not places.are_taken
