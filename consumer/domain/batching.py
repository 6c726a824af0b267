"""Key-ready batching: a batch takes the oldest records of keys that are in no other batch.

Fixed lanes (hash of the key) collide and cost half the speed-up; a task per record costs several microseconds. Here
a record is moved at most twice: from ``_arrived`` into a batch, or into the waiting line of its busy key. When a key
gets free its whole line becomes the front of the queue again, as one block: a hot key costs O(1) a record, too.

What waits behind a failing key is bounded: beyond that the key *overflows*, and its waiting records are taken out again
(``domain/deferred.py``), so that one key can fill neither the memory of the process nor that of its shard.

Order per key holds because every record enters through ``_arrived`` in stream order, a line is only appended to while
``_arrived`` is read, and returned lines are used up before ``_arrived`` is read on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from .stream_record import StreamRecord


@dataclass(frozen=True, slots=True)
class KeyBounds:
    """How much of failing keys a shard holds in memory.

    ``line_records`` and ``line_bytes`` may wait behind one key: a retry or two of a busy key fit into that, and reading
    again costs a call a page. ``failing_keys`` are held at a time; ``deferred_keys`` stand in every checkpoint, at 60
    bytes each. ``blocked_keys`` of a shard wait in place. ``parked_keys`` of the application and ``parked_letters`` of
    one key in one shard are the most there may be: beyond that a shard pauses.
    """

    line_records: int = 1000
    line_bytes: int = 256 * 1024
    failing_keys: int = 256
    deferred_keys: int = 512
    blocked_keys: int = 100
    parked_keys: int = 10_000
    parked_letters: int = 100_000


BOUNDS = KeyBounds()


class MemoryAccount(Protocol):
    """Counts bytes that records hold."""

    def charge(self, size: int) -> None:
        """Count ``size`` bytes more, without waiting for room."""

    def release(self, size: int) -> None:
        """Count ``size`` bytes less."""


class PageHold:
    """Counts the records that still pin a page's memory; its ``charged`` bytes are released with the last one.

    ``event_bytes`` is no less than the size of the Lambda event of all its records together.
    """

    __slots__ = ("account", "charged", "event_bytes", "left")

    def __init__(self, account: MemoryAccount, charged: int, *, left: int, event_bytes: int) -> None:
        self.account = account
        self.charged = charged
        self.left = left
        self.event_bytes = event_bytes

    def release(self, count: int = 1) -> None:
        """``count`` records less pin the page."""
        self.left -= count
        if self.left == 0:
            self.account.release(self.charged)


class _CopyHold(PageHold):
    """The memory of one record that was copied out of its page."""

    __slots__ = ()


class Entry(msgspec.Struct, gc=False):
    """A tracked record: its position in the frontier's bookkeeping, its ordering key, and the page that it pins.

    ``position`` is negative for a record of a deferred key that was read again: the books do not track it.

    A struct because there is one for every record: it is made in a third of the time of a class of ours, and the
    garbage collector need not look at it (it is part of no cycle).
    """

    position: int
    key: bytes
    record: StreamRecord
    hold: PageHold

    def copy_out(self) -> int:
        """Copy the record out of its page: a slice keeps the whole page in memory, and this one may stay for long.
        Returns the bytes that the copy takes."""
        page = self.hold
        if not isinstance(page, _CopyHold):
            size = self.record.detach()
            page.account.charge(size)
            page.release()
            self.hold = _CopyHold(page.account, size, left=1, event_bytes=self.record.event_size)
        return self.hold.charged


class Batch:
    """Records that go to the handler together, in stream order, and the keys that they keep busy (a dict for its
    order: what becomes ready when they get free must not depend on hashes)."""

    __slots__ = ("entries", "keys")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.keys: dict[bytes, None] = {}


class _Line(msgspec.Struct):
    """What waits behind a failing key: how many records, and their bytes."""

    records: int = 0
    size: int = 0


class KeyReadyQueue:
    """Records of one shard waiting for a batch. Not thread-safe; O(1) a record amortised.

    What waits behind a failing key may wait for long, so it is copied out of its page. ``max_waiting`` bounds the bytes
    behind all failing keys together: beyond it the longest line overflows.
    """

    def __init__(self, max_waiting: int = 1 << 62, bounds: KeyBounds = BOUNDS) -> None:
        self._arrived: deque[Entry] = deque()
        self._returned: deque[deque[Entry]] = deque()
        self._busy: dict[bytes, deque[Entry] | None] = {}  # key in a batch -> its waiting line (None: no record waits)
        self._failing: dict[bytes, _Line] = {}  # those of them that wait for another attempt, or for their dead letter
        self._full: dict[bytes, None] = {}  # those of them with too much behind them
        self.max_waiting = max_waiting
        self._bounds = bounds
        self._waiting_bytes = 0
        self._waiting = 0
        self._read_again = False  # records of deferred keys come later than newer ones of other keys

    def __len__(self) -> int:
        return self._waiting

    @property
    def failing_keys(self) -> int:
        """Keys that wait for another attempt, or for their dead letter."""
        return len(self._failing)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what waits behind failing keys."""
        return self._waiting_bytes

    @property
    def may_have_ready(self) -> bool:
        """False only when no batch can be formed until a key gets free."""
        return bool(self._returned or self._arrived)

    def add(self, entries: Iterable[Entry]) -> None:
        before = len(self._arrived)
        self._arrived.extend(entries)
        self._waiting += len(self._arrived) - before

    def add_read_again(self, entries: Iterable[Entry]) -> None:
        """Records of deferred keys, of which nothing newer is in the queue."""
        self._read_again = True
        self.add(entries)

    def fill(self, batch: Batch, limit: int, max_bytes: int) -> bool:
        """Move ready records into ``batch``, whose keys are busy until ``free``. A batch that was not full may be
        filled up later, if no other was filled since.

        True when the batch is full: ``limit`` records, or one more would take its event beyond ``max_bytes`` (a record
        that is larger than that by itself goes alone). False when everything that is ready is in it.
        """
        entries, own = batch.entries, batch.keys
        before = len(entries)
        returned = bool(self._returned) and self._fill_from_returned(batch, limit)
        busy, failing, arrived = self._busy, self._failing, self._arrived
        while arrived and len(entries) < limit:
            for _ in range(min(limit - len(entries), len(arrived))):
                entry = arrived.popleft()
                key = entry.key
                if key not in busy:
                    busy[key] = None
                    own[key] = None
                    entries.append(entry)
                    continue
                line = busy[key]
                if key in own and not line:
                    entries.append(entry)
                    continue
                if line is None:
                    busy[key] = deque((entry,))
                else:
                    line.append(entry)
                if key in failing:
                    self._wait_behind(key, entry)
        self._waiting -= len(entries) - before
        if self._read_again:
            entries.sort(key=_by_number)
        elif returned:
            entries.sort(key=_by_position)
        return (len(entries) > 1 and self._shorten(batch, max_bytes)) or len(entries) >= limit

    def _fill_from_returned(self, batch: Batch, limit: int) -> bool:
        entries = batch.entries
        before = len(entries)
        while self._returned and len(entries) < limit:
            line = self._returned.popleft()
            key = line[0].key
            while line and len(entries) < limit:
                entries.append(line.popleft())
            batch.keys[key] = None
            self._busy[key] = line or None
        return len(entries) > before

    def _shorten(self, batch: Batch, max_bytes: int) -> bool:
        """Put back what does not fit. Records are only measured when their pages together could be too large."""
        entries = batch.entries
        bound, hold = 0, None
        for entry in entries:
            if entry.hold is not hold:
                hold = entry.hold
                bound += hold.event_bytes
        if bound <= max_bytes:
            return False
        size = 0
        for count, entry in enumerate(entries):
            size += entry.record.event_size
            if size > max_bytes and count:
                self._put_back(batch, count)
                return True
        return False

    def _put_back(self, batch: Batch, count: int) -> None:
        """All but the first ``count`` records wait again, before whatever waits for their keys."""
        tail = batch.entries[count:]
        del batch.entries[count:]
        self._waiting += len(tail)
        kept = dict.fromkeys(entry.key for entry in batch.entries)
        lines: dict[bytes, deque[Entry]] = {}
        for entry in tail:
            lines.setdefault(entry.key, deque()).append(entry)
        ready = []
        for key, line in lines.items():
            line.extend(self._busy.pop(key) or ())
            if key in kept:
                self._busy[key] = line
            else:
                ready.append(line)
        self._returned.extendleft(reversed(ready))
        batch.keys = kept

    def free(self, keys: Iterable[bytes]) -> None:
        """The batch that held these keys is settled; their waiting lines go to the front."""
        for key in keys:
            line = self._busy.pop(key)
            if line:
                self._returned.append(line)

    # --- failing keys --------------------------------------------------------------------------------

    def fail(self, keys: Iterable[bytes]) -> None:
        """The batch that holds these keys waits for another attempt, or for its dead letter."""
        for key in keys:
            if key not in self._failing:
                self._failing[key] = _Line()
                for entry in self._busy.get(key) or ():
                    self._wait_behind(key, entry)

    def end_failing(self, keys: Iterable[bytes]) -> None:
        """These keys are tried again, or are settled."""
        for key in keys:
            line = self._failing.pop(key, None)
            if line is not None:
                self._waiting_bytes -= line.size
                self._full.pop(key, None)

    @property
    def overflows(self) -> bool:
        """Whether ``overflowing`` has any keys."""
        return bool(self._full) or self._waiting_bytes > self.max_waiting

    def overflowing(self) -> list[bytes]:
        """Failing keys behind which more waits than may be held."""
        if not self._full and self.overflows:
            return [max(self._failing, key=lambda key: self._failing[key].size)]
        return list(self._full)

    def take_out(self, keys: Collection[bytes]) -> dict[bytes, list[Entry]]:
        """Everything that waits for the busy ``keys`` is in the queue no longer; returns it by key."""
        taken = {key: list(self._busy[key] or ()) for key in keys}
        others: list[Entry] = []
        for entry in self._arrived:
            taken.get(entry.key, others).append(entry)
        self._arrived = deque(others)
        for key, entries in taken.items():
            self._busy[key] = None
            self._waiting -= len(entries)
            if key in self._failing:
                self._waiting_bytes -= self._failing[key].size
                self._failing[key] = _Line()
                self._full.pop(key, None)
        return taken

    def _wait_behind(self, key: bytes, entry: Entry) -> None:
        line, size = self._failing[key], entry.copy_out()
        line.records += 1
        line.size += size
        self._waiting_bytes += size
        if line.records > self._bounds.line_records or line.size > self._bounds.line_bytes:
            self._full[key] = None


def _by_number(entry: Entry) -> int:
    """As text a longer number may come before a shorter one."""
    return int(entry.record.number)


def _by_position(entry: Entry) -> int:
    return entry.position
