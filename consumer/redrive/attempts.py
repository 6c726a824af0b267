"""Records of one key through the handler again: in order, with the rules of retry, a bounded number of times."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from consumer.domain.events import EVENT_FRAME, MAX_EVENT
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.redaction import Redaction
from consumer.domain.settlement import GiveUp, Invoke, RetryPolicy, Settlement
from consumer.domain.stream_record import StreamRecord
from consumer.ports.handler import Handler
from consumer.ports.time import Clock
from consumer.redrive.session import RedriveSession

MOST_NOT_INVOKED: Final = 5  # calls in a row that never reached user code
STOPPED: Final = "was not tried: the redrive was stopped"
NOT_SURE: Final = "was not tried: this process is not sure of its session any more"
BEHIND: Final = "waits behind an earlier record of its key, which failed again"


class Pace:
    """At most ``rate`` records a second; infinity for no limit."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock = clock
        self.rate = rate
        self._free_at = -math.inf

    def reserve(self, records: int) -> float:
        """Seconds to wait before the next ``records`` may begin; they count from now on."""
        now = self._clock.monotonic()
        begins = max(now, self._free_at)
        self._free_at = begins + records / self.rate
        return begins - now


@dataclass(frozen=True, slots=True)
class Calls:
    """How the handler is called. ``epoch_of`` gives the fencing token of a shard; ``timeout`` in seconds.
    ``redaction``: attributes whose values nothing said about a call may show; letters from before it was configured
    still hold them."""

    handler: Handler
    session: RedriveSession
    application: str
    timeout: float
    batch_size: int
    policy: RetryPolicy
    epoch_of: Callable[[str], int]
    redaction: Redaction | None = None


@dataclass(slots=True)
class Ended:
    """What came of some records. ``handled`` and ``failed`` (why) by their numbers in the books; ``reason`` is why the
    others were not tried, empty when there are none."""

    handled: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    reason: str = ""


class Attempts:
    """Calls the handler as long as the session holds and nobody wants an end.

    Args:
        calls: how.
        pace: how fast, for all keys together.
        stop: set when no further call is to start.
    """

    def __init__(self, calls: Calls, pace: Pace, stop: asyncio.Event) -> None:
        self._calls = calls
        self._pace = pace
        self._stop = stop

    async def run(self, records: Sequence[StreamRecord], shard_id: str) -> Ended:
        """``records`` of one key and one shard, in their order; what follows a record that fails is not tried."""
        ended = Ended()
        for batch in self._batches(records):
            await self._batch(batch, shard_id, ended)
            if ended.reason:
                break
        return ended

    def _batches(self, records: Sequence[StreamRecord]) -> Iterator[Sequence[StreamRecord]]:
        """As large as the daemon makes them; a slow pace is kept within a call, too."""
        most = self._calls.batch_size
        if math.isfinite(self._pace.rate):
            most = max(1, min(most, int(self._pace.rate)))
        batch: list[StreamRecord] = []
        size = EVENT_FRAME
        for record in records:
            if batch and (len(batch) == most or size + record.event_size > MAX_EVENT):
                yield batch
                batch, size = [], EVENT_FRAME
            batch.append(record)
            size += record.event_size
        if batch:
            yield batch

    async def _batch(self, records: Sequence[StreamRecord], shard_id: str, ended: Ended) -> None:
        settlement = Settlement(self._calls.policy, records)
        request_id, not_invoked = "", 0
        while (step := settlement.next(-math.inf)) is not None:
            if isinstance(step, GiveUp):
                fault = step.fault
                error = f"{fault.type}: {fault.message}"[:256] if fault is not None else "no reason given"
                reason = f"failed again, {step.invocations} times: {error}"
                ended.failed |= {record.number: reason for record in step.records}
                ended.reason = BEHIND
                return
            request_id = str(uuid.uuid4()) if step.fresh_request or not request_id else request_id
            outcome = (
                None if await self._is_stopped_while_waiting(step) else await self._call(step, shard_id, request_id)
            )
            if outcome is None:
                ended.reason = STOPPED if self._stop.is_set() else NOT_SURE
                return
            ended.handled.update(one.number for one in settlement.answered(outcome))
            not_invoked = not_invoked + 1 if outcome.kind == "not_invoked" else 0
            if not_invoked >= MOST_NOT_INVOKED:
                why = outcome.fault.message if outcome.fault else ""
                ended.reason = f"was not tried: the handler cannot be called: {why}"
                return

    async def _is_stopped_while_waiting(self, step: Invoke) -> bool:
        """Until the step's time has come."""
        seconds = max(step.after, self._pace.reserve(len(step.records)))
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
            except TimeoutError:
                pass
        return self._stop.is_set()

    async def _call(self, step: Invoke, shard_id: str, request_id: str) -> Outcome | None:
        """None when user code must not start any more."""
        calls, redaction = self._calls, self._calls.redaction
        turn = await calls.handler.reserve()
        try:
            if self._stop.is_set() or not calls.session.holds():
                return None
            call = HandlerCall(
                records=step.records,
                request_id=request_id,
                attempt=step.attempt,
                application=calls.application,
                shard_id=shard_id,
                lease_epoch=calls.epoch_of(shard_id),
                timeout=calls.timeout,
                may_start_for=calls.session.left,
                redrive=True,
                hidden=None if redaction is None else redaction.hidden_values(step.records),
            )
            return call.redacted(await turn.run(call))
        finally:
            turn.release()
