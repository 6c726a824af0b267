"""The bulletin of a stream: the one small row that every worker reads every cycle, instead of all the others.

It counts the *posts*, in which workers tell which lease rows they have changed, so that nobody has to read all rows to
learn of a few. And it says whose turn it is to list the stream: DescribeStream allows an account ten calls a second,
and a listing of thousands of shards takes dozens of them, so one worker lists at a time, however many start together. A
turn is begun by a conditional write; no clock is compared: each worker counts from when *it* saw the bulletin change.

What a post says of a row is a hint: every write to a lease row stays conditional on the row itself, and what a worker
starts to work on it has read there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from .lease import LeaseRow, LeaseState, duration_of

MOST_CHANGES = 100  # of a post
MOST_POSTS = 4000  # that are kept: later ones take the places of the oldest
HOLE_PATIENCE = 4.0  # seconds that a post which was counted may not be there yet


@dataclass(frozen=True, slots=True)
class Change:
    """One lease row as it was after a change, without its frontier. ``parents`` are told of a shard that nobody has
    worked on, to those who do not know it yet."""

    shard_id: str
    owner: str | None
    epoch: int
    state: LeaseState
    parents: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: LeaseRow) -> Change:
        if row.owner is not None or row.epoch:
            return cls(row.shard_id, row.owner, row.epoch, row.state)
        return cls(row.shard_id, None, 0, row.state, row.parents)

    def is_news_of(self, row: LeaseRow) -> bool:
        """Whether it says more than what is known. What is done stays done under its epoch: the change may be of a post
        that was put down late."""
        if (row.epoch, row.state == "done") > (self.epoch, self.state == "done"):
            return False
        return (row.owner, row.epoch, row.state) != (self.owner, self.epoch, self.state)

    @property
    def row(self) -> LeaseRow | None:
        """The row, if the change says all that matters of it: nobody has worked on the shard."""
        if self.owner is not None or self.epoch:
            return None
        return LeaseRow(self.shard_id, state=self.state, parents=self.parents)


@dataclass(frozen=True, slots=True)
class Post:
    """What one worker has changed, oldest first. ``number`` counts the posts of the stream from 1."""

    number: int
    changes: tuple[Change, ...]

    @property
    def size(self) -> int:
        """Bytes that it has in the lease table, about."""
        owners = {change.owner for change in self.changes if change.owner is not None}
        changes = sum(16 + len(c.shard_id) + sum(len(parent) + 1 for parent in c.parents) for c in self.changes)
        return 120 + sum(map(len, owners)) + changes


@dataclass(frozen=True, slots=True)
class Bulletin:
    """``turn``: listings begun so far. ``lister``: who began the last one, an incarnation or a process that has none
    yet; empty when it failed. ``listing``: it is not known to have ended.

    ``posts`` were made so far, of so many ``changes``. ``rows``: lease rows after the last listing, about.
    """

    turn: int = 0
    lister: str = ""
    listing: bool = False
    posts: int = 0
    changes: int = 0
    rows: int = 0


class Unread:
    """The posts that this worker has yet to read. Times are monotonic seconds of one clock."""

    def __init__(self) -> None:
        self._posts: int | None = None  # as last seen
        self._unread: dict[int, float | None] = {}  # since when it is known not to be there
        self._mine: set[int] = set()  # not seen in the bulletin yet

    def observe(self, posts: int) -> bool:
        """So many posts were made so far. False when some of them cannot be read any more, or were made before this
        worker looked for the first time."""
        seen, self._posts = self._posts, posts
        if seen is None or posts < seen:  # the table was made anew, where posts count from 1 again
            self._unread, self._mine = {}, set()
            return False
        self._unread |= dict.fromkeys(number for number in range(seen + 1, posts + 1) if number not in self._mine)
        self._mine = {number for number in self._mine if number > posts}
        lost = [number for number in self._unread if number <= posts - MOST_POSTS]  # later ones have their places
        for number in lost:
            del self._unread[number]
        return not lost

    def made(self, number: int) -> None:
        """This post is this worker's own."""
        self._unread.pop(number, None)
        if self._posts is None or number > self._posts:
            self._mine.add(number)

    def __len__(self) -> int:
        return len(self._unread)

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and the last one."""
        return (min(self._unread), max(self._unread)) if self._unread else None

    def read(self, span: tuple[int, int], posts: Iterable[Post], now: float) -> list[Post]:
        """``posts`` are those of the ``span`` that are there. Returns what is new of them, in order."""
        found = sorted((post for post in posts if post.number in self._unread), key=lambda post: post.number)
        for post in found:
            self._unread.pop(post.number, None)
        for number, since in self._unread.items():
            if since is None and span[0] <= number <= span[1]:
                self._unread[number] = now
        return found

    def give_up(self, now: float) -> bool:
        """Forget posts that are not there although they were counted a while ago: who wanted to write them is gone, or
        later ones took their places. Whether there were any."""
        lost = [i for i, since in self._unread.items() if since is not None and now - since > HOLE_PATIENCE]
        for number in lost:
            del self._unread[number]
        return bool(lost)


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
