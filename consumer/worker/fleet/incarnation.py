"""The lives of one worker process: a session, its coordinator and its keeper, again and again until the stop.

An incarnation ends with the stop, when its session is fenced, or when the stream is read to its end and another one
follows it. What the next one needs goes from hand to hand: where the application started, and what was known of the
lease rows, should they be deleted. Around it stands a ``Host``: the real process (``app.py``) or a simulated one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol, TypeVar

import structlog

from consumer.domain.errors import DependencyError, StreamConsumerError, Unavailable
from consumer.domain.lease import LeaseRow, SessionRow, SessionValidity
from consumer.operate.metrics import Metrics
from consumer.ports.leases import LeaseTable, Registration
from consumer.ports.source import StreamDescription
from consumer.ports.time import Clock
from consumer.settings.model import Settings
from consumer.worker.context import HandlerSlots, Ports, WorkerContext
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.session_renewal import SessionRenewal
from consumer.worker.fleet.shard_discovery import register_start
from consumer.worker.fleet.stream_replacement import Follower, describe_older
from consumer.worker.memory_budget import ByteBudget

log = structlog.get_logger()

T = TypeVar("T")

START_DEADLINE = 60.0  # seconds a dependency may stay unavailable at the start before the exit with 69
DRAIN_SHARE = 0.8  # of shutdown.grace: what remains is for cancelling, writing frontiers and releasing leases
HARD_STOP_MARGIN = 2.0  # seconds after the grace until the process ends itself with 70


class Stopped(Exception):
    """The stop came before the work was done."""


class Begin(Protocol):
    """Starts work beside the main loop, on the control thread. Cancelling what it returns cancels the work."""

    def __call__(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Future[T]: ...


@dataclass(frozen=True, slots=True)
class Host:
    """The process. ``name`` is unique among those that run; ``beside`` is what else lives as long as an incarnation;
    ``death`` makes an ended background task known and returns the error that ends the process."""

    name: str
    stop: asyncio.Event
    begin: Begin
    may_renew: Callable[[], bool]
    beside: Callable[[WorkerContext, Coordinator], Coroutine[Any, Any, None]]
    on_stopping: Callable[[], None]
    death: Callable[[str, BaseException | None], StreamConsumerError]


class Incarnations:
    """``run`` returns after the stop and raises StreamConsumerError when a background task has ended by itself.

    ``session_store`` is the lease table as the control thread reaches it.
    """

    def __init__(
        self,
        host: Host,
        settings: Settings,
        ports: Ports,
        session_store: LeaseTable,
        metrics: Metrics,
        stream: StreamDescription,
        registration: Registration,
    ) -> None:
        self._host = host
        self._settings = settings
        self._ports = ports
        self._session_store = session_store
        self._metrics = metrics
        self._stream = stream
        self._registration = registration
        self._slots = HandlerSlots(ports.handler.width)
        self._budget = ByteBudget(settings.limits.buffer)
        self._filters = settings.compiled_filters()
        self._remembered: Mapping[str, LeaseRow] = {}
        self._count = 0
        self._successor: str | None = None

    async def run(self) -> None:
        """Live until the stop. Raises Stopped when that comes between two incarnations."""
        while not self._host.stop.is_set():
            await self._incarnation()

    async def _incarnation(self) -> None:
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()

        def on_lost() -> None:  # called on the control thread
            loop.call_soon_threadsafe(lost.set)

        context = await until_stopped(self._host.stop, self._prepare())
        self._count += 1
        keeper = SessionRenewal(
            self._session_store,
            self._ports.clock,
            context.validity,
            context.incarnation,
            self._settings.leases.duration,
            may_renew=self._host.may_renew,
            on_lost=on_lost,
        )
        keeping = self._host.begin(keeper.run(), "session")
        coordinator = Coordinator(context, self._registration, self._remembered)
        follower = Follower(context, self._registration, lambda: coordinator.rows, coordinator.is_first)
        try:
            await self._live(coordinator, self._host.beside(context, coordinator), follower, keeping, lost)
        finally:
            keeping.cancel()
            self._remembered = coordinator.memory
            await self._close_session(context)

    async def _live(
        self,
        coordinator: Coordinator,
        beside: Coroutine[Any, Any, None],
        follower: Follower,
        keeping: asyncio.Future[None],
        lost: asyncio.Event,
    ) -> None:
        stop = self._host.stop
        running = asyncio.create_task(coordinator.run(), name="coordinator")
        reporting = asyncio.create_task(beside, name="reporter")
        following = asyncio.create_task(follower.run(), name="stream follower")
        stopped = asyncio.ensure_future(stop.wait())
        fenced = asyncio.ensure_future(lost.wait())
        roots: tuple[asyncio.Future[None], ...] = (running, reporting, keeping)
        try:
            ends: set[asyncio.Future[Any]] = {*roots, following, stopped, fenced}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in roots:
                if task.done() and not (task is keeping and lost.is_set()):
                    self._raise_death(task)
            if following.done():
                if following.cancelled() or following.exception() is not None:
                    self._raise_death(following)
                self._successor = following.result()
            if (stop.is_set() or self._successor is not None) and not lost.is_set():
                if stop.is_set():
                    self._host.on_stopping()
                await self._drain(coordinator, running, fenced)
                if running.done():
                    self._raise_death(running)
        finally:
            for end in (running, reporting, following, stopped, fenced):
                end.cancel()
            await asyncio.gather(running, reporting, following, stopped, fenced, return_exceptions=True)

    async def _drain(self, coordinator: Coordinator, *ends: asyncio.Future[Any]) -> None:
        """Drain until done, or until there is nothing left to save (the session was fenced meanwhile)."""
        draining = asyncio.create_task(coordinator.drain(self._settings.shutdown.grace * DRAIN_SHARE))
        await asyncio.wait({draining, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            draining.result()
        draining.cancel()

    def _raise_death(self, task: asyncio.Future[Any]) -> NoReturn:
        error = None if task.cancelled() else task.exception()
        name = task.get_name() if isinstance(task, asyncio.Task) else "session"
        raise self._host.death(name, error) from error

    # --- between two incarnations ----------------------------------------------------------------------

    async def _prepare(self) -> WorkerContext:
        clock, successor = self._ports.clock, self._successor
        if not self._count:
            return await patiently(clock, "the session", self._open_session)
        if successor is not None:
            await _for_ever(clock, "the next stream", lambda: self._go_on_with(successor))
        await _for_ever(clock, "the lease table", self._resume)
        return await _for_ever(clock, "the session", self._open_session)

    async def _resume(self) -> None:
        """What every incarnation but the first needs. The stream may be another one, and the lease table may have been
        dropped and made anew: where the application started is written again as this process knows it, because
        ``latest`` must never be resolved a second time."""
        store = self._ports.store
        await store.pin_application(self._stream.table_name)
        if await self._ports.source.latest_stream() is not None:
            await store.switch_stream(None, self._stream.stream_arn)
        await store.register(self._stream.label, self._registration)

    async def _go_on_with(self, stream_arn: str) -> None:
        """Read another stream of the table from now on."""
        source = self._ports.source.of(stream_arn)
        stream = await describe_older(source, stream_arn, self._stream)
        position = self._settings.source.starting_position
        self._registration = await register_start(source, self._ports.store, stream, position)
        self._ports = replace(self._ports, source=source)
        self._stream, self._remembered, self._successor = stream, {}, None

    async def _open_session(self) -> WorkerContext:
        """A new incarnation for every attempt: one whose first write got no answer may exist, and must not be used."""
        clock, duration = self._ports.clock, self._settings.leases.duration
        context = WorkerContext(
            settings=self._settings,
            ports=self._ports,
            metrics=self._metrics,
            stream=self._stream,
            incarnation=f"{self._host.name}/{self._ports.random.token()}",
            validity=SessionValidity(),
            budget=self._budget,
            slots=self._slots,
            start_at=self._registration.start_at,
            filters=self._filters,
        )
        row = SessionRow(
            context.incarnation,
            capacity=self._settings.limits.max_shards,
            started_at=clock.wall(),
            label=context.stream.label,
        )

        async def write() -> None:
            sent_at = clock.monotonic()
            await self._session_store.open_session(row)
            context.validity.renewed(sent_at, duration)

        await self._host.begin(write(), "open session")
        log.info("session.opened", incarnation=context.incarnation)
        return context

    async def _close_session(self, context: WorkerContext) -> None:
        try:
            await self._host.begin(self._session_store.close_session(context.incarnation), "close session")
        except StreamConsumerError as error:
            log.warning("session.close_failed", error=str(error))  # it expires by itself


async def until_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, or cancel it and raise Stopped when the stop comes first."""
    task = asyncio.create_task(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Stopped
    finally:
        stopped.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def patiently(clock: Clock, what: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Try until it works; what may pass is retried until the start deadline."""
    deadline = clock.monotonic() + START_DEADLINE
    pause = 0.5
    while True:
        try:
            return await attempt()
        except DependencyError as error:
            if clock.monotonic() + pause > deadline or error.exit_code != DependencyError.exit_code:
                raise
            log.warning("start.waiting", waiting_for=what, error=str(error))
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)


async def _for_ever(clock: Clock, what: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Try until it works. A daemon that was up waits for whatever was taken away from it: ending it would only start a
    crash loop."""
    pause = 0.5
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            log.warning("start.waiting", waiting_for=what, error=str(error))
        await asyncio.sleep(pause)
        pause = min(5.0, pause * 2)
