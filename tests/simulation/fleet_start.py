"""Many workers that start together on many shards: ``python -m tests.simulation.fleet_start`` is the full size."""

from __future__ import annotations

import asyncio
import time

from consumer.testing.simulated_worker import Scripted
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import takes_a_while

QUIET = {"source": {"table": "orders", "poll": {"idle_backoff_max": "60s"}}, "checkpoint": {"interval": "60s"}}
START_WITHIN = 2.0  # seconds in which the processes come up
ROLLED = 20  # shards that end while the fleet is at rest, one a second
MOST_UNITS = 1000.0  # read units a second on one partition key
PARTITIONS = ("sessions", "leases", "bulletin", "posts")


def start_together(*, workers: int, shards: int, within: float, rest: float = 60.0) -> Simulation:
    """The fleet settles ``within`` so many virtual seconds, goes on for ``rest`` seconds, and some shards end
    meanwhile. AssertionError when it does not, when a worker gives up, or when it reads too much of the lease table."""
    world = Simulation(f"{workers} workers start on {shards} shards", shards=shards, config=QUIET)

    async def scenario(world: Simulation) -> None:
        rng = world.rng("start")
        for number in range(workers):
            worker = world.add_worker(f"w{number:03}", Scripted(takes_a_while))
            world.loop.after(rng.uniform(0.0, START_WITHIN), worker.start)
        await world.until(
            lambda: len(world.rows()) == shards and world.balanced(), within, f"settled after {within:g} s"
        )
        assert world.calls["list_shards"] <= 1 + within / 30
        started = [worker.process and worker.process.name.partition("#")[2] for worker in world.workers.values()]
        assert set(started) == {"1"}, "no worker has given up"
        await asyncio.sleep(rest / 2)
        moved = len(world.checkers.moves)
        for shard_id in world.stream.open_shards()[:ROLLED]:
            world.stream.roll(shard_id)
            await asyncio.sleep(1.0)
        await world.until(world.balanced, 90.0, "the children have owners")
        assert len(world.checkers.moves) - moved <= 3 * ROLLED
        await asyncio.sleep(rest / 2)

    world.run(scenario)
    world.check()
    for partition in PARTITIONS:
        assert world.read_units.most(partition) < MOST_UNITS, f"{world.read_units.most(partition):.0f} of {partition}"
    return world


if __name__ == "__main__":
    started = time.monotonic()
    world = start_together(workers=200, shards=5000, within=180.0)
    shown = ", ".join(f"{world.read_units.most(name):.0f} of {name}" for name in PARTITIONS)
    print(f"200 workers and 5000 shards: read units a second at most {shown}; {time.monotonic() - started:.0f} s")
