"""One worker process takes part in the fleet as one incarnation after the other.

An incarnation is a session with its renewal, a coordinator, and the look for a stream that replaces this one. It ends
with the stop of the process, when its session is fenced, or when the application goes on with another stream. The next
one is given where the application started, and what was known of the lease rows, should they be deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import structlog

from consumer import __version__
from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.errors import PermissionDenied, first_error
from consumer.domain.item_versions import BYTES_PER_ITEM, ItemVersions
from consumer.domain.lease import SessionRow, SessionValidity, name_of
from consumer.domain.remembered import Remembered
from consumer.operate.metrics import Metrics
from consumer.ports.leases import Registration, SessionStore
from consumer.ports.source import StreamDescription
from consumer.settings.model import Settings
from consumer.worker.context import Ports, WorkerContext
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.first_reads import first_reads
from consumer.worker.fleet.registration import belongs_to, register_start
from consumer.worker.fleet.session_renewal import SessionRenewal
from consumer.worker.fleet.stream_replacement import StreamReplacement, describe_older
from consumer.worker.handler_places import HandlerPlaces
from consumer.worker.memory_budget import ByteBudget
from consumer.worker.parked_keys import ParkedKeys
from consumer.worker.retrying import at_start, while_up
from consumer.worker.running_config import RunningConfig
from consumer.worker.shard.reader import ReaderState
from consumer.worker.tasks import Died, Stopped, never_ending, until_stopped

log = structlog.get_logger()

T = TypeVar("T")

VERSIONS_SHARE = 0.25  # of limits.buffer, and beside it: what is remembered of items where changes may come twice
DRAIN_SHARE = 0.8  # of shutdown.grace: what remains is for cancelling, writing frontiers and releasing leases
HARD_STOP_MARGIN = 2.0  # seconds after the grace until the process ends itself with 70


class Spawn(Protocol):
    """Starts work beside the main loop, on the control thread. Cancelling what it returns cancels the work."""

    def __call__(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Future[T]: ...


@dataclass(frozen=True, slots=True)
class Host:
    """The process around the incarnations, a real one or a simulated one.

    ``name`` is unique among those that run. ``companion`` is what else lives as long as an incarnation (reporting).
    ``bounds`` are smaller in tests only. ``task_died`` makes known that a root task ended by itself, and returns the
    error that ends the process. ``end_within`` ends the process when so many seconds are over, unless what it returns
    is called first.
    """

    name: str
    stop: asyncio.Event
    spawn: Spawn
    may_renew: Callable[[], bool]
    companion: Callable[[WorkerContext, Coordinator], Coroutine[Any, Any, None]]
    on_stopping: Callable[[], None]
    task_died: Died
    end_within: Callable[[float], Callable[[], None]]
    bounds: KeyBounds = BOUNDS


class IncarnationLoop:
    """``run`` returns after the stop, and raises StreamConsumerError when a root task has ended by itself.

    ``session_store`` is the lease table as the control thread reaches it; ``stream`` is what the application reads now.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        ports: Ports,
        session_store: SessionStore,
        metrics: Metrics,
        stream: StreamDescription,
        registration: Registration,
    ) -> None:
        self._host = host
        self._config = RunningConfig(settings)
        self._ports = ports
        self._session_store = session_store
        self._metrics = metrics
        self.stream = stream
        self._registration = registration
        self._places = HandlerPlaces(ports.handler)
        self._budget = ByteBudget(settings.limits.buffer)
        drops = settings.source.duplicates == "drop"
        self._versions = ItemVersions(_most_versions(settings)) if drops else None
        self._remembered: Remembered | None = None
        self._successor: str | None = None
        self._has_read = False
        self._warn_of_stream()

    async def run(self) -> None:
        """Live until the stop. Raises Stopped when that comes between two incarnations, and PermissionDenied when no
        shard may be read from the start on."""
        stop, clock = self._host.stop, self._ports.clock
        opening = at_start(clock, "the session", self._open)
        while True:
            incarnation = await until_stopped(stop, opening)
            self._successor = await incarnation.run()
            self._remembered, self._has_read = incarnation.remembered, incarnation.has_read
            if stop.is_set():
                return
            opening = self._open_again()

    async def _open_again(self) -> Incarnation:
        successor = self._successor
        if successor is not None:
            await while_up("the next stream", lambda: self._go_on_with(successor))
        await while_up("the lease table", self._register_again)
        return await while_up("the session", self._open)

    async def _go_on_with(self, stream_id: str) -> None:
        """Read another stream of the table from now on."""
        source = self._ports.source.of(stream_id)
        stream = await describe_older(source, stream_id, self.stream)
        position = self._config.now.settings.source.starting_position
        store, clock = self._ports.store, self._ports.clock
        self._registration = await register_start(source, store, stream, position, self._host.name, clock)
        self._ports = replace(self._ports, source=source)
        self.stream, self._remembered = stream, None
        self._warn_of_stream()

    def _warn_of_stream(self) -> None:
        """A stream that replaces another may have another view type, or be of a table that was made anew."""
        now = self._config.now
        if now.redaction is not None and (named := now.redaction.of_keys(self.stream.keys)):
            log.error("redaction.keys_named", stream_arn=self.stream.stream_arn, paths=named)
        self._warn_of_filters()

    def _warn_of_filters(self) -> None:
        for reason in self._config.now.filters.never_match(self.stream.view_type, self.stream.keys):
            log.warning("filters.never_match", stream_arn=self.stream.stream_arn, reason=reason)

    @property
    def settings(self) -> Settings:
        """What counts now."""
        return self._config.now.settings

    def reconfigure(self, settings: Settings) -> None:
        """Go on with ``settings``, which differ from the present ones in what may change while the worker runs.
        MisconfiguredResource, and nothing has changed, when they do not fit the stream."""
        if (redaction := settings.on_failure.redaction) is not None:
            redaction.require_no_keys(self.stream.keys, self.stream.name)
        before = self.settings
        self._config.replace(settings)
        self._budget.resize(settings.limits.buffer)
        if self._versions is not None:
            self._versions.resize(_most_versions(settings))
        if (settings.filters, settings.filter_options) != (before.filters, before.filter_options):
            self._warn_of_filters()

    async def _register_again(self) -> None:
        """What every incarnation but the first needs. The stream may be another one, and the lease table may have been
        dropped and made anew: where the application started is written again as this process knows it, because
        ``latest`` must never be resolved a second time."""
        store = self._ports.store
        await store.pin_application(self.stream.source_id)
        if await self._ports.source.latest_stream() is not None:
            await store.switch_stream(None, self.stream.stream_id)
        belongs_to(self.stream, await store.register(self.stream.label, self._registration))

    async def _open(self) -> Incarnation:
        """A new incarnation for every attempt: one whose first write got no answer may exist, and must not be used."""
        settings, ports = self._config.now.settings, self._ports
        context = WorkerContext(
            config=self._config,
            ports=ports,
            metrics=self._metrics,
            stream=self.stream,
            incarnation=name_of(self._host.name, ports.random.token(), settings.leases.duration),
            validity=SessionValidity(),
            budget=self._budget,
            places=self._places,
            start_at=self._registration.start_at,
            parked=ParkedKeys(ports.store),
            versions=self._versions if self.stream.format.repeats else None,
            bounds=self._host.bounds,
        )
        session = SessionRow(
            context.incarnation,
            capacity=settings.limits.max_shards,
            started_at=ports.clock.wall(),
            stream_id=context.stream.stream_id,
            version=__version__,
        )
        renewal = SessionRenewal(
            self._session_store,
            ports.clock,
            session,
            context.validity,
            may_renew=self._host.may_renew,
        )
        await self._host.spawn(renewal.open(), "open session")
        log.info("session.opened", incarnation=context.incarnation)
        return Incarnation(self._host, context, renewal, self._registration, self._remembered, self._has_read)


