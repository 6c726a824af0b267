"""Settles one batch: handler calls, retries, bisect, dead letters; each record exactly once, in stream order.

What to do next is the decision of ``domain/settlement.py``. Here it is done, and three things are watched on the way:
ownership right before every call, the stop that must not wait for a back-off, and the memory that failing records hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import structlog

from consumer.domain.batching import Entry, PageHold
from consumer.domain.frontier import Frontier
from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.settlement import GiveUp, Invoke, Settlement
from consumer.domain.windows import WindowCall
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.batch_slots import Place
from consumer.worker.shard.dead_letter_delivery import Graveyard, extent

log = structlog.get_logger()

LOGGED_FRAMES = 10  # of the handler's stack, the innermost ones; a dead letter has more


class Window(Protocol):
    """The tumbling window that a batch belongs to."""

    def part(self) -> WindowCall:
        """What the next invocation is told."""

    async def accept(self, state: bytes | None) -> bool:
        """Take over the state that came back for records which count as settled right afterwards. False when the shard
        is let go meanwhile: then they are not settled."""


class BatchRunner:
    """Runs the batches of one shard, any number at the same time. ``draining`` ends them after the calls under way.

    ``waiting_behind`` names the records that wait for keys; ``on_settled`` is called whenever some are settled.
    """

    def __init__(
        self,
        context: WorkerContext,
        lease: LeaseRow,
        frontier: Frontier,
        budget: BudgetAccount,
        draining: asyncio.Event,
        waiting_behind: Callable[[Iterable[bytes]], Iterable[Entry]],
        on_settled: Callable[[], None],
    ) -> None:
        self._context = context
        self._lease = lease
        self._frontier = frontier
        self._budget = budget
        self._draining = draining
        self._waiting_behind = waiting_behind
        self._on_settled = on_settled
        self._policy = context.retry_policy
        self._graveyard = Graveyard(context, lease, draining)
        self._retrying: set[bytes] = set()
        self.newest_settled_time = 0.0

    @property
    def retrying_keys(self) -> int:
        """Keys that wait for a retry or for a dead letter."""
        return len(self._retrying)

    async def run(
        self,
        entries: Sequence[Entry],
        keys: Collection[bytes],
        window: Window | None = None,
        *,
        place: Place | None = None,
    ) -> bool:
        """Settle ``entries``, whose keys are ``keys``. False when the lease is over or being let go before that; what
        is settled by then is a prefix, because pieces settle from left to right. No entries: a final invocation.
        ``place`` is left while a dead letter is refused."""
        try:
            return await self._run(entries, keys, window, place)
        finally:
            self._retrying.difference_update(keys)

    async def _run(
        self, entries: Sequence[Entry], keys: Collection[bytes], window: Window | None, place: Place | None
    ) -> bool:
        ports = self._context.ports
        born = window.part().window.end if window is not None else 0.0
        settlement = Settlement(self._policy, [entry.record for entry in entries], born)
        settled = 0
        request_id = ""
        while (step := settlement.next(ports.clock.wall())) is not None:
            if isinstance(step, GiveUp):
                part = window.part() if window is not None else None
                on_refused = self._waits_outside(entries[settled:], keys, place)
                if not await self._bury(step, keys, request_id or ports.random.token(), part, on_refused):
                    return False
                done, result = settlement.gave_up(), "dead_lettered"
            else:
                if place is not None and place.away:
                    await place.come_back()
                if not await self._may_call(step):
                    return False
                async with self._context.slots.one():
                    # Right before the call, with no await in between: a worker that was frozen while its lease was
                    # taken starts nothing when it wakes up.
                    if not await self._still_owns() or self._draining.is_set():
                        return False
                    step = settlement.next(ports.clock.wall())
                    if not isinstance(step, Invoke):
                        continue  # it grew too old in the back-off or the queue: what is too old is never sent
                    if step.fresh_request or not request_id:
                        request_id = ports.random.token()
                    outcome = await self._call(step, request_id, window)
                done, result = settlement.answered(outcome), "handled"
                if outcome.kind != "ok":
                    self._failed(step, outcome, entries[settled:], keys, request_id)
                if window is not None and done and not await window.accept(outcome.state):
                    return False
            if done:
                self._settled(entries[settled : settled + len(done)], result)
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
        """Wait out a late renewal; False when the lease is over or being let go. True without giving up the loop when
        the validity holds, so nothing can come between this and what the caller does next."""
        validity, clock = self._context.validity, self._context.ports.clock
        while not validity.holds(clock.monotonic()):
            if validity.fenced or self._draining.is_set():
                return False
            await asyncio.sleep(0.05)
        return True

    async def _call(self, step: Invoke, request_id: str, window: Window | None) -> Outcome:
        """One handler call. Nothing is awaited before it."""
        settings, ports = self._context.settings, self._context.ports
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
        outcome = await ports.handler.invoke(call)
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
        self._retrying.update(keys)
        self._detach_all(entries, keys)
        for entry in entries:
            entry.record.forget()

    async def _bury(
        self,
        step: GiveUp,
        keys: Collection[bytes],
        request_id: str,
        window: WindowCall | None,
        on_refused: Callable[[], None],
    ) -> bool:
        self._retrying.update(keys)
        if not await self._still_owns():
            return False  # the next owner decides about these records
        return await self._graveyard.bury(step, request_id, window, on_refused)

    def _waits_outside(
        self, entries: Sequence[Entry], keys: Collection[bytes], place: Place | None
    ) -> Callable[[], None]:
        """What to do when a letter is refused: it may be for long, so other keys get the place, and memory is freed."""

        def refused() -> None:
            if place is not None and not place.away:
                self._detach_all(entries, keys)
                place.leave()

        return refused

    def has_to_wait(self, entry: Entry) -> None:
        """A record behind a key that is being retried may wait long: it must not pin its page meanwhile."""
        if entry.key in self._retrying:
            self._detach(entry)

    def _detach_all(self, entries: Sequence[Entry], keys: Collection[bytes]) -> None:
        for entry in (*entries, *self._waiting_behind(keys)):
            self._detach(entry)

    def _detach(self, entry: Entry) -> None:
        if entry.hold.detached:
            return
        budget, size = self._budget, entry.record.detach()
        budget.charge(size)
        entry.hold.let_go()
        entry.hold = PageHold(1, lambda: budget.release(size), size=entry.record.event_size, detached=True)

    def _settled(self, entries: Sequence[Entry], result: str) -> None:
        self._frontier.settle([entry.position for entry in entries])
        hold, count = entries[0].hold, 0
        for entry in entries:  # a call a page, not a call a record
            if entry.hold is not hold:
                hold.let_go(count)
                hold, count = entry.hold, 0
            count += 1
        hold.let_go(count)
        self.newest_settled_time = max(
            self.newest_settled_time, entries[-1].record.dynamodb.ApproximateCreationDateTime
        )
        metrics = self._context.metrics
        metrics.records(result).inc(len(entries))
        metrics.in_flight_records.dec(len(entries))
        self._on_settled()
