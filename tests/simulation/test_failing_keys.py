"""A failing key owns nothing that is shared: at default settings, whatever its handler says, whatever waits behind it.

The families of random runs mix all of this (``failing_keys.py``); here is each promise by itself, with its right value.
``expect_prompt`` is the checker of "nothing shared".
"""

from __future__ import annotations

import asyncio
import math
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.deferred import digest_of
from consumer.domain.errors import DependencyError
from consumer.domain.frontier import Frontier
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_shards import (
    FAILED,
    Recorder,
    Refusal,
    keys,
    letters,
    log_events,
    losses,
    named,
    run,
    until,
)
from tests.support.windows import deploy

PROMPT = 2.0  # seconds from the write of a record to its end
SMALL = KeyBounds(line_records=40, line_bytes=64 * 1024, failing_keys=16, deferred_keys=16)

Says = Callable[[HandlerCall, list[str]], Outcome]


def raises(call: HandlerCall, failing: list[str]) -> Outcome:
    return FAILED


def names_all(call: HandlerCall, failing: list[str]) -> Outcome:
    return Outcome("partial", failed=tuple(failing))


def stops_at_first(call: HandlerCall, failing: list[str]) -> Outcome:
    return Outcome("partial", failed=(failing[0],), exact=False)


class Mendable(Recorder):
    """Takes 10 ms and fails, as ``says`` puts it, with records whose key begins with ``poison``, until ``mended``."""

    def __init__(self, says: Says = raises) -> None:
        super().__init__(self._handle)
        self.mended = False
        self._says = says

    async def _handle(self, call: HandlerCall) -> Outcome:
        await asyncio.sleep(0.01)
        failing = [one.sequence_number for one in call.records if one.keys["id"].startswith("poison")]
        return self._says(call, failing) if failing and not self.mended else OK


class Failing:
    """The keys that ``expect_prompt`` says nothing about."""

    def __contains__(self, key: str) -> bool:
        return key.startswith("poison")


def failing_world(seed: str, config: Any = None, *, shards: int = 1, bounds: KeyBounds = BOUNDS) -> Simulation:
    return Simulation(seed, shards=shards, config=config, bounds=bounds, on_event=None)


class Load:
    """Writes until ``end``: ``others`` keys of ``kind``, and a record of the key ``poison`` between any two of them."""

    def __init__(self, world: Simulation, *, every: float, others: int = 40, poison: int = 1, pad: int = 10) -> None:
        self._world = world
        self._every = every
        self._others = [f"k{number}" for number in range(others)]
        self._poison = poison
        self._pad = "x" * pad
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        count = 0
        while True:
            self._world.put(self._others[count % len(self._others)], pad=self._pad)
            if self._poison and count % self._poison == 0:
                self._world.put("poison", pad=self._pad)
            count += 1
            await asyncio.sleep(self._every)

    def end(self) -> None:
        self._task.cancel()


async def others_are_prompt(world: Simulation, seconds: float, *workers: SimulatedWorker) -> int:
    """Judge the other keys for so long; returns the most bytes that any worker's budget held."""
    world.checkers.expect_prompt(PROMPT, Failing())
    most = 0
    for _ in range(int(seconds * 10)):
        await asyncio.sleep(0.1)
        most = max([most, *(one.context.budget.used for one in workers if one.context is not None)])
    world.checkers.check_prompt()
    world.checkers.expect_prompt(math.inf, Failing())
    return most


def open_of(world: Simulation, key: str) -> int:
    return sum(item.key == key and item.open for item in world.history.items.values())


def deferred_in(world: Simulation, shard_id: str) -> list[str]:
    return [key.digest for key in world.rows()[shard_id].frontier.deferred]


async def until_deferred(world: Simulation, *shards: str) -> None:
    await until(world, lambda: all(deferred_in(world, shard) for shard in shards), "the failing key is deferred")


async def started(world: Simulation, handler: Mendable, *names: str) -> list[SimulatedWorker]:
    workers = [world.add_worker(name, handler) for name in names]
    for worker in workers:
        worker.start()
    await until(world, world.balanced, "balance")
    return workers


def with_every_record_once(world: Simulation, scenario: Callable[[], Awaitable[None]]) -> None:
    """``run``, which also raises for a record that was handled twice, or overtaken by a later one of its key."""
    run(world, scenario)
    assert all(item.settles == 1 or item.dead_lettered for item in world.history.items.values())


