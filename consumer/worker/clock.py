"""Real time, the time at the services, and real randomness; the simulator puts its own behind the same ports."""

from __future__ import annotations

import random
import time
import uuid
from itertools import count

from consumer.domain.service_time import ServiceTime
from consumer.ports.time import Clock

# CLOCK_BOOTTIME goes on while a virtual machine is suspended, CLOCK_MONOTONIC does not: a worker that slept must see
# that its lease is over. Only Linux has it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    def monotonic(self) -> float:
        return time.clock_gettime(_CLOCK)

    def wall(self) -> float:
        return time.time()


class HeardClock:
    """``ports.ServiceClock`` beside a machine's own clocks."""

    def __init__(self, local: Clock) -> None:
        self.monotonic = local.monotonic
        self._local = local.wall
        self._known = ServiceTime()
        self._last = 0.0

    def heard(self, time: float) -> None:
        # The first answer of a second says the most. Two threads may be here at once: then one of two dates is lost.
        if time != self._last:
            self._last = time
            self._known = self._known.heard(time, self.monotonic())

    def wall(self) -> float:
        return self._known.now(self.monotonic()) if self._known.samples else self._local()

    def trusted(self) -> float:
        return self._known.at_least(self.monotonic(), self.ahead())

    def ahead(self) -> float:
        return self._local() - self.wall() if self._known.samples else 0.0


class SystemRandomness:
    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - jitter only
        self._prefix = str(uuid.uuid4())[:24]  # 74 random bits; one for each request would cost ten times as much
        self._tokens = count()

    def random(self) -> float:
        return self._random.random()

    def token(self) -> str:
        return f"{self._prefix}{next(self._tokens):012x}"
