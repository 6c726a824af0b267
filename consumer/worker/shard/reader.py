"""Reads one shard: pages in, tracked entries out. Adaptive polling, expired iterators, throttling, trimmed data.

The reader never decides what is settled. It resumes after the frontier, skips what the frontier already holds, drops
what is older than the application's start, and says when the shard is read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from consumer.domain.batching import Entry, PageHold
from consumer.domain.errors import DependencyError, ExpiredIterator, PermissionDenied, Throttled, TrimmedData
from consumer.domain.frontier import Frontier, FrontierSnapshot, SettledFilter
from consumer.domain.keys import partition_key_reader
from consumer.domain.record import Record
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BYTES_PER_WIRE_BYTE, BudgetAccount

log = structlog.get_logger()

FIRST_IDLE_PAUSE = 0.25  # seconds after the first empty page; doubles up to source.poll.idle_backoff_max
PARTIAL_PAGE_PAUSE = 0.2  # a page that was not full means we are near the tip: five reads a second are plenty
ERROR_PAUSE_MAX = 10.0
ADDED_BY_EVENT = (
    400  # bytes that a record's Lambda event may be larger than on the wire: the ARN of a stream has up to 350
)
MAX_SPAN = 1_000_000  # records above the low watermark kept in the books before reading waits for the oldest


@dataclass(slots=True)
class ReaderState:
    """What the status page and the metrics show. Times are Unix seconds of records, 0 when unknown;
    ``tip_seen_at`` is when the request was sent that found nothing more to read, 0 while there is more."""

    newest_fetched_time: float = 0.0
    at_tip: bool = False
    tip_seen_at: float = 0.0
    pages: int = 0
    denied: str = ""


class ShardReader:
    """One shard's page loop. ``deliver`` takes the entries of a page; ``is_closed`` speeds up a closed shard."""

    def __init__(
        self,
        context: WorkerContext,
        shard_id: str,
        resume_from: FrontierSnapshot,
        frontier: Frontier,
        budget: BudgetAccount,
        deliver: Callable[[list[Entry]], None],
        is_closed: Callable[[], bool],
    ) -> None:
        self._context = context
        self._shard_id = shard_id
        self._frontier = frontier
        self._budget = budget
        self._deliver = deliver
        self._is_closed = is_closed
        self._key_of = partition_key_reader(context.stream.partition_key)
        self._settled_before = SettledFilter(resume_from)
        self._fetched: str | None = resume_from.low
        self._resume_from = resume_from
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

    async def read_to_end(self, *, from_horizon: bool = False) -> None:
        """Returns when the shard is closed and every record of it was delivered.

        TrimmedData and ResourceMissing go to the caller: what they mean is policy. Everything that may pass is retried
        here, for ever, with back-off.
        """
        iterator: str | None = None
        idle = failures = expired = 0
        while True:
            try:
                if iterator is None:
                    iterator = await self._context.ports.source.iterator(
                        self._shard_id, self.position(from_horizon=from_horizon)
                    )
                page = await self._read_page(iterator)
            except ExpiredIterator:
                self._context.metrics.get_records("expired").inc()
                iterator = None
                expired += 1
                if expired > 1:  # a fresh one that is expired at once: somebody's clock is wrong
                    await asyncio.sleep(min(ERROR_PAUSE_MAX, 0.2 * 2.0 ** min(expired, 20)))
                continue
            except TrimmedData:
                self._context.metrics.get_records("trimmed").inc()
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

    async def _read_page(self, iterator: str) -> Page:
        """Reserve room, read one page and deliver it. The budget counts the page until its last record lets go."""
        budget = self._budget
        while self._frontier.span > MAX_SPAN:  # noqa: ASYNC110 - settling is far too frequent to signal it
            await asyncio.sleep(FIRST_IDLE_PAUSE)
        held = budget.page_reserve
        await budget.reserve(held)
        try:
            limit = self._context.settings.source.poll.max_records
            asked_at = self._context.ports.clock.wall()
            page = await self._context.ports.source.get_records(self._shard_id, iterator, limit)
            self._context.metrics.get_records("data" if page.records else "empty").inc()
            self.state.pages += 1
            size = int(page.wire_bytes * BYTES_PER_WIRE_BYTE)
            budget.charge(size)
            held += size
            if self._take(page, size, asked_at):
                held -= size  # now the records hold it
            return page
        finally:
            budget.release(held)

    def _take(self, page: Page, size: int, asked_at: float) -> bool:
        """Track and deliver a page; True when some record of it is still to be settled."""
        records = page.records
        self.state.at_tip = not records
        self.state.tip_seen_at = 0.0 if records else asked_at
        if not records:
            return False
        positions = self._frontier.track([record.dynamodb.SequenceNumber for record in records])
        budget = self._budget
        size_of_events = page.wire_bytes + ADDED_BY_EVENT * len(records)
        hold = PageHold(0, lambda: budget.release(size), size=size_of_events)
        entries, skipped = self._entries(records, positions, hold)
        hold.left = len(entries)
        if skipped:
            self._frontier.settle(skipped)
        self._fetched = records[-1].dynamodb.SequenceNumber
        self.state.newest_fetched_time = records[-1].dynamodb.ApproximateCreationDateTime
        self._deliver(entries)
        return bool(entries)

    def _entries(self, records: Sequence[Record], positions: range, hold: PageHold) -> tuple[list[Entry], list[int]]:
        """What is to be handled, and the positions of what is settled by being skipped."""
        key_of, filters = self._key_of, self._context.filters or None
        top, start_at = self._settled_before.top, self._context.start_at
        check_settled = int(records[0].dynamodb.SequenceNumber) <= top
        if not check_settled and start_at is None and filters is None:  # as usual: 0.9 us a record instead of 1.5
            return [Entry(p, key_of(r), r, hold) for p, r in zip(positions, records, strict=True)], []
        entries: list[Entry] = []
        skipped: list[int] = []
        duplicates = too_old = 0
        for position, record in zip(positions, records, strict=True):
            change = record.dynamodb
            if check_settled and int(change.SequenceNumber) in self._settled_before:
                duplicates += 1
                skipped.append(position)
            elif start_at is not None and 0 < change.ApproximateCreationDateTime < start_at:  # 0: nobody knows
                skipped.append(position)
                too_old += 1
            elif filters is not None and not filters.matches(record):
                skipped.append(position)
            else:
                entries.append(Entry(position, key_of(record), record, hold))
        if skipped:
            self._context.metrics.duplicates_skipped.inc(duplicates)
            self._context.metrics.records("before_start").inc(too_old)
            self._context.metrics.filtered.inc(len(skipped) - duplicates - too_old)
        return entries, skipped

    async def _pace(self, page: Page, idle: int) -> None:
        """Full speed while behind; near the tip a short pause; on empty pages doubling pauses (GetRecords is billed).
        A closed shard is read at full speed: empty pages in the middle of a shard are normal."""
        poll = self._context.settings.source.poll
        if idle:
            pause = min(poll.idle_backoff_max, FIRST_IDLE_PAUSE * 2.0 ** min(idle - 1, 30))
            if self._is_closed():
                pause = min(pause, FIRST_IDLE_PAUSE)
        elif len(page.records) < poll.max_records and page.wire_bytes < 700_000:
            pause = PARTIAL_PAGE_PAUSE
        else:
            pause = 0.0
        await asyncio.sleep(pause * (0.9 + 0.2 * self._context.ports.random.random()))

    async def _pause_after(self, error: DependencyError | PermissionDenied, failures: int) -> None:
        outcome = "throttled" if isinstance(error, Throttled) else "error"
        self._context.metrics.get_records(outcome).inc()
        if isinstance(error, PermissionDenied):
            self.state.denied = str(error)
        level = log.info if outcome == "throttled" else log.warning
        level("shard.read_failed", shard_id=self._shard_id, error=str(error), failures=failures)
        pause = min(ERROR_PAUSE_MAX, 0.2 * 2.0 ** min(failures - 1, 20))
        await asyncio.sleep(pause * (0.5 + self._context.ports.random.random()))
