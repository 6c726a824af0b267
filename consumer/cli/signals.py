"""What signals mean to the daemon. None of them kills it in the middle of its work.

SIGTERM, SIGINT and SIGHUP (a terminal that closes, a reload) drain, once: orchestrators and their scripts send them
again, and a drain that is cut short repeats records. Only a person at a terminal is taken at their word the second
time. SIGUSR1 and SIGUSR2, whose default is to kill, do nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_IGNORED: Final = (signal.SIGUSR1, signal.SIGUSR2)

Noted = Callable[[str, str], None]
"""Is told the name of a signal and its effect, in the signal handler."""


def quit_early() -> None:
    """Until ``handle``: nothing is owned and nothing runs yet, so ending at once is the graceful end. As process 1 the
    kernel would otherwise ignore the signal until a handler is installed."""
    _install(STOPS, _quit)


def handle(stop: Callable[[], None], noted: Noted) -> None:
    """From now on the first signal calls ``stop``. ``noted`` is told of every one that arrives.

    Plain handlers, not ``loop.add_signal_handler``: they also run while user code blocks the loop. They run between two
    steps of the main thread, wherever that is, so what they call must not take a lock.
    """
    arrived: list[int] = []

    def on_stop(signum: int, frame: FrameType | None) -> None:
        by_hand = signum == signal.SIGINT and signum in arrived and _at_a_terminal()
        first = not arrived
        arrived.append(signum)
        if by_hand:
            _say("a second Ctrl-C: ending at once")
            os._exit(128 + signum)
        if first:
            stop()
        noted(signal.Signals(signum).name, "drain" if first else "none, the drain goes on")

    def on_other(signum: int, frame: FrameType | None) -> None:
        noted(signal.Signals(signum).name, "none")

    _install(STOPS, on_stop)
    _install(_IGNORED, on_other)


def _install(signals: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]) -> None:
    for signum in signals:
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup
            signal.signal(signum, handler)


def _quit(signum: int, frame: FrameType | None) -> None:
    _say(f"{signal.Signals(signum).name} before anything was started: ending")
    os._exit(0)


def _at_a_terminal() -> bool:
    return any(os.isatty(descriptor) for descriptor in range(3))


def _say(text: str) -> None:
    with suppress(OSError):  # standard error is closed or full
        os.write(2, f"stream-consumer: {text}\n".encode())
