"""What scenarios on the simulator share: handlers that keep their calls, metrics of a worker, log events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.ports.handler import Reservation
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation

Behaviour = Callable[[HandlerCall], Awaitable[Outcome]]


def versions(call: HandlerCall) -> list[tuple[str, int]]:
    """Key and version of every record of a call."""
    return [(record.keys["id"], int((record.new_image or {}).get("v", 0))) for record in call.records]


async def takes_a_while(call: HandlerCall) -> Outcome:
    """With ``SLOW``: long enough that a backlog is still there when a test interferes."""
    await asyncio.sleep(0.3)
    return OK


SLOW: dict[str, dict[str, Any]] = {"batch": {"batch_size": 10, "parallelization_factor": 1}}


class Recorder:
    """``ports.Handler``: settles everything unless ``behaviour`` says otherwise. ``calls`` are all that have started,
    ``running`` those under way."""

    width = 0

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self._behaviour = behaviour
        self.calls: list[HandlerCall] = []
        self.running: list[HandlerCall] = []

    async def start(self) -> None:
        """Nothing to import."""

    async def reserve(self) -> Reservation:
        return self

    def release(self) -> None:
        """Nothing was reserved."""

    async def close(self) -> None:
        """Nothing to end."""

    async def run(self, call: HandlerCall) -> Outcome:
        self.calls.append(call)
        self.running.append(call)
        try:
            return await self._behaviour(call) if self._behaviour is not None else OK
        finally:
            self.running.remove(call)

    @property
    def handled(self) -> list[tuple[str, int]]:
        """Key and version of every record that was in a call, repetitions included."""
        return [version for call in self.calls for version in versions(call)]


class Gate:
    """A behaviour that holds the calls ``concerned`` until ``open``."""

    def __init__(self, concerned: Callable[[HandlerCall], bool] = lambda call: True) -> None:
        self._concerned = concerned
        self._opened = asyncio.Event()

    async def __call__(self, call: HandlerCall) -> Outcome:
        if self._concerned(call):
            await self._opened.wait()
        return OK

    def open(self) -> None:
        self._opened.set()


class LogEvents:
    """``on_event`` of a simulation: keeps its log events as lines, which name the event and its fields."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def __call__(self, line: str) -> None:
        if "   log " in line:
            self._lines.append(line)

    def of(self, event: str) -> list[str]:
        """The lines of one event, oldest first."""
        return [line for line in self._lines if f" {event} {{" in line]


def add(world: Simulation, name: str, behaviour: Behaviour | None = None) -> tuple[SimulatedWorker, Recorder]:
    """Start a worker whose handler keeps its calls."""
    handler = Recorder(behaviour)
    worker = world.add_worker(name, handler)
    worker.start()
    return worker, handler


def write(world: Simulation, count: int, keys: int = 20, prefix: str = "k") -> None:
    """``count`` records, round robin over ``keys`` keys."""
    for number in range(count):
        world.put(f"{prefix}{number % keys}")


def settled(world: Simulation) -> int:
    """How many records are handled."""
    return len(world.history.items) - world.checkers.left


async def until_settled(world: Simulation, seconds: float = 60.0) -> None:
    await world.until(world.everything_settled, seconds, "everything settled")


async def until_owned(world: Simulation, worker: SimulatedWorker, count: int = 1) -> None:
    """Wait until the table says that the worker owns so many unfinished shards."""
    await world.until(lambda: world.owned().get(worker.incarnation) == count, 60.0, f"{worker.name} owns {count}")


async def until_checkpointed(world: Simulation) -> None:
    """Wait until every row has a checkpoint."""
    await world.until(
        lambda: all(row.frontier.low for row in world.rows().values()), 30.0, "every row has a checkpoint"
    )


async def until_ended(world: Simulation, worker: SimulatedWorker) -> None:
    """Wait for a process that was told to stop, which must come to its end by itself."""
    await world.until(lambda: not worker.running, 60.0, f"the end of {worker.name}")
    assert not worker.killed, f"{worker.name} was ended by the hard stop"


def owners(world: Simulation) -> set[str]:
    """Incarnations that own an unfinished shard."""
    return {row.owner for row in world.rows().values() if row.owner is not None and not row.finished}


def metric(worker: SimulatedWorker, name: str, **labels: str) -> float:
    """The sum of a metric of the current process over all series with these labels."""
    assert worker.context is not None, f"{worker.name} has not opened a session"
    wanted = {f"stream_consumer_{name}", f"stream_consumer_{name}_total"}
    collectors = worker.context.metrics.registry._collector_to_names  # all of a registry are a thousand samples
    return sum(
        sample.value
        for collector, names in collectors.items()
        if not names or not wanted.isdisjoint(names)
        for family in collector.collect()
        for sample in family.samples
        if sample.name in wanted and labels.items() <= sample.labels.items()
    )


def checked(
    world: Simulation, scenario: Callable[[Simulation], Awaitable[None]], *, expected: Iterable[str] = ()
) -> Simulation:
    """Run a scenario: nothing may be violated but the ``expected``, parts of texts each of which must come."""
    world.run(scenario)
    texts = [str(violation) for violation in world.history.violations]
    missed = [part for part in expected if not any(part in text for text in texts)]
    assert not missed, f"{missed} not in {texts[:5]}"
    others = [text for text in texts if not any(part in text for part in expected)]
    assert not others, others[:5]
    return world
