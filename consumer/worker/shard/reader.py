"""Reads one shard: pages in, tracked entries out. Adaptive polling, expired iterators, throttling, trimmed data.

The reader never decides what is settled: its subscription skips what the frontier already holds and what is filtered.
The reader resumes after the last record that it fetched, and says when the shard is read to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from consumer.domain.batching import Entry, PageHold
from consumer.domain.completeness import as_if_kept, lost_nothing
from consumer.domain.errors import DependencyError, ExpiredIterator, PermissionDenied, Throttled, TrimmedData
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.looks import Looks
from consumer.domain.polling import Arrivals, Pauses
from consumer.domain.source_format import FIVE_A_SECOND
from consumer.domain.stream_record import StreamRecord
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.retrying import Backoff
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.look_back import LookBack
from consumer.worker.shard.page_requests import PageRequests
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

CLOSED_PAUSE = 0.25  # seconds after a page of a shard that has children, at the most: there is an end to come
ERROR_BACKOFF = Backoff(0.2, 10.0)
FIRST_REFUSALS = Backoff(0.2, 2.0)  # a permission that was just given spreads, and the start ends if it does not
FAILING_AFTER = 3  # failures in a row: one is usual, so many take more than a second
ADDED_BY_EVENT = 400  # bytes by which a record's Lambda event may be larger than on the wire: an ARN has up to 350
AT_TIP = 2.0  # seconds by which a record may be older than the last look: it is dated by the second, and shown later
LATE = 1.0  # seconds after the time planned until a look at the shard counts as late


@dataclass(slots=True)
class ReaderState:
    """What the status page and the metrics show. Times are Unix seconds.

    ``newest_fetched_time`` is the creation time of a record, 0 when unknown. ``looked_at`` is when the last request was
    sent that was answered (at first: when reading began), ``looks_at`` when the next one is to be sent; a reader that
    is late waits for room, for the service or for a permission. ``answered``: some read of it was. ``ended``: it has
    read all of the shard. ``refusal`` is the answer to the last read when that was refused, ``throttled`` whether it
    was for its rate, ``failing`` why the last reads have failed. ``read`` counts records.
    """

    newest_fetched_time: float = 0.0
    at_tip: bool = False
    ended: bool = False
    looked_at: float = 0.0
    looks_at: float = 0.0
    answered: bool = False
    refusal: PermissionDenied | None = None
    throttled: bool = False
    failing: str = ""
    read: int = 0

    def behind(self, now: float) -> float:
        """Seconds by which a record may be old that was not read yet; 0 when the last look was at the tip, and not
        long ago."""
        if self.ended:
            return 0.0
        if self.at_tip or not self.newest_fetched_time:
            return max(0.0, now - self.looked_at) if now - self.looks_at > LATE else 0.0
        return max(0.0, now - self.newest_fetched_time)


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
        parents: tuple[str, ...] = (),
    ) -> None:
        self._requests = PageRequests(context, shard_id, budget)
        seen = subscription.seen
        self._look_back: LookBack | None = None
        if seen is not None:
            self._look_back = LookBack(context, seen.remember, budget, shard_id, parents, resume_from)
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._context = context
        self._shard_id = shard_id
        self._resume_from = resume_from
        self._subscription = subscription
        self._budget = budget
        self._lineage = lineage
        self._limits = context.stream.format.reading
        self._not_before = subscription.start.not_before
        self._fetched: str | None = resume_from.low
        self._resumed = resume_from.low
        now = self._clock.wall()
        self._tip_at = self._tip_kept_for = 0.0
        self._arrivals = Arrivals()
        self._asked_for = 0  # records of the last page that are to be handled
        self._read_at = self._clock.monotonic()
        self._looks = Looks()
        self.state = ReaderState(looked_at=now, looks_at=now)

    @property
    def waits_for_room(self) -> bool:
        """Whether the next page has to wait for memory."""
        return self._requests.waits_for_room

    def position(self, *, from_horizon: bool = False) -> Position:
        """Where to read next: after the last *fetched* record (never the checkpoint: that would repeat work)."""
        if not from_horizon:
            if self._fetched is not None:
                return Position("AFTER_SEQUENCE_NUMBER", self._fetched, complete_at=self._complete_at)
            if self._resume_from.first is not None:
                return Position("AT_SEQUENCE_NUMBER", self._resume_from.first)
            return Position("TRIM_HORIZON", not_before=self._not_before, complete_at=self._complete_at)
        return Position("TRIM_HORIZON", not_before=self._not_before)

    def _check_start(self, position: Position) -> None:
        """A shard without any record so far has no position to be refused, or to be looked at again: only the time says
        that records may have come and gone. TrimmedData."""
        complete_at, retention = position.complete_at, self._requests.retention
        if position.kind != "TRIM_HORIZON" or not complete_at or self._subscription.complete is None:
            return
        if not lost_nothing(complete_at, self._clock.wall(), retention):
            raise TrimmedData(
                f"shard {self._shard_id} was last read to its tip longer ago than records are kept"
                f" ({retention / 3600:g} hours): what came since may have been trimmed"
            )

    @property
    def _complete_at(self) -> float:
        """When it was seen that nothing was left to read behind the last record fetched."""
        before, retention = self._resume_from, self._requests.retention
        tip_at = as_if_kept(self._tip_at, self._tip_kept_for, retention)
        if self._fetched == self._resumed:
            return max(as_if_kept(before.complete_at, before.kept_for, retention), tip_at)
        return tip_at

    async def read_to_end(self, dispatcher: Dispatcher, *, from_horizon: bool = False) -> None:
        """Returns when the shard is closed and ``dispatcher`` has every record of it that is still to be handled.

        TrimmedData and ResourceMissing go to the caller: what they mean is policy. Everything that may pass is retried
        here, for ever, with back-off.
        """
        iterator: str | None = None
        before = self._fetched
        failures = expired = 0
        while True:
            try:
                if iterator is None:
                    if self._look_back is not None:
                        await self._look_back.run()
                    position = self.position(from_horizon=from_horizon)
                    if not from_horizon:
                        self._check_start(position)
                    iterator = await self._requests.iterator(position)
                deliver = partial(self._deliver, dispatcher, from_horizon)
                page = await self._requests.read(iterator, deliver)
            except ExpiredIterator:
                iterator = None
                expired += 1
                if expired > 1:  # a fresh one that is expired at once: some clock is wrong
                    await asyncio.sleep(ERROR_BACKOFF.after(expired + 1))
                continue
            except (DependencyError, PermissionDenied) as error:
                failures += 1
                if failures >= FAILING_AFTER and not isinstance(error, Throttled):
                    iterator = None  # it may be what is refused, for ever
                await self._pause_after(error, failures)
                continue
            failures = expired = 0
            self.state.refusal, self.state.failing, self.state.throttled = None, "", False
            if self._fetched != before:
                from_horizon = False
            if page.next_iterator is None:
                self.state.at_tip = self.state.ended = True
                return
            iterator = page.next_iterator
            await self._pace(page)

    def _deliver(self, dispatcher: Dispatcher, from_horizon: bool, page: Page, size: int) -> bool:
        """Offer a page of ``size`` bytes in memory; True when some record of it is still to be settled."""
        records, asked_at, state = page.records, self._requests.asked_at, self.state
        state.looked_at, state.at_tip, state.answered = asked_at, page.at_tip, True
        if page.behind is not None:
            state.newest_fetched_time = asked_at - page.behind
        if from_horizon:
            records = self._without_known(records)
        entries: list[Entry] = []
        self._asked_for = 0
        state.read += len(records)
        if records:
            self._subscription.tip_seen_at = 0.0
            event_bytes = page.event_bytes or page.wire_bytes + ADDED_BY_EVENT * len(records)
            entries = self._subscription.accept(records, PageHold(self._budget, size, left=0, event_bytes=event_bytes))
            self._fetched, self._asked_for = records[-1].number, len(entries)
            if page.behind is None:
                state.newest_fetched_time = records[-1].created
            dispatcher.add(entries)
        if page.at_tip:
            self._tip_at, self._tip_kept_for = asked_at, self._requests.retention
            self._subscription.tip_seen(asked_at, self._tip_kept_for)
        return bool(entries)

    def _without_known(self, records: Sequence[StreamRecord]) -> Sequence[StreamRecord]:
        """Reading from the horizon may begin before what was read already."""
        newest = self._subscription.frontier.newest
        return [record for record in records if int(record.number) > newest]

    async def _pace(self, page: Page) -> None:
        """Full speed while behind; near the tip as the arrivals of the shard have taught (GetRecords is billed). A
        closed shard is read soon: empty pages in the middle of a shard are normal."""
        poll, limits = self._context.settings.source.poll, self._limits
        now = self._clock.monotonic()
        waited, self._read_at = now - self._read_at, now
        if page.behind or limits.is_full(page.wire_bytes, page.count or len(page.records), poll.max_records):
            self._arrivals.behind()
            pause, least = limits.pause_behind(page.wire_bytes), 0.0
        else:
            pauses = Pauses.of(limits, poll.target_latency, poll.idle_backoff_max)
            if self._was_behind(page, waited):
                self._arrivals.behind()
                pause = pauses.shortest
            else:
                self._arrivals.looked(waited, self._asked_for)
                pause = self._arrivals.pause(pauses)
            least = FIVE_A_SECOND
            if self._lineage.has_children(self._shard_id):
                pause = max(limits.interval, min(pause, CLOSED_PAUSE))
            pause = max(pause, limits.paid_after(page.wire_bytes))
        pause = max(least, pause * (0.9 + 0.2 * self._random.random()))
        part = max((page.count or len(page.records)) / poll.max_records, page.wire_bytes / limits.page_bytes)
        self._looks.read(self._requests.asked, 1.0 if page.behind else part)
        until_next = self._looks.until_next(pause, now)
        if page.records:
            pause = max(limits.pause_behind(page.wire_bytes), until_next)
        await self._pause(pause)

    def _was_behind(self, page: Page, waited: float) -> bool:
        """Where the service does not say so: a page that is not full may still not be the last one. Its newest record
        was there already when the shard was looked at before."""
        if page.behind is not None or not page.records or not page.records[-1].created:
            return False
        return self._clock.wall() - page.records[-1].created > waited + AT_TIP

    async def _pause(self, seconds: float) -> None:
        self.state.looks_at = self._clock.wall() + seconds
        await asyncio.sleep(seconds)

    async def _pause_after(self, error: DependencyError | PermissionDenied, failures: int) -> None:
        self.state.throttled = isinstance(error, Throttled)
        if isinstance(error, PermissionDenied):
            self.state.refusal = error
        if isinstance(error, PermissionDenied) or failures >= FAILING_AFTER:
            self.state.failing = str(error)
        level = log.info if isinstance(error, Throttled) else log.warning
        level("shard.read_failed", shard_id=self._shard_id, error=str(error), failures=failures)
        never_allowed = self.state.refusal is not None and not self.state.answered
        backoff = FIRST_REFUSALS if never_allowed else ERROR_BACKOFF
        await asyncio.sleep(backoff.after(failures) * (0.5 + self._random.random()))
