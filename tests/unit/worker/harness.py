"""Several workers in one loop, on the memory adapters, with settings that make everything quick.

``World`` is the stream, the lease table and what the handlers saw; ``Worker`` is one process of the fleet, wired as the
composition root wires it. A test writes to ``world.stream``, hurts what it wants to hurt, and waits with ``until``.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from consumer.domain.errors import DependencyError, StreamConsumerError
from consumer.domain.lease import LeaseRow, SessionRow, SessionValidity
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.operate.metrics import Metrics
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.leases import Registration
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import Link
from consumer.worker.clock import SystemClock, SystemRandomness
from consumer.worker.context import HandlerSlots, Ports, WorkerContext
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.session_renewal import SessionRenewal
from consumer.worker.fleet.shard_discovery import register_start
from consumer.worker.memory_budget import ByteBudget

DURATION = 1.0
FAILED = Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison"))

Behaviour = Callable[[HandlerCall], Awaitable[Outcome]]


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll ``condition`` until it holds; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


class Faults(Link):
    """A link. ``refuse`` maps an operation to the error it gets before it is applied, ``lose`` counts responses of an
    operation that get lost after it was applied, ``hold`` delays responses until the event is set."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: dict[str, StreamConsumerError] = {}  # type: ignore[assignment]
        self.lose: dict[str, int] = {}
        self.hold: dict[str, asyncio.Event] = {}
        self.calls: dict[str, int] = defaultdict(int)

    async def carry(self, operation: str, apply: Callable[[], Any]) -> Any:
        await self.request(operation)
        result = apply()
        await self.response(operation)
        return result

    async def request(self, operation: str) -> None:
        await asyncio.sleep(0)
        self.calls[operation] += 1
        if operation in self.refuse:
            raise self.refuse[operation]

    async def response(self, operation: str) -> None:
        await asyncio.sleep(0)
        if operation in self.hold:
            await self.hold[operation].wait()
        if self.lose.get(operation, 0) > 0:
            self.lose[operation] -= 1
            raise DependencyError(operation, "Timeout")


@dataclass(frozen=True)
class Seen:
    """One record that a handler call settled."""

    key: str
    version: int
    worker: str
    epoch: int
    shard_id: str


def of(call: HandlerCall) -> list[tuple[str, int]]:
    return [(r.keys["id"], int((r.new_image or {}).get("v", 0))) for r in call.records]


class RecordingHandler:
    """Settles everything unless ``behaviour`` says otherwise; fails the test when a key is handled twice at once."""

    width = 0

    def __init__(self, world: World, name: str, behaviour: Behaviour | None) -> None:
        self._world = world
        self._name = name
        self._behaviour = behaviour
        self.calls: list[HandlerCall] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def invoke(self, call: HandlerCall) -> Outcome:
        self.calls.append(call)
        keys = {key for key, _ in of(call)}
        self._world.overlaps += len(keys & self._world.busy)
        self._world.busy |= keys
        try:
            outcome = await self._behaviour(call) if self._behaviour else OK
            if outcome.kind == "ok":
                self._world.seen += [Seen(k, v, self._name, call.lease_epoch, call.shard_id) for k, v in of(call)]
        finally:
            self._world.busy -= keys
        return outcome


