"""Workers that are told to stop: every lease is given back, nothing is handled twice, whatever happens meanwhile."""

from __future__ import annotations

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import (
    SLOW,
    Gate,
    LogEvents,
    add,
    checked,
    owners,
    settled,
    takes_a_while,
    until_checkpointed,
    until_ended,
    until_owned,
    until_settled,
    versions,
    write,
)


def test_a_drain_releases_everything_and_nothing_is_handled_twice() -> None:
    world = Simulation("drain", shards=3, config=SLOW, stream={"page_records": 30})

    async def scenario(world: Simulation) -> None:
        write(world, 600)
        first, _ = add(world, "a", takes_a_while)
        await world.until(lambda: settled(world) > 50, 30.0, "50 records settled")
        await first.stop()
        assert not world.everything_settled()
        assert owners(world) == set()
        add(world, "b", takes_a_while)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_lease_taken_while_stopping_is_released() -> None:
    """The answer to a take comes after the drain has begun: no shard worker runs, the lease must be released."""
    world = Simulation("taken while stopping")

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        first, handler = add(world, "a")
        held = first.links["table"].hold_response("take", times=1)
        await world.until(lambda: held.taken == 1 and bool(owners(world)), 30.0, "the take is applied")
        first.terminate()
        await world.sleep(0.5)
        held.end()
        await until_ended(world, first)
        assert (owners(world), handler.calls) == (set(), [])
        add(world, "b")
        await until_settled(world)
        await world.finish()

    checked(world, scenario)


def test_a_lease_handed_to_a_stopping_worker_is_released() -> None:
    world = Simulation("handed while stopping", shards=2)

    async def scenario(world: Simulation) -> None:
        first, _ = add(world, "a")
        await until_owned(world, first, 2)
        held = first.links["table"].hold_response("release")
        first.terminate()
        await world.until(lambda: owners(world) == set(), 10.0, "both releases are applied")
        world.edit_row(world.stream.open_shards()[0], owner=first.incarnation, epoch=9)
        held.end()
        await until_ended(world, first)
        assert owners(world) == set()
        await world.finish()

    checked(world, scenario)


def test_a_worker_waiting_for_its_restart_is_released_by_a_drain() -> None:
    """A shard worker that failed with a bug is started again two seconds later; the stop comes before that."""
    log = LogEvents()
    world = Simulation("restart", on_event=log)

    async def buggy(call: HandlerCall) -> Outcome:
        if any(version > 1 for _, version in versions(call)):
            raise RuntimeError("an adapter's bug")
        return OK

    async def scenario(world: Simulation) -> None:
        write(world, 3, keys=3)
        first, _ = add(world, "a", buggy)
        await until_settled(world)
        await until_checkpointed(world)
        write(world, 3, keys=3)
        await world.until(lambda: bool(log.of("shard.worker_failed")), 30.0, "the shard worker fails")
        assert owners(world) == {first.incarnation}
        await first.stop()
        assert owners(world) == set()
        assert len(log.of("shard.worker_failed")) == 1
        add(world, "b")
        await until_settled(world)
        await world.finish()

    checked(world, scenario, expected=["shard.worker_failed"])


def test_a_shutdown_limits_a_hand_over_that_waits_for_a_long_call() -> None:
    """A hand-over has all the time in the world; a shutdown that comes meanwhile has not."""
    log = LogEvents()
    world = Simulation("long call", shards=2, config={"shutdown": {"grace": "5s"}}, on_event=log)

    async def scenario(world: Simulation) -> None:
        write(world, 40)
        first, handler = add(world, "a", Gate())
        await world.until(lambda: len({call.shard_id for call in handler.running}) == 2, 30.0, "calls on both shards")
        add(world, "b")
        await world.until(lambda: bool(log.of("lease.handing_over")), 30.0, "the hand-over begins")
        await world.sleep(60.0)
        assert len(owners(world)) == 1, "the hand-over waits"
        stopped_at = world.loop.now
        first.terminate()
        await until_ended(world, first)
        assert world.loop.now - stopped_at <= 5.0
        await until_settled(world)
        await world.finish()

    checked(world, scenario)


def test_a_drain_under_a_hot_key_repeats_nothing() -> None:
    """What waits behind a hot key leaves hundreds of holes; a release must still name everything that is settled."""
    world = Simulation("hot key")

    async def scenario(world: Simulation) -> None:
        gate = Gate(lambda call: any(key == "hot" for key, _ in versions(call)))
        for number in range(400):
            world.put("hot")
            world.put(f"cold{number}")
        first, _ = add(world, "a", gate)
        await world.until(lambda: settled(world) >= 300, 30.0, "most of the cold keys settled")
        await world.sleep(10.0)
        assert any(row.frontier.runs for row in world.rows().values())
        first.terminate()
        await world.sleep(1.0)
        gate.open()
        await until_ended(world, first)
        assert not world.everything_settled()
        add(world, "b")
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []
