"""One owned shard from taking its lease to releasing it: read, dispatch, checkpoint, end.

Ends in one of these ways: the shard is finished; the lease was released, to a named worker or to any (drained first, so
no record is handled twice); the lease was lost (nothing more is written). A shard that is halted, because records were
trimmed unread, keeps its owner until its lease is released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal

import structlog

from consumer.domain.errors import LeaseLost, ResourceMissing, TrimmedData, Unavailable, first_error
from consumer.domain.lease import LeaseRow
from consumer.domain.windows import TumblingWindow
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.subscription import Subscription
from consumer.worker.shard.tumbling_windows import discard_window
from consumer.worker.tasks import Stopped, never_ending, until_stopped

log = structlog.get_logger()

LeaseEnd = Literal["done", "released", "lost"]
ReadEnd = Literal["end", "trimmed", "vanished"]


class ShardWorker:
    """Owns the lease ``row`` at its epoch."""

    def __init__(self, context: WorkerContext, row: LeaseRow, lineage: Lineage) -> None:
        self._context = context
        self._lineage = lineage
        self._budget = BudgetAccount(context.budget)
        self._subscription = Subscription(context, row.frontier)
        self._reader = ShardReader(context, row.shard_id, row.frontier, self._subscription, self._budget, lineage)
        self._dispatcher: Dispatcher | None = None
        self._release_asked = asyncio.Event()
        self._release_to: str | None = None
        self._grace: float | None = None
        self._drain_limit: asyncio.Timeout | None = None
        self.lease = HeldLease(context, row, self._subscription)

    # --- what the fleet and the operator see -------------------------------------------------------------

    @property
    def shard_id(self) -> str:
        return self.lease.shard_id

    @property
    def releasing(self) -> bool:
        """Whether the lease is being released."""
        return self._release_asked.is_set()

    @property
    def reader(self) -> ShardReader:
        return self._reader

    @property
    def outstanding(self) -> int:
        """Records fetched but not settled."""
        return self._subscription.outstanding

    @property
    def retrying_keys(self) -> int:
        """Keys that wait for a retry or for a dead letter."""
        return self._dispatcher.retrying_keys if self._dispatcher else 0

    def lag(self, now: float) -> float:
        """Seconds by which the oldest unsettled record is behind; 0 when the shard is read to its tip and settled."""
        state, subscription = self._reader.state, self._subscription
        if state.at_tip and not subscription.outstanding:
            return 0.0
        newest = state.newest_fetched_time
        # filtered records are settled, too
        behind = (subscription.newest_settled_time or newest) if subscription.outstanding else newest
        return max(0.0, now - behind) if behind else 0.0

    # --- the work ----------------------------------------------------------------------------------------

    def release(self, to: str | None = None, *, grace: float | None = None) -> None:
        """Start to drain, and release the lease then: to the incarnation ``to``, or to any worker. ``grace`` limits the
        wait for calls under way, in seconds from now (None: no limit). A second call (a shutdown during a hand-over)
        replaces both."""
        self._release_to, self._grace = to, grace
        self._release_asked.set()
        limit = self._drain_limit
        if limit is not None and not limit.expired() and grace is not None:
            limit.reschedule(asyncio.get_running_loop().time() + grace)

    async def run(self) -> LeaseEnd:
        """Work until the lease ends. Raises nothing but cancellation and bugs."""
        try:
            return await self._work()
        except* LeaseLost as group:
            log.warning("lease.lost", shard_id=self.shard_id, epoch=self.lease.epoch, reason=str(first_error(group)))
            self._context.metrics.lease_events("lost").inc()
        finally:
            self._budget.close()
        return "lost"

    async def _work(self) -> LeaseEnd:
        state = self.lease.state
        if state == "halted":
            if self._context.settings.source.on_gap == "halt":
                log.error("shard.halted", shard_id=self.shard_id, note=self.lease.row.note, hint="set on_gap: continue")
                return await self._wait_halted()
            self.lease.reopen()
            return await self._process(from_horizon=True)
        if state in ("draining", "done"):
            return await self._finish()
        return await self._process(from_horizon=False)

    async def _process(self, *, from_horizon: bool) -> LeaseEnd:
        if not await self._take_over_window():
            return await self._release()
        while True:
            ended = await self._read_and_dispatch(partial(self._read_and_settle, from_horizon=from_horizon))
            if ended == "end":
                return await self._finish()
            if ended == "stop":
                return await self._release()
            if not await self._leave_gap(ended):
                return await self._wait_halted()
            if ended == "vanished":
                return await self._finish()
            from_horizon = True

    async def _take_over_window(self) -> bool:
        """Go on with the window of the previous owner, or end it when other settings have opened it: nothing may be
        handled before. False when the shard has to stop first."""
        settings, subscription = self._context.settings, self._subscription
        size = int(settings.batch.tumbling_window)
        if not size and not self.lease.row.window_open:
            return True
        try:
            left = await self.lease.read_window(self._release_asked)
        except Unavailable:
            return False
        subscription.window = TumblingWindow(size, left)
        if left.is_left_over(size):
            if not settings.handler.takes_windows:
                await discard_window(self._context, self.lease, left)
            elif await self._read_and_dispatch(_end_window) == "stop":
                return False
        if not size:
            await self.lease.end_windows()
        return True

    async def _read_and_dispatch(
        self, read_and_settle: Callable[[Dispatcher], Coroutine[Any, Any, ReadEnd]]
    ) -> ReadEnd | Literal["stop"]:
        """Run ``read_and_settle``, batches and checkpoints until the first is through or the shard has to stop."""
        result: ReadEnd | Literal["stop"] = "stop"
        # Batches live in a group of their own, so that stopping the reader and the checkpoints never cancels a call.
        try:
            async with asyncio.TaskGroup() as batches:
                self._dispatcher = dispatcher = Dispatcher(self._context, self.lease, self._subscription, batches)
                checkpoints = batches.create_task(
                    never_ending("checkpoints", self.lease.checkpoint_for_ever()), name=f"checkpoint {self.shard_id}"
                )
                reading = batches.create_task(read_and_settle(dispatcher), name=f"read {self.shard_id}")
                stopping = batches.create_task(self._release_asked.wait(), name=f"stop {self.shard_id}")
                await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    result = reading.result()
                reading.cancel()
                await self._drain(dispatcher)
                stopping.cancel()
                async with self.lease.writing:  # a write that is cut off could be applied late, after newer ones
                    checkpoints.cancel()
        finally:
            if self._dispatcher is not None:
                self._dispatcher.abandon()
                self._dispatcher = None
        return result

    async def _read_and_settle(self, dispatcher: Dispatcher, *, from_horizon: bool) -> ReadEnd:
        """Read the shard to its end, and wait until everything that was read is settled."""
        ended = await self._read(dispatcher, from_horizon=from_horizon)
        if ended != "trimmed":
            dispatcher.no_more()
        await dispatcher.settle_all()
        return ended

    async def _read(self, dispatcher: Dispatcher, *, from_horizon: bool) -> ReadEnd:
        while True:
            before = self._reader.position()
            try:
                await self._reader.read_to_end(dispatcher, from_horizon=from_horizon)
            except TrimmedData:
                return "trimmed"
            except ResourceMissing as error:
                if await self._lineage.is_gone(self.shard_id):
                    return "vanished"
                log.error("stream.missing", shard_id=self.shard_id, error=str(error))
                await asyncio.sleep(5.0)
                if self._reader.position() != before:
                    from_horizon = False  # what was read since then must not be read again
            else:
                return "end"

    async def _drain(self, dispatcher: Dispatcher) -> None:
        """Wait for the calls under way; after the grace they are cancelled (their records stay unsettled)."""
        try:
            async with asyncio.timeout(self._grace if self.releasing else None) as self._drain_limit:
                await dispatcher.drain()
        except TimeoutError:
            log.warning("shard.drain_timed_out", shard_id=self.shard_id, grace=self._grace)
            await dispatcher.cancel()
        finally:
            self._drain_limit = None

    async def _leave_gap(self, ended: ReadEnd) -> bool:
        """Leave a durable trace of records that were never read; False when the shard must halt."""
        reason = (
            "the shard is not listed any more before it was read to its end"
            if ended == "vanished"
            else "records were trimmed before they were read"
        )
        on_gap, after = self._context.settings.source.on_gap, self._reader.position().sequence_number
        loss = Loss("gap", self.shard_id, after, None, reason, self._context.ports.clock.wall())
        await self.lease.record_gap(loss)
        self._context.metrics.gaps.inc()
        log.error("shard.gap", shard_id=self.shard_id, after=after, reason=reason, on_gap=on_gap)
        if on_gap == "continue":
            return True
        await self.lease.change_state("halted", reason)
        return False

    # --- ends ------------------------------------------------------------------------------------------

    async def _wait_halted(self) -> LeaseEnd:
        await self._release_asked.wait()
        return await self._release()

    async def _finish(self) -> LeaseEnd:
        """Everything of the shard is settled. Children may start once that is durable; ``done`` when they have rows."""
        if self.lease.state != "done":
            await self.lease.change_state("draining")
            self._lineage.shard_settled(self.shard_id)
        try:
            await until_stopped(self._release_asked, self._lineage.register_children(self.lease.row))
        except Stopped:
            return await self._release()
        await self.lease.change_state("done")
        self._context.metrics.lease_events("finished").inc()
        log.info("shard.finished", shard_id=self.shard_id, epoch=self.lease.epoch)
        self._lineage.shard_settled(self.shard_id)
        return "done"

    async def _release(self) -> LeaseEnd:
        """Give the drained lease away; no other worker can have touched it meanwhile."""
        to = self._release_to
        await self.lease.release(to)
        self._context.metrics.lease_events("handed_over" if to else "released").inc()
        log.info("lease.passed_on", shard_id=self.shard_id, epoch=self.lease.epoch, target=to)
        return "released"


async def _end_window(dispatcher: Dispatcher) -> ReadEnd:
    """Read nothing: with nothing to come, the open window ends."""
    dispatcher.no_more()
    await dispatcher.settle_all()
    return "end"
