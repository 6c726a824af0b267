"""Machines that sleep: a worker that wakes up after hours or days remembers what others have finished since."""

from __future__ import annotations

import pytest

from consumer.domain.errors import DependencyError
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import LogEvents, add, checked, owners, until_checkpointed, until_settled, write


async def end_and_forget(world: Simulation, shard: str) -> None:
    """The shard rolls over and is finished, the service forgets it, and its tombstone is removed days later."""
    world.stream.roll(shard)
    write(world, 20)
    await until_settled(world, 120.0)
    await world.until(lambda: world.rows()[shard].finished, 120.0, "the end of the shard")
    world.vanish(shard)
    world.loop.pass_days(3.0)
    await world.until(lambda: shard not in world.rows(), 400.0, "the tombstone goes")


async def goes_on(world: Simulation) -> None:
    """New records are handled, and then the run is over."""
    write(world, 20)
    await until_settled(world)
    await world.finish()


async def owned_by(world: Simulation, worker: SimulatedWorker) -> str:
    """The only shard, once the worker has handled and saved something of it."""
    await until_settled(world)
    await until_checkpointed(world)
    (shard,) = world.stream.open_shards()
    await world.until(lambda: owners(world) == {worker.incarnation}, 60.0, "the owner")
    return shard


@pytest.mark.parametrize("on_gap", ["halt", "continue"])
def test_a_finished_shard_stays_finished_when_a_sleeper_wakes_up(on_gap: str) -> None:
    """It owned the shard when the lid was closed. It put it back as open: trimmed, so a false gap, which halts."""
    world = Simulation(f"long weekend, {on_gap}", config={"source": {"table": "orders", "on_gap": on_gap}})

    async def scenario(world: Simulation) -> None:
        sleeper, _ = add(world, "laptop")
        write(world, 50)
        shard = await owned_by(world, sleeper)
        sleeper.pause()
        server, _ = add(world, "server")
        await world.until(lambda: owners(world) == {server.incarnation}, 60.0, "the take-over")
        await end_and_forget(world, shard)
        sleeper.resume()
        await world.sleep(400.0)
        assert shard not in world.rows()
        assert world.gaps_recorded() == set()
        await goes_on(world)

    checked(world, scenario)


@pytest.mark.parametrize("asks", ["list_shards", "child_shards"])
def test_no_row_is_made_from_a_listing_that_a_sleeper_has_slept_over(asks: str) -> None:
    """It had asked the service for the shards, or for the children of its own, when it fell asleep."""
    world = Simulation(f"slept over {asks}", shards=2)

    async def scenario(world: Simulation) -> None:
        write(world, 20)
        awake, _ = add(world, "awake")
        await until_settled(world)
        sleeper, _ = add(world, "sleeper")
        if asks == "child_shards":
            await world.until(world.balanced, 60.0)
            (parent,) = (row.shard_id for row in world.rows().values() if row.owner == sleeper.incarnation)
        else:
            parent = world.stream.open_shards()[0]
        held = sleeper.links["stream"].hold_response(asks)
        shard = world.stream.roll(parent) if asks == "child_shards" else parent
        await world.until(lambda: bool(held.taken), 600.0, "it asks, in its turn")
        sleeper.pause()
        held.end()  # the answer is there when it wakes up
        await world.until(lambda: owners(world) == {awake.incarnation}, 60.0, "the take-over")
        write(world, 20)
        await until_settled(world, 120.0)
        await end_and_forget(world, shard)
        await world.sleep(600.0)
        sleeper.resume()
        await world.sleep(200.0)
        assert shard not in world.rows()
        assert world.gaps_recorded() == set()
        await world.finish()

    checked(world, scenario)


def test_an_old_memory_of_a_shard_that_is_still_there_is_better_than_none() -> None:
    """While the only other worker slept, the owner died and the row was deleted by hand. The service still names the
    shard, so it goes on where it was, with an epoch that no owner has had."""
    log = LogEvents()
    world = Simulation("old memory", on_event=log)

    async def scenario(world: Simulation) -> None:
        owner, _ = add(world, "owner")
        write(world, 50)
        shard = await owned_by(world, owner)
        sleeper, _ = add(world, "sleeper")
        await world.sleep(2 * world.settings.leases.duration)
        before = world.rows()[shard]
        sleeper.pause()
        owner.kill()
        world.delete_row(shard)
        await world.sleep(3600.0)
        sleeper.resume()
        await world.until(lambda: shard in world.rows(), 120.0, "the row is put back")
        assert world.rows()[shard].frontier == before.frontier
        assert world.rows()[shard].epoch > before.epoch
        await goes_on(world)

    assert checked(world, scenario).history.duplicates == []
    assert log.of("lease.put_back")


