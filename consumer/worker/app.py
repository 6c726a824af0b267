"""The composition root: builds the adapters, waits for the dependencies, and runs incarnations until told to stop.

Start: handler import, then the stream, the lease table and the destination (each error names what is wrong), then the
upkeep thread, then the first plan. Stop: read nothing more, finish or cancel what is in flight within
``shutdown.grace``, write every frontier, release every lease, end the session, exit 0.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import structlog

from consumer.aws.adapters import MainAdapters, UpkeepAdapters
from consumer.domain.errors import DependencyError, PermissionDenied, ResourceMissing, StreamConsumerError
from consumer.domain.lease import Belief, LeaseRow, SessionRow
from consumer.handlers.build import build_handler
from consumer.operate import sd_notify
from consumer.operate.http import HealthServer
from consumer.operate.logs import configure_logging
from consumer.operate.metrics import Metrics
from consumer.operate.status import StatusBoard
from consumer.ports import LeaseStore, StreamDescription, StreamSource
from consumer.settings.model import Settings
from consumer.worker import collector
from consumer.worker.budget import ByteBudget
from consumer.worker.clock import SystemClock, SystemRandomness
from consumer.worker.context import HandlerSlots, Ports, WorkerContext
from consumer.worker.coordinator import Coordinator
from consumer.worker.discovery import register_start
from consumer.worker.following import Follower, current_stream, describe_older
from consumer.worker.keeper import Keeper
from consumer.worker.reporting import Pulse, Reporter
from consumer.worker.upkeep import UpkeepThread, Watchdog, die

log = structlog.get_logger()

T = TypeVar("T")

START_DEADLINE = 60.0  # seconds a dependency may stay unavailable at the start before the exit with 69
DRAIN_SHARE = 0.8  # of shutdown.grace: what remains is for cancelling, writing frontiers and releasing leases
CLEAN_UP = 5.0  # seconds for closing what can be closed after a root task died
HARD_STOP_MARGIN = 2.0  # seconds after the grace until the process ends itself with 70


class _Stopped(Exception):
    """The stop came before the work was done."""


class Daemon:
    """One process of the fleet. ``run`` returns after a graceful stop and raises StreamConsumerError otherwise."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._clock = SystemClock()
        self._random = SystemRandomness()
        self._metrics = Metrics()
        self._board = StatusBoard(wedged_after(settings))
        self._pulse = Pulse(self._clock, self._board, self._metrics)
        self._watchdog = Watchdog(lambda: self._pulse.beats, self._board.wedged_after)
        self._upkeep = UpkeepThread()
        self._filters = settings.compiled_filters()
        self._started_at = self._clock.wall()
        self._remembered: Mapping[str, LeaseRow] = {}
        self._incarnations = 0
        self._successor: str | None = None
        self._died: asyncio.Future[None] | None = None
        configure_logging(settings.logging.level, settings.logging.format, on_error=self._board.error)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set. Raises StreamConsumerError when that is not possible (any more)."""
        self._stop = stop
        self._board.reached("config")
        self._died = asyncio.get_running_loop().create_future()
        work = asyncio.create_task(self._work(), name="daemon")
        try:
            await asyncio.wait((work, self._died), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait((work,), timeout=CLEAN_UP)
            if self._died.done():
                self._died.result()
            work.result()
        finally:
            work.cancel()
            self._died.cancel()
        log.info("daemon.stopped")

    async def _work(self) -> None:
        async with AsyncExitStack() as stack:
            try:
                await self._until_stopped(self._start(stack))
                while not self._stop.is_set():
                    await self._incarnation()
            except _Stopped:
                log.info("daemon.stopped_during_start")

    # --- start -----------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        pulse = asyncio.create_task(self._pulse.run(), name="pulse")
        self._root(pulse, "pulse")
        stack.callback(pulse.cancel)
        self._upkeep.start()
        stack.push_async_callback(self._upkeep.stop)
        stack.callback(self._root_on_upkeep(self._watchdog.run(), "watchdog").cancel)
        server = HealthServer(self._board, self._metrics, settings.http.host, settings.http.port)
        await self._upkeep.call(server.start())
        stack.push_async_callback(lambda: self._upkeep.call(server.close()))
        stack.callback(self._root_on_upkeep(server.run(), "http server").cancel)
        log.info("http.listening", host=settings.http.host, port=server.port)

        handler = build_handler(settings)
        stack.push_async_callback(handler.close)
        await handler.start()

        adapters = await stack.enter_async_context(MainAdapters(settings, self._metrics.observe_api, self._clock))
        latest = await self._patiently("the stream", adapters.source.describe)
        await self._patiently("the lease table", lambda: self._prepare_table(adapters.store, latest))
        source, stream = await self._patiently(
            "the stream", lambda: current_stream(adapters.source, adapters.store, latest)
        )
        self._board.reached("lease_table")
        if adapters.dead_letters is not None:
            await self._patiently("the dead-letter destination", adapters.dead_letters.prepare)
        self._registration = await self._patiently(
            "the registration",
            lambda: register_start(source, adapters.store, stream, settings.source.starting_position),
        )
        upkeep = UpkeepAdapters(settings, self._metrics.observe_api, self._clock)
        self._keeper_store = await self._upkeep.call(upkeep.open())
        stack.push_async_callback(lambda: self._upkeep.call(upkeep.close()))

        self._stream: StreamDescription = stream
        self._ports = Ports(source, adapters.store, handler, adapters.dead_letters, self._clock, self._random)
        self._slots = HandlerSlots(handler.width)
        self._budget = ByteBudget(settings.limits.buffer)
        collector.tune()
        log.info("daemon.started", application=settings.application, stream_arn=stream.stream_arn, pid=os.getpid())

    async def _prepare_table(self, store: LeaseStore, stream: StreamDescription) -> None:
        leases = self._settings.leases
        try:
            if await store.prepare(create=leases.create_table):
                log.info("lease_table.created", table=leases.table)
        except ResourceMissing as error:
            raise ResourceMissing(
                f"lease table {leases.table}",
                "create it with `stream-consumer init --config FILE`, or set leases.create_table: true",
            ) from error
        await store.pin_application(stream.table_name)

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
        source: StreamSource = self._ports.source.of(stream_arn)
        stream = await describe_older(source, stream_arn, self._stream)
        position = self._settings.source.starting_position
        self._registration = await register_start(source, self._ports.store, stream, position)
        self._ports = replace(self._ports, source=source)
        self._stream, self._remembered, self._successor = stream, {}, None

    async def _for_ever(self, what: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Try until it works. A daemon that was up waits for whatever was taken away from it: ending it would only
        start a crash loop."""
        pause = 0.5
        while True:
            try:
                return await attempt()
            except (DependencyError, PermissionDenied, ResourceMissing) as error:
                log.warning("start.waiting", waiting_for=what, error=str(error))
            await self._clock.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _patiently(self, what: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Try until it works; what may pass is retried until the start deadline."""
        deadline = self._clock.monotonic() + START_DEADLINE
        pause = 0.5
        while True:
            try:
                return await attempt()
            except DependencyError as error:
                if self._clock.monotonic() + pause > deadline or error.exit_code != DependencyError.exit_code:
                    raise
                log.warning("start.waiting", waiting_for=what, error=str(error))
                await self._clock.sleep(pause)
                pause = min(5.0, pause * 2)

    # --- one incarnation -------------------------------------------------------------------------------

    async def _incarnation(self) -> None:
        """Live as one session until the stop, until the session is fenced or until the stream is finished and another
        one follows it (then the next incarnation starts afresh)."""
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()

        def on_lost() -> None:  # called on the upkeep thread
            loop.call_soon_threadsafe(lost.set)

        if self._incarnations:
            successor = self._successor
            if successor is not None:
                await self._until_stopped(self._for_ever("the next stream", lambda: self._go_on_with(successor)))
            await self._until_stopped(self._for_ever("the lease table", self._resume))
            context = await self._until_stopped(self._for_ever("the session", self._open_session))
        else:
            context = await self._until_stopped(self._patiently("the session", self._open_session))
        self._incarnations += 1
        keeper = Keeper(
            self._keeper_store,
            self._clock,
            context.belief,
            context.incarnation,
            self._settings.leases.duration,
            may_renew=lambda: not self._watchdog.wedged,
            on_lost=on_lost,
        )
        keeping = self._upkeep.spawn(keeper.run())
        coordinator = Coordinator(context, self._registration, self._remembered)
        follower = Follower(context, self._registration, lambda: coordinator.rows)
        reporter = Reporter(context, coordinator, self._board, self._started_at)
        try:
            await self._live(coordinator, reporter, follower, keeping, lost)
        finally:
            keeping.cancel()
            self._remembered = coordinator.memory
            await self._close_session(context)

    async def _live(
        self,
        coordinator: Coordinator,
        reporter: Reporter,
        follower: Follower,
        keeping: concurrent.futures.Future[None],
        lost: asyncio.Event,
    ) -> None:
        running = asyncio.create_task(coordinator.run(), name="coordinator")
        reporting = asyncio.create_task(reporter.run(), name="reporter")
        following = asyncio.create_task(follower.run(), name="stream follower")
        kept = asyncio.ensure_future(asyncio.wrap_future(keeping))
        stopped = asyncio.ensure_future(self._stop.wait())
        fenced = asyncio.ensure_future(lost.wait())
        roots: tuple[asyncio.Future[None], ...] = (running, reporting, kept)
        try:
            ends: set[asyncio.Future[Any]] = {*roots, following, stopped, fenced}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in roots:
                if task.done() and not (task is kept and lost.is_set()) and not task.cancelled():
                    self._raise_death(task)
            if following.done():
                if following.exception() is not None:
                    self._raise_death(following)
                self._successor = following.result()
            if (self._stop.is_set() or self._successor is not None) and not lost.is_set():
                if self._stop.is_set():
                    self._board.stopping()
                    sd_notify.stopping()
                    log.info("daemon.stopping", grace=self._settings.shutdown.grace)
                await self._drain(coordinator, running, fenced)
                if running.done() and not running.cancelled():
                    self._raise_death(running)
        finally:
            for end in (running, reporting, following, stopped, fenced):
                end.cancel()
            await asyncio.gather(running, reporting, following, stopped, fenced, return_exceptions=True)
            kept.cancel()

    async def _drain(self, coordinator: Coordinator, *ends: asyncio.Future[Any]) -> None:
        """Drain until done, or until there is nothing left to save (the session was fenced meanwhile)."""
        draining = asyncio.create_task(coordinator.drain(self._settings.shutdown.grace * DRAIN_SHARE))
        await asyncio.wait({draining, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            draining.result()
        draining.cancel()

    def _raise_death(self, task: asyncio.Future[Any]) -> NoReturn:
        error = task.exception()
        name = task.get_name() if isinstance(task, asyncio.Task) else "keeper"
        raise self._death(name, error) from error

    def _death(self, name: str, error: BaseException | None) -> StreamConsumerError:
        self._board.task_died(name, repr(error))
        log.critical("task.died", task=name, exc_info=error)
        return StreamConsumerError(f"background task {name} ended: {error!r}")

    def _root_on_upkeep(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Future[None]:
        """Start a root task on the upkeep thread."""
        return self._root(asyncio.ensure_future(asyncio.wrap_future(self._upkeep.spawn(work))), name)

    def _root(self, task: asyncio.Future[None], name: str) -> asyncio.Future[None]:
        """A task of the whole process. When it ends by itself, with or without an error, so does the process."""

        def ended(task: asyncio.Future[None]) -> None:
            if not task.cancelled():
                death = self._death(name, task.exception())
                if self._died is not None and not self._died.done():
                    self._died.set_exception(death)

        task.add_done_callback(ended)
        return task

    def _context(self) -> WorkerContext:
        return WorkerContext(
            settings=self._settings,
            ports=self._ports,
            metrics=self._metrics,
            stream=self._stream,
            incarnation=f"{socket.gethostname()}/{os.getpid()}/{self._random.token()}",
            belief=Belief(),
            budget=self._budget,
            slots=self._slots,
            start_at=self._registration.start_at,
            filters=self._filters,
        )

    async def _open_session(self) -> WorkerContext:
        """A new incarnation for every attempt: one whose first write got no answer may exist, and must not be used."""
        context = self._context()
        row = SessionRow(
            context.incarnation,
            capacity=self._settings.limits.max_shards,
            started_at=self._clock.wall(),
            label=context.stream.label,
        )

        async def write() -> None:
            sent_at = self._clock.monotonic()
            await self._keeper_store.open_session(row)
            context.belief.renewed(sent_at, self._settings.leases.duration)

        await self._upkeep.call(write())
        log.info("session.opened", incarnation=context.incarnation)
        return context

    async def _close_session(self, context: WorkerContext) -> None:
        try:
            await self._upkeep.call(self._keeper_store.close_session(context.incarnation))
        except StreamConsumerError as error:
            log.warning("session.close_failed", error=str(error))  # it expires by itself

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, or cancel it and raise _Stopped when the stop comes first."""
        task = asyncio.create_task(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _Stopped
        finally:
            stopped.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def wedged_after(settings: Settings) -> float:
    """Seconds without progress of the main loop after which the process is taken for wedged.

    Only an inline handler can block the main loop for a good reason, and then for as long as its own time-out; two of
    them may do so one after the other. Nobody else's code runs there.
    """
    handler = settings.handler
    if handler.kind == "python" and handler.isolation == "inline":
        return max(15.0, 2 * handler.timeout)
    return 60.0


def arm_hard_stop(grace: float) -> threading.Timer:
    """From the stop signal on: whatever hangs (a handler that ignores cancellation, a table that does not answer), the
    process ends by itself shortly after the grace, with 70. The records in flight are redelivered elsewhere."""

    def expire() -> None:
        log.critical("shutdown.overrun", grace=grace, exit_code=70)
        die(70)

    timer = threading.Timer(grace + HARD_STOP_MARGIN, expire)
    timer.daemon = True
    timer.start()
    return timer
