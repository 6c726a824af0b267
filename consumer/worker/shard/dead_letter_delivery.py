"""Delivery of dead letters: durable at the destination before the records count as settled, retried for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from consumer.domain.dead_letter import DeadLetterContext, document, idempotency_key
from consumer.domain.errors import DependencyError, LeaseLost, StreamConsumerError
from consumer.domain.record import Record, batch_event_json
from consumer.domain.settlement import GiveUp
from consumer.domain.windows import WindowCall
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.retrying import Backoff, retrying
from consumer.worker.shard.held_lease import HeldLease

log = structlog.get_logger()

FIRST_PAUSE, MOST_PAUSE = 0.2, 30.0  # seconds between two attempts


def extent(records: Sequence[Record]) -> dict[str, Any]:
    """Which records an event of the log is about. A window's final call is about none: its numbers are None."""
    return {
        "records": len(records),
        "first_sequence_number": records[0].sequence_number if records else None,
        "last_sequence_number": records[-1].sequence_number if records else None,
    }


class DeadLetterDelivery:
    """Delivers what the handler could not settle of one shard. Without a destination the durable trace is a
    ``discarded`` row in the lease table: nothing is ever skipped without one."""

    def __init__(self, context: WorkerContext, lease: HeldLease, draining: asyncio.Event) -> None:
        self._context = context
        self._lease = lease
        self._draining = draining

    async def deliver(self, step: GiveUp, request_id: str, window: WindowCall | None) -> bool:
        """True when the records are durable elsewhere. A destination that refuses is retried for ever with back-off
        (only the keys of this batch wait), but never holds up a shard that is being released: after ``draining`` there is one more attempt, then False, and the next owner goes on. LeaseLost when a
        discard is refused."""
        destination = self._context.ports.dead_letters
        if destination is None:
            stored = await self._persist(step, lambda: self._discard(step))
        else:
            body, attributes = self._letter(step, request_id, window)
            stored = await self._persist(step, lambda: destination.send(body, attributes=attributes))
        if not stored:
            return False
        self._context.metrics.dead_letters(step.condition).inc()
        in_window = {} if window is None else {"window": window.window.text}
        stored_at = {} if destination is None else {"destination": destination.destination}
        log.error(
            "records.discarded" if destination is None else "dead_letter.sent",
            shard_id=self._lease.shard_id,
            condition=step.condition,
            **extent(step.records),
            invocations=step.invocations,
            error=step.fault.message[:512] if step.fault else None,
            **in_window,
            **stored_at,
        )
        return True

    def _letter(self, step: GiveUp, request_id: str, window: WindowCall | None) -> tuple[bytes, dict[str, str]]:
        settings = self._context.settings
        where = DeadLetterContext(
            application=settings.application,
            target=settings.handler.target,
            stream_arn=self._context.stream.stream_arn,
            shard_id=self._lease.shard_id,
            request_id=request_id,
        )
        attributes = {
            "application": settings.application,
            "shard_id": self._lease.shard_id,
            "condition": step.condition,
            "idempotency_key": idempotency_key(where, step, window),
        }
        if step.fault is not None:
            attributes["error_type"] = step.fault.type[:256] or "unknown"
        fields = window.event_fields(self._lease.shard_id) if window is not None else b""
        event = batch_event_json(step.records, fields)
        return document(where, step, self._context.ports.clock.wall(), window=window, event=event), attributes

    async def _discard(self, step: GiveUp) -> None:
        loss = Loss(
            kind="discarded",
            shard_id=self._lease.shard_id,
            first_sequence_number=step.records[0].sequence_number if step.records else None,
            last_sequence_number=step.records[-1].sequence_number if step.records else None,
            reason=f"{step.condition}; no on_failure.destination is configured",
            detected_at=self._context.ports.clock.wall(),
        )
        await self._lease.record_loss(loss)

    async def _persist(self, step: GiveUp, send: Callable[[], Awaitable[None]]) -> bool:
        shard_id = self._lease.shard_id

        async def attempt() -> None:
            self._require_lease()
            await send()

        def failed(error: Exception, attempts: int) -> None:
            about = extent(step.records)
            log.error("dead_letter.refused", shard_id=shard_id, **about, attempt=attempts, error=str(error)[:512])

        backoff = Backoff(FIRST_PAUSE, MOST_PAUSE, self._context.ports.random.random)
        try:
            await retrying(attempt, backoff, failed, on=_may_be_accepted_later, stop=self._draining)
        except LeaseLost:
            raise
        except StreamConsumerError as error:
            log.warning("dead_letter.left", shard_id=shard_id, **extent(step.records), error=str(error))
            return False
        return True

    def _require_lease(self) -> None:
        """Between two attempts the lease may have gone to another worker, which decides about these records now."""
        validity, lease = self._context.validity, self._lease
        if validity.fenced:
            raise LeaseLost(lease.shard_id, lease.epoch, "the session is fenced")
        if not validity.holds(self._context.ports.clock.monotonic()):
            raise DependencyError("SendDeadLetter", "LeaseInDoubt", "the session was not renewed in time")


def _may_be_accepted_later(error: BaseException) -> bool:
    """Also what a person has to mend, such as a letter that is too large: it is never given up."""
    return isinstance(error, StreamConsumerError) and not isinstance(error, LeaseLost)
