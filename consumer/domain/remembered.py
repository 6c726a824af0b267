"""What one worker remembers of the lease rows, should they be deleted. Pure; times are monotonic seconds of one clock.

Memory has an age. A worker that has looked at the table all the time knows that a row which is gone was deleted by
hand: only tombstones are ever removed, days after their shard was done. One that has not, because it slept or could not
reach the table, may remember as open what others have finished, and removed, long since. So what was known before a gap
of more than two durations between two looks comes back only if the service still names the shard, asked after the row
was missed, and no other row says that the shard was settled.

A look is a complete reading, or one of the bulletin: large fleets read all rows once in many minutes, and minutes
without a sleep are no days. What no complete reading has shown for half the age of a tombstone is old as well.

That a shard was finished never grows old. Its row does not come back by itself, because it may have been removed as a
tombstone; but as long as the service may name the shard it is known that there is nothing to read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from .lease import LeaseRow, duration_of
from .shards import TOMBSTONE_AGE, settled_before

OWNERS_TURN = 2.0  # of its durations that the owner of a deleted row has to put it back before other workers do
MAX_AGE = 2.0  # durations between two looks at the table, after which what is remembered is old
MAX_READING_AGE = TOMBSTONE_AGE / 2  # seconds between two complete readings, whatever was looked at meanwhile


@dataclass(slots=True)
class _Old:
    """An old memory of a row that was missed at ``since``; ``unlisted_since``: first complete listing without it."""

    row: LeaseRow
    since: float
    unlisted_since: float | None = None


class Remembered:
    """The rows of one stream. ``rows`` are those of the last reading, as known since, and those that were deleted, as
    last known; not those of which only an old memory is left. ``duration`` (seconds) is that of this worker."""

    def __init__(self, duration: float) -> None:
        self._duration = duration
        self._read_at = float("-inf")  # when the last complete reading was asked for
        self._looked_at = float("-inf")  # the same of the last look of any kind
        self._awake_since = float("-inf")  # the first look after the last gap
        self._missing: dict[str, float] = {}  # deleted: since when this worker knows
        self._old: dict[str, _Old] = {}  # missing, and the memory is old
        self._finished: dict[str, float] = {}  # finished and removed: since when this worker knows
        self._epochs: dict[str, int] = {}  # the highest ones seen
        self.rows: dict[str, LeaseRow] = {}

    def look(self, asked_at: float) -> None:
        """This worker has looked at the table, asked at ``asked_at``, whatever it has seen there."""
        if asked_at - self._looked_at > MAX_AGE * self._duration:
            self._awake_since = asked_at
        self._looked_at = max(self._looked_at, asked_at)

    @property
    def has_slept(self) -> bool:
        """Whether there was a gap since the last complete reading: only the next one shows what has become of it."""
        return self._read_at < max(self._awake_since, self._looked_at - MAX_READING_AGE)

    def read(self, rows: Mapping[str, LeaseRow], asked_at: float, now: float) -> None:
        """A complete reading, asked for at ``asked_at``. One that was overtaken by a newer one says nothing new."""
        if asked_at < self._read_at:
            return
        self.look(asked_at)
        is_old, self._read_at = self.has_slept, asked_at
        gone = {i: row for i, row in self.rows.items() if i not in rows}
        missing = {i: row for i, row in gone.items() if not row.finished}
        finished = dict.fromkeys(gone.keys() - missing.keys(), now) | self._finished
        self._finished = {i: at for i, at in finished.items() if i not in rows and now - at < TOMBSTONE_AGE}
        self._old = {i: memory for i, memory in self._old.items() if i not in rows}
        if is_old:
            self._old |= {i: _Old(row, now) for i, row in missing.items()}
            missing = {}
        self._missing = {i: self._missing.get(i, now) for i in missing}
        self.rows = missing | dict(rows)
        highest = {i: max(row.epoch, self._epochs.get(i, 0)) for i, row in self.rows.items()}
        self._epochs = {i: self._epochs.get(i, 0) for i in (*self._old, *self._finished)} | highest

    def note(self, row: LeaseRow) -> None:
        """One row as it is known to be since the last complete reading."""
        shard_id = row.shard_id
        self.rows[shard_id] = row
        self._missing.pop(shard_id, None)
        self._old.pop(shard_id, None)
        self._finished.pop(shard_id, None)
        self._epochs[shard_id] = max(row.epoch, self.highest(shard_id))

    def remember(self, row: LeaseRow) -> None:
        """What an owner knew at its end. Counts only if its row turns out to be deleted, and then at once."""
        shard_id, row = row.shard_id, replace(row, owner=None)
        old = self._old.get(shard_id)
        if old is not None and row.epoch >= old.row.epoch:
            old.row = row
        known = self.rows.get(shard_id)
        if known is not None and not known.finished and row.epoch >= known.epoch:
            self.rows[shard_id] = row

    def named(self, shard_ids: Iterable[str], asked_at: float) -> None:
        """The service has named these shards, asked at ``asked_at``: even an old memory of one is worth more than none,
        unless its children say that it was settled."""
        for shard_id in shard_ids:
            old = self._old.get(shard_id)
            if old is None or asked_at < old.since:
                continue
            del self._old[shard_id]
            if shard_id not in settled_before(self.rows.values()):
                self.rows[shard_id], self._missing[shard_id] = old.row, old.since

    def listed(self, shard_ids: Collection[str], asked_at: float, patience: Callable[[str], float]) -> list[LeaseRow]:
        """The service has named all its shards. What it leaves out for its ``patience`` (seconds) is forgotten, and
        returned: it has left the stream, so others have finished it, or its records cannot be read any more."""
        self.named(shard_ids, asked_at)
        forgotten = []
        for shard_id, old in list(self._old.items()):
            if asked_at < old.since:
                continue
            if old.unlisted_since is None or shard_id in shard_ids:
                old.unlisted_since = asked_at
            if asked_at - old.unlisted_since >= patience(shard_id):
                forgotten.append(self._old.pop(shard_id).row)
        return forgotten

    def is_missing(self, shard_id: str) -> bool:
        """Whether the row is known and missing: it is not new."""
        return shard_id in self._missing or shard_id in self._old

    def was_finished(self, shard_id: str) -> bool:
        """Whether the row is missing and the shard was finished: its records need not be read again."""
        return shard_id in self._finished

    @property
    def has_old(self) -> bool:
        """Whether there are old memories of missing rows: a listing of the shards decides about them."""
        return bool(self._old)

    def due(self, now: float) -> list[LeaseRow]:
        """The deleted rows to put back now: each when its last owner, who may know more, has had its turn. None while
        this worker has not looked for so long that others may have been there."""
        if self.has_slept or now - self._looked_at > MAX_AGE * self._duration:
            return []
        return [self.rows[i] for i, since in self._missing.items() if now - since >= self._owners_turn(self.rows[i])]

    def _owners_turn(self, row: LeaseRow) -> float:
        """Seconds."""
        return 0.0 if row.owner is None else OWNERS_TURN * (duration_of(row.owner) or self._duration)

    def is_behind(self, row: LeaseRow) -> bool:
        """Whether this worker has seen a higher epoch of the shard than ``row`` has: the row was made anew, or the
        table came back from a backup. Nobody may go on with such an epoch: there were later owners."""
        return row.epoch < self.highest(row.shard_id) and not (row.finished or row.corrupt)

    def highest(self, shard_id: str) -> int:
        """The highest epoch of the shard that this worker has seen."""
        return self._epochs.get(shard_id, 0)
