"""Deferred keys: what waits behind a failing key leaves memory, and is read again when the key gets through.

A key is *deferred* from a number on: none of its records from there on is settled, and the books of the shard
(``domain/frontier.py``) do not track them, so ``low`` passes them and their payloads are let go. The entry is their
only trace until a second iterator has read them again, in order: the key *catches up*. Once that reader meets the main
one, new records of the key are tracked in the books as usual and wait in memory behind those caught up; the entry goes
when the last of those is settled. A restart forgets that the two have met, which is safe: nothing beyond the meeting
was settled while something before it was not. ``docs/architecture.md`` has the rules, and which search proves them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

BEGINNING = "0"  # a number below every SequenceNumber: from the first record of the shard on
BYTES_PER_KEY = 600  # of memory that an entry takes, measured


def digest_of(key: bytes) -> str:
    """How an ordering key is named outside of the process: 16 characters that say nothing about the item."""
    return base64.urlsafe_b64encode(hashlib.blake2b(key, digest_size=12).digest()).decode()


@dataclass(frozen=True, slots=True)
class DeferredKey:
    """What is stored. ``number`` is the first record of the key that is not settled, or, when ``passed``, one before
    which everything of it is (itself included); BEGINNING when the key waits for a parent shard, and ``passed`` as soon
    as a record of it was read here. ``since`` is the creation time (Unix seconds) of the oldest unsettled record, or a
    little earlier; 0 when unknown."""

    digest: str
    number: str
    passed: bool = False
    since: float = 0.0

    @property
    def waits_for_parent(self) -> bool:
        """Nothing of the key was handled in this shard, and its records of the parent may still be unsettled."""
        return self.number == BEGINNING

    @property
    def has_records(self) -> bool:
        """Whether records of the key were left to the second reader. All children hold back the keys of their parents,
        and after a split all records of a key may be in one of them: in the others nothing is to be read again, or to
        be missed when it is trimmed."""
        return not self.waits_for_parent or self.passed or self.since > 0


@dataclass(slots=True)
class _Entry:
    number: str
    first: int  # the lowest number that is not settled
    since: float
    passed: bool = False
    in_memory: int = 0  # records of the key that were read and that only this entry covers
    size: int = 0  # their bytes
    met: bool = False


class DeferredKeys:
    """The deferred keys of one shard, by digest."""

    def __init__(self, stored: Iterable[DeferredKey] = (), most: int = 512) -> None:
        """``most`` keys can be deferred."""
        self._most = most
        self._entries = {
            one.digest: _Entry(one.number, int(one.number) + one.passed, one.since, one.passed) for one in stored
        }
        self.version = 0  # grows whenever ``snapshot`` changes
        self.in_pass: dict[str, None] = {}  # keys whose records the second reader hands on now, without a gap

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    @property
    def room(self) -> int:
        """How many further keys can be deferred."""
        return max(0, self._most - len(self._entries))

    @property
    def size(self) -> int:
        """Bytes of memory that the entries take."""
        return len(self._entries) * BYTES_PER_KEY

    @property
    def in_memory(self) -> int:
        """Records of deferred keys that were read and wait to be settled."""
        if not self._entries:  # as usual: every shard is asked every second
            return 0
        return sum(entry.in_memory for entry in self._entries.values())

    def oldest(self) -> float:
        """Creation time (Unix seconds) of the oldest record behind a deferred key; 0 when there is none or unknown."""
        if not self._entries:
            return 0.0
        return min((entry.since for entry in self._entries.values() if entry.since), default=0.0)

    def snapshot(self) -> tuple[DeferredKey, ...]:
        """What is to be stored."""
        return tuple(DeferredKey(name, one.number, one.passed, one.since) for name, one in self._entries.items())

    # --- a key is deferred -------------------------------------------------------------------------------

    def defer(self, digest: str, number: str, since: float, in_memory: int, size: int = 0) -> None:
        """From ``number`` on, which is the first unsettled record of the key, nothing is tracked in the books any more.
        ``in_memory`` of these records, of ``size`` bytes and without a gap between them, are still held. A key that was
        caught up in part keeps the number from which it was deferred."""
        entry = self._entries.get(digest)
        if entry is None:
            self._entries[digest] = _Entry(number, int(number), since, in_memory=in_memory, size=size)
        else:
            entry.in_memory, entry.size, entry.met = in_memory, size, False
            self.in_pass.pop(digest, None)  # what it reads next does not follow what is held
        self.version += 1

    def has_met(self, digest: str) -> bool:
        """Whether new records of the key are tracked in the books."""
        return self._entries[digest].met

    def drops(self, digest: str, number: int, created: float = 0.0) -> bool:
        """Whether the main reader leaves this record, which was ``created`` then, to the second one."""
        entry = self._entries.get(digest)
        if entry is None or entry.met or number < entry.first:
            return False
        entry.since = entry.since or created
        if entry.number == BEGINNING and not entry.passed:
            entry.passed = True
            self.version += 1
        return True

    # --- it catches up -----------------------------------------------------------------------------------

    def ready(self, is_blocked: Callable[[DeferredKey], bool]) -> list[DeferredKey]:
        """The keys whose records may be read again: nothing of them is in memory. ``is_blocked`` by a parent."""
        return [
            key
            for key in self.snapshot()
            if not (entry := self._entries[key.digest]).in_memory and not entry.met and not is_blocked(key)
        ]

    def is_wanted(self, digest: str, number: int) -> bool:
        """Whether the second reader has to hand on a record of the key with this number."""
        return digest in self.in_pass and number >= self._entries[digest].first

    def takes(self, digest: str, size: int) -> None:
        """The second reader hands on the next unsettled record of the key, of ``size`` bytes."""
        entry = self._entries[digest]
        entry.in_memory += 1
        entry.size += size

    def is_full_of(self, digest: str, records: int, size: int) -> bool:
        """Whether as many records of the key are held as may be, or as many bytes."""
        entry = self._entries[digest]
        return entry.in_memory >= records or entry.size >= size

    def settled(self, digest: str, number: str, created: float, size: int = 0) -> None:
        """The oldest record of the key that is held is settled; ``created`` in Unix seconds."""
        entry = self._entries[digest]
        entry.size -= size
        entry.number, entry.first, entry.passed = number, int(number) + 1, True
        entry.since = max(entry.since, created)
        entry.in_memory -= 1
        self._end_if_through(digest, entry)
        self.version += 1

    def met(self, digest: str) -> None:
        """Both readers have come to the same place: what the main one reads from now on is tracked in the books."""
        entry = self._entries[digest]
        entry.met = True
        self.in_pass.pop(digest, None)
        self._end_if_through(digest, entry)

    def forget_age(self) -> None:
        """What was trimmed of the keys in the pass is no lag any more; how old the rest is shows when it is read."""
        for digest in self.in_pass:
            self._entries[digest].since = 0.0
        self.version += 1

    def lost(self, digest: str, number: str, created: float) -> None:
        """Records of the key below ``number`` were trimmed, and their loss is durable."""
        entry = self._entries[digest]
        if int(number) > entry.first:
            entry.number, entry.first, entry.passed = number, int(number), False
            entry.since = max(entry.since, created)
            self.version += 1

    def _end_if_through(self, digest: str, entry: _Entry) -> None:
        if entry.met and not entry.in_memory:
            del self._entries[digest]
            self.version += 1


def blocked_by_parents(key: DeferredKey, parents: Iterable[tuple[str, ...] | None]) -> bool:
    """Whether a key that waits for its parents must go on to wait: one of them still lists it. ``parents`` are the
    deferred keys of each parent that is not settled; None for one that has not come to its end."""
    return any(listed is None or key.digest in listed for listed in parents)
