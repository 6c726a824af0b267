"""The lease of a shard in the hands of its owner: the only writer of a lease row from its taking to its release.

Every write carries the owner's incarnation and epoch, so a refusal means that the lease is lost. A row that was deleted
is put back as its owner knows it, whatever the write was, if the owner may trust in its leases at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog

from consumer.domain.checkpoint_pace import CheckpointPace
from consumer.domain.errors import LeaseDeleted, LeaseLost, Unavailable
from consumer.domain.frontier import MAX_RUNS_BYTES_GIVEN_AWAY
from consumer.domain.lease import LeaseRow, LeaseState
from consumer.domain.windows import WindowState
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.retrying import Backoff, Failed, retrying
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

T = TypeVar("T")

SOON = Backoff(0.3, 0.3)  # seconds: a peer waits for this lease
STEADY = Backoff(1.0, 1.0)


class HeldLease:
    """One lease at one epoch. ``subscription`` says what of the shard is settled.

    ``writing`` is held while the frontier is written: of two writes at once the older could be applied last, and so
    could one that was cut off.
    """

    def __init__(self, context: WorkerContext, row: LeaseRow, subscription: Subscription) -> None:
        self._store = context.ports.store
        self._label = context.stream.label
        self._validity = context.validity
        self._clock = context.ports.clock
        self._context = context
        self.failures = context.metrics.checkpoint_failures
        self._subscription = subscription
        self._taken = row if row.state != "waiting" else replace(row, state="open")
        self._saved_version = subscription.version
        self._saved_window: WindowState | None = WindowState()  # None: not known, as after a deletion
        self._saved_at = self._clock.monotonic()
        self._pace = CheckpointPace(_settlements(subscription))
        self.writing = asyncio.Lock()

    @property
    def shard_id(self) -> str:
        return self._taken.shard_id

    @property
    def epoch(self) -> int:
        return self._taken.epoch

    @property
    def state(self) -> LeaseState:
        return self._taken.state

    @property
    def row(self) -> LeaseRow:
        """The row as its owner would write it now."""
        return self._row()

    @property
    def is_saved(self) -> bool:
        """Whether everything that is settled is durable."""
        return self._subscription.version == self._saved_version

    @property
    def checkpoint_age(self) -> float:
        """Seconds since everything settled was last known to be durable."""
        return 0.0 if self.is_saved else self._clock.monotonic() - self._saved_at

    # --- checkpoints -----------------------------------------------------------------------------------

    async def checkpoint_for_ever(self) -> None:
        """Write the frontier when it has moved: at once, or at the end of ``checkpoint.interval`` since the last write
        (``domain/checkpoint_pace.py``). An idle shard sets no timer for it. LeaseLost."""
        subscription, pace, clock = self._subscription, self._pace, self._clock
        while True:
            await subscription.unsaved.wait()
            subscription.unsaved.clear()
            while not self.is_saved:
                interval, now = self._context.settings.checkpoint.interval, clock.monotonic()
                if (rest := pace.rest(now, interval)) > 0:
                    await asyncio.sleep(rest)  # under load nothing is gained by looking at every settlement
                    continue
                under_way = subscription.outstanding > 0
                if (pause := pace.pause(now, interval, _settlements(subscription), under_way=under_way)) > 0:
                    await _next_change(subscription.unsaved, pause)
                    continue
                try:
                    await self._save(interval)
                except Unavailable as error:
                    _checkpoint_failed(self, error)

    def reopen(self) -> None:
        """Read a shard again that is halted, or was read to its end before: its next write says so."""
        self._taken = replace(self._taken, state="open", note="")

    async def change_state(self, state: LeaseState, note: str = "") -> None:
        """Write another state; repeated until it is durable. LeaseLost."""
        self._taken = replace(self._taken, state=state, note=note)

        def failed(error: Exception, _: int) -> None:
            _checkpoint_failed(self, error)

        await self._until_durable(self._save, Backoff(0.5, 0.5), failed)

    async def _save(self, interval: float = 0.0) -> None:
        """Not beside another write, which could bring back what was before; nor, once it is its turn, within so many
        seconds after that."""
        async with self.writing:
            if self._pace.rest(self._clock.monotonic(), interval) > 0:
                return
            subscription = self._subscription
            version, window, settlements = subscription.version, subscription.window_state, _settlements(subscription)
            try:
                await self.write(lambda row, window: self._store.save(self._label, row, window))
            except Unavailable:
                self._pace.failed(self._clock.monotonic())
                raise
            self._saved_version, self._saved_at = version, self._clock.monotonic()
            self._saved_window = window
            if window is not None:
                self._taken = replace(self._taken, window_open=window.window is not None)
            self._pace.wrote(self._saved_at, settlements)

    # --- losses, windows -------------------------------------------------------------------------------

    async def record_loss(self, loss: Loss) -> None:
        """One attempt to write the durable trace of records that no handler will settle. LeaseLost, Unavailable."""
        await self.write(lambda row, _: self._store.record_loss(self._label, row, loss))

    async def record_gap(self, loss: Loss) -> None:
        """The trace of records that were never read, or of a window; repeated until it is durable. LeaseLost."""

        def failed(error: Exception, _: int) -> None:
            log.warning("gap.record_failed", shard_id=self.shard_id, error=str(error))

        await self._until_durable(lambda: self.record_loss(loss), STEADY, failed)

    async def read_window(self, stop: asyncio.Event) -> WindowState:
        """The tumbling window that the previous owner left open. Unavailable when ``stop`` is set before an answer."""

        def failed(error: Exception, _: int) -> None:
            log.warning("window.load_failed", shard_id=self.shard_id, error=str(error))

        read = self._store.window_state
        durable = await self._until_durable(lambda: read(self._label, self.shard_id), STEADY, failed, stop)
        self._saved_window = durable
        return durable

    async def end_windows(self) -> None:
        """This shard has no tumbling windows any more: close what is left of one, and store that; repeated until it is
        durable. LeaseLost. Nothing may be settled meanwhile."""
        subscription = self._subscription
        if self._taken.window_open or not self.is_saved:  # or a checkpoint has stored its end
            if subscription.window is not None:
                subscription.window.close()
            await self.change_state(self.state, self._taken.note)
        subscription.window = None
        self._saved_version = subscription.version  # which no longer counts the changes of the window,
        self._pace.wrote(self._saved_at, _settlements(subscription))  # nor does this one

    # --- the end ---------------------------------------------------------------------------------------

    async def release(self, to: str | None) -> None:
        """Give the drained lease to the incarnation ``to``, or to any worker that takes it (None), in one conditional
        write with everything that is settled; repeated until it is durable. LeaseLost."""

        def failed(error: Exception, _: int) -> None:
            log.warning("lease.hand_over_failed", shard_id=self.shard_id, error=str(error))

        def write(row: LeaseRow, window: WindowState | None) -> Awaitable[None]:
            return self._store.release(self._label, row, to, window)

        await self._until_durable(lambda: self.write(write, MAX_RUNS_BYTES_GIVEN_AWAY), SOON, failed)

    async def put_back(self) -> None:
        """Write the row again after it was deleted. Owner and epoch stay, so later writes go on as if nothing had
        happened. LeaseDeleted when this worker may not trust in its leases at this moment. Nothing is written once its
        session was fenced."""
        row = self.row
        if not self._validity.holds(self._clock.monotonic()):
            raise LeaseDeleted(self.shard_id, self.epoch)
        if row.owner is not None and await self._store.put_back(self._label, row, row.owner) is not None:
            log.error("lease.put_back", shard_id=self.shard_id, epoch=row.epoch, low=row.frontier.low)

    # --- one write -------------------------------------------------------------------------------------

    async def write(
        self, write: Callable[[LeaseRow, WindowState | None], Awaitable[None]], max_runs_bytes: int | None = None
    ) -> None:
        """One attempt at a ``write`` that is conditional on the lease. It is given the row as it is now, and the window
        if that has changed (writing it costs a transaction). When the row was deleted, row and window are put back
        first. LeaseLost, Unavailable."""
        row, window = self._row(max_runs_bytes), self._subscription.window_state
        try:
            await write(row, None if window == self._saved_window else window)
        except LeaseDeleted:
            self._saved_window = None
            await self.put_back()
            # As it is now: while this write was under way, the supervisor may have put back a newer row.
            await write(self._row(max_runs_bytes), self._subscription.window_state)

    def _row(self, max_runs_bytes: int | None = None) -> LeaseRow:
        window = self._subscription.window_state  # None: there are no windows, or it is not read yet
        window_open = self._taken.window_open if window is None else window.window is not None
        frontier = self._subscription.snapshot(max_runs_bytes)
        return replace(self._taken, frontier=frontier, window_open=window_open)

    async def _until_durable(
        self, attempt: Callable[[], Awaitable[T]], backoff: Backoff, failed: Failed, stop: asyncio.Event | None = None
    ) -> T:
        """Repeat what may pass, for as long as this worker may still write: LeaseLost when its session is fenced."""

        def check(error: Exception, attempts: int) -> None:
            failed(error, attempts)
            if self._validity.fenced:
                raise LeaseLost(self.shard_id, self.epoch, "the session is fenced") from error

        return await retrying(attempt, backoff, check, stop=stop)


def _settlements(subscription: Subscription) -> int:
    """Grows whenever something was done that a crash would repeat until it is stored: not with where the shard was read
    first, nor with a window that opens."""
    closings = subscription.window.closings if subscription.window is not None else 0
    return subscription.frontier.settlements + subscription.deferred.version + closings


async def _next_change(unsaved: asyncio.Event, within: float) -> None:
    """Wait for it, for so many seconds at most."""
    unsaved.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await unsaved.wait()


def _checkpoint_failed(lease: HeldLease, error: Exception) -> None:
    lease.failures.inc()
    log.warning("checkpoint.failed", shard_id=lease.shard_id, error=str(error))


async def release_idle(context: WorkerContext, row: LeaseRow) -> None:
    """One attempt to release a lease that is ours and was not worked on since it was read: to whichever worker takes
    it. LeaseLost, Unavailable."""
    await context.ports.store.release(context.stream.label, row)
