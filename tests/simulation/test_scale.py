"""Thousands of shards and hundreds of workers: everything is found, shared and read in time, whatever is throttled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.domain.bulletin import HOLE_PATIENCE
from consumer.domain.errors import DependencyError, PermissionDenied, Throttled
from consumer.testing.network import Weather
from consumer.testing.simulation import Simulation
from tests.simulation.fleet_start import start_together
from tests.support.simulated_fleet import LogEvents, add, checked

QUIET = {"source": {"table": "orders", "poll": {"idle_backoff_max": "60s"}}, "checkpoint": {"interval": "60s"}}


def test_thousands_of_closed_shards_are_registered_through_throttling_open_ones_first() -> None:
    """3,000 closed shards and 100 open ones, 5 % of all writes throttled: rows within a minute, and one listing. A row
    that is throttled is repeated and holds up no other; the open shards are read long before the last row is there."""
    source = {"source": QUIET["source"] | {"starting_position": "latest"}}
    events = LogEvents()
    world = Simulation("closed shards", shards=100, config=QUIET | source, on_event=events)
    for _ in range(30):
        for shard_id in world.stream.open_shards():
            world.stream.roll(shard_id)

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "a")
        worker.links["table"].weather = Weather(throttle=0.05)
        opened = set(world.stream.open_shards())
        await world.until(lambda: opened <= world.rows().keys(), 30.0, "all open shards have rows")
        assert len(world.rows()) < 500, "open ones come first"
        await world.until(lambda: len(world.rows()) == 3100, 60.0, "all shards have rows")
        await world.until(lambda: all(world.rows()[shard].owner for shard in opened), 10.0, "the open ones are taken")
        assert world.calls["list_shards"] == 2, "one for latest, one for the rows"
        await world.sleep(5.0)

    checked(world, scenario)
    assert len(events.of("shards.registering")) > 10


UNANSWERED = {
    "fails": DependencyError("DescribeStream", "InternalServerError"),
    "is throttled": Throttled("DescribeStream", "LimitExceededException"),
    "is denied": PermissionDenied("dynamodb:DescribeStream", "the stream"),
    "is silent": None,
}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("hidden", [0.0, 70.0], ids=["at once", "late"])
@pytest.mark.parametrize("what", UNANSWERED)
def test_children_are_found_without_child_shards(what: str, hidden: float, workers: int) -> None:
    """The question for the children of a shard never gets an answer: full listings find them within 15 s of the end of
    their parent, or of the moment at which they are shown, when that is later."""
    world = Simulation(f"CHILD_SHARDS {what}, {hidden}", shards=2)

    async def scenario(world: Simulation) -> None:
        for name in "abc"[:workers]:
            worker, _ = add(world, name)
            error = UNANSWERED[what]
            if error is None:
                worker.links["stream"].lose_request("child_shards")
            else:
                worker.links["stream"].refuse(error, "child_shards")
        await world.until(world.balanced, 30.0)
        await world.sleep(30.0)
        world.stream.hide_children(hidden)
        child = world.stream.roll(world.stream.open_shards()[0])
        world.put("key")
        await world.sleep(hidden)
        await world.until(lambda: child in world.rows(), 15.0, "the child is registered")
        await world.until(world.everything_settled, 15.0)
        await world.finish()

    checked(world, scenario)


def test_many_workers_that_start_together_settle_soon() -> None:
    """A small part of what ``make soak`` runs: no worker gives up, one of them lists at a time, and together they read
    less than 1,000 units a second of any partition of the lease table."""
    start_together(workers=25, shards=600, within=60.0, rest=40.0)


def test_a_new_or_finished_row_makes_nobody_read_all_rows() -> None:
    """Ten workers whose regular reading comes every half minute: a child has an owner seconds after its parent is
    settled, whoever it falls to, and the fleet reads all rows no more often than without any change."""
    config = {"leases": {"duration": "60s"}, "source": {"table": "orders", "poll": {"idle_backoff_max": "1s"}}}
    world = Simulation("few changes", shards=60, config=config)

    async def scenario(world: Simulation) -> None:
        for name in "abcdefghij":
            add(world, name)
        await world.until(lambda: len(world.rows()) == 60 and world.balanced(), 60.0, "all leased and balanced")
        await world.sleep(60.0)
        before, start = world.calls["leases"], world.loop.now
        waits: list[float] = []
        for parent in world.stream.open_shards()[:20]:
            child = world.stream.roll(parent)
            await world.until(lambda parent=parent: world.rows()[parent].settled, 10.0, "settled")  # type: ignore[misc]  # mypy infers no lambda with a default
            settled = world.loop.now

            def is_taken(child: str = child) -> bool:
                return child in world.rows() and world.rows()[child].owner is not None

            await world.until(is_taken, 30.0, "the child is taken")
            waits.append(world.loop.now - settled)
        readings = (world.loop.now - start) / 30.0 + 1
        assert world.calls["leases"] - before <= 10 * readings + readings, "the last are those beside the listings"
        assert max(waits) < 4.0
        await world.finish()

    checked(world, scenario)


def test_a_post_that_is_missing_makes_every_worker_read_all_rows_once() -> None:
    """A worker died between counting a post and putting it down: what it would have said is read from the rows."""
    config = {"leases": {"duration": "60s"}, "source": {"table": "orders", "poll": {"idle_backoff_max": "1s"}}}
    world = Simulation("a missing post", shards=6, config=config)

    async def scenario(world: Simulation) -> None:
        for name in "abc":
            add(world, name)
        await world.until(world.balanced, 60.0)
        await world.sleep(40.0)
        before = world.calls["leases"]
        ((key, bulletin),) = world.table.bulletins.items()
        world.table.bulletins[key] = replace(bulletin, posts=bulletin.posts + 1)
        await world.until(lambda: world.calls["leases"] == before + 3, HOLE_PATIENCE + 3.0, "all have read")
        await world.sleep(10.0)
        assert world.calls["leases"] == before + 3
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("hints", [("posts",), ("bulletin",), ("bulletin", "posts", "post", "begin_listing")])
def test_hints_that_cannot_be_read_hold_up_no_plan(hints: tuple[str, ...]) -> None:
    """Their partition is throttled, or may not be read: workers share the leases, and take over, by the rows alone."""
    world = Simulation("no posts", shards=6, config=QUIET)

    async def scenario(world: Simulation) -> None:
        workers = [add(world, name)[0] for name in "abc"]
        await world.until(lambda: len(world.rows()) == 6, 10.0, "the shards are registered")
        for worker in workers:
            worker.links["table"].refuse(Throttled("Query", "ThrottlingException"), *hints)
        await world.until(world.balanced, 60.0)
        for worker in workers[:2]:
            worker.kill()
            await world.until(world.balanced, 60.0, "the others have its leases")
        await world.finish()

    checked(world, scenario)


def test_a_lease_that_another_worker_took_is_not_asked_for_over_and_over() -> None:
    """Twenty workers meet 1,200 shards at once, and hear of each other's takes late: what was refused is read before it
    is asked for again."""
    shards = 1200
    world = Simulation("takes", shards=shards, config=QUIET)

    async def scenario(world: Simulation) -> None:
        for number in range(20):
            add(world, f"w{number:02}")
        await world.until(lambda: len(world.rows()) == shards and world.balanced(), 60.0, "all leased and balanced")
        assert world.calls["take"] < 1.5 * shards
        await world.finish()

    checked(world, scenario)
