"""The rules for when frontiers are written, checked from outside (``checkers.py``): at most once in an interval, and so
early that a crash in a quiet moment repeats nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

from consumer.domain.lease import LeaseRow
from consumer.testing.history import Duplicate, History

LEAST = 0.95  # of an interval: clocks of processes are off by less
QUIET = 0.5  # seconds: what was settled longer ago has been sent to the table, and has arrived in fair weather


class CheckpointRules:
    """``opened`` says what ``checkpoint.interval`` a worker has, in seconds."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._intervals: dict[str | None, float] = {}  # by incarnation
        self._sent: dict[tuple[str, str | None], tuple[int, float]] = {}  # by shard and owner: epoch, when
        self._settled: dict[tuple[str, str], float] = {}  # by shard and owner: when last

    def opened(self, incarnation: str, interval: float) -> None:
        """A worker writes its frontiers so often. Told of a longer interval, it ends the pause that it is in."""
        self._intervals[incarnation] = min(interval, self._intervals.get(incarnation, math.inf))

    def sending(self, held: LeaseRow) -> None:
        """An owner sends a write of its frontier. Changes of the state are urgent, and repeated until they succeed."""
        place, now = (held.shard_id, held.owner), self._history.now()
        epoch, sent = self._sent.get(place, (0, -math.inf))
        interval = self._intervals.get(held.owner, 0.0)
        if held.state == "open" and epoch == held.epoch and now - sent < interval * LEAST:
            found = f"{held.owner} writes the frontier of {held.shard_id} {now - sent:.3f} s after it has done so"
            self._history.violated("checkpoint rate", f"{found}, and not {interval:g} s")
        self._sent[place] = held.epoch, now

    def put_back(self, shard_id: str) -> None:
        """The row of a shard was deleted by hand, and is there again: the write that has found it gone is repeated."""
        for place in [place for place in self._sent if place[0] == shard_id]:
            del self._sent[place]

    def settled(self, shard_id: str, incarnation: str) -> None:
        """A record was handled."""
        self._settled[shard_id, incarnation] = self._history.now()

    def crashed(self, incarnation: str, killed: float, repeated: Iterable[Duplicate]) -> None:
        """A worker of a fleet that was well has died, and these records came again: of no shard where nothing had moved
        for a moment, unless it had to wait for the end of an interval."""
        for duplicate in repeated:
            place = (duplicate.item.shard_id, incarnation)
            settled, sent = self._settled.get(place, killed), self._sent.get(place, (0, -math.inf))[1]
            if killed - settled > QUIET and killed - sent > self._intervals.get(incarnation, 0.0) / LEAST + QUIET:
                found = f"{duplicate.item.key} v{duplicate.item.version} was settled in a shard that was quiet for"
                self._history.violated("G5 duplicates", f"{found} {killed - settled:.1f} s, and comes again")
