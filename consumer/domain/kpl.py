"""Records that the Kinesis Producer Library has packed into one, taken apart.

Source of the format: "KPL Aggregated Record Format" (amazon-kinesis-producer, aggregation-format.md). Four bytes of
magic, a protobuf message, the MD5 of the message:

    AggregatedRecord { repeated string partition_key_table = 1; repeated string explicit_hash_key_table = 2;
                       repeated Record records = 3; }
    Record           { required uint64 partition_key_index = 1; optional uint64 explicit_hash_key_index = 2;
                       required bytes data = 3; repeated Tag tags = 4; }

Anybody may have written the bytes, so all of it is checked, in a time that grows with their number and no faster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

MAGIC: Final = b"\xf3\x89\x9a\xc2"
_MD5: Final = 16  # bytes
_HASH_KEYS: Final = 1 << 128
_LONGEST_HASH_KEY: Final = len(str(_HASH_KEYS))
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5  # wire types of protobuf; groups (3, 4) are not used
_FIXED: Final = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


class BadAggregate(ValueError):
    """A valid message that points to a key which is not there. The whole record has to be shown as it is: its producer
    is at fault, and to drop what is in it would be loss."""


class SubRecord(msgspec.Struct, gc=False, frozen=True):
    """One of the records inside. ``explicit_hash_key``: where its producer wanted it instead of the hash of its key."""

    partition_key: str
    explicit_hash_key: int | None
    data: bytes

    def is_foreign(self, hash_range: tuple[int, int]) -> bool:
        """Whether it belongs into a shard with other hash keys than these (first and last).

        The KCL drops all of an aggregate that has one, because the KPL sends it again after a split. Other producers do
        not, so nothing is dropped here.
        """
        first, last = hash_range
        return not first <= self.hash_key <= last

    @property
    def hash_key(self) -> int:
        """By which Kinesis would have chosen the shard (PutRecord: the MD5 of the partition key, as 128 bits)."""
        if self.explicit_hash_key is not None:
            return self.explicit_hash_key
        return int.from_bytes(hashlib.md5(self.partition_key.encode(), usedforsecurity=False).digest(), "big")


class _Unparsable(Exception):
    """No message of protobuf."""


def sub_records(data: bytes) -> list[SubRecord] | None:
    """What is packed into the data of one Kinesis record, in order. None when nothing is: other magic, too short, an
    MD5 of something else, no such message (as in the KCL's AggregatorUtil).

    Raises:
        BadAggregate: a key is missing or cannot be one.
    """
    if data[: len(MAGIC)] != MAGIC or len(data) < len(MAGIC) + _MD5:
        return None
    message = data[len(MAGIC) : -_MD5]
    if hashlib.md5(message, usedforsecurity=False).digest() != data[-_MD5:]:
        return None
    keys: list[str] = []
    hash_keys: list[bytes] = []
    found: list[tuple[int, int | None, bytes]] = []
    try:
        for number, value in _fields(message, 0, len(message)):
            if isinstance(value, int):
                continue
            if number == 1:
                keys.append(message[value].decode("utf-8", "replace"))
            elif number == 2:
                hash_keys.append(message[value])
            elif number == 3:
                found.append(_record(message, value))
    except _Unparsable:
        return None
    ranges = [_hash_key(text) for text in hash_keys]
    return [_resolved(place, record, keys, ranges) for place, record in enumerate(found)]


def _record(message: bytes, where: slice) -> tuple[int, int | None, bytes]:
    key = hash_key = data = None
    for number, value in _fields(message, where.start, where.stop):
        if isinstance(value, int):
            if number == 1:
                key = value
            elif number == 2:
                hash_key = value
        elif number == 3:
            data = message[value]
    if key is None or data is None:
        raise _Unparsable
    return key, hash_key, data


def _resolved(
    place: int, record: tuple[int, int | None, bytes], keys: list[str], hash_keys: list[int | None]
) -> SubRecord:
    key, hash_key, data = record
    if key >= len(keys):
        raise BadAggregate(f"sub-record {place} has the partition key {key} of {len(keys)}")
    if hash_key is None:
        return SubRecord(keys[key], None, data)
    if hash_key >= len(hash_keys):
        raise BadAggregate(f"sub-record {place} has the explicit hash key {hash_key} of {len(hash_keys)}")
    explicit = hash_keys[hash_key]
    if explicit is None:
        raise BadAggregate(f"sub-record {place} has an explicit hash key that is no number of 128 bits")
    return SubRecord(keys[key], explicit, data)


def _hash_key(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > _LONGEST_HASH_KEY:  # bytes: ASCII digits only
        return None
    number = int(text)
    return number if number < _HASH_KEYS else None


def _fields(message: bytes, at: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """The fields of a message: their numbers and values, of counted ones where they are. What nobody asks for is
    skipped, as protobuf wants it."""
    while at < end:
        tag, at = _varint(message, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise _Unparsable
        if kind == _VARINT:
            value, at = _varint(message, at, end)
            yield number, value
            continue
        if kind == _COUNTED:
            size, at = _varint(message, at, end)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise _Unparsable
        if size > end - at:
            raise _Unparsable
        if kind == _COUNTED:
            yield number, slice(at, at + size)
        at += size


def _varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven a byte, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise _Unparsable
