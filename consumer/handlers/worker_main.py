"""A worker process: imports the target, then runs one invocation at a time in its main thread until the daemon ends.

Only what the daemon needs to know crosses the socket; standard output and error are pipes that belong to user code.
Nothing that user code raises ends the process. What may end it: the daemon closing the socket, ``os._exit``, a fatal
signal, and the death of the daemon.
"""

from __future__ import annotations

import contextlib
import decimal
import gc
import inspect
import io
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.domain.outcome import TOO_LATE, Outcome
from consumer.domain.record import records_from_event
from consumer.handlers import frames, root_logger
from consumer.handlers.frames import Invocation, Reply
from consumer.handlers.handler_context import Context, FunctionIdentity, context_of
from consumer.handlers.handler_faults import describe, fault_of, marshal_fault
from consumer.handlers.results import discard, is_async, python_outcome
from consumer.handlers.target import load_target

if TYPE_CHECKING:
    import asyncio  # when running: only where a loop is needed, it doubles the start time of a worker

_PR_SET_PDEATHSIG = 1
_HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The exit status of a worker that cannot go on (sysexits.h EX_SOFTWARE).
_BROKEN = 70
_PYTHONS_THRESHOLDS = gc.get_threshold()  # before user code is imported
_held = threading.local()


def main() -> None:
    """Entry point of the bootstrap: ``argv`` is package folder, socket descriptor, the daemon's pid, a name tag."""
    folder, descriptor, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # The package is imported by now. User code must find its own modules before those beside this checkout.
    sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.argv = [sys.argv[4]]
    _die_with(parent)
    _ignore_signals()
    # Passed down by the daemon; programs that user code starts must not keep it open.
    os.set_inheritable(descriptor, False)
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(True)
    _line_buffered()
    serve(sock)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process with the daemon (Linux). The orphan reaper covers everything else."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(_BROKEN)


def _ignore_signals() -> None:
    """The daemon decides when a worker ends: a Ctrl-C or a stop of the whole control group must not tear a batch.

    An empty handler instead of ``SIG_IGN``, because exec() resets handlers but not ignored signals: programs that
    user code starts get the defaults. Forked children get them explicitly, with the signals held back around the
    fork: one that arrived before the defaults are back would be lost, and ``terminate()`` with it.
    """
    for number in _HELD_SIGNALS:
        signal.signal(number, _nothing)
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_default_signals)


def _nothing(number: int, frame: object) -> None:
    return None


def _hold_signals() -> None:
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _default_signals() -> None:
    if threading.current_thread() is threading.main_thread():  # only there can handlers be set
        for number in _HELD_SIGNALS:
            if signal.getsignal(number) is _nothing:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _release_signals()


def _line_buffered() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # User code may have replaced or closed them.
        with contextlib.suppress(Exception):
            stream.flush()


def serve(sock: socket.socket) -> None:
    """Import the target, report, then answer invocations until the daemon closes the socket."""
    first = frames.receive(sock)
    if first is None:
        return
    setup = frames.decode_setup(first[0])
    lambda_log = root_logger.install() if setup.kind == "lambda" else None
    try:
        if setup.kind == "lambda" and setup.path is not None:
            _enter(setup.path)
        function = load_target(setup.target, setup.path)
    except HandlerImportError as error:
        _flush()
        frames.send(sock, Reply("import_failed", message=str(error), may_pass=isinstance(error, HandlerImportMayPass)))
        return
    run: Callable[[Invocation, bytes], tuple[Reply, bytes]]
    if lambda_log is not None:
        run = LambdaRunner(function, lambda_log)
    else:
        run = PythonRunner(function, setup.report_failures)
    _flush()
    _tune_gc()
    frames.send(sock, Reply("ready"))
    own_pid = os.getpid()
    while (frame := frames.receive(sock)) is not None:
        invocation = frames.decode_invocation(frame[0])
        try:
            if invocation.start_by is not None and frames.instant() >= invocation.start_by:  # it slept on the way
                reply, body = _ended(TOO_LATE)
            else:
                reply, body = run(invocation, frame[1])
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like are failures of this call only
            reply, body = _ended(Outcome("failed", fault=fault_of(error)))
        if os.getpid() != own_pid:
            # User code forked and its child came back from the handler: only the parent may answer.
            os._exit(0)
        _flush()
        reply.serial = invocation.serial
        frames.send(sock, reply, body)


