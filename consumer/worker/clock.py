"""Real time and real randomness; the simulator puts its own behind the same ports."""

from __future__ import annotations

import random
import time
import uuid
from itertools import count

# CLOCK_BOOTTIME goes on while a virtual machine is suspended, CLOCK_MONOTONIC does not: a worker that slept must see
# that its lease is over. Only Linux has it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    def monotonic(self) -> float:
        return time.clock_gettime(_CLOCK)

    def wall(self) -> float:
        return time.time()


class SystemRandomness:
    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - jitter only
        self._prefix = uuid.uuid4().hex[:20]  # 80 random bits; a UUID for each request would cost ten times as much
        self._tokens = count()

    def random(self) -> float:
        return self._random.random()

    def token(self) -> str:
        return f"{self._prefix}{next(self._tokens):012x}"
