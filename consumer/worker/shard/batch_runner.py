"""Settles one batch: handler calls, retries, bisect, dead letters; each record exactly once, in stream order.

What to do next is the decision of ``domain/settlement.py``. Here it is done, and three things are watched on the way:
ownership right before every call, the stop that must not wait for a back-off, and the memory that failing records hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import structlog

from consumer.domain.batching import Entry, KeyReadyQueue
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.settlement import GiveUp, Invoke, Settlement
from consumer.domain.windows import WindowCall
from consumer.worker.context import WorkerContext
from consumer.worker.shard.batch_slots import SlotPermit
from consumer.worker.shard.dead_letter_delivery import DeadLetterDelivery, extent
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

LOGGED_FRAMES = 10  # of the handler's stack, the innermost ones; a dead letter has more


class Window(Protocol):
    """The tumbling window that a batch belongs to."""

    def part(self) -> WindowCall:
        """What the event of the next invocation says of the window."""

    async def accept(self, state: bytes | None) -> bool:
        """Take over the state that came back for records which count as settled right afterwards. False when the shard
        is released meanwhile: then they are not settled."""


class BatchRunner:
    """Runs the batches of one shard, any number at the same time. ``draining`` ends them after the calls under way;
    ``queue`` holds what waits for their keys."""

    def __init__(
        self,
        context: WorkerContext,
        lease: HeldLease,
        subscription: Subscription,
        queue: KeyReadyQueue,
        draining: asyncio.Event,
    ) -> None:
        self._context = context
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._lease = lease
        self._subscription = subscription
        self._queue = queue
        self._draining = draining
        self._dead_letters = DeadLetterDelivery(context, lease, draining)

    async def run(
        self,
        entries: Sequence[Entry],
        keys: Collection[bytes],
        window: Window | None = None,
        *,
        permit: SlotPermit | None = None,
    ) -> bool:
        """Settle ``entries``, whose keys are ``keys``. False when the lease is over or being released before that; what
        is settled by then is a prefix, because pieces settle from left to right. No entries: a final invocation.
        ``permit`` is suspended while a dead letter is refused."""
        try:
            return await self._run(entries, keys, window, permit)
        finally:
            self._queue.end_retry(keys)

    async def _run(
        self, entries: Sequence[Entry], keys: Collection[bytes], window: Window | None, permit: SlotPermit | None
    ) -> bool:
        clock = self._clock
        born = window.part().window.end if window is not None else 0.0
        settlement = Settlement(self._subscription.retry_policy, [entry.record for entry in entries], born)
        settled = 0
        request_id = ""
        while (step := settlement.next(clock.wall())) is not None:
            if isinstance(step, GiveUp):
                part = window.part() if window is not None else None
                on_refused = self._gives_way(entries[settled:], permit)
                if not await self._give_up(step, keys, request_id or self._random.token(), part, on_refused):
                    return False
                done, result = settlement.gave_up(), "dead_lettered"
            else:
                if permit is not None and permit.suspended:
                    await permit.resume()
                if not await self._may_call(step):
                    return False
                async with self._context.slots:
                    # Right before the call, with no await in between: a worker that was frozen while its lease was
                    # taken starts nothing when it wakes up.
                    if not await self._still_owns() or self._draining.is_set():
                        return False
                    step = settlement.next(clock.wall())
                    if not isinstance(step, Invoke):
                        continue  # it grew too old in the back-off or the queue: what is too old is never sent
                    if step.fresh_request or not request_id:
                        request_id = self._random.token()
                    outcome = await self._call(step, request_id, window)
                done, result = settlement.answered(outcome), "handled"
                if outcome.kind != "ok":
                    self._failed(step, outcome, entries[settled:], keys, request_id)
                if window is not None and done and not await window.accept(outcome.state):
                    return False
            if done:
                self._subscription.settle(entries[settled : settled + len(done)], result)
                settled += len(done)
        return True

    async def _may_call(self, step: Invoke) -> bool:
        """Announce a retry and wait for its back-off. False when draining starts meanwhile."""
        if step.after > 0:
            self._context.metrics.retries.inc()
            log.info(
                "batch.retry_scheduled",
                shard_id=self._lease.shard_id,
                **extent(step.records),
                attempt=step.attempt,
                after=step.after,
            )
            try:
                async with asyncio.timeout(step.after):
                    await self._draining.wait()
            except TimeoutError:
                pass
        return not self._draining.is_set()

    async def _still_owns(self) -> bool:
        """Wait out a late renewal; False when the lease is over or being released. True without giving up the loop when
        the session is valid, so nothing can come between this and what the caller does next."""
        validity = self._context.validity
        while not validity.holds(self._clock.monotonic()):
            if validity.fenced or self._draining.is_set():
                return False
            await asyncio.sleep(0.05)
        return True

    async def _call(self, step: Invoke, request_id: str, window: Window | None) -> Outcome:
        """One handler call. Nothing is awaited before it."""
        settings = self._context.settings
        call = HandlerCall(
            records=step.records,
            request_id=request_id,
            attempt=step.attempt,
            application=settings.application,
            shard_id=self._lease.shard_id,
            lease_epoch=self._lease.epoch,
            timeout=settings.handler.timeout,
            window=window.part() if window is not None else None,
        )
        outcome = await self._context.ports.handler.invoke(call)
        metrics = self._context.metrics
        metrics.handler_seconds.observe(outcome.seconds)
        metrics.batches(outcome.kind).inc()
        return outcome

    def _failed(
        self, step: Invoke, outcome: Outcome, entries: Sequence[Entry], keys: Collection[bytes], request_id: str
    ) -> None:
        """Log the failure and copy what now lives longer out of its pages: a slice keeps its whole page in memory."""
        fault = outcome.fault
        log.warning(
            "batch.failed",
            shard_id=self._lease.shard_id,
            outcome=outcome.kind,
            **extent(step.records),
            attempt=step.attempt,
            request_id=request_id,
            fault=fault.kind if fault else None,
            error_type=fault.type if fault else None,
            error=fault.message[:512] if fault else None,
            error_stack=fault.stack[-LOGGED_FRAMES:] if fault else (),
        )
        self._queue.retry(keys)
        for entry in entries:
            entry.copy_out()
            entry.record.forget()

    async def _give_up(
        self,
        step: GiveUp,
        keys: Collection[bytes],
        request_id: str,
        window: WindowCall | None,
        on_refused: Callable[[], None],
    ) -> bool:
        self._queue.retry(keys)
        if not await self._still_owns():
            return False  # the next owner decides about these records
        return await self._dead_letters.deliver(step, request_id, window, on_refused)

    @staticmethod
    def _gives_way(entries: Sequence[Entry], permit: SlotPermit | None) -> Callable[[], None]:
        """What to do when a letter is refused: it may be for long, so other keys get the slot, and memory is freed."""

        def refused() -> None:
            if permit is not None and not permit.suspended:
                for entry in entries:
                    entry.copy_out()
                permit.suspend()

        return refused
