"""Delivery of dead letters: durable at the destination before the records count as settled, retried for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal

import structlog

from consumer.domain.dead_letter import (
    DeadLetterContext,
    Letter,
    Parked,
    PayloadPart,
    compressed_document,
    location_in_table,
    payload_parts,
    pointing_documents,
    split_payload,
)
from consumer.domain.errors import (
    DependencyError,
    LeaseLost,
    LetterRefused,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
    StreamConsumerError,
    Throttled,
)
from consumer.domain.settlement import GiveUp
from consumer.domain.stream_record import StreamRecord
from consumer.domain.windows import WindowCall
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.retrying import Backoff, retrying
from consumer.worker.shard.held_lease import HeldLease

log = structlog.get_logger()

FIRST_PAUSE, MOST_PAUSE = 0.2, 30.0  # seconds between two attempts


def extent(records: Sequence[StreamRecord]) -> dict[str, Any]:
    """Which records an event of the log is about. A window's final call is about none: its numbers are None."""
    return {
        "records": len(records),
        "first_sequence_number": records[0].sequence_number if records else None,
        "last_sequence_number": records[-1].sequence_number if records else None,
    }


class DeadLetterDelivery:
    """Delivers what the handler could not settle of one shard. Without a destination the durable trace is a
    ``discarded`` row in the lease table: nothing is ever skipped without one. ``waiting`` are the letters that were
    refused so far, and are tried again."""

    def __init__(self, context: WorkerContext, lease: HeldLease, draining: asyncio.Event) -> None:
        self._context = context
        self._lease = lease
        self._draining = draining
        self.waiting = 0

    async def deliver(
        self, step: GiveUp, request_id: str, window: WindowCall | None, parked: Parked | None = None
    ) -> bool:
        """True when the records are durable elsewhere. A destination that refuses is retried for ever with back-off
        (only the keys of this batch wait), but never holds up a shard that is being released: after ``draining`` there
        is one more attempt, then False, and the next owner goes on. What the destination can never take is not waited
        for (``_send``). LeaseLost when a discard is refused."""
        destination = self._context.ports.dead_letters
        try:
            if destination is None:
                await self._repeat(lambda: self._discard(step), step)
                self._report(step, window, None)
            else:
                await self._send(destination, self._letter(step, request_id, window, parked))
        except LeaseLost:
            raise
        except StreamConsumerError as error:
            log.warning("dead_letter.left", shard_id=self._lease.shard_id, **extent(step.records), error=str(error))
            return False
        return True

    def _letter(self, step: GiveUp, request_id: str, window: WindowCall | None, parked: Parked | None) -> Letter:
        settings = self._context.settings
        where = DeadLetterContext(
            application=settings.application,
            target=settings.handler.code,
            stream_arn=self._context.stream.stream_arn,
            source=self._context.stream.format,
            shard_id=self._lease.shard_id,
            request_id=request_id,
            label=self._context.stream.label,
        )
        now, redaction = self._context.ports.clock.wall(), self._context.redaction
        return Letter(where, step, now, window, parked=parked, redaction=redaction)

    # --- with a destination ------------------------------------------------------------------------------

    async def _send(self, destination: DeadLetters, letter: Letter) -> None:
        """Send the letter in the first form that the destination takes: plain, compressed, as several letters with
        fewer records each; what of it never fits is kept in the lease table, and the letter says where."""
        plain = letter.document()
        refusal = await self._attempt(destination, letter, plain)
        if refusal is not None and not refusal.payload_location:
            refusal = await self._attempt(destination, letter, compressed_document(plain))
        if refusal is None:
            return
        if len(letter.step.records) > 1 and not refusal.payload_location:
            for half in letter.halves():
                await self._send(destination, half)
        else:
            await self._keep(destination, letter, plain, refusal)

    async def _attempt(self, destination: DeadLetters, letter: Letter, document: bytes) -> LetterRefused | None:
        """Send one form of a letter, for as long as it takes. None when it is durable."""
        await asyncio.sleep(0)  # a form of 6 MB takes long to make, and a refusal no time: others get their turn here
        sending = partial(destination.send, document, attributes=letter.attributes)
        try:
            await self._repeat(sending, letter.step)
        except LetterRefused as refusal:
            self._context.metrics.dead_letters_refused("unfit").inc()
            return refusal
        self._report(letter.step, letter.window, destination.destination)
        return None

    async def _keep(
        self,
        destination: DeadLetters,
        letter: Letter,
        plain: bytes,
        refusal: LetterRefused,
    ) -> None:
        """Payload, trace, letter, in this order: nothing ever points to what is not there."""
        step, location = letter.step, refusal.payload_location
        if not location:
            table, label = self._context.settings.leases.table, self._context.stream.label
            for part in payload_parts(letter.key, split_payload(plain)[1]):
                await self._repeat(partial(self._store, label, part), step)
            location = location_in_table(table, letter.context.application, label, letter.key)
        loss = self._loss("kept", step, f"{step.condition}; {refusal}", location)
        await self._repeat(partial(self._lease.record_loss, loss), step)
        log.error(
            "dead_letter.kept",
            shard_id=self._lease.shard_id,
            **extent(step.records),
            location=location,
            reason=str(refusal),
        )
        if not refusal.payload_location:
            for pointer in pointing_documents(plain, location):
                if await self._attempt(destination, letter, pointer) is None:
                    return
        self._context.metrics.dead_letters(step.condition).inc()

    async def _store(self, label: str, part: PayloadPart) -> None:
        store = self._context.ports.store
        await self._lease.write(lambda row, _: store.store_part(label, row, part))

    # --- without a destination ---------------------------------------------------------------------------

    async def _discard(self, step: GiveUp) -> None:
        reason = f"{step.condition}; no on_failure.destination is configured"
        await self._lease.record_loss(self._loss("discarded", step, reason))

    # --- both --------------------------------------------------------------------------------------------

    def _loss(self, kind: Literal["discarded", "kept"], step: GiveUp, reason: str, location: str | None = None) -> Loss:
        return Loss(
            kind=kind,
            shard_id=self._lease.shard_id,
            first_sequence_number=step.records[0].sequence_number if step.records else None,
            last_sequence_number=step.records[-1].sequence_number if step.records else None,
            reason=reason,
            detected_at=self._context.ports.clock.wall(),
            location=location,
        )

    def _report(self, step: GiveUp, window: WindowCall | None, destination: str | None) -> None:
        self._context.metrics.dead_letters(step.condition).inc()
        in_window = {} if window is None else {"window": window.window.text}
        stored_at = {} if destination is None else {"destination": destination}
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

    async def _repeat(self, store: Callable[[], Awaitable[None]], step: GiveUp) -> None:
        """Until it is durable. LeaseLost, LetterRefused; after ``draining`` whatever the last attempt raises."""
        shard_id, metrics = self._lease.shard_id, self._context.metrics
        waiting = 0

        async def attempt() -> None:
            self._require_lease()
            await store()

        def failed(error: Exception, attempts: int) -> None:
            nonlocal waiting
            if not waiting:
                waiting = 1
                self.waiting += 1
                metrics.dead_letters_waiting.inc()
            metrics.dead_letters_refused(_reason(error)).inc()
            about = extent(step.records)
            log.error("dead_letter.refused", shard_id=shard_id, **about, attempt=attempts, error=str(error)[:512])

        backoff = Backoff(FIRST_PAUSE, MOST_PAUSE, self._context.ports.random.random)
        try:
            await retrying(attempt, backoff, failed, on=_may_be_accepted_later, stop=self._draining)
        finally:
            self.waiting -= waiting
            metrics.dead_letters_waiting.dec(waiting)

    def _require_lease(self) -> None:
        """Between two attempts the lease may have gone to another worker, which decides about these records now."""
        validity, lease = self._context.validity, self._lease
        if validity.fenced:
            raise LeaseLost(lease.shard_id, lease.epoch, "the session is fenced")
        if not validity.holds(self._context.ports.clock.monotonic()):
            raise DependencyError("SendDeadLetter", "LeaseInDoubt", "the session was not renewed in time")


def _may_be_accepted_later(error: BaseException) -> bool:
    """Also what a person has to mend, such as a queue that was deleted: it is never given up."""
    return isinstance(error, StreamConsumerError) and not isinstance(error, LeaseLost | LetterRefused)


def _reason(error: Exception) -> str:
    """Of ``dead_letters_refused_total``."""
    match error:
        case Throttled():
            return "throttled"
        case DependencyError(code="LeaseInDoubt"):
            return "lease_in_doubt"
        case PermissionDenied():
            return "denied"
        case ResourceMissing():
            return "missing"
        case MisconfiguredResource():
            return "misconfigured"
        case _:
            return "error"
