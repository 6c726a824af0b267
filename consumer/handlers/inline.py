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
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from consumer.domain.errors import HandlerImportError
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.domain.record import Record
from consumer.handlers.handler_context import Context, FunctionIdentity, function_arn
from consumer.handlers.handler_faults import describe, fault_of, timeout_fault
from consumer.handlers.results import is_async, python_outcome
from consumer.handlers.target import load_target

_FIRST_COMPLAINT = 5.0  # seconds
_PLAIN_WIDTH = 64  # threads
log = structlog.get_logger(__name__)


class _Timer:
    """One timer of the loop for all deadlines. Nearly every call ends in time, and a timer of its own, cancelled again,
    costs 6 us of the 50 that a call takes: the loop keeps it on its heap until its time has come."""

    def __init__(self) -> None:
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
        """The call was asked to end; complain when it does not, after 5 s first, then ever more rarely."""
        if not self._since:
            self._timer.discard(self)
            self._since = self.loop.time()
            self._handle = self.loop.call_later(_FIRST_COMPLAINT, self._complain, _FIRST_COMPLAINT)

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
    """``consumer.ports.Handler`` for ``kind: python, isolation: inline``.

    ``import_timeout`` (seconds) may be changed before ``start``.
    """

    def __init__(self, target: str, path: str | None, *, report_failures: bool = True) -> None:
        self.import_timeout = 30.0
        self._target = target
        self._path = path
        self._report_failures = report_failures
        self._function: Callable[..., Any] | None = None
        self._is_async = False
        self._identities: dict[str, FunctionIdentity] = {}
        self._timer = _Timer()

    @property
    def width(self) -> int:
        """No limit for coroutines; plain functions hold a thread each."""
        return 0 if self._is_async or self._function is None else _PLAIN_WIDTH

    async def start(self) -> None:
        """Import the target, in a thread, so that an import that hangs is reported instead of hanging the daemon."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        _run_in_thread(loop, done, "handler-import", lambda: load_target(self._target, self._path))
        try:
            async with asyncio.timeout(self.import_timeout):
                function, error = await done
        except TimeoutError:
            raise HandlerImportError(
                f"handler.target {self._target!r}: its import did not end within {self.import_timeout:g} s"
            ) from None
        if error is not None:
            raise error
        self._function = function
        self._is_async = is_async(function)

    async def invoke(self, call: HandlerCall) -> Outcome:
        """Run one batch; see ``consumer.ports.Handler.invoke``."""
        function = self._function
        if function is None:
            return Outcome("not_invoked", fault=HandlerFault("cancelled", "Closed", "the handler is not started"))
        loop = asyncio.get_running_loop()
        started = loop.time()
        records = list(call.records)
        context = self._context(call)
        if self._is_async:
            result, error, expired = await self._run_async(loop, function, call, records, context)
        else:
            try:
                result, error, expired = await self._run_plain(loop, function, call, records, context)
            except RuntimeError as problem:  # "can't start new thread": nothing ran
                return Outcome("not_invoked", fault=HandlerFault("crashed", "RuntimeError", describe(problem)))
        outcome = self._judge(call, result, error, expired=expired)
        return Outcome(outcome.kind, outcome.failed, outcome.fault, loop.time() - started)

    async def close(self) -> None:
        """Nothing to end: calls are awaited by their callers."""
        self._function = None

    def _context(self, call: HandlerCall) -> Context:
        identity = self._identities.get(call.application)
        if identity is None:
            identity = FunctionIdentity.from_environment(os.environ, call.application)
            self._identities[call.application] = identity
        return Context(
            function=identity,
            aws_request_id=call.request_id,
            invoked_function_arn=function_arn(call.source_arn, identity.name),
            application=call.application,
            shard_id=call.shard_id,
            lease_epoch=call.lease_epoch,
            attempt=call.attempt,
            deadline=time.monotonic() + call.timeout,
        )

    def _judge(self, call: HandlerCall, result: Any, error: BaseException | None, *, expired: bool) -> Outcome:
        if expired:
            return Outcome("failed", fault=timeout_fault(call.request_id, call.timeout))
        if error is not None:
            return Outcome("failed", fault=fault_of(error))
        if result is None:
            return Outcome("ok")
        numbers = frozenset([record.sequence_number for record in call.records])
        return python_outcome(result, numbers, report_failures=self._report_failures)

    async def _run_async(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        call: HandlerCall,
        records: list[Record],
        context: Context,
    ) -> tuple[Any, BaseException | None, bool]:
        ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        task = loop.create_task(_caught(function, call, records, context, ended))

        def cancel() -> None:
            # Done without an answer: cancelled by user code before its first step, where nothing could catch it.
            if not task.cancel() and not ended.done():
                ended.set_result((None, asyncio.CancelledError()))

        deadline = _Deadline(self._timer, loop, call, cancel)
        try:
            # Not ``await task``, which would pass a cancellation of this call on to the task unseen.
            result, error = await ended
        except asyncio.CancelledError:
            task.cancel()
            deadline.complain_later()
            await _end_of(task)
            raise
        finally:
            deadline.stop()
        return result, error, deadline.expired

    async def _run_plain(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        call: HandlerCall,
        records: list[Record],
        context: Context,
    ) -> tuple[Any, BaseException | None, bool]:
        done: asyncio.Future[Any] = loop.create_future()

        def work() -> Any:
            try:
                return function(records, context)
            finally:
                _forget_images(call)

        _run_in_thread(loop, done, f"handler-{call.request_id}", work)
        deadline = _Deadline(self._timer, loop, call, lambda: None)  # a thread cannot be cancelled
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            deadline.complain_later()
            await _end_of(done)
            raise
        finally:
            deadline.stop()
        result, error = done.result()
        return result, error, deadline.expired


async def _end_of(work: asyncio.Future[Any]) -> None:
    """Wait for the end of what was told to end, however often the wait is cancelled meanwhile."""
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
        record.cached = None


async def _caught(
    function: Callable[..., Any],
    call: HandlerCall,
    records: list[Record],
    context: Context,
    ended: asyncio.Future[tuple[Any, BaseException | None]],
) -> None:
    """Catches inside the task: asyncio lets SystemExit and KeyboardInterrupt of a task tear down the whole loop.

    Answers through ``ended`` as its last act: a done callback on the task would cost one more turn of the loop.
    """
    answer: tuple[Any, BaseException | None]
    try:
        answer = (await function(records, context), None)
    except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
        answer = (None, error)
    _forget_images(call)
    if not ended.done():
        ended.set_result(answer)


def _run_in_thread(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], name: str, work: Callable[[], Any]
) -> None:
    """Run ``work`` in a daemon thread of its own and put ``(result, error)`` into ``done``.

    Not the loop's executor: its threads are joined at exit, so one that hangs would keep the daemon from ending.
    """
    context = contextvars.copy_context()

    def settle(answer: tuple[Any, BaseException | None]) -> None:
        if not done.done():
            done.set_result(answer)

    def run() -> None:
        answer: tuple[Any, BaseException | None]
        try:
            answer = (context.run(work), None)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            answer = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=run, name=name, daemon=True).start()
