"""What simulated workers report, as an operator sees it: the status page, and a scrape of the metrics at fixed times.

The simulator starts no reporter of its own, because nothing in a run depends on one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from consumer.operate.status import START_STEPS, ShardStatus, Status, StatusBoard
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from consumer.worker.reporting import Reporter

JOB = "stream-consumer"

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name and its labels."""


def report(worker: SimulatedWorker) -> Status | None:
    """Publish what the process of ``worker`` would publish now; None when there is no process that has a session."""
    if worker.process is None or worker.context is None or worker.coordinator is None:
        return None
    return board_of(worker).status


def board_of(worker: SimulatedWorker) -> StatusBoard:
    """What a worker that has a session would show now; the steps of its start count as done."""
    assert worker.context is not None, f"{worker.name} has no session"
    assert worker.coordinator is not None
    board = StatusBoard()
    for step in START_STEPS[:-1]:
        board.reached(step)
    Reporter(worker.context, worker.coordinator, board, 0.0).report()
    return board


def shard_status(worker: SimulatedWorker, shard_id: str) -> ShardStatus:
    """The shard as the page of ``worker`` shows it now."""
    status = report(worker)
    assert status is not None, f"{worker.name} does not run"
    return next(shard for shard in status.shards if shard.shard_id == shard_id)


class Recording:
    """The series that a Prometheus would have, which scrapes all workers every ``interval`` seconds."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.scrapes: list[dict[Series, float]] = []

    async def record(self, world: Simulation, seconds: float) -> None:
        """Scrape for so many seconds of virtual time, the first time at once."""
        for _ in range(int(seconds / self.interval)):
            self.scrapes.append(self._scrape(world))
            await asyncio.sleep(self.interval)

    def _scrape(self, world: Simulation) -> dict[Series, float]:
        found: dict[Series, float] = {}
        for worker in world.workers.values():
            if report(worker) is None or worker.context is None:
                continue
            for family in worker.context.metrics.registry.collect():
                for sample in family.samples:
                    if not sample.name.startswith("process_"):
                        labels = sample.labels | {"job": JOB, "instance": worker.name}
                        found[sample.name, tuple(sorted(labels.items()))] = sample.value
        return found

    def input_series(self, names: Sequence[str]) -> list[Mapping[str, str]]:
        """The metrics ``names`` in the notation of ``promtool test rules``."""
        series = sorted({one for scrape in self.scrapes for one in scrape if one[0] in names})
        return [
            {
                "series": f"{name}{{{_labels(labels)}}}",
                "values": " ".join(_value(scrape.get((name, labels))) for scrape in self.scrapes),
            }
            for name, labels in series
        ]


def _value(value: float | None) -> str:
    return "stale" if value is None else f"{value:g}"


def _labels(labels: Sequence[tuple[str, str]]) -> str:
    return ",".join(f'{label}="{value}"' for label, value in labels)
