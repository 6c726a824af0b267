"""The bulletin of a stream: the one small row that every worker reads every cycle, instead of all the others.

It names the lease rows that changed last, so that nobody has to read all of them to learn of a few. And it says whose
turn it is to list the stream: DescribeStream allows an account ten calls a second, and a listing of thousands of shards
takes dozens of them, so one worker lists at a time, however many start together. A turn is begun by a conditional
write; no clock is compared: each worker counts from when *it* saw the bulletin change.

What it says of a row is a hint: every write to a lease row stays conditional on the row itself, and what a worker
starts to work on it has read there.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from consumer.domain.lease import LeaseRow, LeaseState, duration_of

MOST_CHANGES = 24  # named by a bulletin: it stays below the 4 KB that one read unit is


@dataclass(frozen=True, slots=True)
class Change:
    """One lease row as it was after a change, without its frontier."""

    shard_id: str
    owner: str | None
    epoch: int
    state: LeaseState

    @classmethod
    def of(cls, row: LeaseRow) -> Change:
        return cls(row.shard_id, row.owner, row.epoch, row.state)


@dataclass(frozen=True, slots=True)
class Bulletin:
    """``turn``: listings begun so far. ``lister``: who began the last one, an incarnation or a process that has none
    yet; empty when it failed. ``listing``: it is not known to have ended.

    ``number``: changes made known so far; ``changes`` are the last of them. ``rows``: lease rows after the last
    listing, about.
    """

    turn: int = 0
    lister: str = ""
    listing: bool = False
    number: int = 0
    changes: tuple[Change, ...] = ()
    rows: int = 0

    def with_changes(self, changes: Sequence[Change]) -> Bulletin:
        """The bulletin after ``changes``, which forgets the oldest."""
        kept = (*self.changes, *changes)[-MOST_CHANGES:]
        return replace(self, number=self.number + len(changes), changes=kept)

    def since(self, number: int) -> tuple[Change, ...] | None:
        """What came after the first ``number`` changes; None when some of that is not named any more."""
        missed = self.number - number
        if missed < 0 or missed > len(self.changes):  # fewer than before: the table was made anew
            return None
        return self.changes[len(self.changes) - missed :]


class ListingTurns:
    """When this worker may begin a listing, by what it has seen of the bulletin. Times are monotonic seconds of one
    clock.

    Args:
        me: the name that this worker begins listings by.
        regular: seconds after which another listing is due anyway.
        soon: the same while a shard is looked for.
        patience: seconds until a listing that does not end counts as given up.
    """

    def __init__(self, me: str, *, regular: float, soon: float, patience: float) -> None:
        self._me = me
        self._regular = regular
        self._soon = soon
        self._patience = patience
        self._since = 0.0
        self._late = 1.0
        self._not_before = float("-inf")
        self._failed_in: int | None = None
        self.seen: Bulletin | None = None

    def observe(self, bulletin: Bulletin, now: float, late: float) -> None:
        """Note the bulletin as read at ``now``. ``late`` (1 and up) stretches the times, so that not all workers want
        the next turn at once."""
        seen = self.seen
        if seen is None or (bulletin.turn, bulletin.lister, bulletin.listing) != (seen.turn, seen.lister, seen.listing):
            self._since, self._late = now, late
        self.seen = bulletin

    def failed(self, not_before: float) -> None:
        """The listing of this worker failed: it is repeated then, unless another worker has had a turn since."""
        self._failed_in = self.seen.turn if self.seen is not None else None
        self._not_before = not_before

    def is_quiet(self, now: float) -> bool:
        """No other worker lists, or it has been at it for so long that it must have given up."""
        seen = self.seen
        under_way = seen is not None and seen.listing and seen.lister != self._me
        return not under_way or now - self._since >= self._patience * self._late

    def is_due(self, now: float, live: Container[str], *, wanted: bool = False, at_once: bool = False) -> bool:
        """Whether to begin a listing. ``live`` are the incarnations that work, as read after the bulletin. ``wanted``:
        a shard is looked for. ``at_once``: this worker needs a listing of its own."""
        seen = self.seen
        if seen is None or now < self._not_before:
            return False
        if seen.turn == self._failed_in:
            return True
        # A lister that is not among the living is not hurried after: when the table was wiped, all of them are missing.
        gone = seen.lister not in ("", self._me) and seen.lister not in live
        if not gone and not self.is_quiet(now):
            return False
        # A process that had no incarnation yet has looked for the start, and registered no shard.
        never = not seen.turn or (gone and not seen.listing and duration_of(seen.lister) is None)
        failed = seen.turn > 0 and not seen.lister
        pause = 0.0 if at_once or never else self._soon if wanted or failed or gone else self._regular
        return now - self._since >= pause * self._late
