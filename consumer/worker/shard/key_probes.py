"""What a shard tries while its breaker is open, when a failing key holds up nothing but itself (``batch.order: key``).

A probe is one key: a batch with one poison record in it would fail although the handler is well. Those come first that
have just been read, because what failed, and what was cut off from it, may be poison; then those that were not tried
by themselves; then those that wait for a retry; then those whose retries are used up. These were tried while everything
failed, which says nothing of their records, so they wait instead of going to the dead letters, and get another attempt:
as a probe, and after that they are given up, or when the breaker has closed. Nothing else is started: reading stops
when the memory of the shard is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from consumer.domain.pieces import Piece
from consumer.domain.settlement import GiveUp
from consumer.worker.shard.breaker import ShardBreaker
from consumer.worker.shard.failing_pieces import FailingPieces
from consumer.worker.shard.order import Work
from consumer.worker.shard.pausing_pieces import PausingPieces


class RunPiece(Protocol):
    def __call__(self, piece: Piece, *, again: bool) -> Awaitable[None]:
        """One call of a piece, and what follows from it."""


class KeyProbes:
    """Of one shard. ``ready`` are its pieces that were not tried yet, ``pausing`` those that are tried again;
    ``fresh`` makes another one of a new batch, ``retry`` takes the first that is due, ``run`` calls one."""

    def __init__(
        self,
        breaker: ShardBreaker,
        failing: FailingPieces,
        ready: deque[Piece],
        pausing: PausingPieces,
        fresh: Callable[[], Piece | None],
        retry: Callable[[], Work],
        run: RunPiece,
    ) -> None:
        self._breaker = breaker
        self._failing = failing
        self._ready = ready
        self._pausing = pausing
        self._fresh = fresh
        self._retry = retry
        self._run = run
        self._sample: Piece | None = None  # what is left of a batch whose keys are tried one by one
        self._held: deque[Piece] = deque()  # their dead letters wait
        self._last_try: Piece | None = None
        self._anew: set[bytes] = set()  # keys of held pieces that are tried again since the breaker has closed

    def next(self) -> Work | None:
        """The probe that may start now; None when none may, or nothing is there to be tried."""
        if not self._breaker.may_probe():
            return None
        while self._pausing.any_due and not self._pausing.first.stands_alone:  # it did not reach user code
            piece = self._pausing.next()
            self._failing.end(piece, piece.keys)
            self._ready.append(piece)
        untried = self._sample or self._fresh() or (self._ready.popleft() if self._ready else None)
        if untried is not None:
            self._failing.clear(untried)
            first, self._sample = untried.split()
            return self._probe(first, lambda: self._run(first, again=False))
        if self._pausing.any_due:
            self._pausing.prefer_least_tried()  # or poison of before the outage would be tried again and again
            return self._probe(self._pausing.first, self._retry())
        if self._held:
            last_try = self._last_try = self._held.popleft()
            last_try.try_again()
            return self._probe(last_try, lambda: self._run(last_try, again=False))
        return None

    def fails(self, piece: Piece, *, invoked: bool) -> None:
        """A piece waits for another attempt, or for its dead letter; ``invoked``: user code has had it. Counted when
        its key begins to fail, and once more when it fails after an outage was over."""
        if invoked and piece.stands_alone:
            (key,) = piece.keys
            if key in self._anew or key not in self._failing.by_key:
                self._anew.discard(key)
                self._breaker.fails(piece.batch, key)

    def holds(self, piece: Piece, step: GiveUp) -> bool:
        """Whether the dead letter of a piece waits for the breaker. What is too old is never tried again, so waiting
        would not save it."""
        if self._breaker.is_closed or step.condition != "RetryAttemptsExhausted" or piece is self._last_try:
            return False
        self._held.append(piece)
        return True

    def release(self) -> None:
        """Go on with what was kept: the breaker is closed."""
        if self._sample is not None:
            self._ready.appendleft(self._sample)
            self._sample = None
        if self._held:
            self._anew = {key for piece in self._held for key in piece.keys}
            for piece in self._held:
                piece.try_again()
            self._pausing.add_due(self._held)
            self._held.clear()

    def _probe(self, piece: Piece, work: Work) -> Work:
        self._breaker.begin(piece)

        async def probe() -> None:
            try:
                await work()
            finally:
                self._breaker.not_called(piece)  # or it was answered before this
                if self._last_try is piece:
                    self._last_try = None

        return probe
