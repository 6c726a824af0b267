"""Deploys and scaling without any fault: nothing is handled twice, leases are shared evenly, and they move once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.memory_client import ATTEMPTS
from consumer.testing.simulated_worker import Scripted, SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.simulation.scenarios import change_fleet
from tests.support.simulated_fleet import LogEvents

QUIET = {"source": {"table": "orders", "poll": {"idle_backoff_max": "60s"}}, "checkpoint": {"interval": "60s"}}


async def takes_a_while(call: HandlerCall) -> Outcome:
    await asyncio.sleep(0.3)
    return OK


def checked(world: Simulation, scenario: Callable[[Simulation], Awaitable[None]]) -> Simulation:
    history = world.run(scenario)
    assert not history.violations, [str(violation) for violation in history.violations[:5]]
    return world


def start(world: Simulation, count: int, prefix: str = "w") -> list[Any]:
    return [world.add_worker(f"{prefix}{number}", Scripted(takes_a_while)) for number in range(count)]


def test_a_rolling_deploy_repeats_nothing_and_leaves_no_shard_alone_for_long() -> None:
    world = Simulation("rolling deploy", shards=10)

    async def write() -> None:
        for number in range(100_000):
            world.put(f"k{number % 40}")
            await asyncio.sleep(0.05)

    async def scenario(world: Simulation) -> None:
        workers = start(world, 5)
        for worker in workers:
            worker.start()
        writing = asyncio.create_task(write())
        await world.until(world.balanced, 30.0)
        await asyncio.sleep(10.0)
        for number, worker in enumerate(workers):
            world.add_worker(f"new{number}", Scripted(takes_a_while)).start()
            await asyncio.sleep(15.0)
            before = len(world.checkers.moves)
            await worker.stop()
            del world.workers[worker.name]
            await asyncio.sleep(15.0)
            _assert_no_long_gap(world, world.checkers.moves[before:])
        writing.cancel()
        await world.until(world.everything_settled, 60.0)
        await world.finish()

    checked(world, scenario)
    assert len(world.history.items) > 1000
    assert world.history.duplicates == []


def _assert_no_long_gap(world: Simulation, moves: list[tuple[float, str, str | None, str | None]]) -> None:
    """A released lease is taken within two seconds (reliability scenario 46)."""
    free: dict[str, float] = {}
    for now, shard_id, _, owner in moves:
        if owner is None:
            free[shard_id] = now
        elif shard_id in free:
            assert now - free.pop(shard_id) <= 2.0, (shard_id, now)
    assert not free


def test_from_one_worker_to_twenty_and_back() -> None:
    """200 shards: balanced within 30 s, at most one move a shard for each change, then nothing moves."""
    world = Simulation("scale", shards=200, config=QUIET)

    async def scenario(world: Simulation) -> None:
        (first,) = start(world, 1, "first")
        first.start()
        await world.until(world.balanced, 30.0)
        await asyncio.sleep(5.0)
        newcomers = start(world, 19)
        await change_fleet(world, up=newcomers)
        assert sorted(world.owned().values()) == [10] * 20
        await change_fleet(world, down=newcomers)
        assert set(world.owned().values()) == {200}
        await world.finish()

    checked(world, scenario)


def test_workers_that_come_one_after_the_other_move_no_shard_twice() -> None:
    """A plan for the first of them alone would have to move again for the others. Found as seed 144 of fleet."""
    world = Simulation("one after the other", shards=24, config=QUIET)

    async def scenario(world: Simulation) -> None:
        (first,) = start(world, 1, "first")
        first.start()
        await world.until(world.balanced, 30.0)
        await asyncio.sleep(5.0)
        before = len(world.checkers.moves)
        for newcomer in start(world, 7):
            newcomer.start()
            await asyncio.sleep(0.3)
        await world.until(world.balanced, 30.0)
        moved = Counter(shard_id for _, shard_id, _, _ in world.checkers.moves[before:])
        assert sorted(world.owned().values()) == [3] * 8
        assert set(moved.values()) == {1}
        await world.finish()

    checked(world, scenario)


def test_a_shard_that_drains_for_long_keeps_the_worker_that_it_goes_to() -> None:
    """Others that were handed over with it have gone by then, and plans deal what is left anew."""
    events = LogEvents()
    world = Simulation("slow drains", shards=12, on_event=events)

    async def takes_longer_in_some(call: HandlerCall) -> Outcome:
        await asyncio.sleep(2.5 if int(call.shard_id[8:28]) <= 6 else 0.01)
        return OK

    async def write() -> None:
        for number in range(100_000):
            world.put(f"k{number % 60}")
            await asyncio.sleep(0.05)

    async def scenario(world: Simulation) -> None:
        world.add_worker("w", Scripted(takes_longer_in_some)).start()
        await world.until(world.balanced, 30.0)
        writing = asyncio.create_task(write())
        await asyncio.sleep(10.0)
        await change_fleet(world, up=[world.add_worker(f"n{number}", Scripted(takes_a_while)) for number in range(8)])
        writing.cancel()
        await world.until(world.everything_settled, 60.0)
        await world.finish()

    checked(world, scenario)
    asked = Counter(
        line.partition("'target'")[0].partition("handing_over")[2] for line in events.of("lease.handing_over")
    )
    assert len(asked) == 10
    assert max(asked.values()) == 1


def test_a_shard_on_its_way_to_a_worker_that_leaves_goes_to_any() -> None:
    """It would be the lease of a worker that has ended, until that counts as dead."""
    events = LogEvents()
    world = Simulation("the taker leaves", shards=2, on_event=events)

    async def takes_long(call: HandlerCall) -> Outcome:
        await asyncio.sleep(20.0)
        return OK

    async def scenario(world: Simulation) -> None:
        world.add_worker("w", Scripted(takes_long)).start()
        await world.until(world.balanced, 30.0)
        for number in range(20):
            world.put(f"k{number}")
        await world.sleep(5.0)
        taker = world.add_worker("n", Scripted(takes_a_while))
        taker.start()
        await world.until(lambda: bool(events.of("lease.handing_over")), 15.0)
        await taker.stop()
        del world.workers[taker.name]
        await world.until(world.everything_settled, 60.0)
        (*_, (released, _, _, _), (taken, _, before, _)) = world.checkers.moves
        assert before is None
        assert taken - released < 2.0
        await world.finish()

    checked(world, scenario)


def test_a_thousand_shards_over_five_workers() -> None:
    world = Simulation("thousand", shards=1000, config=QUIET)

    async def scenario(world: Simulation) -> None:
        for worker in start(world, 5):
            worker.start()
        await world.until(lambda: len(world.rows()) == 1000 and world.balanced(), 60.0, "all leased and balanced")
        assert sorted(world.owned().values()) == [200] * 5
        for number in range(500):
            world.put(f"k{number}")
        await world.until(world.everything_settled, 90.0)

    checked(world, scenario)
    assert world.history.duplicates == []


@pytest.mark.parametrize("dies", ["target", "owner", "both"])
def test_who_dies_in_a_hand_over_leaves_no_shard_alone(dies: str) -> None:
    """A newcomer is about to get its share when it, the giver or both are killed: every shard has a live owner again
    within 1.1 leases and three planning cycles, and the checkers see no second owner."""
    for moment in range(8):
        world = Simulation(f"hand-over {moment}", shards=4)
        duration: float = world.settings.leases.duration

        async def scenario(world: Simulation, moment: int = moment, duration: float = duration) -> None:
            owner, third = start(world, 2)
            owner.start()
            third.start()
            await world.until(world.balanced, 30.0)
            target = start(world, 1, "target")[0]
            target.start()
            await world.until(lambda: bool(target.incarnation), 10.0)
            giver = max((owner, third), key=lambda worker: worker.incarnation)
            world.put("in flight")
            await asyncio.sleep(0.25 * moment)  # before, while and after the shard changes hands
            victims = {"target": [target], "owner": [giver], "both": [giver, target]}[dies]
            for worker in victims:
                worker.kill()
                del world.workers[worker.name]
            await world.until(world.balanced, 1.1 * duration + 5.0, "every shard has a live owner again")
            await world.until(world.everything_settled, 30.0, "everything settled")
            await world.finish()

        checked(world, scenario)


def test_a_fleet_that_was_frozen_as_a_whole_goes_on_with_one_owner_each() -> None:
    """All processes stop for ten leases, as a host that is suspended, and wake up at different moments."""
    world = Simulation("freezer", shards=6)

    async def scenario(world: Simulation) -> None:
        workers = start(world, 3)
        for worker in workers:
            worker.start()
        await world.until(world.balanced, 30.0)
        for number in range(60):
            world.put(f"k{number % 9}")
        await asyncio.sleep(0.4)  # calls are under way
        for worker in workers:
            worker.pause()
        for number in range(60):
            world.put(f"k{number % 9}")
        await asyncio.sleep(10 * world.settings.leases.duration)
        for worker in workers:
            worker.resume()
            await asyncio.sleep(0.1)
        await world.until(world.everything_settled, 60.0, "everything settled")
        await world.until(world.balanced, 30.0)
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("count", [15, pytest.param(100, marks=pytest.mark.soak)])
def test_many_idle_workers_are_cheap(count: int) -> None:
    """Ten shards, up to a hundred workers: one without a shard bumps its session four times a lease, looks once a
    cycle, and lists nothing. They start one after the other: each calls DescribeStream twice then."""
    world = Simulation("idle", shards=10, config=QUIET)

    async def scenario(world: Simulation) -> None:
        for worker in start(world, count):
            worker.start()
            await asyncio.sleep(0.3)
        await world.until(lambda: len(world.rows()) == 10 and all(row.owner for row in world.rows().values()), 60.0)
        before, seconds = dict(world.calls), 120.0
        await asyncio.sleep(seconds)
        rates = {name: (count - before.get(name, 0)) / seconds for name, count in world.calls.items()}
        duration = world.settings.leases.duration
        assert rates["bump_session"] <= 1.1 * count * 4 / duration
        assert rates["sessions"] <= 1.3 * count / min(1.0, duration / 10)
        assert rates["leases"] <= 1.3 * count * 2 / duration
        assert rates.get("list_shards", 0.0) <= 1 / 30
        assert sum(rates.get(name, 0.0) for name in ("take", "save", "release", "announce", "fence_session")) < 0.1

    checked(world, scenario)


@pytest.mark.parametrize("end", ["rolled over", "replaced", "replaced and gone"])
def test_hundreds_of_shards_that_end_at_once_are_looked_for_together(end: str) -> None:
    """All shards of a stream roll over, or the stream is disabled and enabled again, which leaves them without
    children, or even gone before it was read to its end: the fleet goes on, and asks DescribeStream less than ten
    times a second all the while (a checker)."""
    world = Simulation(f"all at once, {end}", shards=500, config=QUIET)

    async def scenario(world: Simulation) -> None:
        for worker in start(world, 5):
            worker.start()
        await world.until(lambda: len(world.rows()) == 500 and world.balanced(), 60.0, "all leased and balanced")
        await asyncio.sleep(10.0)
        if end != "rolled over":
            world.stream.missing = end == "replaced and gone"
            world.enable_again(500)
        for shard_id in world.stream.open_shards() if end == "rolled over" else ():
            world.stream.roll(shard_id)
        for number in range(500):
            world.put(f"k{number}")
        await world.until(world.everything_settled, 1200.0, "everything settled")
        await world.until(world.closed_shards_done, 120.0, "all closed shards done")
        await world.until(world.balanced, 60.0)
        assert len(world.gaps_recorded()) == (500 if end == "replaced and gone" else 0)

    checked(world, scenario)
    assert world.history.duplicates == []


def test_another_parallelization_factor_at_every_restart_loses_and_repeats_nothing() -> None:
    """Restarts in the middle of a backlog, with 32, 7, 64 batches at once and then one: what was settled above the low
    number is exact, whichever process settled it. The last is a crash: it repeats what the checkpoint did not hold."""
    world = Simulation("width", shards=2, config={"batch": {"batch_size": 2, "parallelization_factor": 32}})

    async def scenario(world: Simulation) -> None:
        (worker,) = start(world, 1)
        for number in range(1200):
            world.put(f"k{number % 90}")
        worker.start()
        for width in (7, 64, 1):
            enough = world.checkers.left - 100
            await world.until(lambda enough=enough: world.checkers.left < enough, 60.0)  # type: ignore[misc]  # mypy infers no lambda with a default
            await worker.stop()
            assert world.checkers.left > 100, "or it is no backlog"
            batch = world.settings.batch.model_copy(update={"parallelization_factor": width})
            world.settings = world.settings.model_copy(update={"batch": batch})
            worker.start()
        assert world.history.duplicates == []
        await asyncio.sleep(1.0)
        worker.kill()
        worker.start()
        await world.until(world.everything_settled, 300.0, "everything settled")
        await world.finish()

    checked(world, scenario)
    assert len(world.history.duplicates) < 20


def _named(world: Simulation, worker: SimulatedWorker) -> tuple[str, ...]:
    """The failing shards in the session row of a worker."""
    (sessions,) = world.table.sessions.values()
    return sessions[worker.incarnation].row.failing


def test_an_announcement_that_was_lost_is_made_again() -> None:
    """Also the one that a shard fails no more: the pages of the other workers would show it for ever."""

    async def scenario(world: Simulation) -> None:
        worker = world.add_worker("w", Scripted(takes_a_while))
        worker.start()
        await world.until(world.balanced, 30.0)
        assert worker.coordinator is not None
        failing: tuple[str, ...]
        for failing in (("shard-7",), ()):
            lost = worker.links["table"].lose_request("announce", times=ATTEMPTS)
            worker.coordinator.tell_failing(failing)
            await world.sleep(10.0)
            assert lost.taken == ATTEMPTS
            assert _named(world, worker) == failing
        before = world.calls["announce"]
        await world.sleep(60.0)
        assert world.calls["announce"] == before
        await world.finish()

    checked(Simulation("lost announcements"), scenario)


def test_shards_that_fail_in_turns_are_announced_once() -> None:
    shards = [f"shard-{number:03}" for number in range(100)]

    async def scenario(world: Simulation) -> None:
        worker = world.add_worker("w", Scripted(takes_a_while))
        worker.start()
        await world.until(world.balanced, 30.0)
        assert worker.coordinator is not None
        before = world.calls["announce"]
        for turn in range(60):
            worker.coordinator.tell_failing(shards[50 if turn % 2 == 0 else 0 :])
            await world.sleep(1.0)
        assert world.calls["announce"] - before == 1
        assert _named(world, worker) == tuple(shards[50:55])
        await world.finish()

    checked(Simulation("failing in turns"), scenario)
