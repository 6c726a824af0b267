"""Many virtual shards over the one real shard that local servers have.

A virtual shard is a hash range of the partition key and a window (start, end] of sequence numbers. Records and numbers
are the server's own. A shard is closed at the tail that the real shard has at that moment, so nothing written later can
belong to it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, field
from typing import Any

HASHES = 1 << 32


@dataclass
class VirtualShard:
    """Sequence numbers are the server's text, because servers refuse the same number spelled differently."""

    shard_id: str
    parent: str | None
    low: int
    high: int
    start: str | None  # exclusive; None is the beginning of the stream
    visible_at: float
    end: str | None = None  # inclusive
    trimmed: str | None = None  # the newest number that is gone
    gone: bool = False
    empty_pages: int = 0

    @property
    def begin(self) -> str | None:
        """The number before the oldest record that is kept."""
        bounds = [bound for bound in (self.start, self.trimmed) if bound is not None]
        return max(bounds, key=int, default=None)

    def owns(self, place: int, number: int) -> bool:
        if not self.low <= place < self.high:
            return False
        return number > int(self.begin or -1) and (self.end is None or number <= int(self.end))

    def is_trimmed(self, number: int) -> bool:
        return self.trimmed is not None and number <= int(self.trimmed)

    def described(self) -> dict[str, Any]:
        first = int(self.start or 0) + 1
        numbers = {"StartingSequenceNumber": number_text(first)}
        if self.end is not None:
            numbers["EndingSequenceNumber"] = number_text(max(int(self.end), first))
        shard: dict[str, Any] = {"ShardId": self.shard_id, "SequenceNumberRange": numbers}
        if self.parent is not None:
            shard["ParentShardId"] = self.parent
        return shard


@dataclass
class VirtualStream:
    """The virtual shards of one real stream, and how to ask the server for it."""

    arn: str
    partition_key: str
    real_shard: str
    headers: dict[str, str]
    shards: dict[str, VirtualShard] = field(default_factory=dict)
    tail: str | None = None  # the newest number that was seen

    def place(self, record: dict[str, Any]) -> int:
        """Where in the hash space the record's partition key lies."""
        keys = record.get("dynamodb", {}).get("Keys", {})
        key = keys.get(self.partition_key, keys)
        return int.from_bytes(hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=4).digest())

    def saw(self, numbers: list[str]) -> None:
        if numbers and int(numbers[-1]) > int(self.tail or -1):
            self.tail = numbers[-1]

    def listed(self, now: float) -> list[VirtualShard]:
        return [shard for shard in self.shards.values() if not shard.gone and shard.visible_at <= now]


_made = itertools.count(1)


def new_shard(parent: str | None, low: int, high: int, start: str | None, visible_at: float) -> VirtualShard:
    """A shard with an id that is unique in this process and looks like a real one."""
    count = next(_made)
    return VirtualShard(f"shardId-{1700000000000 + count:020d}-{count:08x}", parent, low, high, start, visible_at)


def number_text(number: int) -> str:
    return str(number).zfill(21)


@dataclass
class Cursor:
    """What a virtual iterator says: a real iterator, whose it is, and the number it stands after (-1 = unknown)."""

    shard: str
    arn: str
    real: str
    generation: int
    after: int

    def token(self) -> str:
        return base64.b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def of(cls, token: str) -> Cursor:
        """ValueError when it is not one of ours."""
        try:
            return cls(**json.loads(base64.b64decode(token, validate=True)))
        except (TypeError, ValueError) as error:
            raise ValueError("Invalid ShardIterator") from error
