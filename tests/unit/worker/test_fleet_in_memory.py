"""Whole workers on the memory adapters: complete, in order, once; handed over, taken over and given back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from consumer.domain.errors import DependencyError, PermissionDenied
from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import OK, HandlerCall, Outcome
from tests.unit.worker.harness import DURATION, Faults, Worker, World, of, until

MakeWorld = Callable[..., World]


async def slowly(call: HandlerCall) -> Outcome:
    await asyncio.sleep(0.01)
    return OK


async def test_once_and_in_order_over_split_and_rollover(make_world: MakeWorld) -> None:
    """Children are hidden for a while after their parent's end, and wait for it."""
    world = make_world(shards=2, page_records=40)
    world.write(200)
    await world.worker("a", slowly)
    await world.worker("b", slowly)
    await until(lambda: world.handled > 50)
    world.stream.hide_children(0.2)
    world.stream.split(world.stream.open_shards()[0])
    world.write(200)
    world.stream.roll(world.stream.open_shards()[-1])
    world.write(200)
    await until(world.everything_handled)
    await until(lambda: sum(row.state == "done" for row in world.rows().values()) == 2)
    world.assert_in_order()


async def test_children_wait_for_a_parent_that_is_still_being_handled(make_world: MakeWorld) -> None:
    world, go = make_world(), asyncio.Event()

    async def held(call: HandlerCall) -> Outcome:
        if ("slow", 1) in of(call):
            await go.wait()
        return OK

    world.put("slow")
    await world.worker("a", held)
    await until(lambda: bool(world.busy))
    child = world.stream.roll(world.stream.shard_of("slow"))
    world.put("slow")
    await asyncio.sleep(0.3)
    assert all(row.owner is None for row in world.rows().values() if row.shard_id == child)
    go.set()
    await until(world.everything_handled)
    world.assert_in_order()


async def test_a_dead_workers_leases_are_taken_after_its_session_was_fenced(make_world: MakeWorld) -> None:
    world = make_world(shards=2, page_records=20)
    world.write(300)
    first = await world.worker("a", slowly)
    await until(lambda: world.handled > 60)
    await first.kill()
    second = await world.worker("b")
    await until(world.everything_handled)
    world.assert_in_order(duplicates=None)
    assert all(one.epoch >= 2 for one in world.seen if one.worker == "b")
    assert second.metric("lease_events", event="fenced") == 1
    await until(lambda: first.incarnation not in world.table.sessions["app"])


async def test_settled_runs_are_skipped_after_a_crash(make_world: MakeWorld) -> None:
    """One key hangs; what was settled above it is in the frontier, and is counted when it is read again."""
    world = make_world(config={"batch": {"batch_size": 1}})
    never = asyncio.Event()

    async def one_key_hangs(call: HandlerCall) -> Outcome:
        if of(call)[0][0] == "k0":
            await never.wait()
        return OK

    world.write(40, keys=4)
    first = await world.worker("a", one_key_hangs)
    await until(lambda: world.handled == 30)
    shard = world.stream.open_shards()[0]
    await until(lambda: len(world.rows()[shard].frontier.runs) == 10)
    await first.kill()
    second = await world.worker("b")
    await until(world.everything_handled)
    assert second.metric("duplicates_skipped") == 30
    world.assert_in_order(duplicates=0)


async def test_a_drain_releases_everything_and_nothing_is_handled_twice(make_world: MakeWorld) -> None:
    world = make_world(shards=3, page_records=30)
    world.write(600)
    first = await world.worker("a", slowly)
    await until(lambda: world.handled > 50)
    await first.drain()
    assert not world.everything_handled()
    assert all(row.owner is None for row in world.rows().values())
    await world.worker("b", slowly)
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


async def test_a_newcomer_gets_its_share_without_duplicates(make_world: MakeWorld) -> None:
    world = make_world(shards=4, page_records=20)
    world.write(600)
    await world.worker("a", slowly)
    await until(lambda: world.handled > 20 and len(world.owners()) == 1)
    await world.worker("b", slowly)
    await until(lambda: sorted(world.owners().values()) == [2, 2])
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


async def test_a_lease_taken_while_stopping_is_released(make_world: MakeWorld) -> None:
    """The answer to a take comes after the drain has begun: nobody works on the lease, and it must not stay ours."""
    world = make_world()
    world.write(10)
    first = await world.worker("a")
    first.link.hold["take"] = asyncio.Event()
    await until(lambda: first.incarnation in world.owners())
    draining = asyncio.create_task(first.drain())
    await asyncio.sleep(0.05)
    first.link.hold["take"].set()
    await draining
    assert world.owners() == {}
    assert world.seen == []


