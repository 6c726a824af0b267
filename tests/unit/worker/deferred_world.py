"""The state of the machine of deferred keys (``deferred_machine``): rows, owners, and what became of each record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

Mistake = Literal[
    "",
    "the meeting point is believed after a restart",
    "the main reader drops after the meeting",
    "the meeting comes before the last record is read",
    "the meeting comes before the runs are read again",
    "a record that is dropped hides how far the runs go",
    "the meeting comes before the main reader is there",
    "low and runs decide about a deferred key, too",
    "the entry is not saved",
    "the entry is not saved after the meeting",
    "the entry goes when the key is deferred again",
    "the entry moves too far",
    "the failing record stays in the books",
    "the tail stays in the books when the key is deferred again",
    "a key joins a pass that is beyond its entry",
    "a pass takes what is before the entry",
    "catch-up skips what the row covers",
    "catch-up goes on from the horizon without a trace",
    "a child ignores the list",
    "a child defers the list but does not wait",
    "a key that a parent lists meets at once",
    "a restart forgets what blocks",
    "an old list is taken up again after progress",
    "the list is read once",
    "a restart forgets that a record was dropped",
    "a list counts as done",
    "a list does not hold back the next stream",
    "the final save comes before a call has ended",
    "a hand-over forgets the runs beyond what was read again",
    "nobody owns a shard with a list",
]
MISTAKES: tuple[Mistake, ...] = get_args(Mistake)[1:]

NEW, HANDLED, EXCUSED, LOST = range(4)  # a record's fate; EXCUSED: handled, and a crash lets it happen again


class Shard(NamedTuple):
    """``records``: their keys in order. ``parents`` and ``before`` are indices: shards that list what the child waits
    for, and shards of the stream that this one's stream replaces."""

    records: str
    parents: tuple[int, ...] = ()
    before: tuple[int, ...] = ()


class Entry(NamedTuple):
    """A deferred key: everything of it below ``start`` is settled. ``until``: the number at which the second iterator
    met the main reader, 0 before. ``line``: its first unsettled records, in memory. ``dropped``: the last record that
    may have been dropped and not been read again, 0 for none. ``member``: of the pass. ``blocked``: by a parent.
    ``left``: some record of it was dropped, or the key was deferred here."""

    key: str
    start: int
    until: int = 0
    line: tuple[int, ...] = ()
    dropped: int = 0
    member: bool = False
    blocked: bool = False
    left: bool = True


class Owner(NamedTuple):
    """Memory. ``unsettled``: numbers in the books (everything else up to ``fetched`` is settled, or of a deferred key).
    ``resumed``: what runs of the row cover beyond ``fetched``. ``read``: the pass has read so far, -1 without one."""

    fetched: int
    unsettled: tuple[int, ...] = ()
    resumed: tuple[int, ...] = ()
    entries: tuple[Entry, ...] = ()
    read: int = -1
    calling: tuple[str, ...] = ()
    draining: bool = False


class Row(NamedTuple):
    """Durable. ``entries``: (key, start, until, left); nothing believes ``until``. ``listed``: the first list of the
    row."""

    low: int
    runs: tuple[int, ...] = ()
    entries: tuple[tuple[str, int, int, bool], ...] = ()
    state: str = "open"
    listed: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key, *_ in self.entries)


class World(NamedTuple):
    rows: tuple[Row, ...]
    owners: tuple[Owner | None, ...]
    fates: tuple[int, ...]  # of record n at n - 1
    horizons: tuple[int, ...]  # of each shard: everything up to it is trimmed
    crashes: int  # left, as the others
    moves: int
    trims: int
    bad: str = ""


class Step(NamedTuple):
    name: str
    world: World
    helps: bool = True


