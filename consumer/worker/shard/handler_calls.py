"""Calls of the handler for one shard: ownership right before user code starts, back-off, metrics and what is logged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.settlement import Invoke
from consumer.domain.stream_record import StreamRecord
from consumer.domain.windows import WindowCall
from consumer.ports.handler import Reservation
from consumer.worker.context import WorkerContext
from consumer.worker.shard.breaker import ShardBreaker
from consumer.worker.shard.dead_letter_delivery import extent
from consumer.worker.shard.held_lease import HeldLease

log = structlog.get_logger()

LOGGED_FRAMES = 10  # of the handler's stack, the innermost ones; a dead letter has more


class HandlerCalls:
    """Calls the handler while the lease is held. ``draining`` stops new calls; ``breaker`` is the shard's, which its
    order asks before a call and tells what came of it."""

    def __init__(
        self, context: WorkerContext, lease: HeldLease, draining: asyncio.Event, breaker: ShardBreaker
    ) -> None:
        self.breaker = breaker
        self._context = context
        self._clock = context.ports.clock
        self._validity = context.validity
        self._lease = lease
        self._draining = draining
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def shard_id(self) -> str:
        return self._lease.shard_id

    @property
    def may_go_on(self) -> bool:
        """Whether anything may be done with records that are not settled yet."""
        return not (self._draining.is_set() or self._validity.fenced)

    async def turn(self, *, again: bool) -> Reservation | None:
        """What a call needs, reserved until its caller releases it; None when nothing may be called. The lease is held
        at this moment, so nothing may be awaited before the call. ``again``: it is a retry; those never take all
        places.

        No context manager: one made of an async generator takes a tenth of what a call of one record costs."""
        places = self._context.places
        reserved = await (self._in_line(again=again) if places.are_limited else places.reserve(again=again))
        if reserved is None:
            return None
        may_call = False
        try:
            # After all waiting and right before the call, with no await in between: a worker that was frozen, or waited
            # for a process, while its lease was taken, starts nothing any more.
            owns = self._validity.holds(self._clock.monotonic()) or await self.still_owns()
            may_call = owns and not self._draining.is_set()
        finally:
            if not may_call:
                reserved.release()
        return reserved if may_call else None

    def stop_waiting(self) -> None:
        """The shard is released: a call that waits for its turn will not start any more."""
        ended, self._waiting = self._waiting, set()  # each wait once: asked again, asyncio would raise
        for waiting in ended:
            waiting.reschedule(asyncio.get_running_loop().time())

    async def _in_line(self, *, again: bool) -> Reservation | None:
        """Wait for a place; None when the shard is released first."""
        if self._draining.is_set():
            return None
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting.add(waiting)
                try:
                    return await self._context.places.reserve(again=again)
                finally:
                    self._waiting.discard(waiting)
        except TimeoutError:
            return None

    async def still_owns(self) -> bool:
        """Wait out a late renewal; False when the lease is over or being released. True without giving up the loop when
        the session is valid, so nothing can come between this and what the caller does next."""
        while not self._validity.holds(self._clock.monotonic()):
            if not self.may_go_on:
                return False
            await asyncio.sleep(0.05)
        return True

    async def call(self, turn: Reservation, step: Invoke, request_id: str, window: WindowCall | None = None) -> Outcome:
        """One handler call, in its ``turn``. Nothing is awaited before it."""
        edition = self._context.config.now
        settings, redaction = edition.settings, edition.redaction
        call = HandlerCall(
            records=step.records,
            request_id=request_id,
            attempt=step.attempt,
            application=settings.application,
            shard_id=self._lease.shard_id,
            lease_epoch=self._lease.epoch,
            timeout=settings.handler.timeout,
            window=window,
            may_start_for=self._valid_for,
            hidden=None if redaction is None else redaction.hidden_values(step.records),
        )
        outcome = call.redacted(await turn.run(call))  # here, once: whatever is made of a fault comes after it
        metrics = self._context.metrics
        metrics.handler_seconds.observe(outcome.seconds)
        metrics.batches(outcome.kind).inc()
        if outcome.kind != "ok":
            self._failed(step, outcome, request_id)
        return outcome

    def retry_scheduled(self, records: Sequence[StreamRecord], attempt: int, after: float) -> None:
        """Count and log that these records are tried again ``after`` seconds."""
        self._context.metrics.retries.inc()
        about = extent(records)
        log.info("batch.retry_scheduled", shard_id=self._lease.shard_id, **about, attempt=attempt, after=after)

    def _valid_for(self) -> float:
        return self._validity.left(self._clock.monotonic())

    def _failed(self, step: Invoke, outcome: Outcome, request_id: str) -> None:
        fault = outcome.fault
        if fault is not None:
            self._context.metrics.handler_errors(fault.kind).inc()
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