async def test_a_lease_handed_to_a_stopping_worker_is_released(make_world: MakeWorld) -> None:
    world = make_world(shards=2)
    first = await world.worker("a")
    await until(lambda: world.owners().get(first.incarnation) == 2)
    shard = world.stream.open_shards()[0]
    go = asyncio.Event()
    first.link.hold["release"] = go
    draining = asyncio.create_task(first.drain())
    await until(lambda: world.owners() == {})
    world.table.edit("app", world.stream.label, shard, owner=first.incarnation, epoch=9)
    go.set()
    await draining
    assert world.owners() == {}


async def test_a_worker_waiting_for_its_restart_is_released_by_a_drain(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.worker.fleet.coordinator.RESTART_PAUSE", 60.0)
    world = make_world()
    world.write(3)

    async def buggy(call: HandlerCall) -> Outcome:
        raise RuntimeError("an adapter's bug")

    first = await world.worker("a", buggy)
    await until(lambda: len(first.handler.calls) >= 1 and not list(first.coordinator.workers))
    assert world.owners() == {first.incarnation: 1}
    await first.drain()
    assert world.owners() == {}
    await world.worker("b")
    await until(world.everything_handled)


@pytest.mark.parametrize("operation", ["take", "save", "release"])
async def test_lost_responses(make_world: MakeWorld, operation: str) -> None:
    """Applied but not answered, once or for a whole series of attempts: nothing is lost or handled twice."""
    world = make_world(shards=2, page_records=20)
    world.write(200)
    first = await world.worker("a", slowly)
    first.link.lose[operation] = 4
    await until(lambda: world.handled > 50)
    await first.drain()
    assert world.owners() == {}
    await world.worker("b")
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)


async def test_nothing_is_written_and_nobody_works_after_the_session_was_fenced(make_world: MakeWorld) -> None:
    world = make_world(shards=2, page_records=20)
    world.write(400)
    first = await world.worker("a", slowly)
    await until(lambda: world.handled > 20)
    first.keeper_link.refuse["bump_session"] = DependencyError("UpdateItem", "Timeout")
    second = await world.worker("b", slowly)
    await until(lambda: world.owners().keys() == {second.incarnation})
    calls = len(first.handler.calls)
    del first.keeper_link.refuse["bump_session"]
    await until(first.lost.is_set)
    await until(world.everything_handled)
    assert len(first.handler.calls) == calls
    assert first.context.validity.fenced
    await until(lambda: not list(first.coordinator.workers))
    assert all(one.epoch >= 2 for one in world.seen if one.worker == "b")
    world.assert_in_order(duplicates=None)


async def test_no_call_starts_while_the_belief_is_expired(make_world: MakeWorld) -> None:
    world = make_world()
    first = await world.worker("a")
    world.write(5)
    await until(world.everything_handled)
    first.may_renew = False
    await until(lambda: not first.context.validity.holds(world.clock.monotonic()))
    calls = len(first.handler.calls)
    world.write(5)
    await asyncio.sleep(0.3)
    assert len(first.handler.calls) == calls
    first.may_renew = True
    await until(world.everything_handled)
    world.assert_in_order()


async def test_a_corrupt_row_is_quarantined_and_the_others_run(make_world: MakeWorld) -> None:
    world = make_world(shards=2)
    first = await world.worker("a")
    await until(lambda: world.owners().get(first.incarnation) == 2)
    await first.drain()
    bad = world.stream.open_shards()[0]
    world.table.edit("app", world.stream.label, bad, corrupt="low is not a sequence number")
    world.write(100)
    await world.worker("b")
    elsewhere = {k for k in world.written if world.stream.shard_of(k) != bad}
    await until(lambda: world.handled == sum(world.written[k] for k in elsewhere))
    assert {one.key for one in world.seen} == elsewhere
    assert world.rows()[bad].corrupt


async def test_permission_denied_is_waited_out(make_world: MakeWorld) -> None:
    """Taken away from a running worker: it backs off, and nothing counts as empty, gone or settled."""
    world = make_world()
    first = await world.worker("a")
    world.write(5)
    await until(world.everything_handled)
    denied = PermissionDenied("dynamodb:GetRecords", "the stream")
    first.source_link.refuse |= {"get_records": denied, "iterator": denied, "list_shards": denied}
    world.write(5)
    shard = world.stream.open_shards()[0]
    await until(lambda: first.metric("get_records", outcome="error") >= 2)
    before = world.rows()[shard]
    assert replace(before, updated_at=0.0).state == "open"
    assert world.losses() == []
    first.source_link.refuse.clear()
    await until(world.everything_handled)
    world.assert_in_order()