@dataclass
class World:
    """What the fleet shares. ``config`` is merged over the quick defaults, section by section."""

    shards: int = 1
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dead_letters: DeadLetters | None = None
    page_records: int = 1000
    start_at: str = "trim_horizon"

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.stream = MemoryStream(self.clock, shards=self.shards, page_records=self.page_records)
        self.table = MemoryTable()
        self.seen: list[Seen] = []
        self.busy: set[str] = set()
        self.overlaps = 0
        self.written: dict[str, int] = defaultdict(int)
        self.workers: list[Worker] = []
        base: dict[str, dict[str, Any]] = {
            "source": {"table": "orders", "poll": {"idle_backoff_max": "20ms"}},
            "handler": {"kind": "python", "isolation": "inline", "target": "m:h"},
            "leases": {"duration": f"{DURATION:g}s"},
            "retry": {"max_retry_attempts": 1, "backoff": {"initial": "5ms", "max": "20ms"}},
            "checkpoint": {"interval": "20ms"},
        }
        for section, values in self.config.items():
            base[section] = base.get(section, {}) | dict(values)
        self.settings = Settings.model_validate({"application": "app", **base})

    def write(self, count: int, keys: int = 20, prefix: str = "k") -> None:
        """``count`` records, round robin over ``keys`` keys; ``v`` counts the versions of each key."""
        for index in range(count):
            self.put(f"{prefix}{index % keys}")

    def put(self, key: str) -> str:
        self.written[key] += 1
        number = self.stream.put({"id": key, "v": self.written[key]})
        assert number is not None
        return number

    @property
    def total(self) -> int:
        return sum(self.written.values())

    @property
    def handled(self) -> int:
        return len({(s.key, s.version) for s in self.seen})

    def everything_handled(self) -> bool:
        return self.handled == self.total

    def rows(self) -> dict[str, LeaseRow]:
        held = self.table.leases.get(("app", self.stream.label), {})
        return {shard_id: lease.row for shard_id, lease in held.items()}

    def owners(self) -> dict[str, int]:
        """How many leases that are not done every incarnation owns."""
        counts: dict[str, int] = defaultdict(int)
        for row in self.rows().values():
            if row.owner is not None and row.state != "done":
                counts[row.owner] += 1
        return counts

    def losses(self) -> list[Any]:
        return list(self.table.losses.get(("app", self.stream.label), {}).values())

    def assert_in_order(self, *, duplicates: int | None = 0) -> None:
        """First-settle order of every key is stream order, nothing is missing in between, no key ran twice at once."""
        newest: dict[str, int] = defaultdict(int)
        met: set[tuple[str, int]] = set()
        for one in self.seen:
            if (one.key, one.version) in met:
                continue
            met.add((one.key, one.version))
            assert one.version == newest[one.key] + 1, f"{one} came after version {newest[one.key]}"
            newest[one.key] = one.version
        assert self.overlaps == 0
        if duplicates is not None:
            assert len(self.seen) - len(met) <= duplicates

    async def worker(self, name: str = "w", behaviour: Behaviour | None = None) -> Worker:
        """Start a worker and return it."""
        worker = Worker(self, name, behaviour)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def close(self) -> None:
        """End all workers, and check what must hold at the end of every test."""
        for worker in self.workers:
            await worker.kill()
        for worker in self.workers:
            assert worker.context.budget.used == 0
            assert worker.metric("in_flight_records") == 0


class Worker:
    """One incarnation: session, keeper and coordinator."""

    def __init__(self, world: World, name: str, behaviour: Behaviour | None) -> None:
        self.world = world
        self.link, self.keeper_link, self.source_link = Faults(), Faults(), Faults()
        self.handler = RecordingHandler(world, name, behaviour)
        self.name = name
        self.lost = asyncio.Event()
        self.may_renew = True
        self.remembered: Mapping[str, LeaseRow] = {}

    async def start(self) -> None:
        world = self.world
        self.store = MemoryLeaseStore(world.table, "app", time.time, self.link)
        self._session_store = MemoryLeaseStore(world.table, "app", time.time, self.keeper_link)
        source = MemoryStreamSource(world.stream, self.source_link)
        random = SystemRandomness()
        ports = Ports(source, self.store, self.handler, world.dead_letters, world.clock, random)
        stream = await source.describe()
        self.registration: Registration = await register_start(source, self.store, stream, world.start_at)
        self.context = WorkerContext(
            settings=world.settings,
            ports=ports,
            metrics=Metrics(),
            stream=stream,
            incarnation=f"{self.name}/1/{random.token()}",
            validity=SessionValidity(),
            budget=ByteBudget(world.settings.limits.buffer),
            slots=HandlerSlots(0),
            start_at=self.registration.start_at,
            filters=world.settings.compiled_filters(),
        )
        sent_at = world.clock.monotonic()
        await self._session_store.open_session(SessionRow(self.incarnation))
        self.context.validity.renewed(sent_at, DURATION)
        keeper = SessionRenewal(
            self._session_store,
            world.clock,
            self.context.validity,
            self.incarnation,
            DURATION,
            may_renew=lambda: self.may_renew,
            on_lost=self._fenced,
        )
        self.keeping = asyncio.create_task(keeper.run())
        self.coordinator = Coordinator(self.context, self.registration, self.remembered)
        self.running = asyncio.create_task(self.coordinator.run())

    @property
    def incarnation(self) -> str:
        return self.context.incarnation

    def metric(self, name: str, **labels: str) -> float:
        total = 0.0
        for family in self.context.metrics.registry.collect():
            for sample in family.samples:
                plain = sample.name.removeprefix("stream_consumer_")
                if plain in (name, f"{name}_total") and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    def _fenced(self) -> None:
        """The composition root ends the incarnation."""
        self.lost.set()
        self.running.cancel()

    async def kill(self) -> None:
        """As a crash: nothing is written, the session row stays."""
        self.keeping.cancel()
        self.running.cancel()
        await asyncio.gather(self.keeping, self.running, return_exceptions=True)

    async def drain(self, grace: float = 5.0) -> None:
        """As at SIGTERM."""
        async with asyncio.timeout(20):
            await self.coordinator.drain(grace)
        await self.kill()
        await self._session_store.close_session(self.incarnation)
