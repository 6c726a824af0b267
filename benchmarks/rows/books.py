"""The books of a shard: what they take while one old record is not settled and everything behind it is."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from consumer.domain.creation_times import CreationTimes
from consumer.domain.frontier import Frontier

PAGE = 1000  # records
RATE = 100.0  # records a second, by their creation times


def one_old_record(stream: str, table: str, records: int) -> dict[str, float]:
    """``records`` behind one that is never settled; the servers are not asked."""
    gc.collect()
    before = _resident()
    frontier, created = Frontier(), CreationTimes()
    started = time.process_time()
    for first in range(0, records, PAGE):
        numbers = [str(10**21 + 7 * (first + index)) for index in range(PAGE)]
        positions = frontier.track(numbers)
        created.add(positions.start, [float(int((first + index) / RATE)) for index in range(PAGE)])
        settled = list(positions)[1:] if not first else list(positions)
        frontier.settle(settled, numbers[-len(settled) :])
    seconds = time.process_time() - started
    gc.collect()
    grown = (_resident() - before) / 2**20
    asked = time.perf_counter()
    frontier.snapshot()
    return {
        "mib_a_million": grown * 1e6 / records,
        "us_per_record": seconds * 1e6 / records,
        "snapshot_ms": (time.perf_counter() - asked) * 1000,
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
