"""The lease rows as this worker knows them: the last reading, and what is remembered of rows that were deleted since.

A row, or the whole table, that is deleted by hand comes back as it was last known: what was settled stays settled, so
an old memory costs duplicates and never a record. How old it may be: ``domain/remembered.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import structlog

from consumer.domain.lease import LeaseRow
from consumer.domain.remembered import Remembered
from consumer.worker.context import WorkerContext

log = structlog.get_logger()


class LeaseMemory:
    """``rows`` is the last complete reading. ``changed`` is called when a row was put back.

    ``remembered``: what this process knows of the rows, from its earlier incarnations on, in case they are deleted.
    """

    def __init__(
        self, context: WorkerContext, changed: Callable[[], None], remembered: Remembered | None = None
    ) -> None:
        self._me = context.incarnation
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._label = context.stream.label
        self._changed = changed
        self.remembered = remembered or Remembered(context.settings.leases.duration)
        self._parents: set[str] = set()  # of ``rows``: every idle poll of every shard asks
        self.rows: Mapping[str, LeaseRow] = {}
        self.draining = 0  # shards of the fleet that have ended and show no children

    @property
    def known(self) -> Mapping[str, LeaseRow]:
        """The rows as last known, those that have been deleted since included."""
        return self.remembered.rows

    def owners(self) -> set[str]:
        """The owners of unfinished leases. A finished row names its last owner for ever."""
        return {row.owner for row in self.rows.values() if row.owner is not None and not row.finished}

    def observe(self, rows: Iterable[LeaseRow], asked_at: float) -> None:
        """A complete reading of the lease rows, asked for at ``asked_at`` (monotonic seconds)."""
        self.rows = {row.shard_id: row for row in rows}
        self._parents = {parent for row in self.rows.values() for parent in row.parents}
        self.draining = sum(row.state == "draining" for row in self.rows.values())
        self.compare(self.rows, asked_at)

    def compare(self, rows: Mapping[str, LeaseRow], asked_at: float) -> None:
        """Find out which known rows a complete reading does not show."""
        self.remembered.read(rows, asked_at, self._clock.monotonic())

    def remember(self, row: LeaseRow) -> None:
        """What an owner knew at its end. Counts only if its row turns out to be deleted, and then at once."""
        self.remembered.remember(row)

    def named(self, shard_ids: Iterable[str], asked_at: float) -> None:
        """The service has named these shards, asked at ``asked_at``."""
        self.remembered.named(shard_ids, asked_at)

    def listed(self, shard_ids: Collection[str], asked_at: float, patience: Callable[[str], float]) -> None:
        """A complete listing, not an empty one, asked for at ``asked_at``. What it leaves out for its ``patience``
        (seconds) is not put back any more."""
        for row in self.remembered.listed(shard_ids, asked_at, patience):
            log.warning("lease.forgotten", shard_id=row.shard_id, epoch=row.epoch, low=row.frontier.low)

    def is_deleted(self, shard_id: str) -> bool:
        """Whether the row is known and missing: it is not new."""
        return self.remembered.is_missing(shard_id)

    def was_finished(self, shard_id: str) -> bool:
        """Whether the row is missing and the shard was finished: a new row says so."""
        return self.remembered.was_finished(shard_id)

    def has_children(self, shard_id: str) -> bool:
        """True when a child of this shard has a row: the shard is closed, or about to be."""
        return shard_id in self._parents

    async def restore(self) -> None:
        """Put back rows that were deleted and that no worker holds, free for the next owner. The epoch grows, so that
        it never repeats. Unavailable."""
        for known in self.remembered.due(self._clock.monotonic()):
            row = await self._store.put_back(self._label, replace(known, owner=None, corrupt=""), self._me)
            if row is not None:
                log.error("lease.put_back", shard_id=row.shard_id, epoch=row.epoch, low=row.frontier.low)
            self._changed()
