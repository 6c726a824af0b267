"""Time and randomness, so that a simulation can put its own in their place."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The two clocks of a machine. Ownership uses ``monotonic`` only."""

    def monotonic(self) -> float:
        """Seconds that never go back and count while the machine is suspended."""

    def wall(self) -> float:
        """Unix time in seconds."""


class ServiceClock(Clock, Protocol):
    """A clock whose ``wall`` is the time at the services, as their answers have told it and ``monotonic`` carries it
    on; only before the first of them it is this machine's."""

    def heard(self, time: float) -> None:
        """An answer of a service said that it is ``time`` (Unix seconds) there. May be called from any thread."""

    def trusted(self) -> float:
        """What time it is there at the least, for what cannot be taken back, such as giving a record up for its age:
        minus infinity, at which nothing is too old, while no service has told the time, or this machine's clock differs
        by more than a minute."""

    def ahead(self) -> float:
        """Seconds by which this machine's clock is ahead of the services'; 0 before they have told the time."""


class Randomness(Protocol):
    def random(self) -> float:
        """Uniform in [0, 1): jitter only, never identity."""

    def token(self) -> str:
        """A fresh unique token, in the form of a UUID (incarnations, take nonces, request ids)."""
