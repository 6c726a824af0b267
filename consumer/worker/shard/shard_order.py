"""One batch of the shard at a time, to the letter of Lambda: nothing overtakes a failing one (``batch.order: shard``).

What to do next is the decision of ``domain/settlement.py``. Here it is done: calls, pauses, dead letters; each record
is settled exactly once, in stream order. Tumbling windows have this order, too, whatever ``batch.order`` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

from consumer.domain.batching import Batch, Entry, KeyReadyQueue
from consumer.domain.settlement import GiveUp, Invoke, Settlement
from consumer.domain.windows import WindowCall
from consumer.worker.context import WorkerContext
from consumer.worker.shard.batch_forming import BatchForming
from consumer.worker.shard.dead_letter_delivery import DeadLetterDelivery
from consumer.worker.shard.handler_calls import HandlerCalls
from consumer.worker.shard.order import Work
from consumer.worker.shard.subscription import Subscription


class Window(Protocol):
    """The tumbling window that a batch belongs to."""

    def part(self) -> WindowCall:
        """What the event of the next invocation says of the window."""

    async def accept(self, state: bytes | None) -> bool:
        """Take over the state that came back for records which count as settled right afterwards. False when the shard
        is released meanwhile: then they are not settled."""


class InOrderRunner:
    """Settles the batches of one shard, one after the other. ``draining`` ends it after the call under way."""

    def __init__(
        self,
        context: WorkerContext,
        calls: HandlerCalls,
        dead_letters: DeadLetterDelivery,
        subscription: Subscription,
        draining: asyncio.Event,
    ) -> None:
        self._context = context
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._calls = calls
        self._dead_letters = dead_letters
        self._subscription = subscription
        self._draining = draining
        self._breaker = calls.breaker
        self._was_probe = False  # the last call
        self.failing: Sequence[Entry] = ()
        self.failing_keys = 0
        self.failing_since: float | None = None  # monotonic seconds

    async def run(self, entries: Sequence[Entry], window: Window | None = None) -> bool:
        """Settle ``entries``. False when the lease is over or being released before that; what is settled by then is a
        prefix, because pieces settle from left to right. No entries: a final invocation."""
        try:
            return await self._run(entries, window)
        finally:
            self.failing = ()
            self.failing_keys = 0
            self.failing_since = None

    async def _run(self, entries: Sequence[Entry], window: Window | None) -> bool:
        clock = self._clock
        born = window.part().window.end if window is not None else 0.0
        policy = self._context.retry_policy
        settlement = Settlement(policy, [entry.record for entry in entries], born)
        settled = 0
        request_id = ""
        batch = object()
        while (step := settlement.next(clock.trusted())) is not None:
            if isinstance(step, GiveUp):
                self._failing(entries[settled:])
                if self._holds(step, batch, entries[settled : settled + len(step.records)]):
                    settlement.try_again()
                    continue
                part = window.part() if window is not None else None
                if not await self._give_up(step, request_id or self._random.token(), part):
                    return False
                done, result = settlement.gave_up(), "dead_lettered"
            else:
                if not await self._may_call(step):
                    return False
                self._was_probe = await self._breaker.turn(batch, self._draining)
                turn = await self._calls.turn(again=step.attempt > 1)
                if turn is None:
                    return False
                try:
                    step = settlement.next(clock.trusted())
                    if not isinstance(step, Invoke):
                        self._breaker.not_called(batch)
                        continue  # it grew too old in the back-off or the queue: what is too old is never sent
                    if step.fresh_request or not request_id:
                        request_id = self._random.token()
                    part = window.part() if window is not None else None
                    outcome = await self._calls.call(turn, step, request_id, part)
                finally:
                    turn.release()
                keys = {entry.key for entry in entries}
                self._breaker.answered(outcome, keys, step.records, batch, cuts=policy.bisect)
                done, result = settlement.answered(outcome), "handled"
                if outcome.kind != "ok":
                    self._failing(entries[settled:])
                if window is not None and done and not await window.accept(outcome.state):
                    return False
            if done:
                self._settle(entries[settled : settled + len(done)], result, batch)
                settled += len(done)
                self.failing_since = None
        return True

    def _settle(self, entries: Sequence[Entry], result: str, batch: object) -> None:
        self._subscription.settle(entries, result)
        if result == "handled":
            self._breaker.handled(batch, len({entry.key for entry in entries}))

    def _holds(self, step: GiveUp, batch: object, given_up: Sequence[Entry]) -> bool:
        """Whether the dead letter waits for the shard's breaker. Nothing may overtake these records, so they are its
        next probe; when that fails, too, the letter is sent, or a poison record would hold the shard for good."""
        if self._was_probe or step.condition != "RetryAttemptsExhausted":
            return False  # what is too old is never tried again: waiting would not save it
        if given_up and self._breaker.is_closed:
            self._breaker.fails(batch, given_up[0].key, len({entry.key for entry in given_up}))
        return not self._breaker.is_closed

    async def _may_call(self, step: Invoke) -> bool:
        """Announce a retry and wait for its back-off. False when draining starts meanwhile."""
        if step.after > 0:
            self._calls.retry_scheduled(step.records, step.attempt, step.after)
            try:
                async with asyncio.timeout(step.after):
                    await self._draining.wait()
            except TimeoutError:
                pass
        return not self._draining.is_set()

    async def _give_up(self, step: GiveUp, request_id: str, window: WindowCall | None) -> bool:
        if not await self._calls.still_owns():
            return False  # the next owner decides about these records
        return await self._dead_letters.deliver(step, request_id, window)

    def _failing(self, entries: Sequence[Entry]) -> None:
        """What now lives longer is copied out of its pages: a slice keeps its whole page in memory."""
        self.failing = entries
        self.failing_keys = len({entry.key for entry in entries})
        if self.failing_since is None:
            self.failing_since = self._clock.monotonic()
        for entry in entries:
            entry.copy_out()
            entry.record.forget()


class ShardOrder:
    """Batches without a window, one at a time."""

    def __init__(self, runner: InOrderRunner, forming: BatchForming, queue: KeyReadyQueue) -> None:
        self._runner = runner
        self._forming = forming
        self._queue = queue

    @property
    def failing_keys(self) -> int:
        return self._runner.failing_keys

    def failing(self) -> Iterator[tuple[bytes, float]]:
        first = {entry.key: entry.record.created for entry in reversed(self._runner.failing)}
        return iter(first.items())

    def failing_since(self) -> float | None:
        return self._runner.failing_since

    @property
    def is_paused(self) -> bool:
        return False

    @property
    def is_through(self) -> bool:
        return True

    def next(self, *, alone: bool) -> Work | None:
        batch = self._forming.next()
        return None if batch is None else lambda: self._run(batch)

    async def _run(self, batch: Batch) -> None:
        if await self._runner.run(batch.entries):
            self._queue.free(batch.keys)

    def no_more(self) -> None:
        """Nothing waits for more."""

    def stop(self) -> None:
        """Nothing waits for its time."""
