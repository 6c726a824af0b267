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
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import msgspec
import structlog

from consumer.domain.errors import HandlerImportMayPass
from consumer.domain.outcome import TOO_LATE, HandlerCall, HandlerFault, Outcome
from consumer.domain.stream_record import StreamRecord
from consumer.handlers.calls_under_way import Answer, CallsUnderWay, CallUnderWay
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


class _TooLate(Exception):
    """User code must not start any more."""


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
        self._calls = CallsUnderWay(first_complaint)

    @property
    def width(self) -> int:
        """No limit for coroutines; plain functions hold a thread each."""
        return 0 if self._is_async or self._function is None else _PLAIN_WIDTH

    async def start(self) -> None:
        """Import the target, in a thread, so that an import that hangs is reported instead of hanging the daemon."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.import_timeout):
                function, error = await _run_in_thread(loop, "handler-import", lambda: _load(self._target, self._path))
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
        under_way = CallUnderWay(self._calls, asyncio.get_running_loop(), call)
        try:
            result, error = await self._answer(under_way, function, call)
        except RuntimeError as problem:  # "can't start new thread": nothing ran
            return Outcome("not_invoked", fault=HandlerFault("crashed", "RuntimeError", describe(problem)))
        if under_way.expired:
            return Outcome("failed", fault=timeout_fault(call.request_id, call.timeout), seconds=under_way.seconds)
        if isinstance(error, _TooLate):
            return TOO_LATE
        if error is not None:
            return Outcome("failed", fault=fault_of(error), seconds=under_way.seconds)
        if result is None:
            return Outcome("ok", seconds=under_way.seconds)
        numbers = frozenset([record.sequence_number for record in call.records])
        outcome = python_outcome(result, numbers, report_failures=self._report_failures)
        return msgspec.structs.replace(outcome, seconds=under_way.seconds)

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

    async def _answer(self, under_way: CallUnderWay, function: Callable[..., Any], call: HandlerCall) -> Answer:
        """What the handler answered. RuntimeError: no thread could be started."""
        records, context, loop = list(call.records), self._context(call), under_way.loop
        work: asyncio.Future[Any]
        if self._is_async:
            work = loop.create_task(_caught(function, call, records, context, under_way))
        else:
            work = _run_in_thread(
                loop,
                f"handler-{call.request_id}",
                lambda: _called(function, call, records, context),
                under_way.end,
            )

        def cancel() -> None:
            # A thread cannot be cancelled. A task that is done without an answer was cancelled by other code before its
            # first step, where nothing could catch it.
            if self._is_async and not work.cancel():
                under_way.end((None, asyncio.CancelledError()))

        under_way.expires(cancel)
        try:
            # Not ``await work``, which would hand a cancellation of ours to the task unseen.
            return await under_way.ended
        except asyncio.CancelledError:
            cancel()
            under_way.complain_later()
            await _end_of(work)
            raise
        finally:
            under_way.stop()


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
    under_way: CallUnderWay,
) -> None:
    """Catches inside the task: asyncio lets SystemExit and KeyboardInterrupt of a task tear down the whole loop.

    Says that it has ended as its last act: a done callback on the task would cost one more turn of the loop.
    """
    answer: Answer
    if call.may_start_for() <= 0:  # other code on this loop went first, and took long
        under_way.end((None, _TooLate()))
        return
    try:
        answer = (await function(records, context), None)
    except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
        answer = (None, error)
    _forget_images(call)
    under_way.end(answer)


def _run_in_thread(
    loop: asyncio.AbstractEventLoop,
    name: str,
    work: Callable[[], Any],
    heard: Callable[[Answer, float], None] = lambda answer, at: None,
) -> asyncio.Future[Answer]:
    """Run ``work`` in a daemon thread of its own. ``heard`` is given the answer, and the time of the loop at which the
    work has ended, before the future is done. RuntimeError when no thread can be started.

    Not the loop's executor: its threads are joined at exit, so one that hangs would keep the daemon from ending.
    """
    context = contextvars.copy_context()
    ended: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer, at: float) -> None:
        heard(answer, at)
        if not ended.done():
            ended.set_result(answer)

    def run() -> None:
        answer: Answer
        try:
            answer = (context.run(work), None)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            answer = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the answer is not awaited any more
            loop.call_soon_threadsafe(settle, answer, loop.time())

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended


def _load(target: str, path: str | None) -> Callable[..., Any]:
    """The target. The start hides ``rich`` from structlog (``cli/run.py``), whose formatters are user code's, too."""
    if vars(structlog.dev)["rich"] is None and find_spec("rich") is not None:
        importlib.reload(structlog.dev)
    return load_target(target, path)
