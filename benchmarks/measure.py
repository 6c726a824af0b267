"""CPU time, memory and order statistics."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def descendants_cpu(pid: int) -> float:
    """CPU seconds of all processes below ``pid`` that live (Linux, to a hundredth of a second)."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / _TICK + descendants_cpu(int(child))
    return total


def tree_cpu() -> tuple[float, float]:
    """CPU seconds of this process, and of all processes below it."""
    return time.process_time(), descendants_cpu(os.getpid())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


@dataclass
class Meter:
    """Measures from the first records handled to the ``total``-th: start-up and warm-up are left out.

    ``warm_up`` is how many records are handled before the clock starts.
    """

    total: int
    warm_up: int = 0
    on_end: Callable[[], None] = lambda: None
    seen: int = 0
    measured: int = 0
    cpu_seconds: float = 0.0
    children_seconds: float = 0.0
    wall_seconds: float = 0.0
    _started: tuple[tuple[float, float], float, int] | None = field(default=None, repr=False)

    def count(self, records: int) -> None:
        """These records are handled."""
        self.seen += records
        if self._started is None:
            if self.seen > self.warm_up:
                self._started = (tree_cpu(), time.perf_counter(), self.seen)
        elif self.seen >= self.total and not self.measured:
            (own, children), wall, before = self._started
            self.measured = self.seen - before
            own_now, children_now = tree_cpu()
            self.children_seconds = children_now - children
            self.cpu_seconds = own_now - own + self.children_seconds
            self.wall_seconds = time.perf_counter() - wall
            self.on_end()

    def result(self) -> dict[str, float]:
        return {
            "records": self.measured,
            "per_cpu_second": self.measured / self.cpu_seconds if self.cpu_seconds else 0.0,
            "per_second": self.measured / self.wall_seconds if self.wall_seconds else 0.0,
            "children_share": self.children_seconds / self.cpu_seconds if self.cpu_seconds else 0.0,
            "us_per_record": 1e6 * self.cpu_seconds / self.measured if self.measured else 0.0,
        }
