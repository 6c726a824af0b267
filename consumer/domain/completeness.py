"""When a shard was seen complete: nothing left to read, and everything settled but deferred keys.

A source that does not say when records were trimmed shows, at the place where reading goes on, just other records or
none. Were some lost between? Not if the shard was complete since the oldest record that is still kept was written:
whatever came behind that place came later, and is still there. So the moment is stored with the checkpoint, often
enough for the shortest retention, and so rarely that an idle shard costs next to nothing. With it goes the retention of
that time: one that was raised since brings back nothing that was trimmed before.
"""

from __future__ import annotations

from typing import Final

# Seconds by which the service's trimming may be ahead of its promise, and clocks of each other.
SLACK: Final = 600.0
EVERY: Final = 3600.0  # seconds between two moments that are stored for themselves; a record is kept for a day at least


def lost_nothing(complete_at: float, now: float, retention: float) -> bool:
    """Whether nothing can have been trimmed unread of a shard that was complete then; Unix seconds."""
    return complete_at > now - retention + SLACK


def as_if_kept(complete_at: float, kept_for: float, retention: float) -> float:
    """The moment that says under the ``retention`` of now what ``complete_at`` has said under that of its time: records
    that came later were kept for so many seconds at least. ``kept_for`` 0: as long as now."""
    return complete_at - max(0.0, retention - kept_for) if kept_for else complete_at


class Completeness:
    """``at`` is the last such moment (Unix seconds; 0: unknown), and ``kept_for`` the retention of that time (seconds);
    ``version`` grows when they have to be stored."""

    def __init__(self, at: float, kept_for: float = 0.0) -> None:
        self.at = at
        self.kept_for = kept_for
        self.version = 0
        self._stored = at

    def seen(self, at: float, retention: float) -> None:
        """A read that was sent at that time showed the tip, and nothing was outstanding."""
        if at >= self.at:
            self.at, self.kept_for = at, retention
        if self.at - self._stored >= EVERY:
            self._stored = self.at
            self.version += 1
