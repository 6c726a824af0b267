"""Batches of a shard, in which a failing key holds up nothing but itself (``batch.order: key``).

A piece of a batch (``domain/pieces.py``) that waits, for its back-off or for its dead letter, keeps its keys and
nothing else: it has no slot and no place of the handler, and its records are copied out of their pages. What waits
behind its keys is bounded, and deferred beyond that. When so many keys fail that not even they fit, the shard
starts nothing new, loudly, until some get through: then it is most likely the handler that fails, and not a record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

import structlog

from consumer.domain.batching import KeyReadyQueue
from consumer.domain.pieces import Cut, Piece
from consumer.domain.settlement import GiveUp, Invoke
from consumer.worker.context import WorkerContext
from consumer.worker.shard.batch_forming import BatchForming
from consumer.worker.shard.blocked_pieces import BlockedPieces
from consumer.worker.shard.dead_letter_delivery import DeadLetterDelivery
from consumer.worker.shard.failing_pieces import FailingPieces
from consumer.worker.shard.handler_calls import HandlerCalls
from consumer.worker.shard.key_probes import KeyProbes
from consumer.worker.shard.order import Work
from consumer.worker.shard.parked_pieces import ParkedPieces
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.pausing_pieces import PausingPieces
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

FAILING_SHARE = 8  # one part in so many of ``limits.buffer`` is for the failing records of a shard,
WAITING_SHARE = 16  # and one in so many for what waits behind them


class KeyOrder:
    """``width`` is how many slots the shard has, ``spawn`` runs something beside them, ``start`` fills slots that are
    free."""

    def __init__(
        self,
        context: WorkerContext,
        calls: HandlerCalls,
        dead_letters: DeadLetterDelivery,
        subscription: Subscription,
        queue: KeyReadyQueue,
        forming: BatchForming,
        tasks: asyncio.TaskGroup,
        parked: ParkedRows,
        draining: asyncio.Event,
        *,
        width: int,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        start: Callable[[], None],
    ) -> None:
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._calls = calls
        self._dead_letters = dead_letters
        self._subscription = subscription
        self._context = context
        self._shard_id = calls.shard_id
        self._queue = queue
        self._forming = forming
        self._alone = width == 1
        self._most_retrying = max(1, width // 2)
        self._spawn = spawn
        self._start = start
        self._most_failing = context.bounds.failing_keys
        self._ready: deque[Piece] = deque()  # cut off from a batch that failed, not tried yet
        self._pausing = PausingPieces(tasks, start)
        self._failing = FailingPieces(queue, self._clock.monotonic)
        self.failing = self._failing.first_records
        self.failing_since = self._failing.since
        self._after_giving_up = context.settings.on_failure.order
        self._blocked = BlockedPieces(context, calls.shard_id, self._pausing)
        self._parked = ParkedPieces(
            context,
            calls,
            parked,
            dead_letters,
            subscription,
            queue,
            self._failing,
            draining,
            spawn=spawn,
            ended=self._parked_ended,
        )
        self._answering = tasks.create_task(self._parked.answer_for_ever(), name="parked keys that are closing")
        self._breaker = calls.breaker
        self._breaker.on_change = self._pausing.wake
        self._probes = KeyProbes(
            self._breaker, self._failing, self._ready, self._pausing, self._fresh, self._retry, self._run
        )
        self._retrying = 0  # slots that retries have now
        self._retried_last = False
        self._is_full = False
        self._ending = False

    @property
    def failing_keys(self) -> int:
        return self._queue.failing_keys

    @property
    def is_paused(self) -> bool:
        return self._is_full

    @property
    def is_through(self) -> bool:
        return True

    # --- what is done next -----------------------------------------------------------------------------

    def next(self, *, alone: bool) -> Work | None:
        if not self._breaker.is_closed:
            return self._probes.next()
        self._probes.release()
        may_retry = self._pausing.any_due and self._retrying < self._most_retrying
        if may_retry and not (self._alone and self._retried_last):
            return self._retry()
        piece = self._ready.popleft() if self._ready else self._fresh()
        if piece is not None:
            self._retried_last = False
            return lambda: self._run(piece, again=False)
        return self._retry() if may_retry else None

    def _retry(self) -> Work:
        piece = self._pausing.next()
        self._retrying += 1
        self._retried_last = True
        self._blocked.begin(piece)
        return lambda: self._run(piece, again=True)

    def _fresh(self) -> Piece | None:
        if self._is_full:
            return None
        piece: Piece | None = None
        while piece is None and (batch := self._forming.next()) is not None:
            piece = self._parked.separate(self._context.retry_policy, batch)
        if self._queue.overflows:  # forming a batch has moved what is not ready behind its keys
            self._bound()
        elif self._failing.by_key:
            self._set_aside()
        return piece

    def no_more(self) -> None:
        """Children wait for what is not settled, so from now on a failing key is deferred at once."""
        self._ending = True
        self._bound()

    def stop(self) -> None:
        self._pausing.stop()
        self._answering.cancel()

    # --- one piece -------------------------------------------------------------------------------------

    async def _run(self, piece: Piece, *, again: bool) -> None:
        """One call of a piece, and what follows from it. The piece is left as it is when the lease is over."""
        try:
            turn = await self._calls.turn(again=again)
            if turn is None:
                return
            try:
                step = piece.next(self._clock.trusted())
                if not isinstance(step, Invoke):  # it grew too old meanwhile: what is too old is never sent
                    self._go_on(piece)
                    return
                if step.fresh_request or not piece.request_id:
                    piece.request_id = self._random.token()
                outcome = await self._calls.call(turn, step, piece.request_id)
            finally:
                turn.release()
        finally:
            if again:
                self._retrying -= 1
        self._breaker.answered(outcome, piece.keys, step.records, piece)
        if outcome.kind == "ok" and len(step.records) == len(piece.entries) and not self._matters(piece):  # as usual
            self._subscription.settle(piece.entries, "handled")
            self._failing.clear(piece)
            self._queue.free(piece.keys)
            self._breaker.handled(piece.batch, len(piece.keys))
            return
        cut = piece.answered(outcome)
        self._failing.cut(piece, cut)
        self._follow(piece, piece.keys, cut, "handled")

    def _matters(self, piece: Piece) -> bool:
        """Whether the success of a piece changes anything for the keys that fail."""
        if not self._failing.by_key:
            return False
        return self._is_full or self._ending or self._queue.overflows or self._failing.has_any_of(piece.keys)

    def _follow(self, piece: Piece, keys: Collection[bytes], cut: Cut, result: str) -> None:
        """Settle what is settled, free the keys that are through, go on with the rest."""
        if cut.settled:
            self._subscription.settle(cut.settled, result)
            self._failing.got_on(keys)
            piece.blocked = False  # what is left of it was not given up yet
        held = {key for rest in cut.pieces for key in rest.keys}
        through = [key for key in keys if key not in held]
        self._failing.end(piece, through if piece in cut.pieces else keys)
        self._queue.free(through)
        if through and result == "handled":
            self._breaker.handled(piece.batch, len(through))
        for rest in cut.pieces:
            self._go_on(rest)
        self._bound()

    def _go_on(self, piece: Piece) -> None:
        """Try a piece at once or after a pause, or do what ``on_failure.order`` says."""
        step = piece.next(self._clock.trusted())
        if isinstance(step, GiveUp):
            whole, (piece, rest) = piece, piece.expired(step)
            if rest is not None:
                self._failing.end(whole, whole.keys)
                self._ready.append(rest)
            self._probes.fails(piece, invoked=step.invoked)
            order = self._after_giving_up
            if self._probes.holds(piece, step):
                self._failing.add(piece)
            elif order == "continue":
                self._failing.add(piece)
                self._spawn(self._give_up(piece, step))
            elif order == "block" and self._blocked.admits(piece, step):
                self._failing.add(piece)
                self._blocked.add(piece, step)
            else:
                self._parked.give_up(piece, step)
        elif step.after > 0:
            self._probes.fails(piece, invoked=step.attempt > 1)
            self._failing.add(piece)
            self._calls.retry_scheduled(step.records, step.attempt, step.after)
            self._pausing.add(piece, step.after)
        else:
            self._ready.append(piece)

    async def _give_up(self, piece: Piece, step: GiveUp) -> None:
        if not await self._calls.still_owns():
            return  # the next owner decides about these records
        if await self._dead_letters.deliver(step, piece.request_id or self._random.token(), None):
            self._follow(piece, piece.keys, piece.gave_up(), "dead_lettered")
            self._start()

    def _parked_ended(self, live: Piece | None) -> None:
        """A parked key has nothing under way any more; ``live`` is what the handler gets after all."""
        if live is not None:
            self._ready.append(live)
        self._bound()
        self._start()

    # --- bounds ----------------------------------------------------------------------------------------

    def _bound(self) -> None:
        """Defer the keys behind which too much waits, and start nothing new while that is not enough."""
        while deferrable := self._deferrable():
            self._defer(deferrable)
        # A full list gets shorter when the records of its keys are handled, unless they all fail.
        unable = self._queue.overflows and (
            len(self._subscription.deferred) <= sum(map(self._subscription.is_deferred, self._failing.by_key))
        )
        failing_bytes = self._set_aside()
        failing_keys = self.failing_keys - self._parked.following  # what follows a parked key says nothing new
        most_bytes = self._context.settings.limits.buffer // FAILING_SHARE
        many = failing_keys >= self._most_failing or failing_bytes > most_bytes
        if self._breaker.is_closed:  # or keys would be parked because everything fails
            self._unblock(full=unable or many)
        is_full = unable or many or self._parked.is_full
        if is_full != self._is_full:
            self._is_full = is_full
            if is_full:
                log.error("shard.paused", shard_id=self._shard_id, failing_keys=self.failing_keys)
            else:
                log.warning("shard.resumed", shard_id=self._shard_id, failing_keys=self.failing_keys)

    def _unblock(self, *, full: bool) -> None:
        """Park blocked keys beyond the bound, and when the shard is full the oldest one: its end is looked at again."""
        while (oldest := self._blocked.take_oldest(full=full)) is not None:
            self._parked.give_up(*oldest)
            full = False

    def _set_aside(self) -> int:
        """What failing keys hold takes no page from the shard. Returns the bytes of their own records."""
        failing_bytes = self._failing.size
        self._subscription.account.set_aside(failing_bytes + self._queue.waiting_bytes)
        return failing_bytes

    def _deferrable(self) -> list[bytes]:
        """Keys that have to be deferred, as many as there is room for."""
        keys = self._queue.overflowing()
        if self._ending:
            keys = [key for key in self._failing.by_key if not self._subscription.is_deferred(key)]
        return self._subscription.deferrable(keys)

    def _defer(self, keys: Sequence[bytes]) -> None:
        for key, waiting in self._queue.take_out(keys).items():
            piece = self._failing.by_key[key]
            later = piece.keep_current() if piece.stands_alone else ()
            kept = [entry for entry in piece.entries if entry.key == key]
            log.info("key.deferred", shard_id=self._shard_id, first_sequence_number=kept[0].record.sequence_number)
            self._subscription.defer(key, kept, [*later, *waiting])
            self._failing.measure(piece)
