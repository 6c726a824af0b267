"""Tumbling windows: batches are cut at the borders of record time, and a final invocation without records ends each.

Observed on Lambda: ``[1] [2] [3] [4] [] [5]``, the empty call with the state of the window so far. A window closes when
a later record arrives, when the shard ends, when its time is over and nothing came for a while, and early when its
state grows beyond 1 MB. State and frontier are stored in one write, so that no record counts twice or never. A window
that other settings have opened is closed early, before anything else of its shard is handled.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from consumer.domain.batching import Batch
from consumer.domain.windows import MAX_STATE, TimeWindow, WindowCall, WindowState
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.shard_order import InOrderRunner
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

# Seconds after the end of a window during which records of it may still come (Lambda waits for up to two minutes):
# writes become readable late, and this machine's clock may be ahead of the service's.
IDLE_MARGIN = 30.0


class WindowedRunner:
    """Runs the batches of a shard one after the other, each within one window."""

    def __init__(self, context: WorkerContext, runner: InOrderRunner, subscription: Subscription) -> None:
        if subscription.window is None:
            raise ValueError("the subscription has no window")
        self._context = context
        self._runner = runner
        self._subscription = subscription
        self._window = subscription.window
        self._ended_early: TimeWindow | None = None

    @property
    def is_open(self) -> bool:
        return self._window.open is not None

    @property
    def state_size(self) -> int:
        """Bytes of the state that the next event carries."""
        return len(self._window.durable.state)

    def is_over(self, *, end_of_shard: bool) -> bool:
        """Whether the open window ends although no later record has come."""
        if end_of_shard:
            return self.is_open
        return self._window.is_over(self._subscription.tip_seen_at, IDLE_MARGIN)

    async def run(self, batch: Batch, *, last: bool) -> bool:
        """Settle a batch, closing windows on the way; a batch without records closes the open one. False when the
        shard is released before that."""
        entries = batch.entries
        if not entries and self.is_over(end_of_shard=last):
            return await self._close(_Final(self._part()))
        while entries:
            count = self._window.leading([entry.record.created for entry in entries])
            if count == 0:
                if not await self._close(_Final(self._part())):
                    return False
                continue
            if not await self._runner.run(entries[:count], self):
                return False
            entries = entries[count:]
        return True

    # --- what a batch's runner asks --------------------------------------------------------------------

    def part(self) -> WindowCall:
        if self._window.open is None and self._ended_early is not None:
            self._window.reopen(self._ended_early)  # an earlier piece of the same batch has ended it
        return self._part()

    async def accept(self, state: bytes | None) -> bool:
        """A state that is too large ends its window early, with one more call that gets all of it. Its records count as
        settled only after that: such a state is never stored."""
        if state is None:
            return True
        if len(state) <= MAX_STATE:
            self._window.aggregated(state)
            return True
        part = self._part()
        self._ended_early = part.window
        return await self._close(_Final(WindowCall(part.window, state, part.stream_arn, terminated_early=True)))

    async def _close(self, final: _Final) -> bool:
        part = final.part()
        if part.terminated_early:
            log.warning("window.terminated_early", window=part.window.text, state_bytes=len(part.state))
        if not await self._runner.run((), final):
            return False
        self._window.close()
        return True

    def _part(self) -> WindowCall:
        window = self._window.open
        if window is None:
            raise RuntimeError("no window is open")
        early = self._window.is_left_over  # records of it may follow, and are handled outside of it
        arn = self._context.stream.stream_arn
        return WindowCall(window, self._window.durable.state, arn, terminated_early=early, left_over=early)


class _Final:
    """The end of a window as its runner sees it. What the final call returns is not kept."""

    def __init__(self, part: WindowCall) -> None:
        self._part = replace(part, final=True)

    def part(self) -> WindowCall:
        return self._part

    async def accept(self, state: bytes | None) -> bool:
        return True


async def discard_window(context: WorkerContext, lease: HeldLease, left: WindowState) -> None:
    """Leave a durable trace of an open window that the handler cannot be told of; repeated until it is durable.
    LeaseLost."""
    if left.window is None:
        raise ValueError("no window is open")
    window, size = left.window.text, len(left.state)
    reason = (
        f"the tumbling window {window['start']} to {window['end']} with a state of {size} bytes was open, but now "
        f"handler.kind is {context.settings.handler.kind}, which takes no final call"
    )
    await lease.record_gap(Loss("discarded", lease.shard_id, None, None, reason, context.ports.clock.wall()))
    log.error("window.discarded", shard_id=lease.shard_id, window=window, state_bytes=size, reason=reason)