def _most_versions(settings: Settings) -> int:
    return int(settings.limits.buffer * VERSIONS_SHARE) // BYTES_PER_ITEM


class Incarnation:
    """One open session and everything that lives as long as it. ``run`` it once. ``has_read``: the process has read
    a shard before, so it may; what is refused later is waited for."""

    def __init__(
        self,
        host: Host,
        context: WorkerContext,
        renewal: SessionRenewal,
        registration: Registration,
        remembered: Remembered | None,
        has_read: bool,
    ) -> None:
        self._host = host
        self._context = context
        self.has_read = has_read
        self._renewal = renewal
        self._coordinator = coordinator = Coordinator(context, registration, remembered)
        self._replacement = StreamReplacement(context, registration, lambda: coordinator.rows, coordinator.is_first)
        self._fenced = asyncio.Event()
        self._replaced = asyncio.Event()
        self._successor: str | None = None
        self._refused = asyncio.Event()
        self._refusal: PermissionDenied | None = None
        self._in_time: Callable[[], None] = lambda: None

    @property
    def remembered(self) -> Remembered:
        """What this process knows of the lease rows."""
        return self._coordinator.remembered

    async def run(self) -> str | None:
        """Live until the stop of the process, or until there is another stream to go on with, and release all leases;
        or until the session is fenced. Returns the id of the other stream. StreamConsumerError when a root task has
        ended by itself, PermissionDenied when no shard may be read from the start on.

        An end takes no longer than a stop: user code that cannot be ended (a thread) would keep the worker from its
        next incarnation, so the process ends then."""
        try:
            # The renewal is outermost: the session must stay valid until the last handler call has ended.
            async with asyncio.TaskGroup() as outer:
                renewing = self._start(outer, "session renewal", self._renew())
                async with asyncio.TaskGroup() as roots:
                    tasks = [
                        self._start(roots, "coordinator", self._coordinator.run()),
                        self._start(roots, "reporter", self._host.companion(self._context, self._coordinator)),
                        self._start(roots, "stream follower", self._follow()),
                        self._start(roots, "first reads", self._first_reads()),
                        self._start(roots, "parked keys", self._context.parked.watch()),
                    ]
                    await self._until_end()
                    for task in tasks:
                        task.cancel()
                renewing.cancel()
        except BaseExceptionGroup as group:
            error = first_error(group)
            raise error from error.__cause__
        finally:
            await self._host.spawn(self._renewal.close(), "close session")
            self._in_time()
        if self._refusal is not None:
            raise self._refusal
        return self._successor

    def _start(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return tasks.create_task(never_ending(name, work, self._host.task_died), name=name)

    async def _renew(self) -> None:
        await self._host.spawn(self._renewal.run(), "session renewal")
        if not self._context.validity.fenced:
            return
        self._fenced.set()
        await asyncio.Event().wait()

    async def _follow(self) -> None:
        self._successor = await self._replacement.run()
        self._replaced.set()
        await asyncio.Event().wait()

    async def _first_reads(self) -> None:
        if not self.has_read:
            self._refusal = await first_reads(self._reader_states, self._context.ports.clock)
            self.has_read = self._refusal is None
            if self._refusal is not None:
                self._refused.set()
        await asyncio.Event().wait()

    def _reader_states(self) -> list[ReaderState]:
        return [worker.reader.state for worker in self._coordinator.workers]

    async def _until_end(self) -> None:
        """Wait for one of the ends; drain, unless there is nothing left to save."""
        stop, events = self._host.stop, (self._host.stop, self._fenced, self._replaced, self._refused)
        async with asyncio.TaskGroup() as tasks:
            ends = [tasks.create_task(event.wait()) for event in events]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        if not stop.is_set():  # a stop has a deadline of its own, from the signal on
            self._in_time = self._host.end_within(self._context.settings.shutdown.grace + HARD_STOP_MARGIN)
        if self._fenced.is_set():
            return
        if stop.is_set():
            self._host.on_stopping()
        grace = self._context.settings.shutdown.grace * DRAIN_SHARE
        with suppress(Stopped):  # fenced meanwhile
            await until_stopped(self._fenced, self._coordinator.drain(grace))