def test_an_old_memory_of_a_shard_that_is_gone_is_forgotten() -> None:
    log = LogEvents()
    world = Simulation("gone", on_event=log)

    async def scenario(world: Simulation) -> None:
        sleeper, _ = add(world, "sleeper")
        write(world, 50)
        shard = await owned_by(world, sleeper)
        sleeper.pause()
        server, _ = add(world, "server")
        await world.until(lambda: owners(world) == {server.incarnation}, 60.0, "the take-over")
        await end_and_forget(world, shard)
        await server.stop()
        sleeper.resume()
        await world.until(lambda: bool(log.of("lease.forgotten")), 200.0, "it forgets")
        listings = world.calls["list_shards"]
        await world.sleep(300.0)
        assert world.calls["list_shards"] <= listings + 6, "it looks for nothing any more"
        assert shard not in world.rows()
        await world.finish()

    checked(world, scenario)


def test_a_request_to_put_a_row_back_that_was_slept_over_changes_nothing() -> None:
    """The owner was about to put its deleted row back, and fell asleep; the request leaves when it wakes up. By then
    others have finished the shard, and forgotten it."""
    world = Simulation("slept over the request")

    async def scenario(world: Simulation) -> None:
        sleeper, _ = add(world, "sleeper")
        write(world, 50)
        shard = await owned_by(world, sleeper)
        server, _ = add(world, "server")
        await world.sleep(2 * world.settings.leases.duration)
        held = sleeper.links["table"].hold_request("put_back", "add_lease")
        world.delete_row(shard)
        await world.until(lambda: bool(held.taken), 30.0, "it wants to put the row back")
        sleeper.kill()
        await world.until(lambda: owners(world) == {server.incarnation}, 120.0, "the take-over")
        await end_and_forget(world, shard)
        held.end()
        await world.sleep(5.0)
        assert shard not in world.rows()
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("owner_is", ["nobody", "this worker", "a dead one"])
def test_nobody_goes_on_with_an_epoch_below_one_that_was_seen(owner_is: str) -> None:
    """A backup of the lease table was restored under a running fleet: the row names an owner and an epoch of long ago.
    The sinks have seen higher ones."""
    log = LogEvents()
    world = Simulation(f"backup, {owner_is}", on_event=log)

    async def scenario(world: Simulation) -> None:
        first, _ = add(world, "first")
        write(world, 20)
        shard = await owned_by(world, first)
        worker, handler = add(world, "worker")
        dead = first.incarnation
        first.kill()
        await world.until(lambda: owners(world) == {worker.incarnation}, 60.0, "the second owner")
        write(world, 20)
        await until_settled(world)
        await until_checkpointed(world)
        await world.sleep(world.settings.leases.duration)
        last = world.rows()[shard].epoch
        before = {"nobody": None, "this worker": worker.incarnation, "a dead one": dead}[owner_is]
        world.edit_row(shard, owner=before, epoch=last - 1)
        await world.until(lambda: bool(log.of("lease.epoch_went_back")), 60.0, "it notices")
        calls = len(handler.calls)
        write(world, 20)
        await until_settled(world)
        assert all(call.lease_epoch > last + 1000 for call in handler.calls[calls:])
        await world.finish()

    checked(world, scenario)


def test_a_row_that_was_made_anew_gets_an_epoch_above_what_others_remember() -> None:
    """By a worker that has just started, and knows nothing of the row that was deleted."""
    world = Simulation("made anew")

    async def scenario(world: Simulation) -> None:
        witness, _ = add(world, "witness")
        write(world, 20)
        shard = await owned_by(world, witness)
        await world.sleep(world.settings.leases.duration)
        last = world.rows()[shard].epoch
        witness.terminate()
        await world.until(lambda: not witness.running, 30.0, "the stop")
        witness.start()
        await world.until(lambda: owners(world) == {witness.incarnation}, 60.0, "the second owner")
        witness.pause()
        world.delete_row(shard)
        world.table.sessions.clear()
        add(world, "newcomer")
        await world.until(lambda: shard in world.rows(), 60.0, "the row is made anew")
        assert world.rows()[shard].epoch <= last
        witness.resume()
        await world.workers["newcomer"].stop()
        await world.until(lambda: owners(world) == {witness.incarnation}, 60.0, "the third owner")
        assert world.rows()[shard].epoch > last + 1000
        await goes_on(world)

    checked(world, scenario)


def test_an_epoch_from_memory_is_above_those_that_nobody_remembers() -> None:
    """The worker that puts the row back has not seen its last owners: it could not read the rows for a moment."""
    world = Simulation("unseen owners")

    async def scenario(world: Simulation) -> None:
        witness, _ = add(world, "witness")
        write(world, 50)
        shard = await owned_by(world, witness)
        await witness.stop()
        worker, _ = add(world, "worker")
        await world.until(lambda: owners(world) == {worker.incarnation}, 60.0, "another owner")
        witness, _ = add(world, "witness")
        await world.sleep(world.settings.leases.duration)
        blind = witness.links["table"].refuse(DependencyError("Query", "InternalServerError"), "leases")
        await worker.stop()
        third, _ = add(world, "third")
        await world.until(lambda: owners(world) == {third.incarnation}, 10.0, "a third owner")
        last = world.rows()[shard].epoch
        third.kill()
        world.delete_row(shard)
        blind.end()
        await world.until(lambda: owners(world) == {witness.incarnation}, 120.0, "the row comes back")
        assert world.rows()[shard].epoch > last + 1000
        await goes_on(world)

    checked(world, scenario)
