"""One shard of the stream in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumer.domain.shards import ShardInfo


@dataclass(slots=True)
class MemoryShard:
    """Keys whose hash is in [low, high). Numbers and bodies are parallel lists in stream order."""

    shard_id: str
    parent: str | None
    low: int
    high: int
    start: int
    visible_at: float
    numbers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    end: int | None = None
    trimmed: int = 0  # the newest number that is gone
    empty_pages: int = 0
    looks_open_until: float = 0.0

    def ended(self, now: float) -> bool:
        """Whether it takes no more writes, and the service says so."""
        return self.end is not None and self.looks_open_until <= now

    def info(self, now: float) -> ShardInfo:
        """How it is listed at ``now``."""
        parents = (self.parent,) if self.parent is not None else ()
        return ShardInfo(self.shard_id, parents, str(self.start), str(self.end) if self.ended(now) else None)
