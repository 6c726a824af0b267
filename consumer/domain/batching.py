"""Key-ready batching: a batch takes the oldest records of keys that are in no other batch.

Fixed lanes (hash of the key) collide and cost half the speed-up; a task per record costs several microseconds. Here
a record is moved at most twice: from ``_arrived`` into a batch, or into the waiting line of its busy key. When a key
gets free its whole line becomes the front of the queue again, as one block: a hot key costs O(1) a record, too.

Order per key holds because every record enters through ``_arrived`` in stream order, a line is only appended to while
``_arrived`` is read, and returned lines are used up before ``_arrived`` is read on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from consumer.domain.record import Record


class PageHold:
    """Counts the records that still pin a page's memory. ``release`` is called once when the last one lets go."""

    __slots__ = ("_release", "detached", "left")

    def __init__(self, left: int, release: Callable[[], None], *, detached: bool = False) -> None:
        self.left = left
        self.detached = detached  # a hold of one copied record, not of a page
        self._release = release

    def let_go(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._release()


class Entry:
    """A tracked record: its position in the frontier's bookkeeping, its ordering key, and the page that it pins."""

    __slots__ = ("hold", "key", "position", "record")

    def __init__(self, position: int, key: bytes, record: Record, hold: PageHold) -> None:
        self.position = position
        self.key = key
        self.record = record
        self.hold = hold


class KeyReadyQueue:
    """Records of one shard waiting for a batch. Not thread-safe; O(1) a record amortised.

    ``on_line`` is called for every record that has to wait behind a busy key.
    """

    def __init__(self, on_line: Callable[[Entry], None]) -> None:
        self._on_line = on_line
        self._arrived: deque[Entry] = deque()
        self._returned: deque[deque[Entry]] = deque()
        self._busy: dict[bytes, deque[Entry] | None] = {}  # key in a batch -> its waiting line (None: nobody waits)
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def busy_keys(self) -> int:
        return len(self._busy)

    @property
    def may_have_ready(self) -> bool:
        """False only when no batch can be formed until a key gets free."""
        return bool(self._returned or self._arrived)

    def add(self, entries: Iterable[Entry]) -> None:
        before = len(self._arrived)
        self._arrived.extend(entries)
        self._waiting += len(self._arrived) - before

    def take(self, limit: int) -> list[Entry]:
        """Up to ``limit`` records for one batch, in stream order; their keys are busy until ``free``. [] when none."""
        batch: list[Entry] = []
        own: set[bytes] = set()
        self._take_returned(limit, batch, own)
        busy, arrived = self._busy, self._arrived
        while arrived and len(batch) < limit:
            entry = arrived.popleft()
            key = entry.key
            if key not in busy:
                busy[key] = None
                own.add(key)
                batch.append(entry)
                continue
            line = busy[key]
            if key in own and not line:
                batch.append(entry)
                continue
            if line is None:
                busy[key] = deque((entry,))
            else:
                line.append(entry)
            self._on_line(entry)
        self._waiting -= len(batch)
        batch.sort(key=_by_position)
        return batch

    def _take_returned(self, limit: int, batch: list[Entry], own: set[bytes]) -> None:
        while self._returned and len(batch) < limit:
            line = self._returned.popleft()
            key = line[0].key
            while line and len(batch) < limit:
                batch.append(line.popleft())
            own.add(key)
            self._busy[key] = line or None

    def free(self, keys: Iterable[bytes]) -> None:
        """The batch that held these keys is settled; their waiting lines go to the front."""
        for key in keys:
            line = self._busy.pop(key)
            if line:
                self._returned.append(line)

    def waiting_behind(self, keys: Iterable[bytes]) -> Iterable[Entry]:
        """Records that wait for these busy keys (to copy them out of their pages while the keys are retried)."""
        for key in keys:
            yield from self._busy.get(key) or ()


def _by_position(entry: Entry) -> int:
    return entry.position
