"""When to read a shard again that has nothing more to give now, learned from when its records came.

GetRecords is billed, so every read of a shard is a bet that something has come. For records that come by pure chance
there is no clever bet: ``n`` reads a second find 95 of 100 records within ``0.95 / n`` seconds at the best, and they do
when they are evenly spaced (docs/performance.md#polling). What can be learned is how the chance changes with the time
since the last record: high within a burst, high again after a minute where a clock writes, low in the evening.

So ``Arrivals`` keeps, for each stretch of that time, how long it was watched and what came in it. The stretches with
the most arrivals for their time are watched at the pace of the target, as many as hold 95 of 100 arrivals. In the
others pauses grow to the longest one.

Pure: no clock, no chance. All times are seconds. Memory, and time per read, are bounded by ``STRETCHES``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final, NamedTuple

from .source_format import FIVE_A_SECOND, ReadingLimits

WATCHED: Final = 0.95  # of the arrivals: what ``poll.target_latency`` promises
FIRST_STRETCH: Final = 0.5  # seconds; each of the others is sqrt(2) times as far from the last record as the one before
HORIZON: Final = 900.0  # seconds; what comes later ends a silence, and nothing is learned from when that was
MEMORY: Final = 64  # pages with records, after which about a third of what was learned before still counts
DOUBT: Final = 0.5  # pages, as if so many had come to each stretch as often as they come on average
MOST_READS: Final = 300  # for one page with records: where it takes more to meet the target, silence is assumed
WORTH: Final = 2.5  # reads at the pace of the target that one record is worth: see ``Pauses.expecting``
EARLY: Final = 0.95  # of a pause: the reader varies them by a tenth, and the target shall hold with that
GROWTH: Final = 0.5  # a pause in which nothing is expected, as a part of the time since the last record


def _edges() -> tuple[float, ...]:
    found, edge = [0.0], FIRST_STRETCH
    while edge < HORIZON:
        found.append(edge)
        edge *= math.sqrt(2.0)
    return (*found, HORIZON)


_EDGES: Final = _edges()
STRETCHES: Final = len(_EDGES) - 1


class Pauses(NamedTuple):
    """What pauses may be near the tip of a shard, in seconds. ``target``: that in which a record may come at any time;
    ``longest``: that of a silent shard; ``shortest``: where much comes."""

    target: float
    longest: float
    shortest: float

    @classmethod
    def of(cls, limits: ReadingLimits, target_latency: float, idle_backoff_max: float) -> Pauses:
        """As configured (``source.poll``), within what the source allows."""
        least = max(limits.interval, FIVE_A_SECOND)
        longest = max(least, idle_backoff_max)
        target = min(max(least, target_latency), longest)
        return cls(target, longest, max(least, min(limits.near_tip, target)))

    def expecting(self, rate: float) -> float:
        """The pause while so many records a second are expected.

        Each record waits for the next read, and each read costs a call: the sum is least where pauses go with the root
        of the time between two records. So they do from 1/WORTH records a read on; before that the target holds.
        """
        often = math.sqrt(self.target / (WORTH * rate)) if rate > 0.0 else self.target
        return max(self.shortest, EARLY * min(self.target, often))


class Arrivals:
    """What one shard has taught so far. A new owner of the shard begins anew."""

    __slots__ = ("_age", "_pages", "_plan", "_planned_for", "_records", "_watched")

    def __init__(self) -> None:
        self._age = 0.0  # at the last read, since the last records were read
        self._watched = [0.0] * STRETCHES  # seconds
        self._pages = [0.0] * STRETCHES  # with records
        self._records = [0.0] * STRETCHES
        self._plan: tuple[float, ...] = ()  # pauses by stretch, 0 where nothing is expected; empty: to be made
        self._planned_for: Pauses | None = None

    def looked(self, waited: float, records: int) -> None:
        """The shard was read to its tip, ``waited`` seconds after the read before, and gave so many records that are to
        be handled: those that filters leave out may come late."""
        begin = self._age
        end = begin + max(0.0, waited)
        if records > 0:
            self._fade()
        at = bisect_right(_EDGES, begin) - 1 if end - begin <= HORIZON else STRETCHES  # the process was held up
        while at < STRETCHES and _EDGES[at] < end > begin:
            part = min(end, _EDGES[at + 1]) - max(begin, _EDGES[at])
            self._watched[at] += part
            if records > 0:  # at some moment of the pause: each is as likely
                self._pages[at] += part / (end - begin)
                self._records[at] += records * part / (end - begin)
            at += 1
        self._age = 0.0 if records > 0 else min(end, 2 * HORIZON)

    def behind(self) -> None:
        """There was more to read than one page: it is not known when that came."""
        self._age = 0.0

    def pause(self, pauses: Pauses) -> float:
        """Seconds from the last read to the next one."""
        if not self._plan or self._planned_for != pauses:
            self._plan, self._planned_for = self._made(pauses), pauses
        at = bisect_right(_EDGES, self._age) - 1
        if at < STRETCHES and self._plan[at]:
            return self._plan[at]
        pause = min(pauses.longest, max(EARLY * pauses.target, GROWTH * self._age))
        for following in range(at + 1, STRETCHES):
            begins = _EDGES[following] - self._age
            if begins >= pause:
                break
            if self._plan[following]:
                return max(pauses.shortest, min(pause, begins + self._plan[following]))
        return max(pauses.shortest, pause)

    def _fade(self) -> None:
        keep = 1.0 - 1.0 / MEMORY
        for kept in (self._watched, self._pages, self._records):
            kept[:] = [value * keep for value in kept]
        self._plan = ()

    def _made(self, pauses: Pauses) -> tuple[float, ...]:
        """The stretches to watch, those with the most arrivals for their time first, until few arrivals are left."""
        plan = [0.0] * STRETCHES
        pages = sum(self._pages)
        if pages <= 0.0:
            return tuple(plan)
        doubt = DOUBT * max(FIRST_STRETCH, sum(self._watched)) / pages  # seconds; a clock may show next to none
        often = [(DOUBT + found) / (doubt + watched) for found, watched in zip(self._pages, self._watched, strict=True)]
        expected = [each * watched for each, watched in zip(often, self._watched, strict=True)]
        missing = WATCHED * sum(expected)
        for at in sorted(range(STRETCHES), key=often.__getitem__, reverse=True):
            if missing <= 0.0 or often[at] * pauses.target * MOST_READS < 1.0:
                break
            missing -= expected[at]
            plan[at] = pauses.expecting(self._records[at] / (doubt + self._watched[at]))
        return tuple(plan)
