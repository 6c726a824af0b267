"""How often one worker of many may read all rows of a partition.

A complete reading costs what the rows weigh, and every worker needs one now and then, so the cost of a fleet would grow
with workers times rows. So a fleet has a budget of read units a second, and each worker its place in the line: the
larger the fleet and its rows, the longer between two readings. Small fleets notice nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .bulletin import MOST_CHANGES
from .lease import SessionRow

# Read units a second that a fleet spends on complete readings of one partition. DynamoDB serves 3,000 at most, and
# there are other reads, and other applications.
READ_BUDGET = 600.0
POST_BUDGET = 800.0  # the same for posts, of which a fleet at rest has few
LEASE_BYTES = 450  # of a row with the names of its attributes
SESSION_BYTES = 220  # without the shards that it names
UNIT_BYTES = 4096  # of a consistent read
REGULAR_ROUNDS = 4  # a fleet with nothing to look for spends no more than a quarter of its budget
CHANGE_BYTES = 60  # of one change in a post, about: with the parents of a new shard more
POST_BYTES = 200  # of a post besides
SAVED = 2.0  # seconds of budget that a worker saves up for posts, if it takes less than that to read one
MOST_SINGLE_ROWS = 50
STARTED_TOGETHER = 60.0  # seconds


def seconds_of_budget(rows: int, size: int) -> float:
    """How long one complete reading of so many rows of ``size`` bytes takes the budget of the fleet."""
    return max(1.0, rows * size / UNIT_BYTES) / READ_BUDGET


def between_readings_of_sessions(sessions: Sequence[SessionRow]) -> float:
    """Seconds after which each worker of the fleet may read all these rows again. A worker with failing keys has a
    longer row, because it names some of their shards."""
    size = sum(SESSION_BYTES + sum(len(shard_id) + 1 for shard_id in one.failing) for one in sessions)
    return len(sessions) * seconds_of_budget(1, size)


@dataclass(frozen=True, slots=True)
class Place:
    """One worker among ``workers``: it is number ``rank`` of them, and ``rank_of_new`` of those that have started
    lately. ``share`` are the seconds of budget for one reading."""

    rank: int
    rank_of_new: int
    workers: int
    share: float

    @classmethod
    def of(cls, me: str, live: Sequence[SessionRow], rows: int) -> Place:
        """``live`` are the sessions of the fleet. Wall clocks are compared, for the pace alone."""
        started = {session.incarnation: session.started_at for session in live}
        since = started.get(me, 0.0) - STARTED_TOGETHER
        before = [who for who in started if who < me]
        new = sum(started[who] > since for who in before)
        return cls(len(before), new, max(1, len(started)), seconds_of_budget(rows, LEASE_BYTES))

    @property
    def round(self) -> float:
        """Seconds in which every worker may read once."""
        return self.workers * self.share

    @property
    def single_rows(self) -> int:
        """Rows that this worker may read one by one at a look, about once a second."""
        return max(1, min(MOST_SINGLE_ROWS, int(READ_BUDGET / 4 / self.workers)))


class ReadingPace:
    """When to read all rows. Times are monotonic seconds of one clock.

    Args:
        usual: seconds between two readings that are due anyway.
        now: the time of the start.
    """

    def __init__(self, usual: float, now: float) -> None:
        self._usual = usual
        self._read_at: float | None = None
        self._wanted_at: float | None = now

    @property
    def read_at(self) -> float:
        """When the last reading was asked for; long ago when there was none."""
        return float("-inf") if self._read_at is None else self._read_at

    def want(self, now: float) -> None:
        """Something changed that only a complete reading shows."""
        if self._wanted_at is None:
            self._wanted_at = now

    def is_due(self, now: float, place: Place) -> bool:
        read_at, wanted_at = self._read_at, self._wanted_at
        if read_at is None:
            return wanted_at is None or now >= wanted_at + place.rank_of_new * place.share
        if now - read_at >= max(self._usual, REGULAR_ROUNDS * place.round):
            return True
        in_turn = wanted_at is not None and now >= wanted_at + place.rank * place.share
        return in_turn and now - read_at >= place.round

    def has_read(self, now: float) -> None:
        """A reading that was asked for at ``now`` was answered."""
        self._read_at, self._wanted_at = now, None


class PostAllowance:
    """How many posts one of many workers may read. Every worker reads every post, and has its part of the budget for
    that: some at a time, oldest first, since in a burst of changes the wait for all of them would never end.

    What a post weighs is known when it was read: neighbours are alike, so it is guessed from the last ones, and a wrong
    guess is paid for by the next portion. Times are monotonic seconds of one clock.

    Args:
        now: the time of the start.
        late: about 1; stretches the pause between two portions, so that not all workers read at once.
    """

    def __init__(self, now: float, late: float = 1.0) -> None:
        self._at = now
        self._late = late
        self._saved = 0.0  # seconds of budget; below 0 after a portion that was heavier than it seemed
        self._size = float(POST_BYTES + CHANGE_BYTES * MOST_CHANGES)  # of a post in the last portion

    def portion(self, unread: int, changes: int, workers: int, now: float) -> int:
        """How many of the ``unread`` posts, which hold so many ``changes``, one of so many ``workers`` may read now."""
        unit = self._seconds(workers, UNIT_BYTES)
        full = self._late * max(SAVED, 2 * unit)
        self._saved = min(self._saved + max(0.0, now - self._at), full)
        self._at = now
        if not unread or self._saved < unit:
            return 0
        post = self._seconds(workers, max(self._size, POST_BYTES + CHANGE_BYTES * changes / unread))
        if post * unread <= self._saved:
            return unread
        return max(1, int(self._saved / post)) if self._saved >= full else 0

    def read(self, sizes: Sequence[int], workers: int) -> None:
        """A portion was read: posts of so many bytes."""
        self._saved -= self._seconds(workers, max(UNIT_BYTES, sum(sizes)))
        if sizes:
            self._size = sum(sizes) / len(sizes)

    @staticmethod
    def _seconds(workers: int, size: float) -> float:
        """Until one of so many workers has saved for so many bytes."""
        return (workers - 1) / POST_BUDGET * size / UNIT_BYTES
