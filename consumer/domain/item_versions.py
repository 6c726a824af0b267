"""The newest version seen of each item, for a source that repeats changes and mixes up their order.

DynamoDB puts changes into a Kinesis stream late, more than once and out of order (DynamoDB developer guide, "Kinesis
Data Streams": "change records might appear in a different order", "might contain duplicate records"). A change that is
put again has a new number, so the books cannot know it; its creation time and event id are the same. A change that
comes after a newer one of its item is older by its creation time.

Two changes of one item may have one time (a millisecond is long). Then the images tell: the second one's old image is
the first one's new image. When they do not tell either, arrival decides.

What is judged is a record against those that were read before it, in the order of the shard. So a record that is read
again (a shard that comes back to its worker, a deferred key) is never older than what follows it: what was remembered
since has a higher number. What it was when it was read first, it is again: that is remembered, too.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final, Literal

import msgspec

from .kinesis_records import KinesisChange
from .record import UNREADABLE
from .stream_record import StreamRecord

BYTES_PER_ITEM: Final = 500  # of memory: a key, two numbers, event id, two hashes and a place in a dict, measured

Verdict = Literal["new", "tie", "double", "older"]


class _Version(msgspec.Struct, gc=False, frozen=True):
    """``micros`` since 1970; ``exact`` when the last three digits are. ``old`` and ``new`` are digests of the images,
    empty where there was no item, None where an image is missing or cannot be read: that proves nothing."""

    number: int
    micros: int
    exact: bool
    event_id: str
    old: bytes | None
    new: bytes | None

    def compared(self, known: _Version) -> Verdict:
        """This one, which was read later, against the newest known."""
        if self.event_id and self.event_id == known.event_id and self.micros == known.micros:
            return "double"
        if self.exact and known.exact:
            mine, its = self.micros, known.micros
        else:  # one of them is cut off to its millisecond
            mine, its = self.micros // 1000, known.micros // 1000
        if mine != its:
            return "new" if mine > its else "older"
        if _same(self.old, known.new) and not _may_be_same(self.new, known.old):
            return "new"
        if _same(self.new, known.old) and not _may_be_same(self.old, known.new):
            return "older"
        return "tie"


class ItemVersions:
    """Remembers at most ``most`` items, those that changed last, and as many changes that came too late. Not
    thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._newest: dict[bytes, _Version] = {}
        self._too_late: dict[tuple[bytes, int], Verdict] = {}

    def resize(self, most: int) -> None:
        """Remember ``most`` items from now on; what is remembered beyond that is forgotten, oldest first."""
        self._most = max(1, most)
        for item in list(self._newest)[: -self._most]:
            del self._newest[item]
        for change in list(self._too_late)[: -self._most]:
            del self._too_late[change]

    def __len__(self) -> int:
        return len(self._newest)

    def judge(self, record: StreamRecord, item: bytes) -> Verdict:
        """``double``: this change was read before. ``older``: a newer one of its item was. ``tie``: nothing tells which
        of two is newer, so the later one counts as newer. ``new``: everything else, also what is no change.

        Remembers the record when it is the newest of its ``item`` (its ordering key; none is no item)."""
        if not item or not isinstance(record, KinesisChange) or record.created <= 0:
            return "new"
        if len(item) > _LONGEST_KEY:
            item = hashlib.blake2b(item, digest_size=_LONGEST_KEY).digest()
        version = _version(record)
        known = self._newest.get(item)
        if known is None:
            self._newest[item] = version
            if len(self._newest) > self._most:
                del self._newest[next(iter(self._newest))]
            return "new"
        if version.number <= known.number:  # read again
            return self._too_late.get((item, version.number), "new")
        verdict = version.compared(known)
        if verdict in ("new", "tie"):
            del self._newest[item]  # to the end: what changed last is forgotten last
            self._newest[item] = version
        else:
            self._too_late[item, version.number] = verdict
            if len(self._too_late) > self._most:
                del self._too_late[next(iter(self._too_late))]
        return verdict


def _version(record: KinesisChange) -> _Version:
    change = record.dynamodb
    return _Version(
        int(record.number),
        round(change.ApproximateCreationDateTime * 1_000_000),
        record.in_micros,
        record.event_id,
        _digest(change.OldImage, no_item=record.event_name == "INSERT"),
        _digest(change.NewImage, no_item=record.event_name == "REMOVE"),
    )


def _digest(image: msgspec.Raw, *, no_item: bool) -> bytes | None:
    """Of an image as DynamoDB wrote it, and behind it size and sum of its bytes, which the order of attributes does not
    change. ``no_item``: the kind of change is one that has no such image."""
    text = memoryview(image)
    if not text.nbytes or (text.nbytes == 4 and bytes(text) == b"null"):
        return b"" if no_item else None
    if text == _UNREADABLE:
        return None
    of_any_order = (text.nbytes << 16) | (zlib.adler32(text) & 0xFFFF)  # its low half is the sum of the bytes
    return hashlib.blake2b(text, digest_size=_EXACT).digest() + of_any_order.to_bytes(6, "big")


def _same(one: bytes | None, other: bytes | None) -> bool:
    return one is not None and one == other


def _may_be_same(one: bytes | None, other: bytes | None) -> bool:
    """Also in another order of attributes, which proves nothing but must not be taken for a difference."""
    return one is None or other is None or one[_EXACT:] == other[_EXACT:]


_EXACT: Final = 8  # bytes of a digest
_LONGEST_KEY: Final = 64  # bytes; keys of DynamoDB have up to 3 KB, and many items are remembered
_UNREADABLE: Final = memoryview(UNREADABLE)
