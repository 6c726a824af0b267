"""When a shard was seen complete: nothing left to read, and everything settled but deferred keys.

A source that does not say when records were trimmed shows, at the place where reading goes on, just other records or
none. Were some lost between? Not if the shard was complete since the oldest record that is still kept was written:
whatever came behind that place came later, and is still there. So the moment is stored with the checkpoint, often
enough for the shortest retention, and so rarely that an idle shard costs next to nothing.
"""

from __future__ import annotations

from typing import Final

# Seconds by which the service's trimming may be ahead of its promise, and clocks of each other.
SLACK: Final = 600.0
EVERY: Final = 3600.0  # seconds between two moments that are stored for themselves; a record is kept for a day at least


def lost_nothing(complete_at: float, now: float, retention: float) -> bool:
    """Whether nothing can have been trimmed unread of a shard that was complete then; Unix seconds."""
    return complete_at > now - retention + SLACK


class Completeness:
    """``at`` is the last such moment (Unix seconds; 0: unknown), ``version`` grows when it has to be stored."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.version = 0
        self._stored = at

    def seen(self, at: float) -> None:
        """A read that was sent at that time showed the tip, and nothing was outstanding."""
        self.at = max(self.at, at)
        if self.at - self._stored >= EVERY:
            self._stored = self.at
            self.version += 1
