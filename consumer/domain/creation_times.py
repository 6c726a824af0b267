"""When the records of a shard were created, by their position in its books: how old is the oldest one not settled?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

RESOLUTION = 1.0  # seconds: the service gives whole ones


class CreationTimes:
    """A mark for every second of the stream between the oldest unsettled record and the newest one, no more."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()  # position, and creation time from it on

    def add(self, position: int, times: Sequence[float]) -> None:
        """Records from ``position`` on were created at ``times`` (Unix seconds; 0 is unknown, and counts as the one
        before)."""
        marks = self._marks
        newest = marks[-1][1] if marks else float("-inf")
        if times and times[-1] - RESOLUTION < newest and max(times) - RESOLUTION < newest:
            return
        for index, created in enumerate(times):
            if created - newest >= RESOLUTION and created > 0:
                marks.append((position + index, created))
                newest = created

    def at(self, position: int) -> float:
        """Creation time of the record at ``position``, or up to a second earlier; 0 when unknown. What lies before is
        forgotten: positions asked for never go backwards."""
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= position:
            marks.popleft()
        return marks[0][1] if marks and marks[0][0] <= position else 0.0

    def __len__(self) -> int:
        return len(self._marks)