@dataclass(frozen=True)
class Case:
    """One configuration; numbers count through all shards. ``calls``: a call takes time, so that other steps come
    between its begin and its end. ``forgets``: a save may leave out the runs, as one does whose runs are too large."""

    name: str
    shards: tuple[Shard, ...]
    failing: str = "KL"
    crashes: int = 0
    moves: int = 0
    trims: int = 0
    calls: bool = False
    forgets: bool = False
    mistake: Mistake = ""

    @cached_property
    def key(self) -> str:
        """The key of record n at n."""
        return "-" + "".join(shard.records for shard in self.shards)

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Of each shard: the number before its first record, and its last."""
        ends = [sum(len(shard.records) for shard in self.shards[:count]) for count in range(len(self.shards) + 1)]
        return tuple(pairwise(ends))

    @property
    def start(self) -> World:
        rows = tuple(Row(base) for base, _ in self.bounds)
        horizons = tuple(base for base, _ in self.bounds)
        fates = (NEW,) * (len(self.key) - 1)
        return World(rows, (None,) * len(rows), fates, horizons, self.crashes, self.moves, self.trims)


def finished(world: World) -> bool:
    """Every shard is done and every record handled or lost with its trace."""
    return all(row.state == "done" for row in world.rows) and NEW not in world.fates


def same(case: Case, world: World) -> World:
    """One state for all that can never be told apart again: nobody starts from the row of an owner that cannot end
    before its shard is done, and nothing of a finished shard happens again."""
    rows, fates = list(world.rows), list(world.fates)
    for at, row in enumerate(rows):
        base, last = case.bounds[at]
        if row.state == "done":
            rows[at] = Row(last, state="done")
            fates[base:last] = [HANDLED if fate == EXCUSED else fate for fate in fates[base:last]]
        elif world.owners[at] is not None and not world.crashes and not world.moves:
            keys = tuple((key, 0, 0, True) for key, *_ in row.entries) if row.state == "list" else ()
            rows[at] = Row(base, (), keys, row.state, row.listed)
    return world._replace(rows=tuple(rows), fates=tuple(fates))


def put(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    """``values`` with another one at ``at``."""
    return (*values[:at], value, *values[at + 1 :])


def with_owner(world: World, at: int, owner: Owner | None) -> World:
    return world._replace(owners=put(world.owners, at, owner))


def entry_of(owner: Owner, key: str) -> Entry | None:
    return next((entry for entry in owner.entries if entry.key == key), None)


def covered(owner: Owner, entry: Entry) -> int:
    """Up to here nothing of the key is missing: it is settled or in its line."""
    if entry.member:
        return max(owner.read, entry.start - 1)
    return entry.line[-1] if entry.line else entry.start - 1


def canonical(entry: Entry, covered: int = 0) -> Entry:
    """The same entry without a ``dropped`` that is ``covered``."""
    return entry if entry.dropped > max(covered, entry.start - 1) else entry._replace(dropped=0)


def with_entry(owner: Owner, key: str, entry: Entry | None) -> Owner:
    """``owner`` with this entry of ``key``, or none. A pass without a member is over."""
    others = [other for other in owner.entries if other.key != key]
    if entry is not None:
        others.append(canonical(entry, covered(owner, entry)))
    read = owner.read if any(other.member for other in others) else -1
    return owner._replace(entries=tuple(sorted(others)), read=read)


def queue_of(case: Case, owner: Owner, key: str) -> tuple[int, ...]:
    """What of the key waits in memory, in order."""
    entry = entry_of(owner, key)
    tracked = tuple(number for number in owner.unsettled if case.key[number] == key)
    return tracked if entry is None else entry.line + tracked


def names(case: Case, row: Row, number: int) -> bool:
    """The row says that this record is settled. Of a deferred key its entry alone decides."""
    for key, start, *_ in row.entries:
        if key == case.key[number]:
            return number < start
    return number <= row.low or number in row.runs


def effect(case: Case, world: World, number: int) -> World:
    """User code sees the record."""
    fate, key = world.fates[number - 1], case.key[number]
    bad = world.bad
    if fate == HANDLED:
        bad = f"{number} is handled again"
    elif fate == LOST:
        bad = f"{number} is handled after it was given up"
    early = [n for n in range(1, number) if case.key[n] == key and world.fates[n - 1] == NEW]
    if early:
        bad = f"{number} is handled before {early}"
    return world._replace(fates=put(world.fates, number - 1, HANDLED), bad=bad)


def lose(world: World, numbers: list[int]) -> World:
    """A trace of records that were trimmed."""
    fates, bad = list(world.fates), world.bad
    for number in numbers:
        if fates[number - 1] == HANDLED:
            bad = f"{number} is given up although it was handled"
        fates[number - 1] = LOST
    return world._replace(fates=tuple(fates), bad=bad)
