"""One owned shard from taking its lease to releasing it: read, dispatch, checkpoint, end.

Ends in one of these ways: the shard is finished; the lease was released, to a named worker or to any (drained first, so
no record is handled twice); the lease was lost (nothing more is written). A shard that is halted, because records were
trimmed unread, keeps its owner until its lease is released.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal

import structlog

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.errors import LeaseLost, ResourceMissing, TrimmedData, Unavailable, first_error
from consumer.domain.frontier import FrontierSnapshot, rewound
from consumer.domain.lease import LeaseRow
from consumer.domain.windows import TumblingWindow
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.catch_up import CatchUp
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.subscription import Subscription
from consumer.worker.tasks import Stopped, never_ending, until_stopped

log = structlog.get_logger()

LeaseEnd = Literal["done", "released", "lost"]
ReadEnd = Literal["end", "trimmed", "vanished"]
Gap = Literal["trimmed", "vanished"]


class ShardWorker:
    """Owns the lease ``row`` at its epoch."""

    def __init__(self, context: WorkerContext, row: LeaseRow, lineage: Lineage) -> None:
        self._context = context
        self._lineage = lineage
        self._budget = BudgetAccount(context.budget)
        frontier = resume_from(row, lineage, in_order=bool(context.settings.batch.tumbling_window))
        self._subscription = Subscription(context, frontier, self._budget)
        self._reader = ShardReader(context, row.shard_id, frontier, self._subscription, self._budget, lineage)
        self._dispatcher: Dispatcher | None = None
        self._release_asked = asyncio.Event()
        self._release_to: str | None = None
        self._grace: float | None = None
        self._drain_limit: asyncio.Timeout | None = None
        self.lease = lease = HeldLease(context, row, self._subscription)
        self._catch_up = CatchUp(context, lease, self._reader, self._subscription, self._budget, lineage)

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
        """Records that were read and are not settled."""
        return self._subscription.held

    @property
    def retrying_keys(self) -> int:
        """Keys that wait for a retry or for a dead letter."""
        return self._dispatcher.failing_keys if self._dispatcher else 0

    @property
    def deferred_keys(self) -> int:
        """Keys whose records wait outside of memory to be read again."""
        return len(self._subscription.deferred)

    def oldest_unsettled(self, now: float) -> float:
        """Age in seconds of the oldest record that was read and is not settled; 0 when there is none. ``now`` in Unix
        seconds."""
        created = self._subscription.oldest_unsettled()
        return max(0.0, now - created) if created else 0.0

    def lag(self, now: float) -> float:
        """Seconds by which the shard is behind: the age of the oldest record that is not settled, read or not; 0 when
        the shard is read to its tip and settled. ``now`` in Unix seconds."""
        return max(self.oldest_unsettled(now), self._reader.state.behind(now))

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
        window_size = int(self._context.settings.batch.tumbling_window)
        if window_size:  # nothing may be handled before the window of the previous owner is known
            try:
                durable = await self.lease.read_window(self._release_asked)
            except Unavailable:
                return await self._release()
            self._subscription.window = TumblingWindow(window_size, durable)
            if not await self._parents_are_settled():
                return await self._release()
        ended = await self._read_and_dispatch(from_horizon=from_horizon)
        if ended == "end":
            return await self._finish()
        return await (self._release() if ended == "stop" else self._wait_halted())

    async def _parents_are_settled(self) -> bool:
        """A window has one order, so no key may be held back for a parent alone. False when the lease is to be released
        before."""
        while self.lease.row.frontier.low is None and self._lineage.keys_held_back(self.lease.row.parents):
            try:
                async with asyncio.timeout(1.0):
                    await self._release_asked.wait()
                return False
            except TimeoutError:
                pass
        return True

    async def _read_and_dispatch(self, *, from_horizon: bool) -> Literal["end", "halted", "stop"]:
        """Run readers, batches and checkpoints until the shard is settled to its end or has to stop."""
        result: Literal["end", "halted", "stop"] = "stop"
        # Batches live in a group of their own, so that stopping the reader and the checkpoints never cancels a call.
        try:
            async with asyncio.TaskGroup() as batches:
                self._dispatcher = dispatcher = Dispatcher(self._context, self.lease, self._subscription, batches)
                checkpoints = batches.create_task(
                    never_ending("checkpoints", self.lease.checkpoint_for_ever()), name=f"checkpoint {self.shard_id}"
                )
                catching_up = batches.create_task(
                    never_ending("catching up", self._catch_up.run(dispatcher)), name=f"catch up {self.shard_id}"
                )
                reading = batches.create_task(
                    self._read_and_settle(dispatcher, from_horizon=from_horizon), name=f"read {self.shard_id}"
                )
                stopping = batches.create_task(self._release_asked.wait(), name=f"stop {self.shard_id}")
                await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    result = reading.result()
                reading.cancel()
                catching_up.cancel()
                await self._drain(dispatcher)
                stopping.cancel()
                async with self.lease.writing:  # a write that is cut off could be applied late, after newer ones
                    checkpoints.cancel()
        finally:
            if self._dispatcher is not None:
                self._dispatcher.abandon()
                self._dispatcher = None
        return result

    async def _read_and_settle(self, dispatcher: Dispatcher, *, from_horizon: bool) -> Literal["end", "halted"]:
        """Read the shard to its end, and wait until everything that was read is settled."""
        if self.lease.state == "deferred":
            self._reader.state.ended = True
        else:
            while (ended := await self._read(dispatcher, from_horizon=from_horizon)) != "end":
                if ended == "vanished":
                    dispatcher.no_more()
                await dispatcher.settle_all()
                if not await self._leave_gap(ended):
                    return "halted"
                if ended == "vanished":
                    self._reader.state.ended = True
                    break
                from_horizon = True
            dispatcher.no_more()
            await dispatcher.settle_all()
        if self._subscription.deferred:
            await self._settle_deferred()
        return "end"

    async def _settle_deferred(self) -> None:
        """Everything else of the shard is settled: its children may start, but for the deferred keys."""
        settled = self._subscription.settled
        await self.lease.change_state("deferred")
        self._lineage.shard_settled(self.shard_id)
        async with asyncio.TaskGroup() as tasks:
            children = tasks.create_task(self._lineage.register_children(self.lease.row))
            while self._subscription.deferred:
                settled.clear()
                await settled.wait()
            children.cancel()

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

    async def _leave_gap(self, ended: Gap) -> bool:
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
