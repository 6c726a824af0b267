"""Tumbling windows: stretches of record time that follow each other without gaps.

A record belongs to the one window its creation time falls into. Windows are aligned on the Unix epoch, so every worker
computes the same ones, whichever record it sees first. Lambda writes their ends with second precision.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z


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


@dataclass(frozen=True, slots=True)
class WindowCall:
    """What a call says about its window: which one, whether it is the last for it, whether that came too early."""

    window: TimeWindow
    final: bool = False
    terminated_early: bool = False

    @property
    def text(self) -> dict[str, object]:
        """``timeWindowInfo`` of Lambda's failure documents."""
        return {
            "window": self.window.text,
            "isFinalInvokeForWindow": self.final,
            "isWindowTerminatedEarly": self.terminated_early,
        }


def second_text(moment: float) -> str:
    """Unix seconds as Lambda writes a time of second precision: ``2026-09-17T14:11:10Z``, cut, never rounded up."""
    seconds = int(min(max(0.0, moment), _LAST_SECOND))
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
