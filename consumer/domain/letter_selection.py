"""Which dead letters a command is about."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands import this before they know that there is something to do
    from .letter_reading import ReadLetter
    from .parking import ParkedKey


@dataclass(frozen=True, slots=True)
class Selection:
    """``key``: a digest; ``reason``: a condition or the type of an error; None takes any. Given up after ``after`` and
    before ``before`` (Unix seconds)."""

    key: str | None = None
    reason: str | None = None
    after: float = -math.inf
    before: float = math.inf

    def may_take(self, letter: ReadLetter) -> bool:
        """All but the key, which may not be known before the records are read."""
        in_time = self.after < letter.given_up_at < self.before
        return in_time and (self.reason is None or letter.is_about(self.reason))

    def takes(self, letter: ReadLetter, digests: Collection[str]) -> bool:
        return self.may_take(letter) and (self.key is None or self.key in digests)

    def takes_parked(self, key: ParkedKey) -> bool:
        """A parked key as a whole, by its first record: when and why that was given up."""
        in_time = self.after < key.since < self.before
        return in_time and self.key in (None, key.digest) and self.reason in (None, key.reason)
