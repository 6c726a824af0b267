"""Put your own handler under the simulator: a fleet runs it through crashes, freezes and partitions, in virtual time.

def test_my_handler():
    for seed in range(20):
        simulate_handler(handle, seed=seed).check()
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from consumer.domain.record import Record
from consumer.handlers.runtime.context import Context
from consumer.testing.faults import EVERYTHING, Nemesis
from consumer.testing.observed import FunctionHandler
from consumer.testing.simulation import Simulation

UserHandler = Callable[[list[Record], Context], Awaitable[Any]]
Writes = Callable[[Simulation], Coroutine[Any, Any, None]]

SETTLED_WITHIN = 240.0  # seconds from the end of all faults


def simulate_handler(
    handler: UserHandler,
    *,
    seed: int | str = 0,
    writes: Writes | None = None,
    seconds: float = 120.0,
    workers: int = 2,
    shards: int = 2,
    faults: Mapping[str, int] = EVERYTHING,
    fault_every: float = 8.0,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    stream: Mapping[str, Any] | None = None,
    on_event: Callable[[str], None] | None = None,
) -> Simulation:
    """Run ``handler`` in a simulated fleet and return the world afterwards.

    There are faults for ``seconds`` of virtual time, then all of them are healed and everything must get settled; then
    the workers stop gracefully. What the handler sees is what it sees in production: batches, retries, ``context``, and
    records again that were in flight when a worker died. Its ``asyncio.sleep`` and time-outs take no real time.

    Args:
        handler: ``async def handle(records, context)``. It must not do real I/O, start threads, or use real time or
            randomness, or the run cannot be repeated. All workers share it: what it keeps outside itself is the
            database, which survives crashes.
        seed: decides everything.
        writes: what happens to the table (``await world.sleep(1)``, ``world.write(item)``, ``world.delete(key)``); it
            is ended with the faults. By default versions of a dozen items with the key ``id`` and a counter ``v``.
        seconds: how long there are faults, in virtual time.
        workers, shards: how many there are at the start.
        faults: verbs of ``consumer.testing.faults`` with their weights; {} for none.
        fault_every: seconds between two of them on average.
        config: sections of the configuration file: ``{"batch": {"batch_size": 10}}``.
        stream: arguments of ``MemoryStream``: ``{"partition_key": "pk", "sort_key": "sk"}``.
        on_event: is given a line for everything that happens (``print``, to look at a seed).

    Returns:
        The world: ``history.violations`` (``check()`` raises for them), ``history.duplicates``,
        ``dead_letters.delivered``, ``rows()``.
    """
    world = Simulation(seed, shards=shards, config=config, stream=stream, on_event=on_event)
    report = world.settings.batch.report_batch_item_failures
    for number in range(workers):
        world.add_worker(f"w{number}", FunctionHandler(handler, report_failures=report is not False))

    async def scenario(world: Simulation) -> None:
        for worker in world.workers.values():
            worker.start()
        writing = asyncio.create_task((writes or _some_writes)(world))
        if faults:
            await Nemesis(world, dict(faults), fault_every).run(seconds)
        else:
            await asyncio.sleep(seconds)
        if writing.done():
            writing.result()  # a mistake in ``writes`` is no finding
        writing.cancel()
        await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled")
        await world.finish()

    world.run(scenario)
    return world


async def _some_writes(world: Simulation) -> None:
    rng = world.rng("writes")
    while True:
        await world.sleep(rng.uniform(0.0, 1.0))
        world.put(f"item-{rng.randint(1, 12)}")
