"""Lease rows that cannot be read, and the shards around them."""

from __future__ import annotations

import pytest

from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import add, checked, until_owned, until_settled, versions


@pytest.mark.parametrize("crashed", [False, True])
def test_a_child_goes_on_with_other_keys_while_the_row_of_its_parent_cannot_be_read(crashed: bool) -> None:
    """The parent has one deferred key, then its row is spoilt by hand. Whoever has read it before knows the key; who
    starts after that knows nothing, and lets no key of the child start.

    Found as seed 856 of protocol: the checker forgot what it had read, too.
    """
    works: list[bool] = []

    async def poison(call: HandlerCall) -> Outcome:
        if works or not any(key == "poison" for key, _ in versions(call)):
            return OK
        return Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison"))

    world = Simulation("damaged parent", config={"retry": {"backoff": {"max": "1s"}}})

    async def scenario(world: Simulation) -> None:
        worker, handler = add(world, "w", poison)
        await until_owned(world, worker)
        world.put("poison")
        parent = world.stream.shard_of("poison")
        child = world.stream.roll(parent)
        await world.until(lambda: world.rows()[parent].state == "deferred", 60.0, "the key is deferred")
        await world.until(lambda: child in world.rows() and world.rows()[child].owner is not None, 60.0, "the child")
        row = world.rows()[parent]
        world.edit_row(parent, frontier=FrontierSnapshot(), corrupt="low is not a sequence number")
        if crashed:
            worker.kill()  # one that leaves writes its rows once more, readable
            worker.start()
        world.put("other")
        world.put("poison")
        await world.sleep(60.0)
        assert (("other", 1) in handler.handled) != crashed
        assert ("poison", 2) not in handler.handled
        world.edit_row(parent, frontier=row.frontier, corrupt="")
        works.append(True)
        await until_settled(world, 120.0)
        await world.finish()

    checked(world, scenario)
