"""The letters of parked keys at their destination, as a redrive asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer.domain.parking import ParkedShard
from consumer.domain.stream_record import StreamRecord


@dataclass(frozen=True, slots=True)
class ParkedLetter:
    """One letter: its records (one, as this program writes them), with their numbers in the books, and what the
    destination knows it by. ``redacted``: the paths of attributes that the records lack. ``problem`` says why the
    records cannot be had; then there are none."""

    records: Sequence[StreamRecord]
    handle: object
    redacted: tuple[str, ...] = ()
    problem: str = ""


class ParkedLetterBox(Protocol):
    """Where they are."""

    async def find(self, shard: ParkedShard, ordinal: int) -> list[ParkedLetter]:
        """All letters of this shard row with this ordinal: none when there is none now (which says nothing about
        later), several when one was sent more than once. Unavailable."""

    async def remove(self, letter: ParkedLetter) -> None:
        """Its records are handled, and that is durable. Unavailable."""
