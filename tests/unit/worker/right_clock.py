"""A clock that is right, and known to be."""

from __future__ import annotations

from consumer.ports.time import Clock


class RightClock:
    """``ports.ServiceClock`` of a machine whose wall clock is the services'."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        self.wall = self.trusted = clock.wall

    def heard(self, time: float) -> None:
        """It says nothing new."""

    def ahead(self) -> float:
        return 0.0
