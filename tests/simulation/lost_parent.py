"""The family of runs in which the row of a parent is gone, and nobody is left who remembers it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from consumer.domain.errors import DependencyError
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulated_worker import Scripted
from consumer.testing.simulation import Simulation


def lost_parent(seed: int | str, on_event: Callable[[str], None] | None = None) -> Any:
    """All workers die, and somebody deletes the row of a shard that is not finished. The ones that come after that
    cannot list the stream at first: they see its children wait, and no parent. They must not start before it is listed
    and settled."""
    rng = random.Random(f"{seed}/lost parent")
    world = Simulation(seed, shards=1, config={"batch": {"batch_size": rng.choice((1, 10))}}, on_event=on_event)

    async def takes_a_while(call: HandlerCall) -> Outcome:
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        return OK

    def put(records: int) -> None:
        for number in range(records):
            world.put(f"k{number % 2}")

    async def scenario(world: Simulation) -> None:
        (parent,) = world.stream.open_shards()
        first = world.add_worker("first", Scripted(takes_a_while))
        first.start()
        put(rng.randint(300, 400))  # more than are handled before the stream is listed again
        await world.until(lambda: world.rows().get(parent) is not None, 30.0, "the parent is registered")
        if rng.random() < 0.5:
            world.stream.roll(parent)
        else:
            world.stream.split(parent)
        put(rng.randint(2, 10))
        await world.until(lambda: len(world.rows()) > 1, 120.0, "its children wait")
        first.kill()
        del world.workers["first"]
        await world.sleep(rng.uniform(0.0, 30.0))
        world.delete_row(parent)
        for number in range(rng.randint(1, 3)):
            worker = world.add_worker(f"late{number}", Scripted(takes_a_while))
            worker.start()
            unlisted = worker.links["stream"].refuse(DependencyError("DescribeStream", "Timeout"), "list_shards")
            asyncio.get_running_loop().call_later(rng.uniform(20.0, 60.0), unlisted.end)
        await world.until(world.everything_settled, 900.0, "everything settled")
        await world.finish()

    return world, scenario
