"""Handlers of kind ``python`` inside the daemon (``isolation: inline``): the fast way, for trusted code.

``async def`` handlers run on the daemon's loop, plain functions each in a thread. There is no killing here, so a
call that does not end when it is cancelled is waited for (and complained about): the shard's order would break if the
next batch started beside it.

Each call gets a task of its own although it costs a few microseconds: user code and the libraries under it cancel
``asyncio.current_task()`` and do not always take it back, which in the daemon's own task could not be told from a
cancellation by the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from consumer.domain.errors import HandlerImportMayPass
from consumer.domain.outcome import TOO_LATE, HandlerCall, HandlerFault, Outcome
from consumer.domain.stream_record import StreamRecord
from consumer.handlers.handler_faults import fault_of, import_error, timeout_fault
from consumer.handlers.runtime.context import Context, FunctionIdentity
from consumer.handlers.runtime.faults import describe
from consumer.handlers.runtime.functions import is_async
from consumer.handlers.runtime.python_results import python_outcome
from consumer.handlers.runtime.target import TargetError, load_target

_PLAIN_WIDTH = 64
# Seconds that a computing thread keeps the interpreter's lock when others want it; Python's own is 5 ms. Renewals and
# probes need the lock about ten times each, and wait for it behind every thread that computes (docs/architecture.md).
_SWITCH_INTERVAL = 0.0005
_Answer = tuple[Any, BaseException | None]  # what the handler returned, or what it raised
log = structlog.get_logger(__name__)


class _TooLate(Exception):
    """User code must not start any more."""


class _Timer:
    """One timer of the loop for all deadlines. Nearly every call ends in time, and a timer of its own, cancelled again,
    costs 6 us of the 50 that a call takes: the loop keeps it on its heap until its time has come."""

    def __init__(self, first_complaint: float) -> None:
        self.first_complaint = first_complaint
        self._due: set[_Deadline] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._at = math.inf

    def add(self, deadline: _Deadline) -> None:
        self._due.add(deadline)
        if deadline.at < self._at:
            self._arm(deadline.loop, deadline.at)

    def discard(self, deadline: _Deadline) -> None:
        self._due.discard(deadline)

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        self._handle = loop.call_at(at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle, self._at = None, math.inf
        now = loop.time() + 0.001  # the loop is allowed to come a moment early
        over = [deadline for deadline in self._due if deadline.at <= now]
        self._due.difference_update(over)
        if self._due:
            self._arm(loop, min(deadline.at for deadline in self._due))
        for deadline in over:
            deadline.expire()


class _Deadline:
    """Cancels the call when its time is over, then complains about it until it has really ended."""

    __slots__ = ("_call", "_cancel", "_handle", "_since", "_timer", "at", "expired", "loop")

    def __init__(
        self, timer: _Timer, loop: asyncio.AbstractEventLoop, call: HandlerCall, cancel: Callable[[], object]
    ) -> None:
        self.expired = False
        self.loop = loop
        self.at = loop.time() + call.timeout
        self._call = call
        self._cancel = cancel
        self._since = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._timer = timer
        timer.add(self)

    def stop(self) -> None:
        """The call has ended."""
        self._timer.discard(self)
        if self._handle is not None:
            self._handle.cancel()

    def expire(self) -> None:
        self.expired = True
        self._cancel()
        self.complain_later()

    def complain_later(self) -> None:
        """The call was asked to end: complain when it does not, after ``first_complaint`` s, then ever more rarely."""
        if not self._since:
            self._timer.discard(self)
            self._since = self.loop.time()
            first = self._timer.first_complaint
            self._handle = self.loop.call_later(first, self._complain, first)

    def _complain(self, seconds: float) -> None:
        log.warning(
            "handler.stuck",
            seconds=round(self.loop.time() - self._since, 1),
            request_id=self._call.request_id,
            shard_id=self._call.shard_id,
            hint="the handler ignores its cancellation; handler.isolation: process can kill it",
        )
        self._handle = self.loop.call_later(seconds, self._complain, seconds * 2)


class InlineHandler:
    """``consumer.ports.Handler`` for ``kind: python, isolation: inline``, and its own ``Reservation``: a call needs
    nothing that has to be waited for.

    ``import_timeout`` (seconds) may be changed before ``start``. A call that was asked to end and does not is
    complained about after ``first_complaint`` seconds.
    """

    def __init__(
        self, target: str, path: str | None, *, report_failures: bool = True, first_complaint: float = 5.0
    ) -> None:
        self.import_timeout = 30.0
        self._target = target
        self._path = path
        self._report_failures = report_failures
        self._function: Callable[..., Any] | None = None
        self._is_async = False
        self._identity: FunctionIdentity | None = None
        self._timer = _Timer(first_complaint)

    @property
    def width(self) -> int:
        """No limit for coroutines; plain functions hold a thread each."""
        return 0 if self._is_async or self._function is None else _PLAIN_WIDTH

    async def start(self) -> None:
        """Import the target, in a thread, so that an import that hangs is reported instead of hanging the daemon."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.import_timeout):
                function, error = await _run_in_thread(
                    loop, "handler-import", lambda: load_target(self._target, self._path)
                )
        except TimeoutError:
            raise HandlerImportMayPass(
                f"handler.target {self._target!r}: its import did not end within {self.import_timeout:g} s"
            ) from None
        if isinstance(error, TargetError):
            raise import_error(str(error), may_pass=error.may_pass) from error
        if error is not None:
            raise error
        self._function = function
        self._is_async = is_async(function)
        if not self._is_async:
            sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))

    async def reserve(self) -> InlineHandler:
        return self

    def release(self) -> None:
        """Nothing was reserved."""

    async def run(self, call: HandlerCall) -> Outcome:
        """Run one batch; see ``consumer.ports.Reservation.run``."""
        function = self._function
        if function is None:
            return Outcome("not_invoked", fault=HandlerFault("cancelled", "Closed", "the handler is not started"))
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            (result, error), expired = await self._answer(loop, function, call)
        except RuntimeError as problem:  # "can't start new thread": nothing ran
            return Outcome("not_invoked", fault=HandlerFault("crashed", "RuntimeError", describe(problem)))
        seconds = loop.time() - started
        if expired:
            return Outcome("failed", fault=timeout_fault(call.request_id, call.timeout), seconds=seconds)
        if isinstance(error, _TooLate):
            return TOO_LATE
        if error is not None:
            return Outcome("failed", fault=fault_of(error), seconds=seconds)
        if result is None:
            return Outcome("ok", seconds=seconds)
        numbers = frozenset([record.sequence_number for record in call.records])
        outcome = python_outcome(result, numbers, report_failures=self._report_failures)
        return msgspec.structs.replace(outcome, seconds=loop.time() - started)

    async def close(self) -> None:
        """Nothing to end: each call is awaited by its caller."""
        self._function = None

    def _context(self, call: HandlerCall) -> Context:
        if self._identity is None:
            self._identity = FunctionIdentity(os.environ, call.application)
        return Context(
            function=self._identity,
            aws_request_id=call.request_id,
            source_arn=call.source_arn,
            application=call.application,
            shard_id=call.shard_id,
            lease_epoch=call.lease_epoch,
            attempt=call.attempt,
            redrive=call.redrive,
            deadline=time.monotonic() + call.timeout,
        )

    async def _answer(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], call: HandlerCall
    ) -> tuple[_Answer, bool]:
        """What the handler answered, and whether its time was over first. RuntimeError: no thread could be started."""
        records, context = list(call.records), self._context(call)
        ended: asyncio.Future[_Answer] = loop.create_future()
        work: asyncio.Future[Any]
        if self._is_async:
            work = loop.create_task(_caught(function, call, records, context, ended))
        else:
            work = _run_in_thread(loop, f"handler-{call.request_id}", lambda: _called(function, call, records, context))
            work.add_done_callback(lambda work: _settle(ended, work.result()))

        def cancel() -> None:
            # A thread cannot be cancelled. A task that is done without an answer was cancelled by other code before its
            # first step, where nothing could catch it.
            if self._is_async and not work.cancel():
                _settle(ended, (None, asyncio.CancelledError()))

        deadline = _Deadline(self._timer, loop, call, cancel)
        try:
            # Not ``await work``, which would hand a cancellation of ours to the task unseen.
            return await ended, deadline.expired
        except asyncio.CancelledError:
            cancel()
            deadline.complain_later()
            await _end_of(work)
            raise
        finally:
            deadline.stop()


