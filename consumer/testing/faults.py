"""A nemesis that draws faults from the seed for some time, and then heals everything."""

from __future__ import annotations

import asyncio

from consumer.testing.network import Weather
from consumer.testing.service_faults import StreamFaults, TableFaults
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from consumer.testing.worker_faults import NetworkFaults, ProcessFaults

# How often each verb is drawn. Names are those of the methods of ``Nemesis``.
EVERYTHING = {
    "freeze": 4,
    "freeze_before_answer": 4,
    "crash_before_answer": 2,
    "crash": 4,
    "replace": 3,
    "stall": 2,
    "partition": 5,
    "slow_network": 4,
    "throttle": 3,
    "deny": 1,
    "expire_credentials": 1,
    "break_service": 2,
    "jump_wall_clock": 1,
    "lose_session_row": 1,
    "drop_table": 1,
    "roll": 3,
    "split": 2,
    "hide_children": 2,
    "expire_iterators": 2,
    "empty_pages": 2,
    "delete_row": 3,
    "short_pages": 2,
    "enable_stream_again": 1,
    "wipe_table": 1,
}


class Nemesis(ProcessFaults, NetworkFaults, TableFaults, StreamFaults):
    """Hurts the fleet every ``pause`` seconds on average, with the verbs of its bases, drawn by weight."""

    def __init__(self, world: Simulation, verbs: dict[str, int], pause: float) -> None:
        super().__init__(world)
        self._names = list(verbs)
        self._weights = list(verbs.values())
        self._pause = pause

    async def run(self, seconds: float) -> None:
        """Draw verbs for so long, then heal."""
        world = self._world
        end = world.loop.now + seconds
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._pause))
            if world.loop.now >= end:
                break
            (verb,) = self._rng.choices(self._names, self._weights)
            world.history.note("fault", verb)
            getattr(self, verb)()
        self.heal()

    def heal(self) -> None:
        """The end of all faults: the network is fair, all workers run, nothing is hidden."""
        world = self._world
        self._healed = True
        world.history.note("healed")
        for repair in self._repairs:
            repair()
        world.table.exists = True
        self._heal_streams()
        for worker in world.workers.values():
            worker.resume()
            for link in worker.links.values():
                link.weather = Weather()
            self._start_for_good(worker)

    def _heal_streams(self) -> None:
        for stream in self._world.streams:
            stream.blank = stream.missing = False
            stream.page_records = stream.usual_page_records
            stream.omitted = frozenset()
            stream.hide_children(0.0)
            stream.keep_parents_open(0.0)
            stream.freeze_listing(frozen=False)
            for shard_id in (*stream.open_shards(), *stream.closed_shards()):
                stream.empty_pages(shard_id, 0)

    def _start_for_good(self, worker: SimulatedWorker) -> None:
        """After the faults all workers run, also one that is just stopping."""
        if worker.stopping:
            self._world.loop.after(1.0, self._start_for_good, worker)
        elif not worker.running:
            worker.start()
