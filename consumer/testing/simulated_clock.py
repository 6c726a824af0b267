"""The clock of a simulated worker."""

from __future__ import annotations

from consumer.testing.virtual_loop import EPOCH, Process
from consumer.worker.clock import HeardClock


class SimulatedClock:
    """``ports.ServiceClock`` over the clocks of a process.

    Days that pass (``VirtualLoop.pass_days``) stand for days in which nothing was done, so the monotonic clock of
    leases and pauses stands still meanwhile. A machine's does not: it carries the time of the services through them,
    also while the machine is suspended. Without that a worker would take new answers for those of a clock that is
    wrong, and live a day behind the services."""

    def __init__(self, process: Process) -> None:
        heard = HeardClock(_Carrying(process))
        self.monotonic = process.monotonic
        self.wall, self.heard = heard.wall, heard.heard
        self.trusted, self.ahead = heard.trusted, heard.ahead


class _Carrying:
    def __init__(self, process: Process) -> None:
        self._process = process
        self.wall = process.wall

    def monotonic(self) -> float:
        return self._process.monotonic() + self._process.loop.epoch - EPOCH