async def _end_of(work: asyncio.Future[Any]) -> None:
    """Wait for the end of ``work``, however often the caller is cancelled meanwhile."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})


def _forget_images(call: HandlerCall) -> None:
    """Drop what the records decoded, as the last act of the call itself.

    A next attempt must not see what this one did to the images. After a success it is about memory: images as trees
    take nine times their wire size, which ``limits.buffer`` does not count. And it is about speed: the batches of a
    page run in one turn of the loop, so images dropped in the next turn are a thousand at a time, which miss every
    cache and cost a garbage collection for each page (a fifth of the CPU of a handler that reads both images).
    """
    for record in call.records:
        record.forget()


def _settle(ended: asyncio.Future[_Answer], answer: _Answer) -> None:
    if not ended.done():
        ended.set_result(answer)


def _called(function: Callable[..., Any], call: HandlerCall, records: list[StreamRecord], context: Context) -> Any:
    if call.may_start_for() <= 0:
        raise _TooLate
    try:
        return function(records, context)
    finally:
        _forget_images(call)


async def _caught(
    function: Callable[..., Any],
    call: HandlerCall,
    records: list[StreamRecord],
    context: Context,
    ended: asyncio.Future[_Answer],
) -> None:
    """Catches inside the task: asyncio lets SystemExit and KeyboardInterrupt of a task tear down the whole loop.

    Answers through ``ended`` as its last act: a done callback on the task would cost one more turn of the loop.
    """
    answer: _Answer
    if call.may_start_for() <= 0:  # other code on this loop went first, and took long
        _settle(ended, (None, _TooLate()))
        return
    try:
        answer = (await function(records, context), None)
    except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
        answer = (None, error)
    _forget_images(call)
    _settle(ended, answer)


def _run_in_thread(loop: asyncio.AbstractEventLoop, name: str, work: Callable[[], Any]) -> asyncio.Future[_Answer]:
    """Run ``work`` in a daemon thread of its own. RuntimeError when no thread can be started.

    Not the loop's executor: its threads are joined at exit, so one that hangs would keep the daemon from ending.
    """
    context = contextvars.copy_context()
    ended: asyncio.Future[_Answer] = loop.create_future()

    def run() -> None:
        answer: _Answer
        try:
            answer = (context.run(work), None)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            answer = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the answer is not awaited any more
            loop.call_soon_threadsafe(_settle, ended, answer)

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
