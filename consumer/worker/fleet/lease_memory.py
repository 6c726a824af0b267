"""The lease rows as this worker knows them: the last reading, and what is remembered of rows that were deleted since.

A row, or the whole table, that is deleted by hand comes back as it was last known: what was settled stays settled, so
an old memory costs duplicates and never a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from consumer.domain.lease import LeaseRow, duration_of
from consumer.worker.context import WorkerContext

log = structlog.get_logger()

OWNERS_TURN = 2.0  # of its durations that the owner of a deleted row has to put it back before other workers do


class LeaseMemory:
    """``rows`` is the last complete reading. ``changed`` is called when a row was put back.

    ``remembered``: what an earlier incarnation of this process knew of the rows, in case they are deleted.
    """

    def __init__(
        self, context: WorkerContext, changed: Callable[[], None], remembered: Mapping[str, LeaseRow] | None = None
    ) -> None:
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._label = context.stream.label
        self._duration: float = context.settings.leases.duration
        self._changed = changed
        self._known = dict(remembered or {})
        self._deleted_since: dict[str, float] = {}
        self._parents: set[str] = set()  # of ``rows``: every idle poll of every shard asks
        self.rows: Mapping[str, LeaseRow] = {}
        self.draining = 0  # shards of the fleet that have ended and show no children

    @property
    def known(self) -> Mapping[str, LeaseRow]:
        """The rows as last known, those that have been deleted since included."""
        return self._known

    def owners(self) -> set[str]:
        """The owners of unfinished leases. A finished row names its last owner for ever."""
        return {row.owner for row in self.rows.values() if row.owner is not None and not row.finished}

    def observe(self, rows: Iterable[LeaseRow]) -> None:
        """A complete reading of the lease rows."""
        self.rows = {row.shard_id: row for row in rows}
        self._parents = {parent for row in self.rows.values() for parent in row.parents}
        self.draining = sum(row.state == "draining" for row in self.rows.values())
        self.compare(self.rows)

    def compare(self, rows: Mapping[str, LeaseRow]) -> None:
        """Find out which known rows a complete reading does not show."""
        # A finished row that is missing was removed as a tombstone, or its children tell that it was finished.
        deleted = {i: row for i, row in self._known.items() if i not in rows and not row.finished}
        now = self._clock.monotonic()
        self._deleted_since = {i: self._deleted_since.get(i, now) for i in deleted}
        self._known = deleted | dict(rows)

    def remember(self, row: LeaseRow) -> None:
        """What an owner knew at its end. Counts only if its row turns out to be deleted, and then at once."""
        self._known[row.shard_id] = replace(row, owner=None)

    def is_deleted(self, shard_id: str) -> bool:
        """Whether the row is known and missing: it will be put back."""
        return shard_id in self._deleted_since

    def has_children(self, shard_id: str) -> bool:
        """True when a child of this shard has a row: the shard is closed, or about to be."""
        return shard_id in self._parents

    async def restore(self) -> None:
        """Put back rows that were deleted and that no worker holds, free for the next owner. The epoch grows, so that
        it never repeats; the last owner may know more than this worker and gets the first turn. Unavailable."""
        now = self._clock.monotonic()
        for shard_id, since in list(self._deleted_since.items()):
            row = self._known[shard_id]
            if row.owner is not None and now - since < OWNERS_TURN * (duration_of(row.owner) or self._duration):
                continue
            row = replace(row, owner=None, epoch=row.epoch + 1, corrupt="")
            if await self._store.add_lease(self._label, row):
                log.error("lease.put_back", shard_id=shard_id, epoch=row.epoch, low=row.frontier.low)
            self._changed()
