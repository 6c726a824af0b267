"""A worker process: imports the target, then runs one invocation at a time in its main thread until the daemon ends.

Only what the daemon needs to know crosses the socket; standard output and error are pipes that belong to user code.
Nothing that user code raises ends the process. What may end it: the daemon closing the socket, ``os._exit``, a fatal
signal, and the death of the daemon.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

from . import public_names, root_logger, wire
from .faults import fault_of
from .lambda_runner import LambdaRunner, Reply
from .target import TargetError, load_target

_PR_SET_PDEATHSIG = 1
_HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_BROKEN = 70  # the exit status of a worker that cannot go on (sysexits.h EX_SOFTWARE)
_OLDEST_FOR_RECORDS = (3, 11)
_PYTHONS_THRESHOLDS = gc.get_threshold()  # before user code is imported
_held = threading.local()


def main() -> None:
    """Entry point of the bootstrap: ``argv`` is package folder, socket descriptor, the daemon's pid, a name tag."""
    descriptor, parent = int(sys.argv[2]), int(sys.argv[3])
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
        with contextlib.suppress(ImportError):  # a Python may be built without it
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(_BROKEN)


def _ignore_signals() -> None:
    """The daemon decides when a worker ends: a Ctrl-C or a stop of the whole control group must not tear a batch,
    nor a request to the daemon that reaches all processes of its service.

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
    first = wire.receive(sock)
    if first is None:
        return
    try:
        run = _runner(first[0])
    except TargetError as error:
        _flush()
        wire.send(sock, {"kind": "import_failed", "message": str(error), "may_pass": error.may_pass})
        return
    _flush()
    _tune_gc()
    wire.send(sock, {"kind": "ready"})
    own_pid = os.getpid()
    while (frame := wire.receive(sock)) is not None:
        invocation, event = frame
        start_by, body = invocation["start_by"], b""
        try:
            if start_by is not None and wire.instant() >= start_by:  # it slept on the way
                reply: Reply = {"kind": "too_late"}
            else:
                reply, body = run(invocation, event)
        except BaseException as error:  # noqa: BLE001  # SystemExit and the like are failures of this call only
            reply = {"kind": "raised", "fault": fault_of(error)}
        if os.getpid() != own_pid:
            # User code forked and its child came back from the handler: only the parent may answer.
            os._exit(0)
        _flush()
        reply["serial"] = invocation["serial"]
        wire.send(sock, reply, body)


def _runner(setup: dict[str, Any]) -> Callable[[dict[str, Any], bytearray], tuple[Reply, bytes]]:
    """Imports the target. TargetError."""
    kind, target, path = setup["kind"], setup["target"], setup["path"]
    public_names.install()
    if kind == "lambda":
        # The daemon cannot know it of another interpreter.
        os.environ.setdefault("AWS_EXECUTION_ENV", "AWS_Lambda_python{}.{}".format(*sys.version_info))
        lambda_log = root_logger.install()
        if path is not None:
            _enter(path)
        return LambdaRunner(load_target(target, path), lambda_log)
    if sys.version_info < _OLDEST_FOR_RECORDS:
        oldest = ".".join(map(str, _OLDEST_FOR_RECORDS))
        found = f"{sys.executable} is Python {sys.version.split()[0]}"
        raise TargetError(f"handler.python: {found}; kind python needs {oldest} or newer, kind lambda does not")
    try:
        from .python_runner import PythonRunner
    except ImportError as error:
        hint = "install it in that environment (pip install msgspec), or use kind lambda"
        raise TargetError(f"handler.python: kind python needs msgspec in {sys.executable}: {error}; {hint}") from error
    if path is not None and PathFinder.find_spec("msgspec", [path]) is not None:
        _forget("msgspec")  # user code means its own
    return PythonRunner(load_target(target, path), setup["report_failures"])


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def _enter(folder: str) -> None:
    """Lambda starts a function in the folder of its code, and functions open files that lie there."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise TargetError(f"handler.path {folder!r}: {error.strerror or error}") from error


def _tune_gc() -> None:
    """Never walk again what the import built: events are trees, and a full collection for every few of them cost more
    than decoding them (a handler with boto3 imported: 23 us a record as Python comes, 10 frozen, 9 with thresholds for
    events instead of single objects; 5.6 with msgspec). Thresholds that user code has set are left alone."""
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == _PYTHONS_THRESHOLDS:
        gc.set_threshold(20_000, 50, 100)
