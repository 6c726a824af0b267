"""Whole simulated workers on a few shards: what tests of one shard's life need beside ``consumer.testing.simulation``.

Tests drive workers, streams and links from outside, and look at handler calls, dead letters, table rows, metrics and
log events. ``run`` ends every scenario with all checkers, a graceful stop, and nothing left in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from structlog.testing import capture_logs
from structlog.typing import EventDict

from consumer.domain.errors import StreamConsumerError
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome, from_lambda_response
from consumer.ports.handler import Handler, Reservation
from consumer.ports.leases import Loss
from consumer.testing.history import Item
from consumer.testing.network import Link
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support import simulated_fleet

Behaviour = Callable[[HandlerCall], Awaitable[Outcome]]
Config = Mapping[str, Mapping[str, Any]]

FAILED = Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison"))
ALONE: Config = {"batch": {"batch_size": 1}}  # or the other keys of the batch wait, too


# --- handlers ------------------------------------------------------------------------------------------


async def settles(call: HandlerCall) -> Outcome:
    return OK


async def fails(call: HandlerCall) -> Outcome:
    return FAILED


async def poison(call: HandlerCall) -> Outcome:
    """Fails with every record whose key begins with ``poison``."""
    return FAILED if any(key.startswith("poison") for key in keys(call)) else OK


def answers(answer: Callable[[HandlerCall], Any]) -> Callable[[HandlerCall], Awaitable[Outcome]]:
    """A function whose return value is read by Lambda's rules."""

    async def behave(call: HandlerCall) -> Outcome:
        numbers = frozenset(one.sequence_number for one in call.records)
        return from_lambda_response(answer(call), numbers, report_failures=True)

    return behave


def keys(call: HandlerCall) -> list[str]:
    return [record.keys["id"] for record in call.records]


class Recorder:
    """``ports.Handler`` that keeps its calls and does what ``behave`` says."""

    width = 0

    def __init__(self, behave: Behaviour = settles) -> None:
        self.calls: list[HandlerCall] = []
        self._behave = behave

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
        return await self._behave(call)

    @property
    def keys(self) -> list[list[str]]:
        """The keys of every call."""
        return [keys(call) for call in self.calls]

    @property
    def sizes(self) -> list[int]:
        """The number of records of every call."""
        return [len(call.records) for call in self.calls]


# --- worlds --------------------------------------------------------------------------------------------


def shard_world(
    seed: str,
    config: Config | None = None,
    *,
    shards: int = 1,
    filters: Sequence[Mapping[str, Any]] = (),
    stream: Mapping[str, Any] | None = None,
    on_event: Callable[[str], None] | None = None,
) -> Simulation:
    """A simulation with one retry unless ``config`` (merged section by section) says otherwise. ``filters`` are
    EventBridge patterns, ``stream`` arguments of ``MemoryStream``."""
    given = dict(config or {})
    retry = {"max_retry_attempts": 1} | dict(given.pop("retry", {}))
    world = Simulation(seed, shards=shards, config={"retry": retry, **given}, stream=stream, on_event=on_event)
    world.settings = world.settings.model_copy(update={"filters": tuple(filters)})
    _watch_discards(world)
    return world


def start(world: Simulation, name: str, handler: Handler | None = None) -> SimulatedWorker:
    """Start a worker; without ``handler`` it settles everything."""
    worker = world.add_worker(name, handler or Recorder())
    worker.start()
    return worker


def run(world: Simulation, scenario: Callable[[], Awaitable[None]], *, settled: bool = True) -> None:
    """Run ``scenario`` and raise for everything that any checker found, for a record that was handled twice, and for
    records that a stopped worker counts as in flight. ``settled``: every record must be settled in the end, with its
    trace when it was lost."""

    async def whole(world: Simulation) -> None:
        await scenario()
        running = {worker.name: worker.context for worker in world.workers.values() if worker.running}
        if settled:
            await until(world, world.everything_settled, "everything is settled", 300.0)
            await world.finish()
        else:
            for worker in world.workers.values():
                await worker.stop()
        for name, context in running.items():
            if context is not None:
                assert context.metrics.in_flight_records.value == 0, f"{name} counts records in flight after its stop"

    world.run(whole)
    world.check()
    assert world.history.duplicates == []


async def until(
    world: Simulation,
    condition: Callable[[], bool],
    what: str,
    seconds: float = 60.0,
    saw: Callable[[], object] | None = None,
) -> None:
    """Wait for at most ``seconds`` of virtual time. AssertionError with the state of the world, and what the test
    ``saw``, when it is over."""
    if not await world.until(condition, seconds, what):
        seen = "" if saw is None else f", but {saw()}"
        raise AssertionError(f"not within {seconds:g} s: {what}{seen}\n{state(world)}")


def state(world: Simulation) -> str:
    """Workers, rows, and what became of the records, a line each."""
    rows = [f"{row.shard_id} {row.state} {row.owner} {row.frontier}" for row in world.rows().values()]
    workers = [f"{worker.name} is {worker.incarnation or 'not running'}" for worker in world.workers.values()]
    items = world.history.items.values()
    settled = sum(item.settled_at is not None for item in items)
    records = f"{settled} of {len(items)} records settled, {len(world.dead_letters.delivered)} dead letters"
    return "\n".join([*workers, *rows, records, f"calls: {dict(world.calls)}"])


# --- writing -------------------------------------------------------------------------------------------


def write(world: Simulation, count: int, among: int = 20) -> list[str]:
    """Write ``count`` records, round robin over ``among`` keys ``k0``, ``k1``, ... Returns their SequenceNumbers."""
    return [world.put(f"k{index % among}") for index in range(count)]


