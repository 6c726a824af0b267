"""The daemon as process 1 of a container: a small process in front of it does what only process 1 must do.

The kernel makes process 1 the parent of every process whose own parent has died, and a process 1 that does not wait for
them fills the table of processes with zombies. The daemon itself must not wait for children that it does not know: it
would take exit statuses away from the code that started them (its handler processes, but also what an inline handler or
a credential process runs). So it forks once, before anything else: the parent reaps whoever comes and passes signals
on, the child is the daemon.
"""

from __future__ import annotations

import os
import signal
from typing import Final, NoReturn

# What a process does to itself; all others can be held back and passed on.
_OWN_FAULTS: Final = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)


def stand_before_the_daemon() -> None:
    """As process 1: returns in a child, and ends this process with the exit status of that child. Returns at once in
    any other process. Call it while there is one thread, with the signal handlers of the child in place."""
    if os.getpid() != 1:
        return
    signals = set(signal.valid_signals()) - _OWN_FAULTS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    daemon = os.fork()
    if daemon == 0:
        os.setpgid(0, 0)  # a Ctrl-C comes from process 1, and not a second time from the terminal
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    _pass_on(signals, daemon)


def _pass_on(signals: set[signal.Signals] | set[int], daemon: int) -> NoReturn:
    while True:
        signum = signal.sigwait(signals)
        if signum != signal.SIGCHLD:
            os.kill(daemon, signum)  # at most a zombie: nobody else waits for it
            continue
        while (ended := _reap()) is not None:
            pid, status = ended
            if pid == daemon:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


def _reap() -> tuple[int, int] | None:
    """The process id and wait status of a child that has ended; None when there is none now."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    return (pid, status) if pid else None
