"""The orphan reaper: when the daemon dies, however it dies, it kills the process groups of all workers.

Run as a script with the standard library only (``python -I -S orphan_reaper_main.py``), so that it starts fast and
stays small. It reads ``+<pid>`` and ``-<pid>`` lines on its standard input; the end of that input means that the daemon
is gone, because no other process holds the other end.

Why a process of its own: ``PR_SET_PDEATHSIG`` kills the worker but none of *its* children; a thread inside the worker
never runs while user code holds the interpreter lock. A process outside is blocked by neither, costs one small process
per pool, and works where there is no ``prctl``.
"""

from __future__ import annotations

import contextlib
import os
import signal


def _follow(groups: set[int], line: bytes) -> None:
    with contextlib.suppress(ValueError):
        if line.startswith(b"+"):
            groups.add(int(line[1:]))
        elif line.startswith(b"-"):
            groups.discard(int(line[1:]))


def main() -> None:
    """Follow the list of groups until the input ends, then kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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


if __name__ == "__main__":
    main()