# --- one record ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [raises, names_all, stops_at_first])
@pytest.mark.parametrize("batch_size", [100, 10, 1])
def test_one_poison_key_among_forty(batch_size: int, says: Says) -> None:
    world, handler = failing_world("one", {"batch": {"batch_size": batch_size}}), Mendable(says)

    async def scenario() -> None:
        world.put("poison")
        load = Load(world, every=0.01, poison=0)
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
        return await handler.invoke(call)

    recorder = Recorder(behave)
    recorder.width = places

    async def scenario() -> None:
        worker = world.add_worker("a", recorder)
        worker.start()
        await until(world, world.balanced, "balance")
        for number in range(100):
            world.put(f"poison{number}")
        load = Load(world, every=0.05, poison=0)
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


# --- the shard graph, and who owns what ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["roll", "split"])
def test_the_children_of_a_shard_hold_back_its_failing_keys_alone(how: str) -> None:
    world, handler = failing_world(how), Mendable()

    async def scenario() -> None:
        (parent,) = world.stream.open_shards()
        workers = await started(world, handler, "a")
        load = Load(world, every=0.05)
        await asyncio.sleep(20.0)
        getattr(world.stream, how)(parent)
        await until(world, lambda: world.rows()[parent].state == "deferred", "the parent is at its end")
        await asyncio.sleep(10.0)
        await others_are_prompt(world, 30.0, *workers)
        getattr(world.stream, how)(world.stream.shard_of("poison"))  # a grandchild
        await asyncio.sleep(30.0)
        await others_are_prompt(world, 30.0, *workers)
        assert not any(item.settles for item in world.history.items.values() if item.key == "poison")
        load.end()
        handler.mended = True
        await until(world, world.closed_shards_done, "parent and child are done")

    with_every_record_once(world, scenario)


def test_a_parent_that_waits_for_its_deferred_keys_is_taken_over() -> None:
    """Its next owner reads nothing but their records."""
    world, first, second = failing_world("taken over"), Mendable(), Mendable()

    async def scenario() -> None:
        (parent,) = world.stream.open_shards()
        (worker,) = await started(world, first, "a")
        load = Load(world, every=0.05)
        await asyncio.sleep(10.0)
        world.stream.roll(parent)
        await until(world, lambda: world.rows()[parent].state == "deferred", "the parent is at its end")
        load.end()
        await worker.stop()
        second.mended = True
        await started(world, second, "b")
        await until(world, lambda: world.rows()[parent].finished, "the parent is done")
        assert {key for call in second.calls if call.shard_id == parent for key in keys(call)} == {"poison"}

    with_every_record_once(world, scenario)


def test_a_hand_over_keeps_what_is_deferred() -> None:
    """While the key fails and again while it catches up: nothing of it is handled twice, or forgotten."""
    world, handler = failing_world("hand-over", bounds=SMALL), Mendable()

    async def scenario() -> None:
        (shard,) = world.stream.open_shards()
        (worker,) = await started(world, handler, "a")
        load = Load(world, every=0.02)
        await until_deferred(world, shard)
        for _ in range(2):
            await worker.stop()
            assert deferred_in(world, shard)
            worker.start()
            await asyncio.sleep(15.0)
            await others_are_prompt(world, 15.0, worker)
            handler.mended = True
            await asyncio.sleep(1.0)
            handler.mended = False
        load.end()
        handler.mended = True

    with_every_record_once(world, scenario)


def test_a_crash_keeps_what_is_deferred() -> None:
    """A failing key is repeated no more than others are: by what was handled since the last checkpoint."""
    world, handler = failing_world("crash", bounds=SMALL), Mendable()

    async def scenario(world: Simulation) -> None:
        (shard,) = world.stream.open_shards()
        (worker,) = await started(world, handler, "a")
        load = Load(world, every=0.05)
        await until_deferred(world, shard)
        for _ in range(3):
            killed = world.loop.now
            worker.kill()
            worker.start()
            await asyncio.sleep(45.0)
            await others_are_prompt(world, 15.0, worker)
            durable = killed - world.settings.checkpoint.interval - 0.1
            repeated = [one.item for one in world.history.duplicates if killed < one.time]
            assert all(item.settled_at is not None and item.settled_at > durable for item in repeated)
            handler.mended = True
            await asyncio.sleep(1.0)
            handler.mended = False
        load.end()
        handler.mended = True
        await until(world, world.everything_settled, "everything is settled")
        await world.finish()

    world.run(scenario)
    world.check()


