"""Reads one shard: pages in, tracked entries out. Adaptive polling, expired iterators, throttling, trimmed data.

The reader never decides what is settled: its subscription skips what the frontier already holds and what is filtered.
The reader resumes after the last record that it fetched, and says when the shard is read to its end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from consumer.domain.batching import PageHold
from consumer.domain.errors import DependencyError, ExpiredIterator, PermissionDenied, Throttled, TrimmedData
from consumer.domain.frontier import FrontierSnapshot
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BYTES_PER_WIRE_BYTE, BudgetAccount
from consumer.worker.retrying import Backoff
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

FIRST_IDLE_PAUSE = 0.25  # seconds after the first empty page; doubles up to source.poll.idle_backoff_max
PARTIAL_PAGE_PAUSE = 0.2  # a page that was not full means we are near the tip: five reads a second are plenty
ERROR_BACKOFF = Backoff(0.2, 10.0)
ADDED_BY_EVENT = 400  # bytes by which a record's Lambda event may be larger than on the wire: an ARN has up to 350
MAX_SPAN = 1_000_000  # records above the low watermark kept in the books before reading waits for the oldest


@dataclass(slots=True)
class ReaderState:
    """What the status page and the metrics show. ``newest_fetched_time`` is the creation time of a record (Unix
    seconds), 0 when unknown; ``denied`` says which permission is missing."""

    newest_fetched_time: float = 0.0
    at_tip: bool = False
    denied: str = ""


class ShardReader:
    """One shard's page loop: it offers what it reads to ``subscription``, from ``resume_from`` on."""

    def __init__(
        self,
        context: WorkerContext,
        shard_id: str,
        resume_from: FrontierSnapshot,
        subscription: Subscription,
        budget: BudgetAccount,
        lineage: Lineage,
    ) -> None:
        self._source = context.ports.source
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._metrics = context.metrics
        self._poll = context.settings.source.poll
        self._shard_id = shard_id
        self._resume_from = resume_from
        self._subscription = subscription
        self._budget = budget
        self._lineage = lineage
        self._fetched: str | None = resume_from.low
        self.state = ReaderState()

    def position(self, *, from_horizon: bool = False) -> Position:
        """Where to read next: after the last *fetched* record (never the checkpoint: that would repeat work)."""
        if from_horizon:
            return Position("TRIM_HORIZON")
        if self._fetched is not None:
            return Position("AFTER_SEQUENCE_NUMBER", self._fetched)
        if self._resume_from.first is not None:
            return Position("AT_SEQUENCE_NUMBER", self._resume_from.first)
        return Position("TRIM_HORIZON")

    async def read_to_end(self, dispatcher: Dispatcher, *, from_horizon: bool = False) -> None:
        """Returns when the shard is closed and ``dispatcher`` has every record of it that is still to be handled.

        TrimmedData and ResourceMissing go to the caller: what they mean is policy. Everything that may pass is retried
        here, for ever, with back-off.
        """
        iterator: str | None = None
        idle = failures = expired = 0
        while True:
            try:
                if iterator is None:
                    iterator = await self._source.iterator(self._shard_id, self.position(from_horizon=from_horizon))
                page = await self._read_page(iterator, dispatcher)
            except ExpiredIterator:
                self._metrics.get_records("expired").inc()
                iterator = None
                expired += 1
                if expired > 1:  # a fresh one that is expired at once: some clock is wrong
                    await asyncio.sleep(ERROR_BACKOFF.after(expired + 1))
                continue
            except TrimmedData:
                self._metrics.get_records("trimmed").inc()
                raise
            except (DependencyError, PermissionDenied) as error:
                failures += 1
                await self._pause_after(error, failures)
                continue
            failures = expired = 0
            self.state.denied = ""
            if page.records:
                from_horizon = False
            if page.next_iterator is None:
                self.state.at_tip = True
                return
            iterator = page.next_iterator
            idle = 0 if page.records else idle + 1
            await self._pace(page, idle)

    async def _read_page(self, iterator: str, dispatcher: Dispatcher) -> Page:
        """Reserve room, read one page and deliver it. The budget counts the page until its last record is settled."""
        budget = self._budget
        while self._subscription.frontier.span > MAX_SPAN:  # noqa: ASYNC110 - settling is too frequent to signal it
            await asyncio.sleep(FIRST_IDLE_PAUSE)
        held = budget.page_reserve
        await budget.reserve(held)
        try:
            asked_at = self._clock.wall()
            page = await self._source.get_records(self._shard_id, iterator, self._poll.max_records)
            self._metrics.get_records("data" if page.records else "empty").inc()
            size = int(page.wire_bytes * BYTES_PER_WIRE_BYTE)
            budget.charge(size)
            held += size
            if self._deliver(page, size, asked_at, dispatcher):
                held -= size  # now the records hold it
            return page
        finally:
            budget.release(held)

    def _deliver(self, page: Page, size: int, asked_at: float, dispatcher: Dispatcher) -> bool:
        """Offer a page of ``size`` bytes in memory; True when some record of it is still to be settled."""
        records = page.records
        self.state.at_tip = not records
        self._subscription.tip_seen_at = 0.0 if records else asked_at
        if not records:
            return False
        event_bytes = page.wire_bytes + ADDED_BY_EVENT * len(records)
        entries = self._subscription.accept(records, PageHold(self._budget, size, left=0, event_bytes=event_bytes))
        self._fetched = records[-1].dynamodb.SequenceNumber
        self.state.newest_fetched_time = records[-1].dynamodb.ApproximateCreationDateTime
        dispatcher.add(entries)
        return bool(entries)

    async def _pace(self, page: Page, idle: int) -> None:
        """Full speed while behind; near the tip a short pause; on empty pages doubling pauses (GetRecords is billed).
        A closed shard is read at full speed: empty pages in the middle of a shard are normal."""
        poll = self._poll
        if idle:
            pause = min(poll.idle_backoff_max, FIRST_IDLE_PAUSE * 2.0 ** min(idle - 1, 30))
            if self._lineage.has_children(self._shard_id):
                pause = min(pause, FIRST_IDLE_PAUSE)
        elif len(page.records) < poll.max_records and page.wire_bytes < 700_000:
            pause = PARTIAL_PAGE_PAUSE
        else:
            pause = 0.0
        await asyncio.sleep(pause * (0.9 + 0.2 * self._random.random()))

    async def _pause_after(self, error: DependencyError | PermissionDenied, failures: int) -> None:
        outcome = "throttled" if isinstance(error, Throttled) else "error"
        self._metrics.get_records(outcome).inc()
        if isinstance(error, PermissionDenied):
            self.state.denied = str(error)
        level = log.info if outcome == "throttled" else log.warning
        level("shard.read_failed", shard_id=self._shard_id, error=str(error), failures=failures)
        await asyncio.sleep(ERROR_BACKOFF.after(failures) * (0.5 + self._random.random()))
