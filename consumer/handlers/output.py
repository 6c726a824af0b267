"""What user code prints, as structlog events: ``handler.output`` with the line and the call it belongs to.

A line that is a JSON object with ``_aws.CloudWatchMetrics`` is one of CloudWatch's embedded metric format (EMF), by
which functions send metrics. It goes to the log as it is, whatever the level: CloudWatch looks for it at the root of a
line.

The read ends of a worker's pipes are polled by the loop and drained once more when a call ends, before its outcome is
reported: the worker has flushed by then, so every line is attributed to the right call. A flood costs reading and
counting only; what is beyond a budget per second, or the end of a longer line, is dropped, counted and said.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import structlog

from consumer.domain.outcome import HandlerCall

MAX_LINE = 256 << 10  # as Lambda keeps it
LINES_PER_SECOND = 1000
BYTES_PER_SECOND = 1 << 20
_CHUNK = 64 << 10
# At most 4 MiB when a call ends: a grandchild that floods the pipe must not keep the loop.
_DRAIN_READS = 64
log = structlog.get_logger("consumer.handlers.output")


class Output:
    """One stream (``stdout`` or ``stderr``) of one worker process. Owns ``fd`` and closes it."""

    def __init__(self, fd: int, stream: str) -> None:
        os.set_blocking(fd, False)
        self.call: HandlerCall | None = None
        self._fd = fd
        self._stream = stream
        self._partial = b""
        self._skipping = False  # inside a line whose beginning was already reported as truncated
        self._window = 0.0
        self._lines = 0
        self._bytes = 0
        self._dropped = 0  # lines
        self._cut = 0  # bytes of lines that were too long, and of those dropped
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def end_call(self) -> None:
        """Attribute everything printed so far to the call in progress, which is over. Does not wait."""
        for _ in range(_DRAIN_READS):
            if not self._read():
                break
        if self._partial:
            self._emit(self._partial, truncated=False)
            self._partial = b""
        self._report_dropped()
        self.call = None

    def close(self) -> None:
        """Report what is left and close. Does not wait for the end of the stream: a grandchild may hold it open."""
        if self._fd >= 0:
            self.end_call()
        self._shut()

    def _shut(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        """One chunk; True when there may be more."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._shut()
            return False
        self._feed(data)
        return True

    def _feed(self, data: bytes) -> None:
        now = self._loop.time()
        if now - self._window >= 1.0:
            self._window = now
            self._lines = self._bytes = 0
            self._report_dropped()
        if self._over():  # only count, and remember whether the stream stands inside a line
            self._dropped += data.count(b"\n")
            self._cut += len(self._partial) + len(data)
            self._partial = b""
            self._skipping = not data.endswith(b"\n")
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
                self._cut += len(line)
                continue
            whole = self._partial + line
            self._partial = b""
            self._cut += max(0, len(whole) - MAX_LINE)
            self._emit(whole[:MAX_LINE], truncated=len(whole) > MAX_LINE)
        if self._skipping:
            self._cut += len(rest)
        else:
            self._partial += rest
            if len(self._partial) > MAX_LINE:
                self._cut += len(self._partial) - MAX_LINE
                self._emit(self._partial[:MAX_LINE], truncated=True)
                self._partial = b""
                self._skipping = True

    def _over(self) -> bool:
        return self._lines >= LINES_PER_SECOND or self._bytes >= BYTES_PER_SECOND

    def _report_dropped(self) -> None:
        if self._dropped or self._cut:
            log.warning("handler.output_dropped", stream=self._stream, lines=self._dropped, bytes=self._cut)
            self._dropped = self._cut = 0

    def _emit(self, line: bytes, *, truncated: bool) -> None:
        if self._over():
            self._dropped += 1
            self._cut += len(line)
            return
        self._lines += 1
        self._bytes += len(line)
        call = self.call
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        if call is not None:
            text = call.shown(text)
        metrics = None if truncated else _embedded_metrics(text)
        if metrics is not None:
            log.critical("handler.metrics", verbatim=metrics)
            return
        if not text:
            return
        more = {"truncated": True} if truncated else {}
        log.info(
            "handler.output",
            stream=self._stream,
            line=text,
            request_id=None if call is None else call.request_id,
            shard_id=None if call is None else call.shard_id,
            **more,
        )


def _embedded_metrics(line: str) -> dict[str, Any] | None:
    """The object that the line is, if it is one of the embedded metric format."""
    if not line.startswith("{") or '"_aws"' not in line:
        return None
    try:
        found = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    about = found.get("_aws") if isinstance(found, dict) else None
    # Less than that is no metric, and what a handler prints of a record must not pass for a line of the daemon's.
    return found if isinstance(about, dict) and isinstance(about.get("CloudWatchMetrics"), list) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
