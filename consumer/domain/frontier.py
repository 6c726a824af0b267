"""The frontier: which sequence numbers of a shard are settled.

``low`` is the number up to which everything is settled; ``runs`` are the stretches settled above it, exact because a
run names its first and last record and every record between them is settled too; ``deferred`` are the keys of which
that is not true (``domain/deferred.py``). All three are small: only what is in flight leaves holes, and what waits
behind a failing key leaves the books. The reader resumes after ``low`` and skips what lies in a run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .deferred import DeferredKey

# Beyond the bound the newest runs are forgotten: that costs duplicates, never a record. A checkpoint is written every
# second and billed by the KiB; the write that gives a lease away happens once and must name everything that is settled,
# or a graceful stop would repeat work (an item may have 400 KB).
MAX_RUNS_BYTES = 4096
MAX_RUNS_BYTES_GIVEN_AWAY = 256 * 1024
BYTES_PER_STRETCH = 320  # of memory: two numbers as text, two positions and four places in lists, measured


@dataclass(frozen=True, slots=True)
class FrontierSnapshot:
    """What is stored. Numbers are the service's text. ``first`` is the first record ever fetched from the shard: until
    something is settled a restart resumes AT it, so that a trim in between is noticed and not silently skipped.
    ``deferred`` are exceptions from ``low`` and ``runs``: records of these keys are not settled from some number on.
    ``complete_at`` (Unix seconds, 0: unknown) is a moment at which nothing of the shard was left to read and everything
    else was settled: what comes behind ``low`` came later, so it cannot have been trimmed before a retention is over.
    Kept for sources that do not say when records were trimmed; ``kept_for`` is the retention of that time (seconds)."""

    low: str | None = None
    first: str | None = None
    runs: tuple[tuple[str, str], ...] = ()
    deferred: tuple[DeferredKey, ...] = ()
    complete_at: float = 0.0
    kept_for: float = 0.0

    @property
    def untouched(self) -> bool:
        """Nothing of the shard has been read, as far as is stored."""
        return self.low is None and self.first is None and not self.deferred


def rewound(snapshot: FrontierSnapshot) -> FrontierSnapshot:
    """From where everything has to be handled once more if no key may be behind the others: the oldest unsettled
    record, of a deferred key or behind ``low``. What was settled after it is repeated."""
    if not snapshot.deferred:
        return snapshot
    oldest = min(snapshot.deferred, key=lambda key: int(key.number))
    if oldest.waits_for_parent or snapshot.low is None or int(snapshot.low) < int(oldest.number):
        return FrontierSnapshot(None if oldest.waits_for_parent else snapshot.low, snapshot.first)
    return FrontierSnapshot(first=oldest.number)


class SettledFilter:
    """Answers, for records re-read after a restart, whether they are settled already; not for deferred keys."""

    def __init__(self, snapshot: FrontierSnapshot) -> None:
        low = int(snapshot.low) if snapshot.low is not None else -1
        runs = sorted((int(first), int(last)) for first, last in snapshot.runs)
        self._low = low
        self._starts = [first for first, _ in runs]
        self._ends = [last for _, last in runs]
        self._top = max([low, *self._ends])

    @property
    def top(self) -> int:
        """Above this number nothing is settled, and asking is a waste of time."""
        return self._top

    def __contains__(self, number: int) -> bool:
        if number <= self._low:
            return True
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]


class Numbers(Protocol):
    """The numbers of some records, by their place."""

    def __getitem__(self, place: int) -> str: ...


class Frontier:
    """The live bookkeeping of one shard: records are tracked in fetch order and settled in any order.

    A record is known by its position, counted from the start of this bookkeeping. Only stretches of settled positions
    are kept, so a million records settled behind an old one take as much memory as one.
    """

    def __init__(self, snapshot: FrontierSnapshot = FrontierSnapshot()) -> None:
        self._low = snapshot.low
        self._first = snapshot.first
        self._resumed_runs = snapshot.runs
        self._base = 0  # every position below it is settled
        self._next = 0  # the position of the next record to be tracked
        self._starts: list[int] = []  # settled stretches above the base: first and last position, first and last number
        self._ends: list[int] = []
        self._firsts: list[str] = []
        self._lasts: list[str] = []
        self._settled_above = 0
        self._version = 0
        self.settlements = 0  # grows whenever something was settled
        self._newest_text = snapshot.low or ""
        self._newest = int(snapshot.low) if snapshot.low is not None else -1

    @property
    def low(self) -> str | None:
        return self._low

    @property
    def newest(self) -> int:
        """The newest number tracked, or resumed from; -1 when there is none."""
        return self._newest

    @property
    def version(self) -> int:
        """Grows whenever something that a snapshot would show has changed."""
        return self._version

    @property
    def outstanding(self) -> int:
        """Records tracked but not settled."""
        return self._next - self._base - self._settled_above

    @property
    def oldest(self) -> int:
        """The position of the oldest record that is not settled; the next one's when all are."""
        return self._base

    @property
    def size(self) -> int:
        """Bytes of memory that the books take."""
        return len(self._starts) * BYTES_PER_STRETCH

    def track(self, numbers: Sequence[str]) -> range:
        """Add fetched records in stream order; returns their positions. ValueError when order goes backwards, which
        would break every promise built on it (numbers compare as integers, never as text)."""
        newest = self._newest
        for text in numbers:
            number = int(text)
            if number <= newest:
                raise ValueError(f"sequence number {text} is not after {newest}")
            newest = number
        if numbers and self._first is None:
            self._first = numbers[0]
            self._version += 1
        if numbers:
            self._newest, self._newest_text = newest, numbers[-1]
        start = self._next
        self._next += len(numbers)
        return range(start, self._next)

    def settle(self, positions: Sequence[int], numbers: Numbers) -> None:
        """Mark records as settled (handled, dead-lettered, filtered, deferred or recorded as lost): their positions in
        increasing order, each once, and their numbers, of which only those at the ends of stretches are looked at."""
        if not positions:
            return
        last = len(positions) - 1
        start = 0
        if positions[-1] - positions[0] != len(positions) - 1:
            for index in range(1, len(positions)):
                if positions[index] != positions[index - 1] + 1:
                    self._add(positions[start], positions[index - 1], numbers[start], numbers[index - 1])
                    start = index
        self._add(positions[start], positions[last], numbers[start], numbers[last])
        self._version += 1
        self.settlements += 1

    def _add(self, start: int, end: int, first: str, last: str) -> None:
        """A stretch of positions is settled now, all of which were not."""
        starts, ends, firsts, lasts = self._starts, self._ends, self._firsts, self._lasts
        at = bisect_right(starts, start)
        joins_next = at < len(starts) and starts[at] == end + 1
        self._settled_above += end - start + 1
        if start == self._base:
            if joins_next:
                end, last = ends[at], lasts[at]
                del starts[at], ends[at], firsts[at], lasts[at]
            self._settled_above -= end - start + 1
            self._base, self._low = end + 1, last
        elif at and ends[at - 1] == start - 1:
            if joins_next:
                end, last = ends[at], lasts[at]
                del starts[at], ends[at], firsts[at], lasts[at]
            ends[at - 1], lasts[at - 1] = end, last
        elif joins_next:
            starts[at], firsts[at] = start, first
        else:
            starts.insert(at, start)
            ends.insert(at, end)
            firsts.insert(at, first)
            lasts.insert(at, last)

    def snapshot(
        self, max_runs_bytes: int = MAX_RUNS_BYTES, deferred: tuple[DeferredKey, ...] = ()
    ) -> FrontierSnapshot:
        """Low and the runs above it, newest runs dropped beyond ``max_runs_bytes``; ``deferred`` goes with them."""
        runs: list[tuple[str, str]] = []
        room = max_runs_bytes
        for run in zip(self._firsts, self._lasts, strict=True):
            room -= len(run[0]) + len(run[1]) + 6
            if room < 0:
                break
            runs.append(run)
        else:
            for run in self._beyond_re_read():
                room -= len(run[0]) + len(run[1]) + 6
                if room < 0:
                    break
                runs.append(run)
        return FrontierSnapshot(self._low, self._first, tuple(runs), deferred)

    def _beyond_re_read(self) -> list[tuple[str, str]]:
        """What the previous owner settled beyond the records re-read so far; it must not be forgotten meanwhile."""
        newest, ahead = self._newest, []
        for first, last in self._resumed_runs:
            if int(last) > newest:
                ahead.append((first if int(first) > newest else self._newest_text, last))
        return ahead
