"""The newest version seen of each item, for a source that repeats changes and mixes up their order.

DynamoDB puts changes into a Kinesis stream late, more than once and out of order (DynamoDB developer guide, "Kinesis
Data Streams": "change records might appear in a different order", "might contain duplicate records"). A change that is
put again has a new number, so the books cannot know it; its creation time and event id are the same. A change that
comes after a newer one of its item is older by its creation time.

Two changes of one item may have one time (a millisecond is long). Then the images tell: the second one's old image is
the first one's new image. When they do not tell either, arrival decides.

What is judged is a record against those that were read before it, in the order of the shard. So a record that is read
again (a restart, a deferred key) is never older than what follows it: what was remembered since has a higher number.
"""

from __future__ import annotations

import hashlib
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
        follows = self.old is not None and self.old == known.new
        precedes = self.new is not None and self.new == known.old
        if follows == precedes:
            return "tie"
        return "new" if follows else "older"


class ItemVersions:
    """Remembers at most ``most`` items, those that changed last. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._newest: dict[bytes, _Version] = {}

    def __len__(self) -> int:
        return len(self._newest)

    def judge(self, record: StreamRecord, item: bytes) -> Verdict:
        """``double``: this change was read before. ``older``: a newer one of its item was. ``tie``: nothing tells which
        of two is newer, so the later one counts as newer. ``new``: everything else, also what is no change.

        Remembers the record when it is the newest of its ``item`` (its ordering key; none is no item)."""
        if not item or not isinstance(record, KinesisChange) or record.created <= 0:
            return "new"
        version = _version(record)
        known = self._newest.get(item)
        if known is None:
            self._newest[item] = version
            if len(self._newest) > self._most:
                del self._newest[next(iter(self._newest))]
            return "new"
        if version.number <= known.number:  # read again
            return "new"
        verdict = version.compared(known)
        if verdict in ("new", "tie"):
            del self._newest[item]  # to the end: what changed last is forgotten last
            self._newest[item] = version
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
    """As DynamoDB wrote it: the same image in another order of attributes is no proof, and then nothing tells.
    ``no_item``: the kind of change is one that has no such image."""
    text = memoryview(image)
    if not text.nbytes or (text.nbytes == 4 and bytes(text) == b"null"):
        return b"" if no_item else None
    return None if text == _UNREADABLE else hashlib.blake2b(text, digest_size=8).digest()


_UNREADABLE: Final = memoryview(UNREADABLE)
