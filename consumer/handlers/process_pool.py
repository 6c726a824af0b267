"""Handlers in worker processes: a fixed number of them, each replaced whenever it dies.

One supervision task per slot starts a process, offers it, waits for its end and starts the next. Calls take any idle
process, the most recently used first (its caches are warm). A call that cannot be run because no process can be
started ends as ``not_invoked``: no retry is spent on it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import structlog

from consumer.domain.errors import HandlerImportError
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.handlers.channel import MakeChannel
from consumer.handlers.handler_faults import fault_of
from consumer.handlers.orphan_reaper import OrphanReaper
from consumer.handlers.worker_process import WorkerProcess, resident_bytes
from consumer.ports.handler import Reservation

_FIRST_BACKOFF = 0.2  # seconds
_MAX_BACKOFF = 10.0  # seconds
log = structlog.get_logger(__name__)


class ProcessPoolHandler:
    """``consumer.ports.Handler`` for ``kind: lambda``, and for ``kind: python`` with ``isolation: process``.

    ``import_timeout`` and ``close_grace`` (seconds) may be changed before ``start``.
    """

    def __init__(
        self,
        make_channel: MakeChannel,
        *,
        processes: int,
        report_failures: bool | None,
        environment: Callable[[], Mapping[str, str]],
        max_calls: int = 0,
        max_memory: int = 0,
    ) -> None:
        """``make_channel`` and ``environment`` are called for every process. One is replaced after ``max_calls`` calls,
        or when it holds more than ``max_memory`` bytes after one (0: never)."""
        self.import_timeout = 30.0
        self.close_grace = 2.0
        self._make_channel = make_channel
        self._environment = environment
        self._report_failures = report_failures
        self._processes = processes
        self._max_calls = max_calls
        self._max_memory = max_memory
        self._recycling: int | None = None  # the slot whose process is being replaced although it works
        self._reaper = OrphanReaper()
        self._workers: dict[int, WorkerProcess] = {}
        self._running = 0
        self._idle: list[WorkerProcess] = []
        self._busy: dict[WorkerProcess, asyncio.Task[None]] = {}  # after a call, until it asks for the next one
        self._waiters: deque[asyncio.Future[WorkerProcess | HandlerFault]] = deque()
        self._supervisors: list[asyncio.Task[None]] = []
        self._state: Literal["new", "open", "closed"] = "new"

    @property
    def width(self) -> int:
        return self._processes

    async def start(self) -> None:
        """Start all processes at once and import the target in each. HandlerImportError."""
        loop = asyncio.get_running_loop()
        firsts: list[asyncio.Future[None]] = [loop.create_future() for _ in range(self._processes)]
        self._state = "open"
        if self._max_memory and not resident_bytes(os.getpid()):
            log.warning("handler.memory_unknown", hint="handler.max_memory has no effect here: it needs Linux's /proc")
        try:
            await self._reaper.start()
            for slot, first in enumerate(firsts):
                supervisor = asyncio.create_task(self._supervise(slot, first), name=f"handler-supervisor-{slot}")
                supervisor.add_done_callback(self._supervisor_ended)
                self._supervisors.append(supervisor)
            await asyncio.gather(*firsts)
        except BaseException:
            await self.close()
            for first in firsts:
                if first.done() and not first.cancelled():
                    first.exception()  # seen: all processes of a broken target fail alike, one report is enough
            raise

    async def reserve(self) -> Reservation:
        """Wait for an idle process that has imported the target."""
        worker = await self._acquire()
        return _NoProcess(worker) if isinstance(worker, HandlerFault) else _ReservedProcess(worker, self._offer)

    async def close(self) -> None:
        """End all processes: orderly within ``close_grace`` seconds, then by force. Idempotent."""
        self._state = "closed"
        self._refuse(HandlerFault("cancelled", "Closed", "the handler is closed"))
        workers = list(self._workers.values())
        try:
            await asyncio.gather(*[worker.end(self.close_grace) for worker in workers])
        finally:
            for worker in workers:
                worker.kill("closed")
            tasks = [*self._supervisors, *self._busy.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            self._supervisors.clear()
            await self._reaper.close()

    # -- processes

    async def _supervise(self, slot: int, first: asyncio.Future[None]) -> None:
        """Keep slot ``slot`` filled. ``first`` gets the result of the first start, which alone may fail ``start``."""
        try:
            await self._keep_filled(slot, first)
        except BaseException as error:
            if not first.done():
                first.set_exception(error)
            if not isinstance(error, HandlerImportError):
                raise

    async def _keep_filled(self, slot: int, first: asyncio.Future[None]) -> None:
        in_vain = 0  # processes in a row that failed to start or died before they answered any call
        while self._state == "open":
            worker = WorkerProcess(
                self._make_channel, self._environment(), self._reaper, report_failures=self._report_failures
            )
            try:
                await self._run_one(slot, worker, first)
            except HandlerImportError as error:
                if not first.done():
                    raise
                if self._state == "open":  # else it was ended by the close
                    log.error("handler.worker_start_failed", slot=slot, error=str(error))
                if self._running == 0:
                    self._refuse(HandlerFault("crashed", "HandlerImportError", str(error)))
            in_vain = 0 if worker.calls else in_vain + 1
            # The first replacement is immediate; the more in vain in a row, the slower.
            if in_vain > 1:
                await asyncio.sleep(min(_MAX_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(in_vain - 2, 10)))

    async def _run_one(self, slot: int, worker: WorkerProcess, first: asyncio.Future[None]) -> None:
        self._workers[slot] = worker
        try:
            await worker.start(self.import_timeout)
            if not first.done():
                first.set_result(None)
            if self._recycling == slot:
                self._recycling = None
            self._running += 1
            try:
                self._offer(worker)
                await worker.wait_gone()
            finally:
                self._running -= 1
        finally:
            if worker in self._idle:
                self._idle.remove(worker)
            worker.kill("closed")
            await worker.wait_gone()
            self._workers.pop(slot, None)
        if self._state == "open" and worker.retired:
            log.info("handler.worker_recycled", slot=slot, pid=worker.pid, calls=worker.calls, reason=worker.ending)
        elif self._state == "open":
            log.warning("handler.worker_replaced", slot=slot, pid=worker.pid, reason=worker.ending)

    def _supervisor_ended(self, supervisor: asyncio.Task[None]) -> None:
        if not supervisor.cancelled() and (error := supervisor.exception()) is not None:
            log.critical("handler.keeper_failed", keeper=supervisor.get_name(), error=repr(error), exc_info=error)
            self._refuse(HandlerFault("crashed", type(error).__name__, str(error)))

    # -- which call gets which process

    async def _acquire(self) -> WorkerProcess | HandlerFault:
        if self._state != "open":
            return HandlerFault("cancelled", "Closed", f"the handler is {self._state}, not started")
        while self._idle:
            worker = self._idle.pop()
            if worker.usable:
                return worker
        waiter: asyncio.Future[WorkerProcess | HandlerFault] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and isinstance(given := waiter.result(), WorkerProcess):
                self._offer(given)
            raise

    def _offer(self, worker: WorkerProcess) -> None:
        if not worker.idle.is_set():  # it is heard of when it is, or when it has ended
            self._busy[worker] = asyncio.create_task(self._offer_when_idle(worker), name="handler-busy")
            return
        if not worker.usable or self._recycle(worker):
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(worker)
                return
        self._idle.append(worker)

    async def _offer_when_idle(self, worker: WorkerProcess) -> None:
        try:
            await worker.idle.wait()
        finally:
            self._busy.pop(worker, None)
        self._offer(worker)

    def _recycle(self, worker: WorkerProcess) -> bool:
        """Replace a process between two calls when it has done enough; only one at a time, or all of those that were
        started together would be away together."""
        if self._recycling is not None or not worker.calls:
            return False
        if 0 < self._max_calls <= worker.calls:
            reason = f"handler.max_calls: {self._max_calls}"
        elif 0 < self._max_memory < (held := resident_bytes(worker.pid or 0)):
            reason = f"handler.max_memory: it held {held >> 20} MiB"
        else:
            return False
        self._recycling = next(slot for slot, one in self._workers.items() if one is worker)
        worker.retire(reason, self.close_grace)
        return True

    def _refuse(self, fault: HandlerFault) -> None:
        """End the waits for a process: there is none."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(fault)


class _ReservedProcess:
    """A process that waits for one call."""

    def __init__(self, worker: WorkerProcess, offer: Callable[[WorkerProcess], None]) -> None:
        self._worker = worker
        self._offer: Callable[[WorkerProcess], None] | None = offer

    async def run(self, call: HandlerCall) -> Outcome:
        """Send the call to the process; it is not invoked when the process has died meanwhile."""
        try:
            event = call.event()
        except Exception as error:  # noqa: BLE001  # a record that cannot be written is poison, not the daemon's end
            return Outcome("failed", fault=fault_of(error))
        return await self._worker.call(call, event)

    def release(self) -> None:
        offer, self._offer = self._offer, None
        if offer is not None:
            offer(self._worker)


class _NoProcess:
    """Stands for a process that cannot be started."""

    def __init__(self, fault: HandlerFault) -> None:
        self._fault = fault

    async def run(self, call: HandlerCall) -> Outcome:
        return Outcome("not_invoked", fault=self._fault)

    def release(self) -> None:
        """There is nothing to give back."""
