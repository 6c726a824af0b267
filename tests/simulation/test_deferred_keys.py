"""What waits behind a failing key survives whatever happens to its shard, and the other keys do not notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.domain.deferred import digest_of
from consumer.domain.errors import DependencyError
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.failing_keys import (
    SMALL,
    Load,
    Mendable,
    deferred_in,
    failing_world,
    others_are_prompt,
    started,
    until_deferred,
    with_every_record_once,
)
from tests.support.simulated_shards import (
    Recorder,
    keys,
    log_events,
    losses,
    named,
    run,
    until,
)
from tests.support.windows import deploy

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


def test_the_row_of_a_parent_that_has_deferred_keys_is_deleted_while_nobody_remembers_it() -> None:
    """Its owner is frozen, and the worker that takes over has just started. It must not go on with the key in the
    child, whose row alone says that there is something before it: the parent is read anew, and repeats what it must."""
    world, first, second = failing_world("deleted parent"), Mendable(), Mendable()
    second.mended = True

    async def scenario(world: Simulation) -> None:
        (parent,) = world.stream.open_shards()
        (worker,) = await started(world, first, "a")
        load = Load(world, every=0.05)
        await until_deferred(world, parent)
        child = world.stream.roll(parent)
        await until(world, lambda: world.rows()[parent].state == "deferred", "the parent is at its end")
        await until(world, lambda: bool(deferred_in(world, child)), "the child holds the key back")
        await asyncio.sleep(10.0)
        load.end()
        worker.pause()
        world.delete_row(parent)
        newcomer = world.add_worker("b", second)
        newcomer.start()
        listing = newcomer.links["stream"].refuse(
            DependencyError("DescribeStream", "InternalServerError"), "list_shards"
        )
        await until(world, lambda: world.rows()[child].owner == newcomer.incarnation, "it owns the child")
        await asyncio.sleep(20.0)
        assert not any("poison" in keys(call) for call in second.calls)
        listing.end()
        await until(world, world.everything_settled, "everything is settled")
        worker.resume()
        await world.finish()

    world.run(scenario)
    world.check()
    assert not any(item.dead_lettered or not item.settles for item in world.history.items.values())


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
        return await handler.run(call)

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


@pytest.mark.parametrize("restarted", [False, True])
def test_a_child_without_records_of_the_key_reads_nothing_again_and_misses_nothing(*, restarted: bool) -> None:
    """After a split all records of a key are in one child. The other one holds the key back as well, and what is
    trimmed there meanwhile is no loss."""
    world, handler = failing_world("the other child", bounds=SMALL), Mendable()

    async def scenario() -> None:
        (parent,) = world.stream.open_shards()
        (worker,) = await started(world, handler, "a")
        load = Load(world, every=0.05)
        await until_deferred(world, parent)
        children = set(world.stream.split(parent))
        (other,) = children - {world.stream.shard_of("poison")}
        await asyncio.sleep(20.0)
        assert deferred_in(world, other), "the child holds the key back"
        if restarted:
            await worker.stop()
            worker.start()
            await until(world, world.balanced, "balance")
        low = world.rows()[other].frontier.low
        assert low is not None
        world.trim(other, low)
        with log_events() as events:
            handler.mended = True
            load.end()
            await until(world, lambda: not deferred_in(world, other), "the key is through")
            await until(world, world.everything_settled, "everything is settled")
            assert other not in [event["shard_id"] for event in named(events, "keys.catching_up")]
        assert losses(world) == []

    with_every_record_once(world, scenario)


@pytest.mark.parametrize("mended", [True, False], ids=["mended", "still failing"])
def test_keys_that_wait_go_on_when_the_order_is_another_one(*, mended: bool) -> None:
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
