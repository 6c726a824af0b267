"""Forms the batches of one shard and has them run: at most ``parallelization_factor`` at a time, a key in at most one.

A batch is sent as soon as something is ready, or, with a batching window, when it is full or the window is over. Tasks
are started when records arrive and end when nothing is ready, so an idle shard costs none. All state lives on one
event loop; nothing here is touched from another thread.
"""

from __future__ import annotations

import asyncio

from consumer.domain.batching import Batch, Entry, KeyReadyQueue
from consumer.worker.context import WorkerContext
from consumer.worker.shard.batch_runner import BatchRunner
from consumer.worker.shard.batch_slots import BatchSlots, SlotPermit
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.subscription import Subscription
from consumer.worker.shard.tumbling_windows import WindowedRunner

MAX_EVENT = 6 * 1024 * 1024  # bytes of an invocation's event, as in Lambda
EVENT_FRAME = 1024  # bytes of them for what surrounds the records


class Dispatcher:
    """Runs the handler over what the reader adds. ``drain`` ends it after the calls that are under way; ``max_event``
    bounds the bytes of a call's event."""

    def __init__(
        self,
        context: WorkerContext,
        lease: HeldLease,
        subscription: Subscription,
        tasks: asyncio.TaskGroup,
        max_event: int = MAX_EVENT,
    ) -> None:
        batch = context.settings.batch
        self._context = context
        self._shard_id = lease.shard_id
        self._subscription = subscription
        self._tasks = tasks
        self._draining = asyncio.Event()
        self._queue = KeyReadyQueue()
        self._runner = runner = BatchRunner(context, lease, subscription, self._queue, self._draining)
        self._windowed = None if subscription.window is None else WindowedRunner(context, runner, subscription)
        self._slots = BatchSlots(batch.parallelization_factor, self._start)
        self._batch_size: int = batch.batch_size
        self._room = max_event - EVENT_FRAME
        self._gather_for: float = batch.batching_window
        self._gathering: Batch | None = None
        self._gather_timer: asyncio.Task[None] | None = None
        self._gathered_enough = False
        self._no_more = False
        self._running: dict[SlotPermit, asyncio.Task[None]] = {}  # the permit of a series of batches -> its task
        self._idle = asyncio.Event()
        self._idle.set()
        if self._windowed is not None:
            self._closing = tasks.create_task(self._close_idle_windows(), name=f"windows of {lease.shard_id}")

    @property
    def retrying_keys(self) -> int:
        """Keys that wait for a retry or for a dead letter."""
        return self._queue.retrying_keys

    @property
    def _is_through(self) -> bool:
        """True when everything that was added is settled, and its window is closed if nothing more will be added."""
        if self._subscription.outstanding:
            return False
        return not (self._no_more and self._windowed is not None and self._windowed.is_open)

    def add(self, entries: list[Entry]) -> None:
        if not entries:
            return
        self._context.metrics.in_flight_records.inc(len(entries))
        self._queue.add(entries)
        self._start()

    def no_more(self) -> None:
        """The shard is read to its end: nothing is gathered any longer, and the open tumbling window ends."""
        self._no_more = True
        self._gather_for = 0.0
        self._start()

    async def settle_all(self) -> None:
        """Returns when everything that was added is settled."""
        settled = self._subscription.settled
        while not self._is_through:
            settled.clear()
            await settled.wait()

    async def drain(self) -> None:
        """Start no further call and wait for those under way. What is not settled stays outside the frontier."""
        self._stop()
        await self._idle.wait()

    async def cancel(self) -> None:
        """Cancel the calls under way and wait until they have really ended; their records stay unsettled. For when
        ``drain`` took too long: a batch that was started a moment ago has had its first step by then."""
        self._stop()
        for task in self._running.values():
            task.cancel()
        await self._idle.wait()

    def abandon(self) -> None:
        """Give back what unsettled records hold, once no batch is under way any more."""
        self._context.metrics.in_flight_records.dec(self._subscription.outstanding)

    def _stop(self) -> None:
        self._draining.set()
        self._stop_gathering()
        if self._windowed is not None:
            self._closing.cancel()

    # --- forming batches -------------------------------------------------------------------------------

    def _start(self) -> None:
        while self._slots.free and not self._draining.is_set():
            batch = self._next_batch(alone=not self._running)
            if batch is None:
                return
            self._run(batch)

    def _next_batch(self, *, alone: bool) -> Batch | None:
        """The batch to run now; None when nothing is ready or a batch is still being gathered. ``alone``: no other
        batch is running."""
        if self._gathering is None and not self._queue.may_have_ready:
            return self._closing_batch() if alone else None
        batch = self._gathering or Batch()
        room = self._room - (self._windowed.state_size if self._windowed is not None else 0)
        full = self._queue.fill(batch, self._batch_size, room)
        if not batch.entries:
            return None
        if full or not self._gather_for or self._gathered_enough:
            self._stop_gathering()
            return batch
        if self._gathering is None:  # the window begins when a batch can begin, as in Lambda
            self._gathering = batch
            self._gather_timer = self._tasks.create_task(self._gathered(), name=f"gather {self._shard_id}")
        return None

    async def _gathered(self) -> None:
        """The window is over, or memory is short: then what it waits for may not even be read until it is handled."""
        try:
            async with asyncio.timeout(self._gather_for):
                await self._context.budget.short.wait()
        except TimeoutError:
            pass
        self._gather_timer = None
        self._gathered_enough = True
        self._start()  # with no slot free now, it gets the next one that is given back

    def _stop_gathering(self) -> None:
        self._gathering = None
        self._gathered_enough = False
        if self._gather_timer is not None:
            self._gather_timer.cancel()
            self._gather_timer = None

    # --- running them ----------------------------------------------------------------------------------

    def _run(self, batch: Batch) -> None:
        self._idle.clear()
        permit = self._slots.take()
        self._running[permit] = self._tasks.create_task(self._work(batch, permit), name=f"batches of {self._shard_id}")

    async def _work(self, first: Batch, permit: SlotPermit) -> None:
        batch: Batch | None = first
        try:
            while batch is not None:
                if self._windowed is None:
                    await self._runner.run(batch.entries, batch.keys, permit=permit)
                else:  # a window has one order: nothing overtakes
                    await self._windowed.run(batch, last=self._no_more)
                if self._draining.is_set() or self._context.validity.fenced:
                    return
                self._queue.free(batch.keys)
                keeps_slot = not (permit.suspended or self._slots.is_awaited)
                batch = self._next_batch(alone=len(self._running) == 1) if keeps_slot else None
                self._start()
        finally:
            permit.release()
            del self._running[permit]
            if not self._running:
                self._idle.set()
                self._subscription.settled.set()
                self._subscription.unsaved.set()  # also the end of a window has to be stored

    # --- tumbling windows ------------------------------------------------------------------------------

    def _closing_batch(self) -> Batch | None:
        """A batch without records closes the open window: at the shard's end, or when its time has passed."""
        windowed = self._windowed
        if windowed is None or self._subscription.outstanding:
            return None
        return Batch() if windowed.is_over(end_of_shard=self._no_more) else None

    async def _close_idle_windows(self) -> None:
        """Nothing else wakes up for a window that ends while no record arrives."""
        while True:
            await asyncio.sleep(1.0)
            self._start()
