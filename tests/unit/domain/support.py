"""Small builders shared by the tests of the domain."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from consumer.domain.batching import Entry, PageHold
from consumer.domain.record import Change, Record

ABSENT = Raw(b"")
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/T/stream/2026-09-17T13:26:53.746"


def record(number: int | str, *, created: float = 0.0, keys: bytes = b'{"pk":{"S":"a"}}') -> Record:
    """A record of which only the number matters."""
    return Record(Change(str(number), ApproximateCreationDateTime=created, Keys=Raw(keys)))


def records(*numbers: int | str, created: float = 0.0) -> list[Record]:
    return [record(number, created=created) for number in numbers]


def numbers(batch: Sequence[Record]) -> list[int]:
    return [int(one.sequence_number) for one in batch]


class Account:
    """Memory that records hold, in bytes."""

    def __init__(self) -> None:
        self.held = 0

    def charge(self, size: int) -> None:
        self.held += size

    def release(self, size: int) -> None:
        self.held -= size


def entry(position: int, key: bytes) -> Entry:
    return Entry(position, key, record(position + 1), PageHold(Account(), 0, left=1, event_bytes=0))
