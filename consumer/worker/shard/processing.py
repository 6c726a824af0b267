"""The work on one shard while its lease is held: readers, batches and checkpoints, until everything is settled or the
lease is to be released."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import structlog

from consumer.domain.completeness import lost_nothing
from consumer.domain.errors import ResourceMissing, StreamConsumerError, TrimmedData
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.catch_up import CatchUp
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.release import Release
from consumer.worker.shard.subscription import Subscription
from consumer.worker.tasks import never_ending

log = structlog.get_logger()

Gap = Literal["trimmed", "vanished"]
End = Literal["end", "halted"]
MISSING_PAUSE = 5.0  # seconds before a shard that the service does not know is read again


class Processing:
    """Of one shard. ``dispatcher`` is there while it runs."""

    def __init__(
        self,
        context: WorkerContext,
        lease: HeldLease,
        reader: ShardReader,
        subscription: Subscription,
        parked: ParkedRows,
        budget: BudgetAccount,
        lineage: Lineage,
        release: Release,
    ) -> None:
        self._context = context
        self._lease = lease
        self._shard_id = lease.shard_id
        self._reader = reader
        self._subscription = subscription
        self._lineage = lineage
        self._release = release
        self._parked = parked
        self._catch_up = CatchUp(context, lease, reader, subscription, parked, budget, lineage)
        self.dispatcher: Dispatcher | None = None

    def failing_for(self, now: float) -> float:
        """Seconds for which a key or a batch has failed without a record getting through, at ``now`` (monotonic): the
        longest of them; 0 without one."""
        since = self.dispatcher.failing_since() if self.dispatcher else None
        return 0.0 if since is None else max(0.0, now - since)

    async def read(self, *, from_horizon: bool) -> End | Literal["stop"]:
        """Until everything of the shard is settled (end), it must not be read on (halted), or the lease is to be
        released (stop). LeaseLost."""
        return await self._run(lambda dispatcher: self._read_and_settle(dispatcher, from_horizon=from_horizon))

    async def end_window(self) -> End | Literal["stop"]:
        """Read nothing: with nothing to come, the open window ends. LeaseLost."""
        return await self._run(_end_window)

    async def _run(self, work: Callable[[Dispatcher], Coroutine[Any, Any, End]]) -> End | Literal["stop"]:
        """Run ``work``, batches and checkpoints until the first is through or the shard has to stop."""
        result: End | Literal["stop"] = "stop"
        # Batches live in a group of their own, so that stopping the reader and the checkpoints never cancels a call.
        try:
            async with asyncio.TaskGroup() as batches:
                dispatcher = Dispatcher(self._context, self._lease, self._subscription, self._parked, batches)
                self.dispatcher = dispatcher
                checkpoints = self._beside(batches, "checkpoints", self._lease.checkpoint_for_ever())
                catching_up = self._beside(batches, "catching up", self._catch_up.run(dispatcher))
                working = batches.create_task(work(dispatcher), name=f"read {self._shard_id}")
                stopping = batches.create_task(self._release.asked.wait(), name=f"stop {self._shard_id}")
                await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    result = working.result()
                working.cancel()
                catching_up.cancel()
                await self._drain(dispatcher)
                stopping.cancel()
                async with self._lease.writing:  # a write that is cut off could be applied late, after newer ones
                    checkpoints.cancel()
        finally:
            if self.dispatcher is not None:
                self.dispatcher.abandon()
                self.dispatcher = None
        return result

    def _beside(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        return tasks.create_task(never_ending(name, work), name=f"{name} of {self._shard_id}")

    async def _drain(self, dispatcher: Dispatcher) -> None:
        """Wait for the calls under way; after the grace they are cancelled (their records stay unsettled)."""
        try:
            async with self._release.within_grace():
                await dispatcher.drain()
        except TimeoutError:
            log.warning("shard.drain_timed_out", shard_id=self._shard_id, grace=self._release.grace)
            await dispatcher.cancel()

    # --- reading ---------------------------------------------------------------------------------------

    async def _read_and_settle(self, dispatcher: Dispatcher, *, from_horizon: bool) -> End:
        """Read the shard to its end, and wait until everything of it is settled."""
        if self._lease.state == "deferred":
            self._reader.state.ended = True
        else:
            while (ended := await self._read(dispatcher, from_horizon=from_horizon)) != "end":
                whole = ended == "vanished" and await self._was_read_whole()
                if not whole and not await self._leave_gap(ended, dispatcher):
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
        await self._lease.change_state("deferred")
        self._lineage.shard_settled(self._shard_id)
        async with asyncio.TaskGroup() as tasks:
            children = tasks.create_task(self._lineage.register_children(self._lease.row))
            while self._subscription.deferred:
                settled.clear()
                await settled.wait()
            children.cancel()

    async def _read(self, dispatcher: Dispatcher, *, from_horizon: bool) -> Literal["end"] | Gap:
        while True:
            before = self._reader.position()
            try:
                await self._reader.read_to_end(dispatcher, from_horizon=from_horizon)
            except TrimmedData:
                return "trimmed"
            except ResourceMissing as error:
                if await self._lineage.is_gone(self._shard_id):
                    return "vanished"
                log.error("stream.missing", shard_id=self._shard_id, error=str(error))
                await asyncio.sleep(MISSING_PAUSE)
                if self._reader.position() != before:
                    from_horizon = False  # what was read since then must not be read again
            else:
                return "end"

    async def _was_read_whole(self) -> bool:
        """Whether the shard, which is not listed any more, was complete so lately that whatever came later would still
        be there. Not when its stream is gone: that takes all records with it."""
        ports, complete_at = self._context.ports, self._reader.position().complete_at
        if not lost_nothing(complete_at, ports.clock.wall(), ports.source.retention):
            return False
        try:
            await ports.source.describe()
        except StreamConsumerError:
            return False
        log.info("shard.expired", shard_id=self._shard_id, complete_at=complete_at)
        return True

    async def _leave_gap(self, gap: Gap, dispatcher: Dispatcher) -> bool:
        """Leave a durable trace of records that were never read. False when the shard must halt, once everything that
        was read is settled: a record that waits there holds up nothing but itself."""
        reason = (
            "the shard is not listed any more before it was read to its end"
            if gap == "vanished"
            else "records were trimmed before they were read"
        )
        number = self._reader.position().sequence_number
        after = number and self._context.stream.format.shown(number)
        on_gap = self._context.settings.source.on_gap
        loss = Loss("gap", self._shard_id, after, None, reason, self._context.ports.clock.wall())
        await self._lease.record_gap(loss)
        self._context.metrics.gaps.inc()
        log.error("shard.gap", shard_id=self._shard_id, after=after, reason=reason, on_gap=on_gap)
        if on_gap == "continue":
            return True
        await dispatcher.settle_all()
        await self._lease.change_state("halted", reason)
        return False


async def _end_window(dispatcher: Dispatcher) -> End:
    dispatcher.no_more()
    await dispatcher.settle_all()
    return "end"
