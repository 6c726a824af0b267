"""How far a shard is behind, as far as it can be known from outside of its owner: from the checkpoint in its row, and
from the record that follows it in the stream.

What it says is an upper bound: the owner may have settled more since its last checkpoint. What cannot be known is None,
and never 0.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

LagState = Literal["measured", "at the tip", "waits", "trimmed", "not known", "done"]


@dataclass(frozen=True, slots=True)
class ShardLag:
    """``seconds`` is the age of the oldest record that is not settled; 0 at the tip, or where all is settled.
    ``deferred``: the same for the records of deferred keys alone (None: there are none, or their age is not known).
    ``detail`` says why, where that is not clear from ``state``."""

    shard_id: str
    state: LagState
    seconds: float | None = None
    deferred: float | None = None
    detail: str = ""

    @property
    def worst(self) -> float | None:
        """Deferred keys included. None while either is not known."""
        if self.seconds is None:
            return None
        return max(self.seconds, self.deferred or 0.0)


@dataclass(frozen=True, slots=True)
class FleetLag:
    """``seconds`` is the largest that is known (None: none is), ``unknown`` counts the shards of which it is not. One
    that waits for its parents is in neither: what they have not settled is older."""

    seconds: float | None
    unknown: int
    behind: int

    @classmethod
    def of(cls, shards: Collection[ShardLag]) -> FleetLag:
        measured = [shard for shard in shards if shard.state != "waits"]
        known = [worst for shard in measured if (worst := shard.worst) is not None]
        return cls(max(known, default=None), len(measured) - len(known), sum(worst > 0 for worst in known))
