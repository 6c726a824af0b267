"""Waiting against reading, in simulated hours: ``python -m benchmarks.polling`` prints a table of docs/performance.md.

Four shards, a call takes 10 ms, a page holds whatever has come. The wait of a record is from when it can be read to the
answer that brings it. Nothing but the rules for pauses is in it, so that an hour takes milliseconds and all rules meet
the same arrivals.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from benchmarks.measure import percentile
from consumer.domain.polling import Arrivals, Pauses
from consumer.domain.source_format import FIVE_A_SECOND, ReadingLimits

HOUR: Final = 3600.0
SHARDS: Final = 4
CALL: Final = 0.01  # seconds that a call takes
JITTER: Final = 0.1  # of a pause, as in worker/shard/reader.py
SEEDS: Final = 3  # hours of each workload

Shards = list[list[float]]  # the times of the arrivals, by shard


def by_chance(chance: random.Random, rate: float, begin: float, end: float) -> Iterator[float]:
    """A Poisson process."""
    now = begin + chance.expovariate(rate)
    while now < end:
        yield now
        now += chance.expovariate(rate)


def spread(chance: random.Random, times: Sequence[float]) -> Shards:
    """Keys hash to shards."""
    shards: Shards = [[] for _ in range(SHARDS)]
    for time in times:
        shards[chance.randrange(SHARDS)].append(time)
    return shards


def trickle(chance: random.Random) -> Shards:
    return spread(chance, list(by_chance(chance, 1.0, 0.0, HOUR)))


def one_a_minute(chance: random.Random) -> Shards:
    return [list(by_chance(chance, 1 / 60, 0.0, HOUR)) for _ in range(SHARDS)]


def every_minute(chance: random.Random) -> Shards:
    """By a clock that is up to a second late."""
    firsts = [58.0 * chance.random() for _ in range(SHARDS)]
    return [[first + 60.0 * minute + chance.random() for minute in range(60)] for first in firsts]


def bursts(chance: random.Random) -> Shards:
    begins = by_chance(chance, 1 / 540, 0.0, HOUR - 60.0)
    return spread(chance, sorted(time for begin in begins for time in by_chance(chance, 20.0, begin, begin + 60.0)))


def office_hours(chance: random.Random) -> Shards:
    return spread(chance, list(by_chance(chance, 1.0, HOUR / 3, 2 * HOUR / 3)))


def idle(_: random.Random) -> Shards:
    return [[] for _ in range(SHARDS)]


WORKLOADS: Final[dict[str, Callable[[random.Random], Shards]]] = {
    "1 record/s over 4 shards, by chance": trickle,
    "1 a minute and shard, by chance": one_a_minute,
    "1 a minute and shard, by the clock": every_minute,
    "bursts of a minute, 20/s, 6 an hour by chance": bursts,
    "office hours: 1 record/s in 20 of 60 minutes": office_hours,
    "idle": idle,
}


class Reader(Protocol):
    """One shard's."""

    def pause(self, waited: float, records: int, chance: random.Random) -> float:
        """Seconds from the answer to the next call, after an answer with so many records, ``waited`` seconds after the
        one before."""


class Fixed:
    """One call every so many seconds after a page with records, and after an empty one."""

    def __init__(self, after_records: float, after_none: float) -> None:
        self._after_records, self._after_none = after_records, after_none

    def pause(self, waited: float, records: int, chance: random.Random) -> float:
        return (self._after_records if records else self._after_none) - CALL


class Learning:
    """The daemon's."""

    def __init__(self, target_latency: float, idle_backoff_max: float = 5.0) -> None:
        self._arrivals = Arrivals()
        self._pauses = Pauses.of(ReadingLimits(), target_latency, idle_backoff_max)

    def pause(self, waited: float, records: int, chance: random.Random) -> float:
        self._arrivals.looked(waited, records)
        pause = self._arrivals.pause(self._pauses) * (1.0 - JITTER + 2 * JITTER * chance.random())
        return max(FIVE_A_SECOND, pause)


KCL: Final = "KCL with the adapter"
SECOND: Final = "a fixed second"
DEFAULT: Final = "target 2s (default)"
READERS: Final[dict[str, Callable[[], Reader]]] = {
    # idleTimeBetweenReadsInMillis 1000: the adapter waits twice as long after an empty page, from call to call. It does
    # not read again at once after a page with records.
    KCL: lambda: Fixed(1.0, 2.0),
    SECOND: lambda: Fixed(1.0, 1.0),
    DEFAULT: lambda: Learning(2.0),
    "target 1s": lambda: Learning(1.0),
}


@dataclass(frozen=True)
class Shard:
    """What one reader did in an hour. ``calls`` and ``waits`` in seconds."""

    calls: list[float]
    waits: list[float]


def read(arrivals: Sequence[float], reader: Reader, chance: random.Random, hours: float = 1.0) -> Shard:
    """Read one shard."""
    found = Shard([], [])
    now, before, taken = chance.random(), 0.0, 0
    while now < hours * HOUR:
        found.calls.append(now)
        upto = taken
        while upto < len(arrivals) and arrivals[upto] <= now:
            upto += 1
        answered = now + CALL
        found.waits.extend(answered - arrival for arrival in arrivals[taken:upto])
        now = answered + reader.pause(answered - before, upto - taken, chance)
        before, taken = answered, upto
    return found


class Outcome(NamedTuple):
    """``median`` and ``p95`` of the waits in seconds (0 without records), ``calls`` an hour over all shards."""

    median: float
    p95: float
    calls: float
    shortest: float

    @property
    def text(self) -> str:
        return f"{self.p95:.2f} s, {self.calls:,.0f}" if self.p95 else f"{self.calls:,.0f}"


@cache
def outcome(workload: str, reader: str) -> Outcome:
    """Of ``SEEDS`` hours."""
    waits: list[float] = []
    calls, shortest = 0, HOUR
    for seed in range(SEEDS):
        for number, arrivals in enumerate(WORKLOADS[workload](random.Random(seed))):
            found = read(arrivals, READERS[reader](), random.Random(100 * seed + number))
            waits += found.waits
            calls += len(found.calls)
            shortest = min(shortest, *(after - before for before, after in pairwise(found.calls)))
    return Outcome(percentile(waits, 0.5), percentile(waits, 0.95), calls / SEEDS, shortest)


def table() -> str:
    """Markdown: p95 of the wait, and calls an hour."""
    rows = [["p95, GetRecords an hour", *READERS], ["---"] * (len(READERS) + 1)]
    rows += [[workload, *(outcome(workload, reader).text for reader in READERS)] for workload in WORKLOADS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
