"""What time it is at the services: told by the ``Date`` of their answers, carried on by a clock that never jumps.

The clock of a machine may be wrong by hours, or jump, and what is decided by it cannot be taken back: records that are
given up for their age, tombstones that are forgotten. Records carry the service's time, so that is what they are
compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median_low
from typing import Final

SAMPLES: Final = 32  # newest dates that are remembered
RESOLUTION: Final = 1.0  # seconds: of an HTTP date, which is rounded down
DRIFT: Final = 0.1  # by which the rates of two clocks may differ, as in the leases
MOST_APART: Final = 60.0  # seconds by which a machine's clock and the services' may differ while records are given up


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """What answers have said so far: for each, its date and what the monotonic clock showed when it arrived, in
    seconds. None yet: nothing is known."""

    samples: tuple[tuple[float, float], ...] = ()
    _offset: float = 0.0  # from monotonic time to the best guess
    _least: float = -math.inf  # the same to the least that is possible, if the clock had run ``DRIFT`` slower since 0

    def heard(self, date: float, received: float) -> ServiceTime:
        """With one more answer."""
        samples = (*self.samples[1 - SAMPLES :], (date, received))
        middle = median_low(date - received for date, received in samples)
        # A date is rounded down and was on its way, so each is a little late and the latest one is the best. One that
        # is ahead of most by more than the resolution came from a clock that is wrong.
        right = [(date, at) for date, at in samples if date - at <= middle + RESOLUTION]
        return ServiceTime(
            samples,
            max(date - at for date, at in right),
            max(date - at * (1.0 - DRIFT) for date, at in right),
        )

    def now(self, monotonic: float) -> float:
        """Unix seconds, as near as can be known."""
        return monotonic + self._offset

    def at_least(self, monotonic: float, ahead: float) -> float:
        """What time it is at the least (Unix seconds), for what cannot be taken back. Minus infinity, at which nothing
        is too old, when nothing is known, or when the machine's clock is ``ahead`` by more than ``MOST_APART`` seconds
        or as much behind: one of the two is wrong then, and waiting does no harm."""
        if abs(ahead) > MOST_APART:
            return -math.inf
        return self._least + monotonic * (1.0 - DRIFT)
