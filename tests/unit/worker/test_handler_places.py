"""Places of the handler: first come, first served, and half of them at most for retries."""

from __future__ import annotations

import asyncio

import pytest

from consumer.worker.handler_places import HandlerPlaces


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def taking(places: HandlerPlaces, *, again: bool) -> asyncio.Task[None]:
    return asyncio.create_task(places.take(again=again))


@pytest.mark.parametrize(("width", "retries"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4)])
async def test_retries_get_half_of_the_places_and_one_at_least(width: int, retries: int) -> None:
    """The other half is always there for calls that are none."""
    places = HandlerPlaces(width)
    again = [taking(places, again=True) for _ in range(width + 2)]
    await settle()
    assert sum(task.done() for task in again) == retries
    fresh = [taking(places, again=False) for _ in range(width + 2)]
    await settle()
    assert sum(task.done() for task in fresh) == width - retries
    places.give_back(again=True)
    await settle()
    assert sum(task.done() for task in (*again, *fresh)) == width + 1
    for task in (*again, *fresh):
        task.cancel()
    await settle()


async def test_calls_wait_in_line() -> None:
    """First come, first served, and as many as there are places."""
    places, served = HandlerPlaces(2), list[int]()

    async def call(number: int) -> None:
        await places.take(again=False)
        served.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(call(number))
        await settle()
        assert served == [0, 1]
        for count in (3, 4, 5):
            places.give_back(again=False)
            await settle()
            assert served == list(range(count))


async def test_without_a_limit_nothing_waits() -> None:
    places = HandlerPlaces(0)
    for _ in range(1000):
        await places.take(again=True)
    places.give_back(again=True)


async def test_a_cancelled_retry_keeps_no_place() -> None:
    """Neither of all places nor of those for retries, wherever it waited."""
    places = HandlerPlaces(2)
    await places.take(again=False)
    await places.take(again=False)
    for _ in range(3):
        waiting = taking(places, again=True)
        await settle()
        waiting.cancel()
        await settle()
        assert waiting.cancelled()
    places.give_back(again=False)
    async with asyncio.timeout(1):
        await places.take(again=True)
    places.give_back(again=True)
    places.give_back(again=False)
    async with asyncio.timeout(1):
        await places.take(again=False)
        await places.take(again=True)
