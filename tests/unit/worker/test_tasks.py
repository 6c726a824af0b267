"""The one way to do much at once."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.errors import DependencyError, Throttled
from consumer.worker.tasks import AT_ONCE, each


async def test_everything_is_done_some_at_a_time_and_begun_in_order() -> None:
    begun: list[int] = []
    running = most = 0

    async def do(item: int) -> None:
        nonlocal running, most
        begun.append(item)
        running += 1
        most = max(most, running)
        for _ in range(item % 5):
            await asyncio.sleep(0)
        running -= 1

    assert await each(range(1000), do) == []
    assert begun == list(range(1000))
    assert most == AT_ONCE


async def test_what_is_unavailable_stops_no_other() -> None:
    done: list[int] = []

    async def do(item: int) -> None:
        await asyncio.sleep(0)
        if item % 10 == 3:
            raise Throttled("UpdateItem", "ThrottlingException")
        if item == 20:
            raise DependencyError("UpdateItem", "Timeout")
        done.append(item)

    failed = await each(range(50), do, at_once=4)
    assert sorted(item for item, _ in failed) == [3, 13, 20, 23, 33, 43]
    assert len(done) == 44
    assert {type(error) for item, error in failed if item != 20} == {Throttled}


async def test_a_bug_is_not_kept_for_later() -> None:
    begun: list[int] = []

    async def do(item: int) -> None:
        begun.append(item)
        await asyncio.sleep(0)
        raise KeyError(item)

    with pytest.raises(ExceptionGroup) as caught:
        await each(range(100), do, at_once=2)
    assert caught.group_contains(KeyError)
    assert len(begun) == 2


async def test_a_cancellation_ends_what_is_under_way_and_begins_nothing() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    async def do(item: int) -> None:
        begun.append(item)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    task = asyncio.create_task(each(range(100), do, at_once=3))
    while len(begun) < 3:  # one turn of the loop at a time
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun == sorted(cancelled) == [0, 1, 2]
