"""Replicas of one fleet with settings of their own, as every rolling deploy of another configuration has them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import Scripted, SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import checked


async def takes_a_while(call: HandlerCall) -> Outcome:
    await asyncio.sleep(0.3)
    return OK


def member(world: Simulation, name: str, duration: str, **sections: Any) -> SimulatedWorker:
    """A worker with its own ``leases.duration``, started."""
    worker = world.add_worker(name, Scripted(takes_a_while), config={"leases": {"duration": duration}, **sections})
    worker.start()
    return worker


async def write(world: Simulation) -> None:
    for number in range(100_000):
        world.put(f"k{number % 60}")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("old", "new"), [("60s", "10s"), ("10s", "60s"), ("30s", "5s")])
def test_a_deploy_with_another_duration_makes_no_second_owner_and_repeats_nothing(old: str, new: str) -> None:
    """60 s beside 10 s was 29 stale starts and 240 duplicates, without any fault: who waits 11 s fences the living."""
    world = Simulation(f"{old} to {new}", shards=6)

    async def scenario(world: Simulation) -> None:
        olds = [member(world, f"old{number}", old) for number in range(2)]
        writing = asyncio.create_task(write(world))
        await world.until(world.balanced, 60.0)
        for number, leaving in enumerate(olds):
            member(world, f"new{number}", new)
            await asyncio.sleep(90.0)
            await leaving.stop()
        writing.cancel()
        await world.until(world.everything_settled, 60.0)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_who_relies_on_its_leases_for_longer_is_outwaited() -> None:
    """It is cut off from the lease table for longer than its peer would wait for itself: it may go on all the same, and
    its leases are taken when its own duration is over."""
    world = Simulation("cut off", shards=6)

    async def scenario(world: Simulation) -> None:
        slow, quick = member(world, "slow", "30s"), member(world, "quick", "10s")
        writing = asyncio.create_task(write(world))
        await world.until(world.balanced, 60.0)
        gone, cut = slow.incarnation, world.loop.now
        for service in ("table", "session"):
            slow.links[service].weather = Weather(lose_request=1.0)
        await asyncio.sleep(24.0)
        assert world.owned()[gone] == 3, "its last renewal was 30 s / 4 before at most"
        await world.until(lambda: world.owned().get(quick.incarnation) == 6, 20.0, "the take-over")
        assert world.loop.now - cut < 1.1 * 30.0 + 5.0
        slow.links["table"].weather = slow.links["session"].weather = Weather()
        writing.cancel()
        await world.until(world.everything_settled, 60.0)
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("read_before", [True, False])
def test_an_owner_without_a_session_row_is_outwaited_by_its_own_duration(*, read_before: bool) -> None:
    """Its session row was deleted by hand, and it cannot renew; the lease row is all that names it, and enough."""
    world = Simulation(f"no session row, {read_before}", shards=2)

    async def scenario(world: Simulation) -> None:
        slow = member(world, "slow", "60s")
        writing = asyncio.create_task(write(world))
        await world.until(world.balanced, 60.0)
        if read_before:
            member(world, "quick", "5s")
            await world.until(world.balanced, 60.0)
        gone, cut = slow.incarnation, world.loop.now
        slow.links["table"].weather = slow.links["session"].weather = Weather(lose_request=1.0)
        world.table.drop_session(world.settings.application, gone)
        if not read_before:
            member(world, "quick", "5s")
        await asyncio.sleep(44.0)
        assert gone in world.owned()
        await world.until(lambda: gone not in {row.owner for row in world.rows().values()}, 30.0, "the take-over")
        assert world.loop.now - cut >= 45.0, "its last renewal was a quarter of 60 s before at most"
        slow.links["table"].weather = slow.links["session"].weather = Weather()
        writing.cancel()
        await world.until(world.everything_settled, 60.0)
        await world.finish()

    checked(world, scenario)


def test_a_deleted_row_is_left_to_its_owner_for_as_long_as_that_may_rely_on_it() -> None:
    """A peer with a short duration remembers the row; the owner, cut off, still works on the shard."""
    world = Simulation("owner's turn", shards=2)

    async def scenario(world: Simulation) -> None:
        slow, _ = member(world, "slow", "60s"), member(world, "quick", "5s")
        writing = asyncio.create_task(write(world))
        await world.until(world.balanced, 60.0)
        await asyncio.sleep(10.0)
        (shard,) = (row.shard_id for row in world.rows().values() if row.owner == slow.incarnation)
        slow.links["table"].weather = slow.links["session"].weather = Weather(lose_request=1.0)
        world.delete_row(shard)
        await asyncio.sleep(60.0)
        assert shard not in world.rows()
        await world.until(lambda: shard in world.rows(), 90.0, "the row comes back")
        slow.links["table"].weather = slow.links["session"].weather = Weather()
        writing.cancel()
        await world.until(world.everything_settled, 60.0)
        await world.finish()

    checked(world, scenario)


def test_a_restart_with_another_duration_is_another_incarnation() -> None:
    """Nothing that is said or known of the first one is taken for the second one."""
    world = Simulation("restart")

    async def scenario(world: Simulation) -> None:
        worker = member(world, "w", "60s")
        await world.until(world.balanced, 60.0)
        first = worker.incarnation
        worker.kill()
        worker.configure({"leases": {"duration": "5s"}})
        worker.start()
        await world.until(lambda: set(world.owned()) == {worker.incarnation}, 90.0, "the take-over from itself")
        assert (first.rpartition("/")[2], worker.incarnation.rpartition("/")[2]) == ("60s", "5s")
        world.put("key")
        await world.until(world.everything_settled, 30.0)
        await world.finish()

    checked(world, scenario)


def test_batches_windows_and_filters_may_differ() -> None:
    """Whichever replica owns a shard decides; what the others had settled stays settled."""
    world = Simulation("mixed", shards=4)

    async def scenario(world: Simulation) -> None:
        member(world, "a", "10s", batch={"batch_size": 1, "parallelization_factor": 1})
        member(
            world,
            "b",
            "20s",
            batch={"batch_size": 100, "parallelization_factor": 8},
            filters=[{"eventName": ["INSERT", "MODIFY"]}],
        )
        writing = asyncio.create_task(write(world))
        await world.until(world.balanced, 60.0)
        member(world, "c", "30s", batch={"batch_size": 10, "batching_window": "2s"}, checkpoint={"interval": "5s"})
        await world.until(world.balanced, 60.0)
        await asyncio.sleep(20.0)
        writing.cancel()
        await world.workers["a"].stop()
        await world.until(world.everything_settled, 300.0)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []
