"""The orphan reaper: when the daemon dies, however it dies, it kills the process groups of all workers.

Run as a script with the standard library only (``python -I -S orphan_reaper_main.py``), so that it starts fast and
stays small. It reads ``+<pid>`` and ``-<pid>`` lines on its standard input; the end of that input means that the daemon
is gone, because no other process holds the other end. A process that has left its group, or its session, is known by a
variable in its environment, which every process gives to those that it starts.

Why a process of its own: ``PR_SET_PDEATHSIG`` kills the worker but none of *its* children; a thread inside the worker
never runs while user code holds the interpreter lock. A process outside is blocked by neither, costs one small process
per pool, and works where there is no ``prctl``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

MARK = "STREAM_CONSUMER_WORKER_MARK"  # of a worker process: its pool, and itself
_ROUNDS = 20  # while a look finds some, which may start others meanwhile
_PAUSE = 0.005  # seconds from a kill until the process is really gone, most often


def kill_marked(mark: str) -> None:
    """Kill all processes whose ``MARK`` begins with ``mark``. Linux only: elsewhere none is found."""
    variable = f"{MARK}={mark}".encode()
    for _ in range(_ROUNDS):
        found = [pid for pid in _processes() if _has(pid, variable)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - starts sooner without pathlib
    except OSError:
        return []


def _has(pid: int, variable: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123 - as above
            return any(one.startswith(variable) for one in environment.read().split(b"\0"))
    except OSError:  # gone, or of another user
        return False


def _follow(groups: set[int], line: bytes) -> None:
    with contextlib.suppress(ValueError):
        if line.startswith(b"+"):
            groups.add(int(line[1:]))
        elif line.startswith(b"-"):
            groups.discard(int(line[1:]))


def main() -> None:
    """Follow the list of groups until the input ends, then kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        # Only the death of the daemon ends the reaper: a service manager signals the whole control group at a stop.
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    rest = b""
    while True:
        try:
            data = os.read(0, 4096)
        except OSError:
            data = b""
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            _follow(groups, line)
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    kill_marked(sys.argv[1])


if __name__ == "__main__":
    main()
