"""The order of a shard with tumbling windows: one batch at a time, and calls that close windows between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumer.domain.batching import Batch, KeyReadyQueue
from consumer.worker.shard.batch_forming import BatchForming
from consumer.worker.shard.order import Work
from consumer.worker.shard.shard_order import InOrderRunner, ShardOrder
from consumer.worker.shard.subscription import Subscription
from consumer.worker.shard.tumbling_windows import WindowedRunner

LOOK = 1.0  # seconds between looks at a window that may be over while no record arrives


class WindowOrder(ShardOrder):
    """``on_ready`` is called when a window may be over although nothing arrives."""

    def __init__(
        self,
        windowed: WindowedRunner,
        runner: InOrderRunner,
        forming: BatchForming,
        queue: KeyReadyQueue,
        subscription: Subscription,
        tasks: asyncio.TaskGroup,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(runner, forming, queue)
        self._windowed = windowed
        self._subscription = subscription
        self._on_ready = on_ready
        self._no_more = False
        self._looking = tasks.create_task(self._look_for_ends(), name="ends of windows")

    @property
    def is_through(self) -> bool:
        """The window is closed if nothing more will be added."""
        return not (self._no_more and self._windowed.is_open)

    def next(self, *, alone: bool) -> Work | None:
        batch = self._closing_batch(alone=alone) if self._forming.is_idle else self._forming.next()
        return None if batch is None else lambda: self._run(batch)

    async def _run(self, batch: Batch) -> None:
        if await self._windowed.run(batch, last=self._no_more):
            self._queue.free(batch.keys)

    def no_more(self) -> None:
        self._no_more = True

    def stop(self) -> None:
        self._looking.cancel()

    def _closing_batch(self, *, alone: bool) -> Batch | None:
        """A batch without records closes the open window: at the shard's end, or when its time has passed."""
        if not alone or self._subscription.outstanding:
            return None
        return Batch() if self._windowed.is_over(end_of_shard=self._no_more) else None

    async def _look_for_ends(self) -> None:
        """Nothing else wakes up for a window that ends while no record arrives."""
        while True:
            await asyncio.sleep(LOOK)
            self._on_ready()
