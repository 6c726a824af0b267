"""What signals mean to the daemon. None of them kills it in the middle of its work.

SIGTERM and SIGINT drain, once: orchestrators and their scripts send them again, and a drain that is cut short repeats
records. Only a person at a terminal is taken at their word the second time. SIGHUP reloads the configuration, but for
a daemon whose terminal is gone: that drains. SIGUSR1 has the state written to the log, by whoever reads the descriptor
of ``tell``. SIGUSR2, whose default is to kill, does nothing.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

STOPS: Final = (signal.SIGTERM, signal.SIGINT)
_OTHERS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_EFFECTS: Final = {signal.SIGUSR1: "the state is written to the log", signal.SIGUSR2: "none"}

Noted = Callable[[str, str], None]
"""Is told the name of a signal and its effect, in the signal handler."""


def quit_early() -> list[int]:
    """Until ``handle``: nothing is owned and nothing runs yet, so ending at once is the graceful end. As process 1 the
    kernel would otherwise ignore the signal until a handler is installed. Returns a list of the other signals that
    arrive meanwhile, which grows: they are for ``handle``."""
    arrived: list[int] = []
    _install(STOPS, _quit)
    _install(_OTHERS, lambda signum, _: arrived.append(signum))
    return arrived


def handle(stop: Callable[[], None], reload: Callable[[], str], noted: Noted, early: Iterable[int] = ()) -> None:
    """From now on the first signal that stops calls ``stop``, and SIGHUP ``reload``, which returns its effect.
    ``noted`` is told of every signal that arrives, and of those that came ``early``.

    Plain handlers, not ``loop.add_signal_handler``: they also run while user code blocks the loop. They run between two
    steps of the main thread, wherever that is, so what they call must not take a lock.
    """
    arrived: list[int] = []
    had_terminal = _at_a_terminal()

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

    def on_hangup(signum: int, frame: FrameType | None) -> None:
        if arrived or (had_terminal and not _at_a_terminal()):  # a terminal that was closed is none any more
            on_stop(signum, frame)
        else:
            noted(signal.Signals(signum).name, reload())

    def on_other(signum: int, frame: FrameType | None) -> None:
        noted(signal.Signals(signum).name, _EFFECTS[signal.Signals(signum)])

    _install(STOPS, on_stop)
    _install((signal.SIGHUP,), on_hangup)
    _install(tuple(_EFFECTS), on_other)
    for signum in early:
        (on_hangup if signum == signal.SIGHUP else on_other)(signum, None)


@contextmanager
def tell() -> Iterator[socket.socket]:
    """A socket out of which the numbers of all signals come, a byte each, from the moment that they arrive: also while
    the main thread is inside of foreign code that does not return, where no handler of ``handle`` runs."""
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(before)


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
