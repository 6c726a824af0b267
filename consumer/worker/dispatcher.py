"""Forms batches of one shard and settles them: at most ``parallelization_factor`` at a time, a key in at most one.

Batch workers are started when records arrive and end when nothing is ready, so an idle shard costs no task. All state
lives on one event loop; nothing here is touched from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from consumer.domain.batching import Entry, KeyReadyQueue, PageHold
from consumer.domain.frontier import Frontier
from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.settlement import GiveUp, Invoke, Settlement
from consumer.worker.budget import BudgetAccount
from consumer.worker.context import WorkerContext
from consumer.worker.graveyard import Graveyard

log = structlog.get_logger()


class Dispatcher:
    """Runs the handler over what the reader adds. ``drain`` ends it after the calls that are under way."""

    def __init__(
        self,
        context: WorkerContext,
        lease: LeaseRow,
        frontier: Frontier,
        budget: BudgetAccount,
        tasks: asyncio.TaskGroup,
        on_progress: Callable[[], None],
    ) -> None:
        batch = context.settings.batch
        self._context = context
        self._lease = lease
        self._frontier = frontier
        self._budget = budget
        self._tasks = tasks
        self._on_progress = on_progress
        self._queue = KeyReadyQueue(self._has_to_wait)
        self._width: int = batch.parallelization_factor
        self._batch_size: int = batch.batch_size
        self._policy = context.retry_policy
        self._draining = asyncio.Event()
        self._graveyard = Graveyard(context, lease, self._draining)
        self._running = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._retrying: set[bytes] = set()
        self.newest_settled_time = 0.0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def parked_keys(self) -> int:
        """Keys that wait for a retry or for a dead letter."""
        return len(self._retrying)

    def add(self, entries: list[Entry]) -> None:
        if not entries:
            return
        self._context.metrics.in_flight_records.inc(len(entries))
        self._queue.add(entries)
        self._start_workers()

    async def drain(self) -> None:
        """Start no further call and wait for those under way. What is not settled stays outside the frontier."""
        self._draining.set()
        await self._idle.wait()

    async def cancel(self) -> None:
        """Cancel the calls under way and wait until they have really ended; their records stay unsettled."""
        self._draining.set()
        for task in self._workers:
            task.cancel()
        await self._idle.wait()

    def abandon(self) -> None:
        """Give back what unsettled records hold, once no batch is under way any more."""
        self._context.metrics.in_flight_records.dec(self._frontier.outstanding)

    def _start_workers(self) -> None:
        while self._running < self._width and self._queue.may_have_ready and not self._draining.is_set():
            entries = self._queue.take(self._batch_size)
            if not entries:
                return
            self._running += 1
            self._idle.clear()
            task = self._tasks.create_task(self._work(entries), name=f"batches of {self._lease.shard_id}")
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)

    async def _work(self, entries: list[Entry]) -> None:
        try:
            while entries:
                keys = {entry.key for entry in entries}
                try:
                    await self._settle_batch(entries, keys)
                finally:
                    self._retrying -= keys
                if self._draining.is_set() or self._context.belief.fenced:
                    return
                self._queue.free(keys)
                entries = self._queue.take(self._batch_size)
                self._start_workers()
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()
                self._on_progress()

    async def _settle_batch(self, entries: list[Entry], keys: set[bytes]) -> None:
        """Drive the settlement to its end, or until draining. Pieces settle from left to right, so what is settled is
        always a prefix of ``entries``."""
        ports = self._context.ports
        settlement = Settlement(self._policy, [entry.record for entry in entries])
        settled = 0
        request_id = ""
        while (step := settlement.next(ports.clock.wall())) is not None:
            if isinstance(step, GiveUp):
                if not await self._bury(step, keys, request_id or ports.random.token()):
                    return
                done, result = settlement.gave_up(), "dead_lettered"
            else:
                if not await self._may_call(step):
                    return
                step = settlement.next(ports.clock.wall())
                if not isinstance(step, Invoke):
                    continue  # it grew too old during the back-off: what is too old is never sent
                if step.fresh_request or not request_id:
                    request_id = ports.random.token()
                outcome = await self._call(step, request_id)
                if outcome is None:
                    return
                done, result = settlement.answered(outcome), "handled"
                if outcome.kind != "ok":
                    self._failed(step, outcome, entries[settled:], keys, request_id)
            if done:
                self._settled(entries[settled : settled + len(done)], result)
                settled += len(done)

    async def _may_call(self, step: Invoke) -> bool:
        """Wait for the back-off. False when draining starts meanwhile."""
        if step.after > 0:
            self._context.metrics.retries.inc()
            try:
                async with asyncio.timeout(step.after):
                    await self._draining.wait()
            except TimeoutError:
                pass
        return not self._draining.is_set()

    async def _still_owns(self) -> bool:
        """Wait out a late renewal; False when the lease is over or being let go. True without giving up the loop when
        the belief holds, so nothing can come between this and what the caller does next."""
        belief, clock = self._context.belief, self._context.ports.clock
        while not belief.holds(clock.monotonic()):
            if belief.fenced or self._draining.is_set():
                return False
            await clock.sleep(0.05)
        return True

    async def _call(self, step: Invoke, request_id: str) -> Outcome | None:
        """One handler call, or None when draining started before it could.

        The ownership check stands right before the call, with no await in between: a worker that was frozen while its
        lease was taken starts nothing when it wakes up.
        """
        settings, ports = self._context.settings, self._context.ports
        async with self._context.slots.one():
            if not await self._still_owns() or self._draining.is_set():
                return None
            call = HandlerCall(
                records=step.records,
                request_id=request_id,
                attempt=step.attempt,
                application=settings.application,
                shard_id=self._lease.shard_id,
                lease_epoch=self._lease.epoch,
                timeout=settings.handler.timeout,
            )
            outcome = await ports.handler.invoke(call)
        metrics = self._context.metrics
        metrics.handler_seconds.observe(outcome.seconds)
        metrics.batches(outcome.kind).inc()
        return outcome

    def _failed(
        self, step: Invoke, outcome: Outcome, entries: Sequence[Entry], keys: set[bytes], request_id: str
    ) -> None:
        """Log the failure and copy what now lives longer out of its pages: a slice keeps its whole page in memory."""
        fault = outcome.fault
        log.warning(
            "batch.failed",
            shard_id=self._lease.shard_id,
            outcome=outcome.kind,
            records=len(step.records),
            first_sequence_number=step.records[0].sequence_number,
            last_sequence_number=step.records[-1].sequence_number,
            attempt=step.attempt,
            request_id=request_id,
            fault=fault.kind if fault else None,
            error_type=fault.type if fault else None,
            error=fault.message[:512] if fault else None,
        )
        self._retrying |= keys
        for entry in (*entries, *self._queue.waiting_behind(keys)):
            self._detach(entry)
        for entry in entries:
            entry.record.forget()

    async def _bury(self, step: GiveUp, keys: set[bytes], request_id: str) -> bool:
        self._retrying |= keys
        if not await self._still_owns():
            return False  # the next owner decides about these records
        return await self._graveyard.bury(step, request_id)

    def _has_to_wait(self, entry: Entry) -> None:
        """A record behind a key that is being retried may wait long: it must not pin its page meanwhile."""
        if entry.key in self._retrying:
            self._detach(entry)

    def _detach(self, entry: Entry) -> None:
        if entry.hold.detached:
            return
        budget, size = self._budget, entry.record.detach()
        budget.charge(size)
        entry.hold.let_go()
        entry.hold = PageHold(1, lambda: budget.release(size), detached=True)

    def _settled(self, entries: Sequence[Entry], result: str) -> None:
        self._frontier.settle([entry.position for entry in entries])
        for entry in entries:
            entry.hold.let_go()
        self.newest_settled_time = max(
            self.newest_settled_time, entries[-1].record.dynamodb.ApproximateCreationDateTime
        )
        metrics = self._context.metrics
        metrics.records(result).inc(len(entries))
        metrics.in_flight_records.dec(len(entries))
        self._on_progress()
