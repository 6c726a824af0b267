"""Realistic change records: ten attributes of all types, both images, about 1 KB or 2 KB on the wire.

A record is cut where its time, its key and its sequence number go, so that a page is one ``join`` and costs the stub
server about a microsecond a record.
"""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from typing import Any

TEMPLATES = 1000
ENVELOPE = 440  # bytes of a record without its images
FIRST_NUMBER = 100_000_000_000_000_000_000_000  # 24 digits, as the service's numbers have
_CREATED, _KEY, _NUMBER = "@created@", "@key@", "@number@"


@dataclass(frozen=True, slots=True)
class Template:
    """The constant parts of one record, in order: part, Unix seconds, part, key, part, key, part, key, part, number,
    part."""

    parts: tuple[bytes, bytes, bytes, bytes, bytes, bytes]


def render_templates(size: int, seed: int = 1) -> list[Template]:
    """``TEMPLATES`` different records of about ``size`` bytes of JSON each."""
    rng = random.Random(seed)
    return [_cut(json.dumps(_record(rng, size), separators=(",", ":")).encode()) for _ in range(TEMPLATES)]


def key_of(number: int, keys: int) -> bytes:
    """The partition key of a shard's n-th record, of fixed width, in no regular order."""
    return b"customer#%09d" % (number * 2_654_435_761 % 4_294_967_296 % keys)


def index_of(sequence_number: str) -> int:
    """Which record of its shard a sequence number names, from 0."""
    return int(sequence_number) - FIRST_NUMBER


def _record(rng: random.Random, size: int) -> dict[str, Any]:
    lines = 3 if size >= 2000 else 0
    bare = 2 * len(json.dumps(_image(rng, lines, 0), separators=(",", ":"))) + ENVELOPE
    filler = max(0, (size - bare) // 2)
    return {
        "eventID": f"{rng.getrandbits(128):032x}",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": {
            "ApproximateCreationDateTime": _CREATED,
            "Keys": {"pk": {"S": _KEY}},
            "NewImage": _image(rng, lines, filler),
            "OldImage": _image(rng, lines, filler),
            "SequenceNumber": _NUMBER,
            "SizeBytes": size // 2,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }


def _image(rng: random.Random, lines: int, filler: int) -> dict[str, Any]:
    """An order as a shop keeps it: ten attributes, one of each type that DynamoDB has, lists and maps with a few
    members. What is missing to the size is the note."""

    def words(length: int) -> str:
        return "".join(rng.choice("abcdefghij klmnopqrst") for _ in range(length))

    def number(most: int) -> str:
        return str(rng.randrange(1, most))

    def line() -> dict[str, Any]:
        return {
            "M": {"sku": {"S": words(6)}, "count": {"N": number(9)}, "price": {"N": f"{rng.randrange(10**5) / 100}"}}
        }

    return {
        "pk": {"S": _KEY},
        "version": {"N": number(10**6)},
        "paid": {"BOOL": rng.random() < 0.5},
        "coupon": {"NULL": True},
        "tags": {"SS": [words(6), words(7), words(8)][: max(1, lines)]},
        "rates": {"NS": [number(10**6), number(10**4), number(10**2)][: max(1, lines)]},
        "digest": {"B": base64.b64encode(rng.randbytes(16)).decode()},
        "marks": {"BS": [base64.b64encode(rng.randbytes(6)).decode(), base64.b64encode(rng.randbytes(7)).decode()]},
        "lines": {"L": [line() for _ in range(lines)] or [{"S": words(4)}]},
        "address": {"M": {"street": {"S": words(10)}, "number": {"N": number(200)}, "note": {"S": words(filler)}}},
    }


def _cut(text: bytes) -> Template:
    head, rest = text.split(b'"%s"' % _CREATED.encode())
    first, second, third, rest = rest.split(_KEY.encode())
    before, after = rest.split(_NUMBER.encode())
    return Template((head, first, second, third, before, after))