@pytest.mark.parametrize("stubborn", [False, True], ids=["ends at once", "a call goes on"])
def test_a_lease_is_lost_in_the_middle_of_a_pause(*, stubborn: bool) -> None:
    """The pause ends later, and nothing comes of it; also while a call of the lost shard is still ending."""
    world, handler = failing_world("lost"), Mendable()

    async def behave(call: HandlerCall) -> Outcome:
        if stubborn and call.lease_epoch == 1 and "k0" in keys(call):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(40.0)
                raise
        return await handler.invoke(call)

    async def scenario(world: Simulation) -> None:
        (shard,) = world.stream.open_shards()
        worker = world.add_worker("a", Recorder(behave))
        worker.start()
        await until(world, world.balanced, "balance")
        world.put("poison")
        await until(world, lambda: len(handler.calls) >= 3, "it fails")
        world.put("k0")
        await asyncio.sleep(10.0)
        world.edit_row(shard, owner="a stranger", epoch=9)
        world.put("k1")  # a checkpoint, which is refused
        await until(world, lambda: world.rows()[shard].epoch > 9, "it is taken from the stranger, who is dead")
        await asyncio.sleep(60.0)
        handler.mended = True
        await until(world, world.everything_settled, "everything is settled", 120.0)

    world.run(scenario)
    assert [found for found in world.history.violations if found.checker == "no bug"] == []


# --- what is trimmed, and other orders -------------------------------------------------------------------


def test_what_is_trimmed_while_a_key_is_deferred_is_a_loss_with_a_trace() -> None:
    """The trace names the key, the rest of its records is handled, and other keys notice nothing."""
    world, handler = failing_world("trimmed", bounds=SMALL), Mendable()

    async def scenario() -> None:
        (shard,) = world.stream.open_shards()
        workers = await started(world, handler, "a")
        load = Load(world, every=0.05)
        await until_deferred(world, shard)
        waiting = [item for item in world.history.items.values() if item.key == "poison"]
        await asyncio.sleep(10.0)
        with log_events() as events:
            world.trim(shard, str(waiting[-1].number))
            handler.mended = True
            await others_are_prompt(world, 20.0, *workers)
            load.end()
            await until(world, world.everything_settled, "everything is settled")
            assert [event["keys"] for event in named(events, "keys.trimmed")] == [1]
        (loss,) = losses(world)
        assert (loss.kind, loss.shard_id) == ("gap", shard)
        assert digest_of(b'{"S":"poison"}') in loss.reason
        assert sum(item.lost for item in waiting) > 0

    run(world, scenario)
    assert all(item.settles == 1 or item.lost for item in world.history.items.values())


@pytest.mark.parametrize("mended", [True, False], ids=["mended", "still failing"])
def test_keys_that_wait_go_on_when_the_order_is_another_one(mended: bool) -> None:
    """``order: shard`` from now on: what is deferred catches up first, and nobody waits for it meanwhile."""
    world, handler = failing_world("order", bounds=SMALL), Mendable()

    async def scenario() -> None:
        (shard,) = world.stream.open_shards()
        (worker,) = await started(world, handler, "a")
        load = Load(world, every=0.05)
        await until_deferred(world, shard)
        await worker.stop()
        deploy(world, batch={"order": "shard", "parallelization_factor": 1})
        handler.mended = mended
        worker.start()
        await asyncio.sleep(15.0)
        await others_are_prompt(world, 20.0, worker)
        handler.mended = True
        load.end()

    with_every_record_once(world, scenario)


def test_windows_begin_before_the_first_record_that_is_deferred() -> None:
    """They have one order for all keys: what was settled behind it comes again, and nothing is lost."""
    world, handler = failing_world("windows", bounds=SMALL), Mendable()

    async def scenario(world: Simulation) -> None:
        (shard,) = world.stream.open_shards()
        (worker,) = await started(world, handler, "a")
        load = Load(world, every=0.05)
        await until_deferred(world, shard)
        load.end()
        first = next(item for item in world.history.items.values() if item.key == "poison")
        await worker.stop()
        before = len(handler.calls)
        world.settings = _with_windows(world)
        handler.mended = True
        worker.start()
        await until(world, world.everything_settled, "everything is settled")
        await world.finish()
        again = handler.calls[before]
        assert again.window is not None
        assert int(again.records[0].sequence_number) == first.number
        assert not any(row.frontier.deferred for row in world.rows().values())

    world.run(scenario)
    assert [found for found in world.history.violations if found.checker not in ("G4 fenced", "G5 duplicates")] == []


def _with_windows(world: Simulation) -> Any:
    deploy(
        world,
        batch={"tumbling_window": "60s", "parallelization_factor": 1},
        handler={"kind": "lambda", "isolation": "process"},
    )
    return world.settings


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
