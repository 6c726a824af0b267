"""What is read of the lease table, in the units that DynamoDB counts and bounds for each partition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable


class ReadUnits:
    """By partition: ``sessions``, ``leases``, ``bulletin``, ``posts``. ``now``: seconds of the simulation."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._units: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def count(self, partition: str, units: float) -> None:
        self._units[partition][int(self._now())] += units

    def most(self, partition: str, since: float = 0.0, window: int = 10) -> float:
        """The most units a second, in any ``window`` seconds after ``since``."""
        units = self._units[partition]
        starts = range(int(since), int(self._now()) + 1)
        return max((sum(units[start + second] for second in range(window)) / window for start in starts), default=0.0)
