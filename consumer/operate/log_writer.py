"""Writing log lines without ever blocking or crashing the daemon.

A pipe that is not read blocks its writer, and a collector that restarts breaks it. Neither may stop a handler or cost
a lease, so lines go through a queue that is bounded in bytes to a thread that writes them. When the queue is full,
lines are dropped and counted, and the count is written as soon as there is room again: no gap in the log is silent.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Thread
from typing import Final

QUEUE_BYTES: Final = 4 * 1024 * 1024
FLUSH_SECONDS: Final = 2.0
_CHUNK: Final = 4096  # PIPE_BUF: handler processes write to the same pipe, and up to here no line is split


class LogWriter:
    """``put`` never blocks. ``write`` gets whole lines and may block or raise OSError: that costs lines only.

    ``describe_drops`` makes the line that reports how many were lost.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        describe_drops: Callable[[int], bytes],
        limit: int = QUEUE_BYTES,
    ) -> None:
        self._write = write
        self._describe_drops = describe_drops
        self._limit = limit
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._unreported = 0  # lines lost since the last report
        self._closing = False
        self._writing = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> bool:
        """Queue one line (ending in a newline). False when it is dropped, because the queue is full."""
        with self._changed:
            if self._closing or self._bytes + len(line) > self._limit:
                self._unreported += 1
                return False
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()
            return True

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all that was put is written, for at most ``seconds``. False when some is not."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._lines or self._writing:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Flush and end the thread. A write that still blocks is left behind: the thread does not hold up the exit."""
        self.flush(seconds)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(0.1)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            lines, unreported = taken
            with suppress(OSError, ValueError):  # broken pipe, no space, closed file: lines are lost, and counted
                if unreported:
                    self._write(self._describe_drops(unreported))
                    unreported = 0
                self._write(b"".join(lines))
                lines = []
            with self._changed:
                self._writing = False
                self._unreported += unreported + len(lines)
                self._changed.notify_all()

    def _take(self) -> tuple[list[bytes], int] | None:
        """The next lines, up to a chunk, and how many were lost before them. None when closed and empty."""
        with self._changed:
            while not self._lines:
                if self._closing:
                    return None
                self._changed.wait()
            lines: list[bytes] = []
            size = 0
            while self._lines and (not lines or size + len(self._lines[0]) <= _CHUNK):
                lines.append(self._lines.popleft())
                size += len(lines[-1])
            self._bytes -= size
            self._writing = True
            unreported, self._unreported = self._unreported, 0
            return lines, unreported


def write_stdout() -> Callable[[bytes], None]:
    """A function that writes to what is standard output now.

    A daemon started without one (``>&-``) gets a function that refuses: file descriptor 1 may be a socket by now.
    """
    stream = sys.stdout
    if stream is None:
        return _refuse
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):  # captured, or replaced by something that is no file

        def write_text(data: bytes) -> None:
            stream.write(data.decode("ascii"))
            stream.flush()

        return write_text

    def write_all(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another holder of the pipe made it non-blocking
                time.sleep(0.02)

    return write_all


def _refuse(data: bytes) -> None:
    raise OSError(f"there is no standard output for {len(data)} bytes")
