"""The rules for what workers make from memory, checked from outside: part of G4 (``checkers.py``)."""

from __future__ import annotations

from collections import defaultdict

from consumer.domain.lease import LeaseRow
from consumer.testing.history import History


class MemoryRules:
    """What is made from memory has an epoch that no owner has had, an owner puts back what no other has had since, and
    a shard that was forgotten stays so."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._forgotten: set[str] = set()  # shards whose tombstone was removed
        self._highest: dict[str, int] = defaultdict(int)  # epochs, by shard
        self._last: dict[str, int] = {}
        # The last epoch before a row was deleted by hand and made by a worker that remembers nothing; the lowest one.
        self._before_anew: dict[str, int] = {}

    def removed(self, shard_id: str) -> None:
        """A worker has removed the tombstone of a shard."""
        self._forgotten.add(shard_id)

    def written(self, operation: str, after: LeaseRow) -> None:
        """A lease row was changed."""
        shard_id, highest = after.shard_id, self._highest[after.shard_id]
        last = self._last.get(shard_id, 0)
        lowest = min(last, self._before_anew.get(shard_id, last))
        if operation == "add_lease" and shard_id in self._last:
            self._before_anew[shard_id] = lowest
        if operation == "put_back" and after.owner is not None:
            # Deleted, made anew and deleted once more: nobody can know of the owners in between.
            least = lowest
        else:
            least = highest + 1 if operation in ("raise_epoch", "put_back") else 0
        if after.epoch < least:
            found = f"{operation} gave {shard_id} epoch {after.epoch}, it must be {least} at least"
            self._history.violated("G4 fenced", found)
        self._last[shard_id] = after.epoch
        self._highest[shard_id] = max(highest, after.epoch)
        if shard_id in self._forgotten and not after.finished:
            found = f"{operation} opened {shard_id} again, which was finished and forgotten"
            self._history.violated("G4 fenced", found)
