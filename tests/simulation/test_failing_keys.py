"""A failing key owns nothing that is shared: at default settings, whatever its handler says, whatever waits behind it.

The families of random runs mix all of this (``failing_keys.py``); here is each promise by itself, with its right value.
Crashes, children and other orders are in ``test_deferred_keys.py``.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace

import pytest

from consumer.domain.batching import BOUNDS
from consumer.domain.errors import DependencyError
from consumer.domain.frontier import Frontier
from consumer.domain.outcome import HandlerCall, Outcome
from tests.support.failing_keys import (
    PROMPT,
    SMALL,
    Failing,
    Load,
    Mendable,
    Says,
    deferred_in,
    failing_world,
    names_all,
    open_of,
    others_are_prompt,
    raises,
    started,
    stops_at_first,
    until_deferred,
    with_every_record_once,
)
from tests.support.simulated_shards import (
    Recorder,
    Refusal,
    keys,
    letters,
    until,
)

# --- one record ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [raises, names_all, stops_at_first])
@pytest.mark.parametrize("batch_size", [100, 10, 1])
def test_one_poison_key_among_forty(batch_size: int, says: Says) -> None:
    world, handler = failing_world("one", {"batch": {"batch_size": batch_size}}), Mendable(says)

    async def scenario() -> None:
        world.put("poison")
        load = Load(world, every=0.01, poison=False)
        workers = await started(world, handler, "a")
        await asyncio.sleep(5.0)  # the first pages
        await others_are_prompt(world, 30.0, *workers)
        world.put("poison")
        await others_are_prompt(world, 30.0, *workers)
        load.end()
        assert open_of(world, "poison") == 2
        handler.mended = True

    with_every_record_once(world, scenario)


@pytest.mark.parametrize("batch_size", [100, 1])
def test_a_burst_behind_one_poison_record(batch_size: int) -> None:
    """Everything is there when reading begins: 40 keys need no longer than their calls take."""
    world, handler = failing_world("burst", {"batch": {"batch_size": batch_size}}), Mendable()

    async def scenario() -> None:
        world.put("poison")
        for number in range(1000):
            world.put(f"k{number % 40}")
        await started(world, handler, "a")
        others = [item for item in world.history.items.values() if item.key != "poison"]
        await until(world, lambda: not any(item.open for item in others), "the others are settled", PROMPT)
        handler.mended = True

    with_every_record_once(world, scenario)


# --- a hot key -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", ["64MiB", "1MiB"])
@pytest.mark.parametrize("retries", [-1, 5], ids=["endless retries", "refused letters"])
def test_a_hot_failing_key(retries: int, buffer: str) -> None:
    """60 records a second of 2 KB, over minutes: the others of four shards are prompt, memory is bounded, and in the
    end each record of the key was handled once and in order, or is a dead letter when its retries were used up."""
    config = {"limits": {"buffer": buffer}, "retry": {"max_retry_attempts": retries}}
    world, handler = failing_world("hot", config, shards=4), Mendable()

    async def scenario() -> None:
        workers = await started(world, handler, "a")
        throttled = DependencyError("SendMessage", "ServiceUnavailable")
        refused = Refusal(workers[0].links["dead_letters"], throttled, "send")
        load = Load(world, every=1 / 60, pad=2000)
        await asyncio.sleep(10.0)
        most = await others_are_prompt(world, 80.0, *workers)
        load.end()
        assert most <= world.settings.limits.buffer
        assert open_of(world, "poison") > BOUNDS.line_records
        assert [row for row in world.rows().values() if row.frontier.deferred]
        handler.mended = True
        refused.end()
        await until(world, world.everything_settled, "everything is settled", 120.0)
        assert len(letters(world)) == (retries > 0)

    with_every_record_once(world, scenario)


@pytest.mark.parametrize("places", [0, 4], ids=["slots", "places"])
def test_retries_that_hang_leave_slots_and_places_to_others(places: int) -> None:
    """A hundred keys whose calls take five seconds before they fail would keep everything busy."""
    world, handler = failing_world("hang"), Mendable()

    async def behave(call: HandlerCall) -> Outcome:
        if not handler.mended and any(key in Failing() for key in keys(call)):
            await asyncio.sleep(5.0)
        return await handler.run(call)

    recorder = Recorder(behave)
    recorder.width = places

    async def scenario() -> None:
        worker = world.add_worker("a", recorder)
        worker.start()
        await until(world, world.balanced, "balance")
        for number in range(100):
            world.put(f"poison{number}")
        load = Load(world, every=0.05, poison=False)
        await asyncio.sleep(600.0)  # by then each of them stands alone
        await others_are_prompt(world, 60.0, worker)
        load.end()
        handler.mended = True

    with_every_record_once(world, scenario)


def test_a_key_that_fails_again_while_it_catches_up() -> None:
    world, handler = failing_world("again", bounds=SMALL), Mendable()

    async def scenario() -> None:
        (shard,) = world.stream.open_shards()
        await started(world, handler, "a")
        load = Load(world, every=0.05)
        for _ in range(4):
            await until_deferred(world, shard)
            handler.mended = True
            await asyncio.sleep(0.4)
            handler.mended = False
            await asyncio.sleep(10.0)
        load.end()
        handler.mended = True

    with_every_record_once(world, scenario)
    assert not any(row.frontier.deferred for row in world.rows().values())


def test_many_failing_keys_catch_up_in_the_passes_that_they_need() -> None:
    """They share a pass: reading again costs by what is read, not by how many keys fail."""
    world, handler = failing_world("many", bounds=SMALL), Mendable()

    async def scenario() -> None:
        (shard,) = world.stream.open_shards()
        await started(world, handler, "a")
        for number in range(12 * 80):
            world.put(f"poison{number % 12}")
            world.put(f"k{number % 40}")
        await until(world, lambda: len(deferred_in(world, shard)) == 12, "all twelve are deferred")
        await asyncio.sleep(30.0)
        reads = world.calls["get_records"]
        handler.mended = True
        await until(world, world.everything_settled, "everything is settled", 60.0)
        assert world.calls["get_records"] - reads < 60

    with_every_record_once(world, scenario)


def test_a_key_that_needs_many_passes_is_read_no_more_often_than_the_service_allows() -> None:
    """Half of a full line is read in a pass; as soon as it is handled the next one begins."""
    world, handler = failing_world("passes", bounds=replace(SMALL, line_records=4)), Mendable()
    times: list[int] = []

    async def scenario() -> None:
        (shard,) = world.stream.open_shards()
        await started(world, handler, "a")
        for _ in range(200):
            world.put("poison")
        await until(world, lambda: bool(deferred_in(world, shard)), "it is deferred")
        await asyncio.sleep(10.0)
        handler.mended = True
        while not world.everything_settled():
            reads = world.calls["get_records"]
            await asyncio.sleep(1.0)
            times.append(world.calls["get_records"] - reads)
        assert max(times) <= 7, "five of the second reader in a second, one or two of the first, whose pauses differ"
        assert len(times) > 10, "many passes"

    with_every_record_once(world, scenario)


# --- memory ----------------------------------------------------------------------------------------------


def test_the_books_behind_one_old_record_stay_small() -> None:
    """Of 200,000 records settled behind one that is not they keep one stretch."""
    books = Frontier()
    books.settle(list(books.track(["1"]))[1:], [])
    tracemalloc.start()
    try:
        for page in range(200):
            numbers = [str(10**21 + 1000 * page + index) for index in range(1000)]
            books.settle(books.track(numbers), numbers)
        del numbers
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (books.outstanding, books.low) == (1, None)
    assert used < 10_000
    assert len(books.snapshot().runs) == 1
