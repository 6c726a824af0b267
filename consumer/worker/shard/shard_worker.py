"""One owned shard from taking its lease to releasing it: read, dispatch, checkpoint, end.

Ends in one of these ways: the shard is finished; the lease was released, to a named worker or to any (drained first, so
no record is handled twice); the lease was lost (nothing more is written). A shard that is halted, because records were
trimmed unread, keeps its owner until its lease is released.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal, NamedTuple

import structlog

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.errors import LeaseLost, Unavailable, first_error
from consumer.domain.frontier import FrontierSnapshot, rewound
from consumer.domain.lease import LeaseRow
from consumer.domain.replay import is_replaying
from consumer.domain.windows import TumblingWindow
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.breaker import ShardBreaker
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.processing import Processing
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.release import Release
from consumer.worker.shard.subscription import Subscription
from consumer.worker.shard.tumbling_windows import discard_window
from consumer.worker.tasks import Stopped, until_stopped

log = structlog.get_logger()

LeaseEnd = Literal["done", "released", "lost"]
PARENTS_PAUSE = 1.0  # seconds between looks at parents that are not settled


class Ages(NamedTuple):
    """Seconds: of the oldest record that was read and is not settled, and of one that may wait to be read; 0 when there
    is none."""

    unsettled: float
    unread: float

    @property
    def lag(self) -> float:
        """By how much the shard is behind; 0 when it is read to its tip and settled."""
        return max(self.unsettled, self.unread)


class ShardWorker:
    """Owns the lease ``row`` at its epoch. ``subscription`` and ``processing`` are for reports only.
    ``wish``: whether the lease is to be released, and to whom."""

    def __init__(self, context: WorkerContext, row: LeaseRow, lineage: Lineage) -> None:
        self._context = context
        self._lineage = lineage
        self._budget = BudgetAccount(context.budget)
        frontier = resume_from(row, lineage, in_order=bool(context.settings.batch.tumbling_window))
        self._reads_again = row.state == "deferred" and frontier != row.frontier
        self.subscription = Subscription(context, frontier, self._budget, row.replay)
        self._reader = ShardReader(
            context, row.shard_id, frontier, self.subscription, self._budget, lineage, row.parents
        )
        self.wish = Release()
        self.lease = HeldLease(context, row, self.subscription)
        self.parked = ParkedRows(context, self.lease)
        self.processing = Processing(
            context,
            self.lease,
            self._reader,
            self.subscription,
            self.parked,
            self._budget,
            lineage,
            self.wish,
        )

    # --- what the fleet and the operator see -------------------------------------------------------------

    @property
    def shard_id(self) -> str:
        return self.lease.shard_id

    @property
    def releasing(self) -> bool:
        """Whether the lease is being released."""
        return self.wish.asked.is_set()

    @property
    def reader(self) -> ShardReader:
        return self._reader

    @property
    def settled_up_to(self) -> str | None:
        """The number up to which everything is settled, but for deferred keys; None when nothing is."""
        return self.subscription.frontier.low

    @property
    def outstanding(self) -> int:
        """Records that were read and are not settled."""
        return self.subscription.held

    @property
    def retrying_keys(self) -> int:
        """Keys that wait for a retry or for a dead letter."""
        dispatcher = self.processing.dispatcher
        return dispatcher.failing_keys if dispatcher else 0

    @property
    def deferred_keys(self) -> int:
        """Keys whose records wait outside of memory to be read again."""
        return len(self.subscription.deferred)

    @property
    def is_paused(self) -> bool:
        """Whether so many keys fail that nothing new is started."""
        dispatcher = self.processing.dispatcher
        return dispatcher.is_paused if dispatcher else False

    @property
    def breaker(self) -> ShardBreaker | None:
        """None while no batches are handled."""
        dispatcher = self.processing.dispatcher
        return dispatcher.breaker if dispatcher else None

    @property
    def cannot_read(self) -> str:
        """Why nothing of the shard can be read at present; empty when it can, or when all of it was read."""
        if self.lease.state == "halted":
            return "halted, because records were trimmed before they were read"
        return self._reader.state.failing

    def ages(self, now: float) -> Ages:
        """How far the shard is behind at ``now`` (Unix seconds)."""
        created = self.subscription.oldest_unsettled()
        return Ages(max(0.0, now - created) if created else 0.0, self._reader.state.behind(now))

    # --- the work ----------------------------------------------------------------------------------------

    def release(self, to: str | None = None, *, grace: float | None = None) -> None:
        """Start to drain, and release the lease then: to the incarnation ``to``, or to any worker. ``grace`` limits the
        wait for calls under way, in seconds from now (None: no limit)."""
        self.wish.ask(to, grace=grace)

    async def run(self) -> LeaseEnd:
        """Work until the lease ends. Raises nothing but cancellation and bugs."""
        try:
            return await self._work()
        except* LeaseLost as group:
            log.warning("lease.lost", shard_id=self.shard_id, epoch=self.lease.epoch, reason=str(first_error(group)))
            self._context.metrics.lease_events("lost").inc()
        finally:
            self.parked.forget()
            self._budget.close()
        return "lost"

    async def _work(self) -> LeaseEnd:
        state = self.lease.state
        if state == "halted":
            if self._context.settings.source.on_gap == "halt":
                log.error("shard.halted", shard_id=self.shard_id, note=self.lease.row.note, hint="set on_gap: continue")
                return await self._wait_halted()
            self.lease.reopen()
        elif state in ("draining", "done"):
            self._reader.state.ended = True
            return await self._finish()
        elif self._reads_again:
            self.lease.reopen()  # its keys are deferred no more: it has records to read
        if not await self._take_over_window():
            return await self._release()
        try:
            await self.parked.load(self.wish.asked)
            if self.subscription.in_order and not await self.parked.wait_until_none(self.wish.asked):
                return await self._release()
        except Unavailable:
            return await self._release()
        row = self.lease.row
        if row.replay is not None and is_replaying(row):
            log.info("replay.started", shard_id=row.shard_id, since=row.replay.since, until=row.replay.settled)
        ended = await self.processing.read(from_horizon=state == "halted")
        if ended == "end":
            return await self._finish()
        return await (self._wait_halted() if ended == "halted" else self._release())

    async def _take_over_window(self) -> bool:
        """Go on with the window of the previous owner, or end it when other settings have opened it: nothing may be
        handled before. False when the shard has to stop first."""
        settings, subscription = self._context.settings, self.subscription
        size = int(settings.batch.tumbling_window)
        if not size and not self.lease.row.window_open:
            return True
        try:
            left = await self.lease.read_window(self.wish.asked)
        except Unavailable:
            return False
        subscription.window = TumblingWindow(size, left)
        if left.is_left_over(size):
            if not settings.handler.takes_windows:
                await discard_window(self._context, self.lease, left)
            elif await self.processing.end_window() == "stop":
                return False
        if not size:
            await self.lease.end_windows()
            return True
        return await self._parents_are_settled()

    async def _parents_are_settled(self) -> bool:
        """A window has one order, so no key may be held back for a parent alone. False when the lease is to be released
        before."""
        row = self.lease.row
        while row.frontier.low is None and self._lineage.keys_held_back(row.parents):
            try:
                async with asyncio.timeout(PARENTS_PAUSE):
                    await self.wish.asked.wait()
                return False
            except TimeoutError:
                pass
        return True

    # --- ends ------------------------------------------------------------------------------------------

    async def _wait_halted(self) -> LeaseEnd:
        await self.wish.asked.wait()
        return await self._release()

    async def _finish(self) -> LeaseEnd:
        """Everything of the shard is settled. Children may start once that is durable; ``done`` when they have rows."""
        if self.lease.state != "done":
            await self.lease.change_state("draining")
            self._lineage.shard_settled(self.shard_id)
        try:
            await until_stopped(self.wish.asked, self._lineage.register_children(self.lease.row))
        except Stopped:
            return await self._release()
        await self.lease.change_state("done")
        self._context.metrics.lease_events("finished").inc()
        log.info("shard.finished", shard_id=self.shard_id, epoch=self.lease.epoch)
        self._lineage.shard_settled(self.shard_id)
        return "done"

    async def _release(self) -> LeaseEnd:
        """Give the drained lease away; no other worker can have touched it meanwhile."""
        to = self.wish.to
        await self.lease.release(to)
        self._context.metrics.lease_events("handed_over" if to else "released").inc()
        log.info("lease.passed_on", shard_id=self.shard_id, epoch=self.lease.epoch, target=to)
        return "released"


def resume_from(row: LeaseRow, lineage: Lineage, *, in_order: bool) -> FrontierSnapshot:
    """Where to go on with a shard. A child that begins holds back the keys that its parents still have deferred.
    ``in_order``: no key may be behind the others."""
    frontier = row.frontier
    if in_order:
        return rewound(frontier)
    if not frontier.untouched:
        return frontier
    digests = {digest for listed in lineage.keys_held_back(row.parents) for digest in listed or ()}
    return replace(frontier, deferred=tuple(DeferredKey(digest, BEGINNING) for digest in sorted(digests)))