def append(world: Simulation, key: str, created: float, **change: Any) -> Item:
    """A record that no table would write now: created at ``created`` (Unix seconds; 0 when the service gives no time).
    ``change`` are members of ``dynamodb`` as on the wire."""
    shard_id = world.stream.shard_of(key)
    number = world.stream.append(key, {"ApproximateCreationDateTime": created, **change})
    item = world.checkers.produced(number, key, 1, shard_id)
    item.created = created or item.created
    return item


def append_too_old(world: Simulation, key: str, seconds: float) -> Item:
    """A record of ``seconds`` ago, which is above its maximum age."""
    return append(world, key, created=world.clock.wall() - seconds)


# --- looking -------------------------------------------------------------------------------------------


def settled_keys(world: Simulation) -> list[str]:
    """The keys of the records that a handler has settled, one for each record, in stream order."""
    return [item.key for item in sorted(world.history.items.values(), key=lambda i: i.number) if item.settles]


def others_settled(world: Simulation) -> bool:
    """Whether every record is settled whose key does not begin with ``poison``."""
    return all(item.settles for item in world.history.items.values() if not item.key.startswith("poison"))


def checkpoint(world: Simulation, shard_id: str) -> int:
    """The low watermark of a lease row; 0 when there is none yet."""
    rows = world.rows()
    return int(rows[shard_id].frontier.low or 0) if shard_id in rows else 0


async def checkpointed(world: Simulation, number: str, seconds: float = 120.0) -> None:
    """Until the first checkpoint at or above ``number``: nothing up to there is handled again."""
    await until(
        world,
        lambda: any(checkpoint(world, shard_id) >= int(number) for shard_id in world.rows()),
        f"a checkpoint at {number}",
        seconds,
    )


def letters(world: Simulation) -> list[Any]:
    """The dead letters that are durable, decoded, in order of arrival."""
    return [letter.json() for letter in world.dead_letters.delivered]


def losses(world: Simulation) -> list[Loss]:
    """The durable traces of records that were not handled and have no dead letter."""
    return list(world.table.losses.get((APPLICATION, world.stream.label), {}).values())


def metric(worker: SimulatedWorker, name: str, **labels: str) -> float:
    """The same of the worker's running process; 0 before its first session."""
    return 0.0 if worker.context is None else simulated_fleet.metric(worker, name, **labels)


@contextmanager
def log_events() -> Iterator[list[EventDict]]:
    """The log events of all workers, of every level when the world has an ``on_event``. Inside a scenario only. As
    ``Simulation`` does, it fails for a task that a mistake has ended."""
    with capture_logs() as events:
        yield events
    assert [event for event in events if event["event"] in ("shard.worker_failed", "task.died")] == []


def named(events: Sequence[EventDict], event: str) -> list[EventDict]:
    return [entry for entry in events if entry["event"] == event]


# --- faults of one operation ---------------------------------------------------------------------------


class Fault:
    """Calls of ``operations`` over one link; ``taken`` counts those that it has met, ``end`` heals the link."""

    def __init__(self, link: Link, operations: Sequence[str]) -> None:
        self.taken = 0
        self._over = asyncio.Event()
        self._operations = operations
        self._carry = link.carry
        link.carry = self._divert  # type: ignore[method-assign]  # the link of this process alone

    def end(self) -> None:
        self._over.set()

    async def _divert(self, operation: str, apply: Callable[[], Any]) -> Any:
        if operation not in self._operations or self._over.is_set():
            return await self._carry(operation, apply)
        self.taken += 1
        return await self.meet(operation, apply)

    async def meet(self, operation: str, apply: Callable[[], Any]) -> Any:
        raise NotImplementedError


class Refusal(Fault):
    """The service answers with ``error`` and applies nothing, after the first ``but`` calls and for ``times`` calls."""

    def __init__(
        self,
        link: Link,
        error: StreamConsumerError,
        *operations: str,
        but: int = 0,
        times: float = float("inf"),
    ) -> None:
        super().__init__(link, operations)
        self._error = error
        self._refused = range(but + 1, but + 1 + int(min(times, 1e9)))

    async def meet(self, operation: str, apply: Callable[[], Any]) -> Any:
        def refuse() -> None:
            raise self._error

        return await self._carry(operation, refuse if self.taken in self._refused else apply)


class Delay(Fault):
    """Requests leave at the ``end`` of the fault; their sender waits. ``cut_off`` counts those whose sender was
    cancelled meanwhile."""

    def __init__(self, link: Link, *operations: str) -> None:
        super().__init__(link, operations)
        self.cut_off = 0

    async def meet(self, operation: str, apply: Callable[[], Any]) -> Any:
        try:
            await self._over.wait()
            return await self._carry(operation, apply)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise


# --- without a destination -----------------------------------------------------------------------------


def _watch_discards(world: Simulation) -> None:
    """Let the checkers know that a ``discarded`` or ``kept`` row, too, settles its record: it is the dead letter of a
    mapping that has no destination, or one that can never take it."""
    world.table.losses[APPLICATION, world.stream.label] = _Losses(world)


class _Losses(dict[tuple[str, str, str], Loss]):
    def __init__(self, world: Simulation) -> None:
        self._world = world

    def __setitem__(self, key: tuple[str, str, str], loss: Loss) -> None:
        super().__setitem__(key, loss)
        if loss.kind != "gap":
            assert loss.first_sequence_number == loss.last_sequence_number, "records are discarded one by one here"
            record = {"dynamodb": {"SequenceNumber": loss.first_sequence_number}}
            document = b'{"payload":' + msgspec.json.encode({"Records": [record]}) + b"}"
            self._world.checkers.dead_lettered(document, loss.shard_id, loss.reason.partition(";")[0])
