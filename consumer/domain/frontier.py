"""The frontier: which sequence numbers of a shard are settled.

``low`` is the number up to which everything is settled; ``runs`` are the stretches settled above it, exact because a
run names its first and last record and every record between them is settled too. Both are small: only what is in
flight or waits behind a failing key leaves holes. The reader resumes after ``low`` and skips what lies in a run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# Beyond the bound the newest runs are forgotten: that costs duplicates, never a record. A checkpoint is written every
# second and billed by the KiB; the write that gives a lease away happens once and must name everything that is settled,
# or a graceful stop would repeat work (an item may have 400 KB).
MAX_RUNS_BYTES = 4096
MAX_RUNS_BYTES_GIVEN_AWAY = 256 * 1024


@dataclass(frozen=True, slots=True)
class FrontierSnapshot:
    """What is stored. Numbers are the service's text. ``first`` is the first record ever fetched from the shard: until
    something is settled a restart resumes AT it, so that a trim in between is noticed and not silently skipped."""

    low: str | None = None
    first: str | None = None
    runs: tuple[tuple[str, str], ...] = ()


class SettledFilter:
    """Answers, for records re-read after a restart, whether they are settled already."""

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


class Frontier:
    """The live bookkeeping of one shard: records are tracked in fetch order and settled in any order.

    Cost is O(1) a record amortised; memory is one entry per record above ``low``.
    """

    def __init__(self, snapshot: FrontierSnapshot = FrontierSnapshot()) -> None:
        self._low = snapshot.low
        self._first = snapshot.first
        self._resumed_runs = snapshot.runs
        self._above_low: deque[str] = deque()  # sequence numbers above low, in stream order
        self._offset = 0  # index of its first entry since the start
        self._settled: set[int] = set()
        self._version = 0
        self._newest_text = snapshot.low or ""
        self._newest = int(snapshot.low) if snapshot.low is not None else -1

    @property
    def low(self) -> str | None:
        return self._low

    @property
    def version(self) -> int:
        """Grows whenever something that a snapshot would show has changed."""
        return self._version

    @property
    def outstanding(self) -> int:
        """Records fetched but not settled."""
        return len(self._above_low) - len(self._settled)

    @property
    def span(self) -> int:
        """Records above ``low``, settled or not: what the bookkeeping holds in memory."""
        return len(self._above_low)

    def track(self, numbers: Sequence[str]) -> range:
        """Add fetched records in stream order; returns their indices. ValueError when order goes backwards, which
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
        start = self._offset + len(self._above_low)
        self._above_low.extend(numbers)
        return range(start, start + len(numbers))

    def settle(self, indices: Sequence[int]) -> None:
        """Mark records as settled (handled, dead-lettered, filtered or recorded as lost)."""
        above, settled, offset = self._above_low, self._settled, self._offset
        low: str | None = None
        if not settled and list(indices) == list(range(offset, offset + len(indices))):
            for _ in indices:  # the oldest ones without a hole, as usual: a third of the work
                low = above.popleft()
            offset += len(indices)
        else:
            settled.update(indices)
            while above and offset in settled:
                settled.discard(offset)
                low = above.popleft()
                offset += 1
        if low is not None:
            self._low = low
        self._offset = offset
        self._version += 1

    def snapshot(self, max_runs_bytes: int = MAX_RUNS_BYTES) -> FrontierSnapshot:
        """Low and the runs above it, newest runs dropped beyond ``max_runs_bytes``. O(records above low)."""
        runs: list[tuple[str, str]] = []
        if self._settled:
            first = last = None
            for index, text in enumerate(self._above_low, self._offset):
                if index in self._settled:
                    first = text if first is None else first
                    last = text
                elif first is not None and last is not None:
                    runs.append((first, last))
                    first = last = None
            if first is not None and last is not None:
                runs.append((first, last))
        runs.extend(self._beyond_re_read())
        return FrontierSnapshot(self._low, self._first, _bounded(runs, max_runs_bytes))

    def _beyond_re_read(self) -> list[tuple[str, str]]:
        """What the previous owner settled beyond the records re-read so far; it must not be forgotten meanwhile."""
        newest, ahead = self._newest, []
        for first, last in self._resumed_runs:
            if int(last) > newest:
                ahead.append((first if int(first) > newest else self._newest_text, last))
        return ahead


def _bounded(runs: list[tuple[str, str]], limit: int) -> tuple[tuple[str, str], ...]:
    size = 0
    for count, (first, last) in enumerate(runs):
        size += len(first) + len(last) + 6
        if size > limit:
            return tuple(runs[:count])
    return tuple(runs)
