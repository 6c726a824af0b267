"""KPL aggregates, written as the format's document says; whatever a test wants to be wrong can be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

MAGIC = b"\xf3\x89\x9a\xc2"


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def counted(field: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def record(key: int, data: bytes, hash_key: int | None = None, more: bytes = b"") -> bytes:
    """One ``Record``, as a field of the message."""
    explicit = b"" if hash_key is None else number(2, hash_key)
    return counted(3, number(1, key) + explicit + counted(3, data) + more)


def signed(message: bytes) -> bytes:
    """The data of a Kinesis record that holds this message."""
    return MAGIC + message + hashlib.md5(message).digest()


def aggregate(records: Iterable[tuple[str, int | None, bytes]]) -> bytes:
    """As the KPL packs (partition key, explicit hash key, data): keys once each, in front."""
    keys: dict[str, int] = {}
    hash_keys: dict[int, int] = {}
    packed = b""
    for key, hash_key, data in records:
        place = keys.setdefault(key, len(keys))
        explicit = None if hash_key is None else hash_keys.setdefault(hash_key, len(hash_keys))
        packed += record(place, data, explicit)
    return signed(table(keys, hash_keys) + packed)


def table(keys: Iterable[str], hash_keys: Iterable[int] = ()) -> bytes:
    return b"".join(counted(1, key.encode()) for key in keys) + b"".join(
        counted(2, str(key).encode()) for key in hash_keys
    )


def plain(datas: Sequence[bytes], key: str = "k") -> bytes:
    """Records of one key."""
    return aggregate([(key, None, data) for data in datas])
