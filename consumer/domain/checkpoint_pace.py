"""When the frontier of a shard is written next.

A write is billed, so there is at most one in an interval, whatever happens. What is settled and not written is repeated
after a crash, so a write comes as early as that allows: at once when the last one is older than the interval, and at
its end otherwise. Where records are settled one after another, the first is not written by itself, or the others would
have to wait for the interval's end: the write comes when nothing is under way any more, or when nothing was settled for
a moment.
"""

from __future__ import annotations

import math
from typing import Final

# Seconds without a settlement after which the write is not held back for what is still under way. Longer than the calls
# of quick handlers, which then share one write; so short that a slow call leaves next to nothing to be repeated.
QUIET: Final = 0.05
# Seconds that are no wait: what is left of a pause by rounding may be too short for any clock to move by it.
MOMENT: Final = 1e-6


class CheckpointPace:
    """Of one shard in the hands of one owner, whose first write waits for no interval. All times are seconds of one
    monotonic clock; ``settlements`` is a count that grows with whatever a crash would repeat until it is written."""

    def __init__(self, settlements: int = 0) -> None:
        self._ended = -math.inf  # the last write, also one that failed
        self._since = math.inf  # when there was first something to write since
        self._written = settlements
        self._seen = settlements
        self._moved = -math.inf  # when that was last seen to have grown

    def wrote(self, now: float, settlements: int) -> None:
        """A write has succeeded, with so many ``settlements`` in it."""
        self._ended, self._since, self._written = now, math.inf, settlements

    def failed(self, now: float) -> None:
        """A write has failed, or its answer was lost: it counts as any other."""
        self._ended = now

    def rest(self, now: float, interval: float) -> float:
        """Something has changed. Seconds until it may be written, 0 when it may: whatever comes meanwhile."""
        self._since = min(self._since, now)
        return _wait(self._ended + interval - now)

    def pause(self, now: float, interval: float, settlements: int, *, under_way: bool) -> float:
        """After the rest. Seconds until what has changed is to be written, 0 for now; if more changes before, ask
        again. ``under_way``: records were read that are not settled."""
        if settlements != self._seen:
            self._seen, self._moved = settlements, now
        latest = self._since + interval
        if settlements == self._written:
            return _wait(latest - now)
        return _wait(min(self._moved + QUIET, latest) - now) if under_way else 0.0


def _wait(seconds: float) -> float:
    return seconds if seconds > MOMENT else 0.0
