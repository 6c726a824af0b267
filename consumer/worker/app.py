"""The composition root: builds the adapters, waits for the dependencies, and runs incarnations until told to stop.

Start: handler import, then the stream, the lease table and the destination (each error names what is wrong), then the
control thread, then the first plan. Stop: read nothing more, finish or cancel what is in flight within
``shutdown.grace``, write every frontier, release every lease, end the session, exit 0.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog

from consumer.aws.adapters import ControlAdapters, MainAdapters
from consumer.domain.errors import StreamConsumerError
from consumer.handlers.build import build_handler
from consumer.operate import sd_notify
from consumer.operate.health_server import HealthServer
from consumer.operate.logs import configure_logging
from consumer.operate.metrics import Metrics
from consumer.operate.status import StatusBoard
from consumer.ports.leases import LeaseTable
from consumer.ports.source import StreamDescription
from consumer.settings.model import Settings
from consumer.worker import gc_tuning
from consumer.worker.clock import SystemClock, SystemRandomness
from consumer.worker.context import Ports
from consumer.worker.control_thread import ControlThread, Watchdog, die
from consumer.worker.fleet.incarnation import HARD_STOP_MARGIN, Host, Incarnations, Stopped, patiently, until_stopped
from consumer.worker.fleet.shard_discovery import register_start
from consumer.worker.fleet.stream_replacement import current_stream
from consumer.worker.reporting import Pulse, Reporter

log = structlog.get_logger()

CLEAN_UP = 5.0  # seconds for closing what can be closed after a root task died


class Daemon:
    """One process of the fleet. ``run`` returns after a graceful stop and raises StreamConsumerError otherwise."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._clock = SystemClock()
        self._random = SystemRandomness()
        self._metrics = Metrics()
        self._board = StatusBoard()
        self._pulse = Pulse(self._clock, self._metrics)
        self._watchdog = Watchdog(lambda: self._pulse.beats, self._board, wedged_after(settings))
        self._control = ControlThread()
        self._started_at = self._clock.wall()
        self._died: asyncio.Future[None] | None = None
        self._closing = False  # from then on root tasks are cancelled
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
                incarnations = await until_stopped(self._stop, self._start(stack))
                await incarnations.run()
            except Stopped:
                log.info("daemon.stopped_during_start")
            finally:
                self._closing = True

    # --- start -----------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> Incarnations:
        settings, clock = self._settings, self._clock
        pulse = asyncio.create_task(self._pulse.run(), name="pulse")
        self._root(pulse, "pulse")
        stack.callback(pulse.cancel)
        self._control.start()
        stack.push_async_callback(self._control.stop)
        stack.callback(self._root_on_control(self._watchdog.run(), "watchdog").cancel)
        server = HealthServer(self._board, self._metrics, settings.http.host, settings.http.port)
        await self._control.call(server.start())
        stack.push_async_callback(lambda: self._control.call(server.close()))
        stack.callback(self._root_on_control(server.run(), "http server").cancel)
        log.info("http.listening", host=settings.http.host, port=server.port)

        handler = build_handler(settings)
        stack.push_async_callback(handler.close)
        await handler.start()

        adapters = await stack.enter_async_context(MainAdapters(settings, self._metrics.observe_api, self._clock))
        latest = await patiently(clock, "the stream", adapters.source.describe)
        await patiently(clock, "the lease table", lambda: self._prepare_table(adapters.store, latest))
        source, stream = await patiently(
            clock, "the stream", lambda: current_stream(adapters.source, adapters.store, latest)
        )
        self._board.reached("lease_table")
        if adapters.dead_letters is not None:
            await patiently(clock, "the dead-letter destination", adapters.dead_letters.prepare)
        registration = await patiently(
            clock,
            "the registration",
            lambda: register_start(source, adapters.store, stream, settings.source.starting_position),
        )
        control = ControlAdapters(settings, self._metrics.observe_api, self._clock)
        session_store = await self._control.call(control.open())
        stack.push_async_callback(lambda: self._control.call(control.close()))

        ports = Ports(source, adapters.store, handler, adapters.dead_letters, clock, self._random)
        gc_tuning.tune()
        log.info("daemon.started", application=settings.application, stream_arn=stream.stream_arn, pid=os.getpid())
        return Incarnations(self._host(), settings, ports, session_store, self._metrics, stream, registration)

    async def _prepare_table(self, store: LeaseTable, stream: StreamDescription) -> None:
        leases = self._settings.leases
        if await store.prepare(create=leases.create_table):
            log.info("lease_table.created", table=leases.table)
        await store.pin_application(stream.table_name)

    # --- the process around the incarnations -------------------------------------------------------------

    def _host(self) -> Host:
        return Host(
            name=f"{socket.gethostname()}/{os.getpid()}",
            stop=self._stop,
            begin=self._control.begin,
            may_renew=lambda: not self._watchdog.wedged,
            beside=lambda context, coordinator: Reporter(context, coordinator, self._board, self._started_at).run(),
            on_stopping=self._tell_stopping,
            death=self._death,
        )

    def _tell_stopping(self) -> None:
        self._board.stopping()
        sd_notify.stopping()
        log.info("daemon.stopping", grace=self._settings.shutdown.grace)

    def _death(self, name: str, error: BaseException | None) -> StreamConsumerError:
        self._board.task_died(name, repr(error))
        log.critical("task.died", task=name, exc_info=error)
        return StreamConsumerError(f"background task {name} ended: {error!r}")

    def _root_on_control(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Future[None]:
        """Start a root task on the control thread."""
        return self._root(self._control.begin(work, name), name)

    def _root(self, task: asyncio.Future[None], name: str) -> asyncio.Future[None]:
        """A task of the whole process. When it ends before the daemon does, however it ends, so does the process."""

        def ended(task: asyncio.Future[None]) -> None:
            if not self._closing:
                death = self._death(name, None if task.cancelled() else task.exception())
                if self._died is not None and not self._died.done():
                    self._died.set_exception(death)

        task.add_done_callback(ended)
        return task


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