async def test_a_shutdown_limits_a_hand_over_that_waits_for_a_long_call(make_world: MakeWorld) -> None:
    """A hand-over has all the time in the world; a shutdown that comes meanwhile has not."""
    world, never = make_world(shards=2), asyncio.Event()

    async def hang(call: HandlerCall) -> Outcome:
        await never.wait()
        return OK

    world.write(40)
    first = await world.worker("a", hang)
    await until(lambda: len({c.shard_id for c in first.handler.calls}) == 2)
    await world.worker("b")
    await until(lambda: any(w._letting_go.is_set() for w in first.coordinator.workers), 5 * DURATION)
    async with asyncio.timeout(5):
        await first.drain(grace=0.1)
    assert first.incarnation not in world.owners()
    await until(world.everything_handled)
    world.assert_in_order()


async def test_one_refused_take_leaves_no_take_behind(make_world: MakeWorld) -> None:
    """All takes of a plan have ended when the plan has: none starts a worker after a stop or a fence."""
    world = make_world(shards=2)
    first = await world.worker("a")
    go, ended, taken = asyncio.Event(), asyncio.Event(), 0
    take = first.store.take

    async def uneven(label: str, seen: LeaseRow, owner: str, nonce: str) -> LeaseRow | None:
        nonlocal taken
        taken += 1
        if taken == 1:
            raise DependencyError("UpdateItem", "Timeout")
        try:
            await go.wait()
        finally:
            ended.set()
        return await take(label, seen, owner, nonce)

    first.store.take = uneven  # type: ignore[method-assign]
    await until(lambda: taken == 2)
    await asyncio.sleep(0.05)
    await first.kill()
    assert ended.is_set()
    go.set()
    await asyncio.sleep(0.05)
    assert world.owners() == {}


class Lossy(Faults):
    """Loses three in a hundred requests and as many responses."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def request(self, operation: str) -> None:
        await super().request(operation)
        await self._maybe(operation)

    async def response(self, operation: str) -> None:
        await super().response(operation)
        await self._maybe(operation)

    async def _maybe(self, operation: str) -> None:
        if self._rng.random() < 0.03:
            raise DependencyError(operation, "Timeout")
        if self._rng.random() < 0.1:
            await asyncio.sleep(self._rng.random() * 0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_everything_at_once(make_world: MakeWorld, seed: int) -> None:
    """Crashes, drains, newcomers, splits and rollovers with hidden children on a bad network."""
    rng = random.Random(seed)
    world = make_world(shards=2, page_records=30)
    world.stream.hide_children(0.1)
    names = iter(range(1000))
    fleet: list[Worker] = []

    async def join() -> None:
        worker = Worker(world, f"w{next(names)}", slowly)
        worker.link, worker.source_link = Lossy(rng), Lossy(rng)
        world.workers.append(worker)
        for _ in range(50):
            try:
                await worker.start()
                break
            except DependencyError:
                continue
        fleet.append(worker)

    for _ in range(3):
        await join()
    for step in range(12):
        world.write(60, keys=17)
        await asyncio.sleep(0.15)
        if step % 3 == 0:
            shard = rng.choice(world.stream.open_shards())
            world.stream.split(shard) if len(world.stream.open_shards()) < 4 else world.stream.roll(shard)
        if step % 4 == 1:
            await fleet.pop(0).drain()
            await join()
        if step % 6 == 2:
            await fleet.pop(0).kill()
            await join()
    await until(world.everything_handled, 30)
    for worker in fleet:
        await worker.drain()
    world.assert_in_order(duplicates=None)
    assert all(row.state != "halted" for row in world.rows().values())
    assert world.losses() == []


async def test_a_drain_under_a_hot_key_repeats_nothing(make_world: MakeWorld) -> None:
    """What waits behind a hot key leaves hundreds of holes; a release must still name everything that is settled."""
    world, go = make_world(), asyncio.Event()

    async def hot(call: HandlerCall) -> Outcome:
        if any(key == "hot" for key, _ in of(call)):
            await go.wait()
        return OK

    for index in range(400):
        world.put("hot")
        world.put(f"cold{index}")
    first = await world.worker("a", hot)
    await until(lambda: world.handled == 350)
    draining = asyncio.create_task(first.drain())
    await until(lambda: all(w._letting_go.is_set() for w in first.coordinator.workers))
    go.set()
    await draining
    await world.worker("b")
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)
