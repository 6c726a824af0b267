"""GetRecords for one shard: within the budget and counted. Whoever needs the memory of a page holds it."""

from __future__ import annotations

from collections.abc import Callable

from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    PermissionDenied,
    StreamConsumerError,
    Throttled,
    TrimmedData,
)
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BYTES_PER_WIRE_BYTE, BudgetAccount

FEW_RECORDS = 100  # of a page granted although the buffer is used up: a stall of all handlers costs one a shard
# Of ``get_records_total``; the first that fits.
_OUTCOMES: tuple[tuple[type[StreamConsumerError], str], ...] = (
    (ExpiredIterator, "expired"),
    (TrimmedData, "trimmed"),
    (Throttled, "throttled"),
    (DependencyError, "error"),
    (PermissionDenied, "error"),
)


class PageRequests:
    """What both readers of a shard ask the service. ``waits_for_room`` is True while a page has to wait for memory;
    ``asked_at`` is when the last page was asked for (Unix seconds), and ``asked`` the same in monotonic seconds."""

    def __init__(self, context: WorkerContext, shard_id: str, budget: BudgetAccount) -> None:
        self._source = context.ports.source
        self._clock = context.ports.clock
        self._metrics = context.metrics
        self._context = context
        self.shard_id = shard_id
        self._wanted_bytes = context.stream.format.reading.wanted_bytes
        self._record_bytes = 0.0
        self._budget = budget
        self.waits_for_room = False
        self.asked_at = self.asked = 0.0

    @property
    def retention(self) -> float:
        """Seconds for which the service keeps a record."""
        return self._source.retention

    async def iterator(self, position: Position) -> str:
        """A shard iterator. Raises what the source raises."""
        try:
            return await self._source.iterator(self.shard_id, position)
        except StreamConsumerError as error:
            self._count(error)
            raise

    async def read(self, iterator: str, deliver: Callable[[Page, int], bool], *, most: int | None = None) -> Page:
        """Reserve room, read one page (of ``most`` records, if given) and deliver it with its size in memory (bytes).
        ``deliver`` says whether records of the page hold its memory from now on; otherwise that is given back. Raises
        what the source raises."""
        budget, held = self._budget, self._budget.page_reserve
        self.waits_for_room = True
        try:
            await budget.reserve(held)
        finally:
            self.waits_for_room = False
        try:
            self.asked_at, self.asked = self._clock.wall(), self._clock.monotonic()
            limit = min(FEW_RECORDS, self._most) if budget.short else self._most
            try:
                page = await self._source.get_records(self.shard_id, iterator, min(limit, most or limit))
            except StreamConsumerError as error:
                self._count(error)
                raise
            self._metrics.get_records("data" if page.records else "empty").inc()
            if page.records:
                self._record_bytes = page.wire_bytes / (page.count or len(page.records))
            size = page.held_bytes or int(page.wire_bytes * BYTES_PER_WIRE_BYTE)
            budget.charge(size)
            held += size
            if deliver(page, size):
                held -= size
            return page
        finally:
            budget.release(held)

    @property
    def _most(self) -> int:
        """Records to ask for: as many as allowed, and fewer where a page of them could be very large."""
        most = int(self._context.settings.source.poll.max_records)
        if not self._wanted_bytes or self._record_bytes * most <= self._wanted_bytes:
            return most
        return max(1, int(self._wanted_bytes / self._record_bytes))

    def _count(self, error: StreamConsumerError) -> None:
        outcome = next((name for kind, name in _OUTCOMES if isinstance(error, kind)), None)
        if outcome is not None:
            self._metrics.get_records(outcome).inc()