def _enter(folder: str) -> None:
    """Lambda starts a function in the folder of its code, and functions open files that lie there."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise HandlerImportError(f"handler.path {folder!r}: {error.strerror or error}") from error


def _tune_gc() -> None:
    """Never walk again what the import built: events are trees, and a full collection for every few of them cost more
    than decoding them (a handler with boto3 imported: 23 us a record as Python comes, 10 frozen, 9 with thresholds for
    events instead of single objects; 5.6 with msgspec). Thresholds that user code has set are left alone."""
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == _PYTHONS_THRESHOLDS:
        gc.set_threshold(20_000, 50, 100)


def _context(invocation: Invocation) -> Context:
    function = FunctionIdentity.from_environment(os.environ, invocation.application)
    return context_of(invocation, function, invocation.deadline)


def _ended(outcome: Outcome) -> tuple[Reply, bytes]:
    return Reply("ended", outcome=outcome), b""


class _Encoder(json.JSONEncoder):
    """Lambda's runtime writes a Decimal as a float; everything else that is not JSON is an error there too."""

    def default(self, o: Any) -> Any:
        return float(o) if isinstance(o, decimal.Decimal) else super().default(o)


_decode_event = msgspec.json.Decoder().decode


def _event_of(text: bytes) -> Any:
    """What ``json.loads`` makes of it, in two thirds of the time. What msgspec refuses and json takes (NaN, infinity,
    lone surrogates) is left to json."""
    try:
        return _decode_event(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.loads(text)


class LambdaRunner:
    """``def handler(event, context)`` as Lambda calls it: a fresh event, a JSON answer, no awaiting. Raises what user
    code raises, of any type."""

    def __init__(self, function: Callable[..., Any], log: root_logger.LambdaLogHandler) -> None:
        self._function = function
        self._log = log

    def __call__(self, invocation: Invocation, event: bytes) -> tuple[Reply, bytes]:
        self._log.request_id = invocation.request_id
        return self._marshal(self._function(_event_of(event), _context(invocation)))

    def _marshal(self, result: Any) -> tuple[Reply, bytes]:
        if inspect.isawaitable(result) or inspect.isasyncgen(result):
            discard(result)
            reason = "the handler is async, which Lambda does not run: use handler.kind python, or asyncio.run in it"
            return self._refused(f"Unable to marshal response: {reason}")
        try:
            body = json.dumps(result, cls=_Encoder, allow_nan=False).encode()
        except BaseException as error:  # noqa: BLE001  # cycles, depth, and user objects that pretend to be dicts
            discard(result)
            return self._refused(f"Unable to marshal response: {describe(error)}")
        if len(body) > frames.MAX_RESPONSE:
            text = f"Response payload size ({len(body)} bytes) exceeded maximum allowed payload size"
            fault = marshal_fault(f"{text} ({frames.MAX_RESPONSE} bytes).", "Function.ResponseSizeTooLarge")
            return _ended(Outcome("failed", fault=fault))
        return Reply("returned"), body

    @staticmethod
    def _refused(reason: str) -> tuple[Reply, bytes]:
        return _ended(Outcome("failed", fault=marshal_fault(reason, "Runtime.MarshalError")))


class PythonRunner:
    """``handle(records, context)``, plain or async; async ones share one loop for the life of the process. Raises what
    user code raises, of any type."""

    def __init__(self, function: Callable[..., Any], report_failures: bool) -> None:
        self._function = function
        self._report_failures = report_failures
        self._loop: asyncio.AbstractEventLoop | None = None
        if is_async(function):
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)

    def __call__(self, invocation: Invocation, event: bytes) -> tuple[Reply, bytes]:
        context = _context(invocation)
        records = records_from_event(event)
        numbers = frozenset(record.sequence_number for record in records)
        result = self._function(records, context) if self._loop is None else self._run(self._loop, records, context)
        return _ended(python_outcome(result, numbers, report_failures=self._report_failures))

    def _run(self, loop: asyncio.AbstractEventLoop, records: list[Any], context: Context) -> Any:
        task = loop.create_task(self._caught(records, context))
        try:
            result, error = loop.run_until_complete(task)
        except RuntimeError:
            if task.done():
                raise
            # User code stopped the loop that runs it: half a call may still be alive, so the process ends.
            said = "the handler stopped the event loop of its worker process"
            print(said, file=sys.stderr, flush=True)  # noqa: T201 - standard error is how a worker process reports
            os._exit(_BROKEN)
        if error is not None:
            raise error
        return result

    async def _caught(self, records: list[Any], context: Context) -> tuple[Any, BaseException | None]:
        """Catches inside the task: asyncio would let SystemExit and KeyboardInterrupt tear down the loop."""
        try:
            return await self._function(records, context), None
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return None, error
