"""When to look at a shard again that was just read to its tip, and has more to give soon. Pure.

A *look* is all reads that follow each other until a page is not full. The pause that is usual near the tip counts from
the first of them: what they took is not waited once more, which under load would be most of the latency. And where
records come so fast that a page fills sooner, it is asked for then: a full page is never waited for, so this costs no
more calls for the same records.
"""

from __future__ import annotations

NEARLY_FULL = 0.9  # of a page: after a full one the next is asked for at once, and would have next to nothing


class Looks:
    """Of one shard. All times are seconds of one monotonic clock."""

    __slots__ = ("_asked_at", "_before", "_began", "_pages", "_part")

    def __init__(self) -> None:
        self._before: float | None = None  # when the last page of the look before was asked for
        self._began: float | None = None
        self._asked_at = 0.0
        self._part = 0.0
        self._pages = 0.0

    def read(self, asked_at: float, part: float) -> None:
        """A page was read that was asked for then. ``part`` of what it may hold was in it; 1 or more: it was full."""
        if self._began is None:
            self._began = asked_at
        self._asked_at, self._part = asked_at, part
        self._pages += part

    def until_next(self, usual: float, now: float) -> float:
        """Seconds until the next read: ``usual`` ones after a full page, and after any other no more than these."""
        if self._part >= 1.0 or self._began is None:
            return usual
        pause = usual - (now - self._began)
        if self._before is not None and self._pages:
            fills_in = NEARLY_FULL * (self._asked_at - self._before) / self._pages
            pause = min(pause, fills_in - (now - self._asked_at))
        self._before, self._began, self._pages = self._asked_at, None, 0.0
        return max(0.0, min(usual, pause))
