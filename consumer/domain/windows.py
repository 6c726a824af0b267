"""Tumbling windows: stretches of record time that follow each other without gaps.

A record belongs to the one window its creation time falls into. Windows are aligned on the Unix epoch, so every worker
computes the same ones, whichever record it sees first. Lambda writes their ends with second precision.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass

_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z
_LAST_RECORD = _LAST_SECOND - 86400.0


@dataclass(frozen=True, slots=True, order=True)
class TimeWindow:
    """From ``start`` up to, but not with, ``end``; both in Unix seconds. ValueError when it would be empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= _LAST_SECOND:
            raise ValueError(f"no window: {self.start} to {self.end}")

    def __contains__(self, moment: float) -> bool:
        """Whether a creation time (Unix seconds) lies in the window."""
        return self.start <= moment < self.end

    @property
    def text(self) -> dict[str, str]:
        """As events and failure documents have it: ``{"start": "2026-09-17T14:11:10Z", "end": ...}``."""
        return {"start": second_text(self.start), "end": second_text(self.end)}


def second_text(moment: float) -> str:
    """Unix seconds as Lambda writes a time of second precision: ``2026-09-17T14:11:10Z``, cut, never rounded up."""
    seconds = int(min(max(0.0, moment), _LAST_SECOND))
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _usable(created: float) -> float:
    """A record's time as far as it can lie in a window: a record may claim anything, and must not loop."""
    return min(max(0.0, created), _LAST_RECORD)


MAX_STATE = 1024 * 1024  # bytes of JSON; beyond it Lambda terminates a window early


@dataclass(frozen=True, slots=True)
class WindowState:
    """What is durable of a shard's window: ``state`` is the JSON object that the handler returned last, ``window`` None
    means that none is open."""

    window: TimeWindow | None = None
    state: bytes = b"{}"

    def is_left_over(self, size: int) -> bool:
        """Whether a window is open that windows of ``size`` seconds (0: there are none) do not go on with."""
        return self.window is not None and self.window.end - self.window.start != size


@dataclass(frozen=True, slots=True)
class WindowCall:
    """What an invocation is told about its window: which one, the state so far, whether it is the last call for it
    (such calls carry no records) and whether that came too early. ``left_over``: other settings opened it, so the
    handler may know of no windows."""

    window: TimeWindow
    state: bytes = b"{}"
    stream_arn: str = ""
    final: bool = False
    terminated_early: bool = False
    left_over: bool = False

    def event_fields(self, shard_id: str) -> bytes:
        """The fields beside ``Records``, in Lambda's order, to be spliced into the event."""
        rest = {
            "shardId": shard_id,
            "eventSourceARN": self.stream_arn,
            "isFinalInvokeForWindow": self.final,
            "isWindowTerminatedEarly": self.terminated_early,
        }
        return b'"window":' + _json(self.window.text) + b',"state":' + self.state + b"," + _json(rest)[1:-1]

    @property
    def asks_for_state(self) -> bool:
        """Whether a response without a state has failed. Not for a window that other settings have opened: nothing goes
        on with its state, and a handler that knows no windows any more would fail for ever."""
        return not self.left_over

    @property
    def info(self) -> dict[str, object]:
        """``timeWindowInfo`` of Lambda's failure documents."""
        return {
            "window": self.window.text,
            "isFinalInvokeForWindow": self.final,
            "isWindowTerminatedEarly": self.terminated_early,
        }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class TumblingWindow:
    """The open window of one shard. A record of a later window closes it; one of an earlier window (the service's
    clock went back) still belongs to it, because a window that is closed is over.

    ``size`` in seconds. ``durable`` is what the previous owner left; a window of another size has to be closed before
    any record is handled.
    """

    def __init__(self, size: int, durable: WindowState = WindowState()) -> None:
        self._size = size
        self._durable = durable
        self._version = 0
        self.closings = 0  # grows with every final invocation that is settled

    @property
    def durable(self) -> WindowState:
        """What to store together with the frontier."""
        return self._durable

    @property
    def version(self) -> int:
        """Grows whenever ``durable`` changes."""
        return self._version

    @property
    def open(self) -> TimeWindow | None:
        return self._durable.window

    @property
    def is_left_over(self) -> bool:
        """Whether the open window is one of other settings."""
        return self._durable.is_left_over(self._size)

    def leading(self, times: Sequence[float]) -> int:
        """How many of these records (creation times in Unix seconds, stream order) the next invocation may carry. Opens
        a window when none is open; 0 says that the open one must be closed first."""
        window = self._durable.window
        if window is None:
            start = int(_usable(times[0])) // self._size * self._size
            window = TimeWindow(start, start + self._size)
            self._change(WindowState(window))
        return next((index for index, created in enumerate(times) if _usable(created) >= window.end), len(times))

    def reopen(self, window: TimeWindow) -> None:
        """Start a window afresh that has ended early, for records that were cut for it."""
        self._change(WindowState(window))

    def aggregated(self, state: bytes) -> None:
        """The handler returned ``state`` for records that are settled now."""
        self._change(WindowState(self._durable.window, state))

    def close(self) -> None:
        """The final invocation is settled."""
        self.closings += 1
        self._change(WindowState())

    def is_over(self, read_at: float, margin: float) -> bool:
        """True when no record of the open window can be expected any more: at ``read_at`` (Unix seconds) the shard held
        nothing more, and the window had ended ``margin`` seconds before."""
        window = self._durable.window
        return window is not None and read_at >= window.end + margin

    def _change(self, durable: WindowState) -> None:
        self._durable = durable
        self._version += 1
