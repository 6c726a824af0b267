"""Time and randomness, so that a simulation can put its own in their place."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time. Ownership uses ``monotonic`` only; ``wall`` is for lag, documents and logs."""

    def monotonic(self) -> float:
        """Seconds that never go back and count while the machine is suspended."""

    def wall(self) -> float:
        """Unix time in seconds."""


class Randomness(Protocol):
    def random(self) -> float:
        """Uniform in [0, 1): jitter only, never identity."""

    def token(self) -> str:
        """A fresh unique token (incarnations, take nonces, request ids)."""
