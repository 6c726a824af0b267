"""The lease rows as this worker knows them: the last reading, and what is remembered of rows that were deleted since.

A row, or the whole table, that is deleted by hand comes back as it was last known: what was settled stays settled, so
an old memory costs duplicates and never a record. How old it may be: ``domain/remembered.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import structlog

from consumer.domain.errors import Unavailable
from consumer.domain.lease import LeaseRow
from consumer.domain.lease_overview import LeaseOverview
from consumer.domain.remembered import Remembered
from consumer.worker.context import WorkerContext
from consumer.worker.tasks import each

log = structlog.get_logger()


class LeaseMemory:
    """``rows`` is the last complete reading, and what was noted of single rows since. ``changed`` is called when a row
    was put back. Rows that are known to have changed are to be read again: those that this worker has ``changed_here``,
    and others that are ``doubtful``. ``version`` grows whenever ``rows`` may have changed, or what is
    remembered of them.

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
        self._noted: dict[str, tuple[float, LeaseRow]] = {}  # since the last complete reading was asked for
        self.rows: dict[str, LeaseRow] = {}
        self.doubtful: set[str] = set()
        self.changed_here: set[str] = set()
        self.version = 0
        self._overview: tuple[int, LeaseOverview] | None = None
        self.draining = 0  # shards of the fleet that have ended and show no children

    @property
    def known(self) -> Mapping[str, LeaseRow]:
        """The rows as last known, those that have been deleted since included."""
        return self.remembered.rows

    @property
    def overview(self) -> LeaseOverview:
        """Of ``rows`` as they are now."""
        if self._overview is None or self._overview[0] != self.version:
            found = LeaseOverview.of(self.rows.values(), self._me, self.remembered.is_behind)
            self._overview = self.version, found
        return self._overview[1]

    def observe(self, rows: Iterable[LeaseRow], asked_at: float) -> None:
        """A complete reading of the lease rows, asked for at ``asked_at`` (monotonic seconds)."""
        self._noted = {i: (at, row) for i, (at, row) in self._noted.items() if at > asked_at}
        self.rows = {row.shard_id: row for row in rows} | self._noted_since(asked_at)
        self._parents = {parent for row in self.rows.values() for parent in row.parents}
        self.draining = sum(row.state == "draining" for row in self.rows.values())
        self.compare(self.rows, asked_at)

    def note(self, row: LeaseRow, asked_at: float | None = None) -> None:
        """One row as this worker has just written it, or read it, asked for at ``asked_at`` (monotonic seconds)."""
        at = self._clock.monotonic() if asked_at is None else asked_at
        if at >= self._noted.get(row.shard_id, (at,))[0]:
            self._noted[row.shard_id] = (at, row)
            self.hear(row)

    def hear(self, row: LeaseRow) -> None:
        """One row as another worker has told, or as it is known better."""
        before = self.rows.get(row.shard_id)
        self.version += before != row
        self.rows[row.shard_id] = row
        self.remembered.note(row)
        self._parents.update(row.parents)
        self.draining += (row.state == "draining") - (before is not None and before.state == "draining")

    def compare(self, rows: Mapping[str, LeaseRow], asked_at: float) -> None:
        """Find out which known rows a complete reading does not show."""
        self.remembered.read({**rows, **self._noted_since(asked_at)}, asked_at, self._clock.monotonic())
        self.version += 1

    def _noted_since(self, asked_at: float) -> dict[str, LeaseRow]:
        """Rows that are known better than by a complete reading that was asked for then. What was read before it was
        asked for is older, also when it was answered since."""
        return {i: row for i, (at, row) in self._noted.items() if at > asked_at}

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

    async def restore(self) -> list[Unavailable]:
        """Put back rows that were deleted and that no worker holds, free for the next owner. The epoch grows, so that
        it never repeats. Returns what failed."""

        async def put_back(known: LeaseRow) -> None:
            row = await self._store.put_back(self._label, replace(known, owner=None, corrupt=""), self._me)
            if row is not None:
                log.error("lease.put_back", shard_id=row.shard_id, epoch=row.epoch, low=row.frontier.low)
            (self.doubtful if row is None else self.changed_here).add(known.shard_id)
            self._changed()

        return [error for _, error in await each(self.remembered.due(self._clock.monotonic()), put_back)]
