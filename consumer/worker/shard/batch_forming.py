"""Forms the batches of one shard from what waits: at once, or, with a batching window, when a batch is full or the
window is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumer.domain.batching import Batch, KeyReadyQueue
from consumer.domain.events import EVENT_FRAME, MAX_EVENT
from consumer.worker.context import WorkerContext


class BatchForming:
    """Batches of ready records of ``queue``. ``on_ready`` is called when a window is over; ``max_event`` bounds the
    bytes of a call's event, ``state_size`` says how many of them something else takes."""

    def __init__(
        self,
        context: WorkerContext,
        queue: KeyReadyQueue,
        tasks: asyncio.TaskGroup,
        on_ready: Callable[[], None],
        max_event: int = MAX_EVENT,
        state_size: Callable[[], int] = lambda: 0,
    ) -> None:
        batch = context.settings.batch
        self._queue = queue
        self._tasks = tasks
        self._on_ready = on_ready
        self._memory_is_short = context.budget.short
        self._batch_size: int = batch.batch_size
        self._room = max_event - EVENT_FRAME
        self._state_size = state_size
        self._gather_for: float = batch.batching_window
        self._gathering: Batch | None = None
        self._timer: asyncio.Task[None] | None = None
        self._gathered_enough = False

    @property
    def is_idle(self) -> bool:
        """Whether no batch can be formed until a key gets free or records arrive."""
        return self._gathering is None and not self._queue.may_have_ready

    def next(self) -> Batch | None:
        """The batch to run now; None when nothing is ready or a batch is still being gathered."""
        if self.is_idle:
            return None
        batch = self._gathering or Batch()
        full = self._queue.fill(batch, self._batch_size, self._room - self._state_size())
        if not batch.entries:
            return None
        if full or not self._gather_for or self._gathered_enough:
            self.stop()
            return batch
        if self._gathering is None:  # the window begins when a batch can begin, as in Lambda
            self._gathering = batch
            self._timer = self._tasks.create_task(self._gathered(), name="gather a batch")
        return None

    def no_more(self) -> None:
        """The shard is read to its end: nothing is gathered any longer."""
        self._gather_for = 0.0

    def stop(self) -> None:
        """Gather no longer."""
        self._gathering = None
        self._gathered_enough = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _gathered(self) -> None:
        """The window is over, or memory is short: then what it waits for may not even be read until it is handled."""
        try:
            async with asyncio.timeout(self._gather_for):
                await self._memory_is_short.wait()
        except TimeoutError:
            pass
        self._timer = None
        self._gathered_enough = True
        self._on_ready()  # with no slot free now, it gets the next one that is given back
