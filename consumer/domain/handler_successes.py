"""Whether the handler works elsewhere: what a failing call of one shard says depends on it. Pure."""

from __future__ import annotations

from .breaker import FIRST_PAUSE


class HandlerSuccesses:
    """Of all shards of a worker: when each of the two that got a key through last did so. ``now`` is a monotonic time
    in seconds."""

    def __init__(self) -> None:
        self._latest = ("", float("-inf"))
        self._another = ("", float("-inf"))

    def note(self, shard_id: str, now: float) -> None:
        """A key of this shard got through."""
        if shard_id != self._latest[0]:
            self._another = self._latest
        self._latest = (shard_id, now)

    def elsewhere(self, shard_id: str, now: float) -> bool:
        """Whether a key of another shard got through of late. Which keys a shard has is chance: then it is the key that
        fails there, and not what all keys depend on."""
        at = (self._another if shard_id == self._latest[0] else self._latest)[1]
        return at > now - FIRST_PAUSE
