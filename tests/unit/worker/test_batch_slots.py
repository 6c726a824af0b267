"""The places of a shard: a batch that leaves one gets one again, before any new batch."""

from __future__ import annotations

import asyncio

import pytest

from consumer.worker.shard.batch_slots import MOST_AWAY, Place, Places


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_place_that_is_left_is_free_at_once_and_only_once() -> None:
    freed: list[int] = []
    all_places = Places(1, lambda: freed.append(all_places.taken))
    place = all_places.take()
    assert not all_places.free
    place.leave()
    place.leave()
    assert (freed, all_places.taken, all_places.away) == ([0], 0, 1)
    await place.come_back()
    assert (all_places.taken, all_places.away, all_places.free) == (1, 0, False)
    place.end()
    assert all_places.free


async def returning(all_places: Places, count: int) -> tuple[list[Place], list[asyncio.Task[None]]]:
    """So many batches that come back one after the other and find every place taken."""
    away = []
    for _ in range(count):
        away.append(all_places.take())
        away[-1].leave()
    taken = [all_places.take()]
    tasks = [asyncio.create_task(place.come_back()) for place in away]
    await settle()
    assert all_places.wanted
    assert not any(task.done() for task in tasks)
    return taken + away, tasks


async def test_a_batch_that_comes_back_waits_in_line_and_the_place_is_passed_on() -> None:
    all_places = Places(1, lambda: None)
    (holder, first, second), tasks = await returning(all_places, 2)
    for ending, waits in ((holder, [True, False]), (first, [True, True])):
        ending.end()
        await settle()
        assert [task.done() for task in tasks] == waits
        assert all_places.taken == 1, "no new batch gets in between"
    assert not all_places.wanted
    second.end()
    assert (all_places.taken, all_places.away) == (0, 0)


@pytest.mark.parametrize("given", ["before", "at once", "later"])
async def test_cancelled_while_it_waits_no_place_is_lost(given: str) -> None:
    """Also when a place is given back around that moment: then the next one gets it."""
    all_places = Places(1, lambda: None)
    (holder, first, second), tasks = await returning(all_places, 2)
    if given == "before":
        holder.end()
    tasks[0].cancel()
    if given == "at once":
        holder.end()
    await settle()
    assert tasks[0].cancelled()
    first.end()
    if given == "later":
        holder.end()
    await settle()
    assert tasks[1].done()
    second.end()
    assert (all_places.taken, all_places.away, all_places.wanted) == (0, 0, False)


async def test_too_many_away_keep_their_places() -> None:
    all_places = Places(MOST_AWAY + 1, lambda: None)
    held = [all_places.take() for _ in range(MOST_AWAY + 1)]
    for place in held:
        place.leave()
    assert (all_places.taken, all_places.away, held[-1].away) == (1, MOST_AWAY, False)
    for place in held:
        place.end()
    assert (all_places.taken, all_places.away) == (0, 0)
