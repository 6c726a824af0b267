"""The composition root: builds the adapters and runs the worker as one process of the fleet, until told to stop.

Start: the control thread with watchdog and health server, handler import, then the steps of ``worker/start.py`` (each
error names what is wrong), then the first plan. Stop: read nothing more, finish or cancel what is in flight within
``shutdown.grace``, write every frontier, release every lease, end the session, exit 0.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import Any

import structlog

from consumer.aws.adapters import MainAdapters, lease_table
from consumer.domain import compiled_values
from consumer.domain.errors import StreamConsumerError, first_error
from consumer.handlers.build import build_handler
from consumer.operate import sd_notify
from consumer.operate.emf import EmfLines
from consumer.operate.health_server import HealthServer
from consumer.operate.logs import configure_logging
from consumer.operate.metrics import Metrics
from consumer.operate.status import StatusBoard
from consumer.ports.handler import Handler
from consumer.ports.leases import LeaseTable
from consumer.settings.model import Settings
from consumer.worker import gc_tuning
from consumer.worker.clock import HeardClock, SystemClock, SystemRandomness
from consumer.worker.context import Ports, WorkerContext
from consumer.worker.control_thread import ControlThread, Watchdog, die
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.incarnation import HARD_STOP_MARGIN, Host, IncarnationLoop
from consumer.worker.letter_backlog import watch_backlog
from consumer.worker.process_name import process_name
from consumer.worker.reload import Reload
from consumer.worker.reporting import Pulse, Reporter
from consumer.worker.retrying import at_start
from consumer.worker.start import start
from consumer.worker.state_report import StateReport
from consumer.worker.tasks import Stopped, never_ending, until_stopped

log = structlog.get_logger()

CLEAN_UP = 5.0  # seconds for closing what can be closed after a root task died


class Daemon:
    """One process of the fleet. ``run`` returns after a graceful stop and raises StreamConsumerError otherwise."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings] | None = None, config_file: str = "") -> None:
        """``reread`` gives the settings of the file ``config_file`` as it is by then, or raises ConfigError."""
        self._settings = settings
        self._reread = reread
        self._reload_asked = asyncio.Event()
        self._stop = asyncio.Event()
        self._clock = HeardClock(SystemClock())
        self._metrics = Metrics(application=settings.application, table=settings.source.name)
        self._board = StatusBoard(show_errors=settings.http.show_errors, config_file=config_file)
        self._pulse = Pulse(self._clock, self._metrics)
        self._watchdog = Watchdog(lambda: self._pulse.beats, self._board, wedged_after(settings))
        self._control = ControlThread()
        self._started_at = self._clock.wall()
        self._a_task_died = False
        self._overrun = ExitStack()
        configure_logging(settings.logging.level, settings.logging.format, on_error=self._board.error)

    @property
    def started(self) -> bool:
        """Whether it has worked: up to there whatever ends it is a failed start."""
        return self._board.started

    def reload(self) -> None:
        """Take over what may change of the configuration file, once the start is complete."""
        self._reload_asked.set()

    async def run(self, stop: asyncio.Event, signals: socket.socket | None = None) -> None:
        """Work until ``stop`` is set. Raises StreamConsumerError when that is not possible (any more). The numbers of
        signals come out of ``signals``."""
        self._stop, self._signals = stop, signals
        self._state = StateReport(asyncio.get_running_loop(), self._board)
        self._board.reached("config")
        stack = AsyncExitStack()
        try:
            async with asyncio.TaskGroup() as roots:
                try:
                    await self._work(roots, stack)
                finally:
                    await self._close(stack)
        except BaseExceptionGroup as group:
            error = first_error(group)
            raise error from error.__cause__
        finally:
            self._overrun.close()
        log.info("daemon.stopped")

    async def _work(self, roots: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        try:
            worker = await until_stopped(self._stop, self._start(roots, stack))
            await worker.run()
        except Stopped:
            log.info("daemon.stopped_during_start")

    async def _close(self, stack: AsyncExitStack) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEAN_UP if self._a_task_died else None):
                await stack.aclose()

    # --- start -----------------------------------------------------------------------------------------

    async def _start(self, roots: asyncio.TaskGroup, stack: AsyncExitStack) -> IncarnationLoop:
        settings, metrics, clock, control = self._settings, self._metrics, self._clock, self._control
        self._root(roots, stack, "pulse", self._pulse.run())
        control.start()
        stack.push_async_callback(control.stop)
        self._root(roots, stack, "watchdog", control.spawn(self._watchdog.run()))
        if self._signals is not None:
            self._root(roots, stack, "state report", control.spawn(self._state.run(self._signals)))
        server = HealthServer(self._board, metrics, settings.http.host, settings.http.port)
        await control.spawn(server.start())
        stack.push_async_callback(lambda: control.spawn(server.close()))
        self._root(roots, stack, "http server", control.spawn(server.run()))
        if settings.logging.emf:
            lines = EmfLines(metrics, settings.application, settings.source.name)
            self._root(roots, stack, "metric lines", control.spawn(lines.run()))
        log.info("http.listening", host=settings.http.host, port=server.port)

        handler = await at_start(clock, "the handler", self._start_handler)
        stack.push_async_callback(handler.close)

        def main_adapters() -> Awaitable[MainAdapters]:
            ends, foreign = metrics.credentials.of("main"), metrics.foreign_subrecords.inc
            return stack.enter_async_context(MainAdapters(settings, metrics.observe_api, clock, ends, foreign))

        def control_adapters() -> Awaitable[LeaseTable]:
            ends = metrics.credentials.of("control")
            opening = lease_table(settings, clock, metrics.observe_api, ends)
            return control.spawn(on_control.enter_async_context(opening))

        on_control = AsyncExitStack()  # what belongs to the control thread's loop
        adapters = await at_start(clock, "the AWS credentials", main_adapters)
        session_store = await at_start(clock, "the AWS credentials", control_adapters)
        stack.push_async_callback(lambda: control.spawn(on_control.aclose()))
        ports = Ports(adapters.source, adapters.store, handler, adapters.dead_letters, clock, SystemRandomness())
        if settings.tracing.enabled:
            from consumer.worker.tracing import start_tracing  # of the extra otel

            tracing = start_tracing(settings)
            stack.push_async_callback(tracing.close)
            ports = tracing.around(ports)
        worker = await start(self._host(), settings, ports, session_store, metrics, self._board.reached)
        if self._reread is not None:
            reconfigure = partial(self._reconfigure, worker)
            reload = Reload(self._reread, lambda: worker.settings, reconfigure, metrics)
            self._root(roots, stack, "configuration", reload.run(self._reload_asked))
        if ports.dead_letters is not None:
            backlog = watch_backlog(ports.dead_letters, metrics.dead_letter_backlog, ports.random)
            self._root(roots, stack, "dead-letter backlog", backlog)
        values = compiled_values.choose(os.environ)
        if values.unfit:
            log.warning("speedups.unfit", reason=values.unfit)
        gc_tuning.tune()
        about = {"application": settings.application, "stream_arn": worker.stream.stream_arn, "pid": os.getpid()}
        log.info("daemon.started", **about, values_made_by=values.made_by)
        return worker

    def _reconfigure(self, worker: IncarnationLoop, settings: Settings) -> None:
        level = worker.settings.logging.level
        worker.reconfigure(settings)
        if settings.logging.level != level:
            configure_logging(settings.logging.level, settings.logging.format, on_error=self._board.error)

    async def _start_handler(self) -> Handler:
        """A started handler. One that could not be started has ended, and the next attempt has a new one."""
        handler = build_handler(self._settings)
        try:
            await handler.start()
        except BaseException:
            await handler.close()
            raise
        return handler

    # --- the process around the worker -------------------------------------------------------------------

    def _host(self) -> Host:
        return Host(
            name=process_name(),
            stop=self._stop,
            spawn=self._control.spawn,
            may_renew=lambda: not self._watchdog.wedged,
            companion=self._companion,
            on_stopping=self._on_stopping,
            task_died=self._task_died,
            end_within=self._end_within,
        )

    def _companion(self, context: WorkerContext, coordinator: Coordinator) -> Coroutine[Any, Any, None]:
        self._state.follow(context, coordinator)
        return Reporter(context, coordinator, self._board, self._started_at).run()

    def _on_stopping(self) -> None:
        self._board.stopping()
        sd_notify.stopping()
        log.info("daemon.stopping", grace=self._settings.shutdown.grace)

    def _task_died(self, name: str, error: BaseException | None) -> StreamConsumerError:
        self._a_task_died = True
        self._board.task_died(name, type(error).__name__)
        log.critical("task.died", task=name, exc_info=error)
        # User code may keep the others from their end.
        self._overrun.callback(arm_hard_stop(self._settings.shutdown.grace).cancel)
        return StreamConsumerError(f"background task {name} ended: {error!r}")

    def _end_within(self, seconds: float) -> Callable[[], None]:
        def overrun() -> None:
            log.critical("session.overrun", seconds=seconds, exit_code=70)

        return end_within(seconds, overrun).cancel

    def _root(self, roots: asyncio.TaskGroup, stack: AsyncExitStack, name: str, work: Awaitable[None]) -> None:
        """A root task of the whole process: when it ends before ``stack`` is closed, so does the process."""
        stack.callback(roots.create_task(never_ending(name, work, self._task_died), name=name).cancel)


def wedged_after(settings: Settings) -> float:
    """Seconds without progress of the main loop after which the process is taken for wedged.

    Only an inline handler can block the main loop for a good reason, and then for as long as its own time-out; two of
    them may do so one after the other. No other foreign code runs there.
    """
    handler = settings.handler
    if handler.kind == "python" and handler.isolation == "inline":
        return max(15.0, 2 * handler.timeout)
    return 60.0


def arm_hard_stop(grace: float) -> threading.Timer:
    """From the stop signal on: whatever hangs (a handler that ignores cancellation, a table that does not answer), the
    process ends by itself shortly after the grace, with 70. The records in flight are redelivered elsewhere."""

    def overrun() -> None:
        log.critical("shutdown.overrun", grace=grace, exit_code=70)

    return end_within(grace + HARD_STOP_MARGIN, overrun)


def end_within(seconds: float, overrun: Callable[[], None]) -> threading.Timer:
    """Call ``overrun`` and end the process with 70 in so many seconds, unless the timer is cancelled before. A thread
    of its own: it comes also while user code blocks the main loop."""

    def expire() -> None:
        try:
            overrun()
        finally:
            die(70)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    return timer
