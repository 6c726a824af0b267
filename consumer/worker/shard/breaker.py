"""The breaker of one shard: its state over time, what is logged of it, and what an operator sees.

Both orders ask it before a call and tell it what came of it. What is tried while it is open is theirs to say, because
one of them lets nothing overtake (``shard_order.py``, ``key_probes.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import structlog

from consumer.domain.breaker import Breaker, State
from consumer.domain.outcome import HandlerFault, Outcome
from consumer.domain.stream_record import StreamRecord
from consumer.worker.context import WorkerContext

log = structlog.get_logger()

LEFT = 8  # one part in so many of the retention is not waited for: a dead letter is better than a trimmed record
HINTS = {
    "keys_fail": "mend the handler, or what it depends on; the shard tries a key now and then and goes on by itself",
    "not_invoked": "see handler.worker_start_failed, or whether the endpoint answers; the shard goes on by itself",
}


def _nobody() -> None:
    """Nothing waits for a change."""


class ShardBreaker:
    """``oldest_unsettled`` gives the creation time (Unix seconds) of the oldest record that is read and not settled; 0
    without one. ``on_change`` is called when a probe may start, and when the breaker has closed. ``last_error`` is the
    type of the last fault of a call, and no text of user code.

    A shard whose oldest record has only an eighth of its retention left closes its breaker: what would be trimmed is
    better off in the dead letters."""

    def __init__(self, context: WorkerContext, shard_id: str, oldest_unsettled: Callable[[], float]) -> None:
        self.on_change: Callable[[], None] = _nobody
        self.last_error = ""
        self._clock = context.ports.clock
        self._retention = context.ports.source.retention
        self._is_on: bool = context.settings.on_failure.breaker
        self._shard_id = shard_id
        self._oldest_unsettled = oldest_unsettled
        self._breaker = Breaker()
        self._place = ""
        self._successes = context.successes
        self._probe: object | None = None
        self._opened_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> State:
        return self._breaker.state

    @property
    def is_closed(self) -> bool:
        return self._breaker.state == "closed"

    # --- what came of calls ------------------------------------------------------------------------------

    def answered(
        self,
        outcome: Outcome,
        keys: Collection[bytes],
        records: Sequence[StreamRecord],
        call: object,
        *,
        cuts: bool = False,
    ) -> None:
        """A call with these records has ended. ``call`` is what ``begin`` or ``turn`` was given, if it was a probe;
        ``cuts``: records that fail together are tried in parts next, which says more than that they have failed."""
        if outcome.fault is not None:
            self._remember(outcome.fault)
        if outcome.kind != "not_invoked":
            self._breaker.invoked()
        elif self._may_open() and self._breaker.not_invoked(set(keys), self._clock.monotonic()):
            self._opened()
        if self._probe is call:
            worked = _worked(outcome, records)
            invoked = outcome.kind != "not_invoked"
            is_cut = cuts and len(records) > 1 and invoked
            is_poison = invoked and self._successes.elsewhere(self._shard_id, self._clock.monotonic())
            self._probed(good=None if is_cut and not worked else worked, is_poison=is_poison)

    def handled(self, batch: object, keys: int) -> None:
        """So many keys of a batch got through."""
        now = self._clock.monotonic()
        self._breaker.handled(batch, keys, now)
        if self.is_closed:
            self._successes.note(self._shard_id, now)

    def fails(self, batch: object, key: bytes, keys: int = 1) -> None:
        """A piece of a batch begins to fail, or is given up: ``keys`` of them, ``key`` for all of them."""
        if self._may_open() and self._breaker.fails(batch, key, keys, self._clock.monotonic()):
            self._opened()

    # --- probes ------------------------------------------------------------------------------------------

    def may_probe(self) -> bool:
        """Whether a call may start although the breaker is open. That may close it, see above."""
        if self._is_about_to_lose():
            self._probe = None
            self._breaker.close(self._clock.monotonic())
            self._closed("retention")
            return False
        return self._breaker.may_probe(self._clock.monotonic())

    def begin(self, call: object) -> None:
        """This call is the probe."""
        self._probe = call
        self._breaker.begin_probe()

    def not_called(self, call: object) -> None:
        """Nothing was called after all, if this was the probe: the next one may follow."""
        if self._probe is call:
            self._probed(good=None)

    async def turn(self, call: object, draining: asyncio.Event) -> bool:
        """Wait while the breaker is open, until a probe may start or ``draining``. True when this call is the probe."""
        while not (self.is_closed or draining.is_set()):
            if self.may_probe():
                self.begin(call)
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_probe()):
                    await draining.wait()
        return False

    def stop(self) -> None:
        """The shard is released."""
        if self._timer is not None:
            self._timer.cancel()
        self.on_change = _nobody

    def _probed(self, *, good: bool | None, is_poison: bool = False) -> None:
        self._probe = None
        now = self._clock.monotonic()
        self._breaker.probed(good=good, now=now, is_poison=is_poison)
        if good is not None:
            log.info(
                "breaker.probed",
                shard_id=self._shard_id,
                good=good,
                error_type=None if good else self.last_error,
                next_probe=self._breaker.until_probe(now),
            )
        if self.is_closed:
            self._closed("probes")
        else:
            self._wake_later()

    # --- changes -----------------------------------------------------------------------------------------

    def _may_open(self) -> bool:
        return self._is_on and self.is_closed and not self._is_about_to_lose()

    def _is_about_to_lose(self) -> bool:
        oldest = self._oldest_unsettled()
        return bool(oldest) and self._clock.trusted() - oldest > self._retention * (LEFT - 1) / LEFT

    def _opened(self) -> None:
        breaker = self._breaker
        self._opened_at = self._clock.monotonic()
        log.error(
            "breaker.opened",
            shard_id=self._shard_id,
            cause=breaker.cause,
            failed_keys=breaker.failed,
            of_keys=breaker.outcomes,
            error_type=self.last_error,
            error_at=self._place,
            next_probe=breaker.pause,
            hint=HINTS[breaker.cause],
        )
        self._wake_later()

    def _closed(self, reason: str) -> None:
        seconds = round(self._clock.monotonic() - self._opened_at, 1)
        log.warning("breaker.closed", shard_id=self._shard_id, reason=reason, open_for=seconds)
        self.on_change()

    def _wake_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._until_probe(), self._wake)

    def _wake(self) -> None:
        """A clock that is slow against the loop's is waited for."""
        if not self.is_closed and self._breaker.until_probe(self._clock.monotonic()) > 0:
            self._wake_later()
        else:
            self.on_change()

    def _until_probe(self) -> float:
        return max(0.01, self._breaker.until_probe(self._clock.monotonic()))

    def _remember(self, fault: HandlerFault) -> None:
        self.last_error = fault.type
        # "  File "handlers.py", line 12, in handler", without the line of code below it
        self._place = fault.stack[-1].strip().partition("\n")[0] if fault.stack else ""


def _worked(outcome: Outcome, records: Sequence[StreamRecord]) -> bool:
    """Whether the handler did anything with these records."""
    if outcome.kind == "partial":
        return bool(records) and records[0].sequence_number not in outcome.failed
    return outcome.kind == "ok"
