"""Runs the handler over the records of one shard: at most ``parallelization_factor`` batches at a time, a key in at
most one.

Slots are filled when records arrive and when a slot gets free, so an idle shard costs no task. What is done in a slot,
and in which order, is decided by the shard's order (``order.py``). All state lives on one event loop; nothing here is
touched from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import islice
from typing import Any

from consumer.domain.batching import Entry, KeyReadyQueue
from consumer.domain.events import MAX_EVENT
from consumer.worker.context import WorkerContext
from consumer.worker.shard.batch_forming import BatchForming
from consumer.worker.shard.breaker import ShardBreaker
from consumer.worker.shard.dead_letter_delivery import DeadLetterDelivery
from consumer.worker.shard.handler_calls import HandlerCalls
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.key_order import WAITING_SHARE, KeyOrder
from consumer.worker.shard.order import Order, Work
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.shard_order import InOrderRunner, ShardOrder
from consumer.worker.shard.subscription import Subscription
from consumer.worker.shard.tumbling_windows import WindowedRunner
from consumer.worker.shard.window_order import WindowOrder


class Dispatcher:
    """Runs the handler over what the reader adds. ``drain`` ends it after the calls that are under way; ``max_event``
    bounds the bytes of a call's event."""

    def __init__(
        self,
        context: WorkerContext,
        lease: HeldLease,
        subscription: Subscription,
        parked: ParkedRows,
        tasks: asyncio.TaskGroup,
        max_event: int = MAX_EVENT,
    ) -> None:
        self._context = context
        self._shard_id = lease.shard_id
        self._subscription = subscription
        self._parked = parked
        self._tasks = tasks
        self._draining = asyncio.Event()
        self._queue = KeyReadyQueue(self._most_waiting, context.bounds)
        self.breaker = ShardBreaker(context, lease.shard_id, subscription.oldest_unsettled)
        self._calls = HandlerCalls(context, lease, self._draining, self.breaker)
        self._width = 1 if subscription.in_order else context.settings.batch.parallelization_factor
        self._taken = 0  # slots
        self._running: dict[asyncio.Task[None], None] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._dead_letters = DeadLetterDelivery(context, lease, self._draining)
        self._order, self._forming = self._make_order(self._dead_letters, max_event)
        self.failing_since = self._order.failing_since

    def _make_order(self, dead_letters: DeadLetterDelivery, max_event: int) -> tuple[Order, BatchForming]:
        context, queue, subscription, tasks = self._context, self._queue, self._subscription, self._tasks
        if not subscription.in_order:
            forming = BatchForming(context, queue, tasks, self._start, max_event)
            by_key = KeyOrder(
                context,
                self._calls,
                dead_letters,
                subscription,
                queue,
                forming,
                tasks,
                self._parked,
                self._draining,
                width=self._width,
                spawn=self._spawn,
                start=self._start,
            )
            return by_key, forming
        runner = InOrderRunner(context, self._calls, dead_letters, subscription, self._draining)
        if subscription.window is None:
            forming = BatchForming(context, queue, tasks, self._start, max_event)
            return ShardOrder(runner, forming, queue), forming
        windowed = WindowedRunner(context, runner, subscription)
        forming = BatchForming(context, queue, tasks, self._start, max_event, lambda: windowed.state_size)
        return WindowOrder(windowed, runner, forming, queue, subscription, tasks, self._start), forming

    @property
    def _most_waiting(self) -> int:
        """Bytes that may wait behind failing keys."""
        return int(self._context.settings.limits.buffer // WAITING_SHARE)

    @property
    def failing_keys(self) -> int:
        """Keys that wait for another attempt, or for their dead letter."""
        return self._order.failing_keys

    def failing(self, most: int) -> list[tuple[bytes, float]]:
        """So many of those keys, each with the creation time (Unix seconds) of the first record that waits."""
        return list(islice(self._order.failing(), most))

    @property
    def letters_waiting(self) -> int:
        """Dead letters that the destination has refused so far."""
        return self._dead_letters.waiting

    @property
    def waits_for_slot(self) -> bool:
        """Whether records are ready, and every slot of the shard is taken."""
        return self._taken >= self._width and self._queue.may_have_ready

    @property
    def is_paused(self) -> bool:
        """Whether so many keys fail that nothing new is started."""
        return self._order.is_paused

    def add(self, entries: list[Entry]) -> None:
        """New records, in stream order."""
        if entries:
            self._context.metrics.in_flight_records.inc(len(entries))
            self._queue.max_waiting = self._most_waiting
            self._queue.add(entries)
            self._start()

    def add_read_again(self, entries: list[Entry]) -> None:
        """Records of deferred keys, of which nothing newer was added."""
        if entries:
            self._context.metrics.in_flight_records.inc(len(entries))
            self._queue.add_read_again(entries)
            self._start()

    def no_more(self) -> None:
        """The shard is read to its end: nothing is gathered any longer, and the open tumbling window ends."""
        self._forming.no_more()
        self._order.no_more()
        self._start()

    async def settle_all(self) -> None:
        """Returns when everything that was added is settled, but for the records of deferred keys."""
        settled = self._subscription.settled
        while self._subscription.outstanding or not self._order.is_through:
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
        for task in self._running:
            task.cancel()
        await self._idle.wait()

    def abandon(self) -> None:
        """Give back what unsettled records hold, once no batch is under way any more; nothing starts by itself then."""
        self._stop()
        self._context.metrics.in_flight_records.dec(self._subscription.held)

    def _stop(self) -> None:
        self._draining.set()
        self._calls.stop_waiting()
        self._forming.stop()
        self._order.stop()
        self.breaker.stop()

    # --- slots -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        while self._taken < self._width and not self._draining.is_set():
            work = self._order.next(alone=not self._taken)
            if work is None:
                return
            self._taken += 1
            self._spawn(self._fill_slot(work))

    async def _fill_slot(self, first: Work) -> None:
        """One piece of work after the other, while there is any."""
        work: Work | None = first
        try:
            while work is not None:
                await work()
                if not self._calls.may_go_on:
                    return
                work = self._order.next(alone=self._taken == 1)
                if self._taken < self._width:
                    self._start()
        finally:
            self._taken -= 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._idle.clear()
        task = self._tasks.create_task(work, name=f"batches of {self._shard_id}")
        self._running[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not self._running:
            self._idle.set()
            self._subscription.settled.set()
            self._subscription.unsaved.set()  # also the end of a window has to be stored
