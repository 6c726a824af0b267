"""Records of parked keys on their way to the dead letters: in order, counted, and beside everything else of the shard.

A piece of a parked key keeps its key and nothing else, as any failing piece does: no slot, no place of the handler, no
page; what waits behind it is bounded. Its records become letters one by one, a few under way at a time; they leave the
books once their letters are durable *and* counted. The rules are in ``domain/parking.py``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from consumer.domain.batching import Batch, KeyReadyQueue
from consumer.domain.dead_letter import Parked
from consumer.domain.deferred import digest_of
from consumer.domain.errors import Unavailable
from consumer.domain.pieces import ParkedPiece, Piece
from consumer.domain.settlement import GiveUp, RetryPolicy
from consumer.worker.context import WorkerContext
from consumer.worker.shard.dead_letter_delivery import DeadLetterDelivery
from consumer.worker.shard.failing_pieces import FailingPieces
from consumer.worker.shard.handler_calls import HandlerCalls
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

UNDER_WAY = 10  # letters of one key at a time: their ordinals are fixed by the order of its records
MOST_AT_ONCE = 64  # keys of a shard that send letters: a new owner may find records of thousands of parked keys
LOOK = 1.0  # seconds between looks at a key that is held back
HOLD_MOST = 30.0  # seconds after which a key that is held back is parked again


class ParkedPieces:
    """Of one shard. ``ended`` is called when a piece has ended, with what of it the handler gets after all, if any."""

    def __init__(
        self,
        context: WorkerContext,
        calls: HandlerCalls,
        rows: ParkedRows,
        dead_letters: DeadLetterDelivery,
        subscription: Subscription,
        queue: KeyReadyQueue,
        failing: FailingPieces,
        draining: asyncio.Event,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        ended: Callable[[Piece | None], None],
    ) -> None:
        self._context = context
        self._token = context.ports.random.token
        # Keys may be parked from before, whatever the option says now: nothing follows them to where it is not kept.
        self._can_keep = context.settings.on_failure.destination_kind in ("sqs", "s3")
        self._skipped = context.metrics.duplicates_skipped
        self._calls = calls
        self._rows = rows
        self._dead_letters = dead_letters
        self._subscription = subscription
        self._queue = queue
        self._failing = failing
        self._draining = draining
        self._spawn = spawn
        self._ended = ended
        self._following = 0
        self._waiting: deque[ParkedPiece] = deque()  # for their turn
        self._active: dict[str, None] = {}  # digests of keys of which something is under way
        self._closing: dict[str, None] = {}  # digests that are answered at this moment, beside their pieces

    @property
    def following(self) -> int:
        """Keys of which records follow earlier ones to the dead letters."""
        return self._following

    @property
    def is_full(self) -> bool:
        """Whether a key waits because too many are parked, or too many letters are."""
        return bool(self._rows.full)

    def separate(self, policy: RetryPolicy, batch: Batch) -> Piece | None:
        """What the handler gets of a batch; the records of parked keys begin to follow these."""
        parked: dict[bytes, None] = {}
        if self._rows.any:
            parked = dict.fromkeys(key for key in batch.keys if self._rows.is_parked(digest_of(key)))
        if not parked:
            return Piece(policy, batch.entries, batch.keys)
        for key in parked:
            self._begin(ParkedPiece(key, [entry for entry in batch.entries if entry.key == key]))
        entries = [entry for entry in batch.entries if entry.key not in parked]
        return Piece(policy, entries, [key for key in batch.keys if key not in parked]) if entries else None

    def give_up(self, piece: Piece, step: GiveUp) -> None:
        """Park the keys of a piece of which ``step`` has records; it has no others."""
        self._failing.end(piece, piece.keys)
        count = len(step.records)
        for key in piece.keys:
            given_up = sum(entry.key == key for entry in piece.entries[:count])
            self._begin(ParkedPiece(key, [entry for entry in piece.entries if entry.key == key], step, given_up))

    async def answer_for_ever(self) -> None:
        """Answer keys that are closing and have nothing under way."""
        while True:
            await self._rows.closing.wait()
            self._rows.closing.clear()
            for digest in self._rows.to_close():
                if digest not in self._active and digest not in self._closing:
                    self._closing[digest] = None
                    self._spawn(self._close(digest))

    # --- one piece -------------------------------------------------------------------------------------

    def _begin(self, piece: ParkedPiece) -> None:
        self._failing.add(piece)
        self._following += piece.step is None
        self._waiting.append(piece)
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._active) < MOST_AT_ONCE:
            piece = self._waiting.popleft()
            self._active[piece.digest] = None
            self._spawn(self._follow(piece))

    async def _follow(self, piece: ParkedPiece) -> None:
        try:
            live = await self._to_the_end(piece)
        except Unavailable as error:  # the shard is released: the next owner goes on
            log.warning("parked_key.left", shard_id=self._calls.shard_id, key_digest=piece.digest, error=str(error))
            return
        finally:
            self._active.pop(piece.digest, None)
            self._rows.full.pop(piece.digest, None)
        if piece.entries and not live:
            return
        self._following -= piece.step is None
        self._start()
        self._failing.end(piece, piece.keys)
        if not piece.entries:
            self._queue.free(piece.keys)
        self._ended(Piece(self._context.retry_policy, piece.entries, piece.keys) if piece.entries else None)
        if self._rows.is_unanswered(piece.digest):  # it began to close meanwhile, and has nothing under way now
            self._rows.closing.set()

    async def _to_the_end(self, piece: ParkedPiece) -> bool:
        """True when the key is free and the handler gets the rest; False when nothing is left, or the shard ends."""
        digest, rows, draining = piece.digest, self._rows, self._draining
        while piece.entries:
            if not await self._calls.still_owns() or draining.is_set():
                return False
            entry = piece.entries[0]
            fate = rows.fate(digest, int(entry.record.number))
            if fate == "hold":
                await self._hold(digest)
            elif fate == "skip":
                self._skipped.inc()
                self._subscription.settle([entry], None)
                piece.entries = piece.entries[1:]
            elif fate == "handle" and not piece.given_up:
                return True
            elif self._has_no_room(digest):
                await self._pause()
            elif fate == "handle" and piece.step is not None:
                await rows.park(digest, entry, piece.step, draining)
            elif fate == "join":
                await rows.join(digest, entry, draining)
            elif not await self._send(piece):
                return False
        return False

    def _has_no_room(self, digest: str) -> bool:
        full = not self._can_keep or self._rows.is_full_for(digest)
        if full and digest not in self._rows.full:
            self._rows.full[digest] = None
            if self._can_keep:
                log.error("parked_keys.full", shard_id=self._calls.shard_id, key_digest=digest)
            else:
                log.error("parked_keys.no_destination", shard_id=self._calls.shard_id, key_digest=digest)
            self._ended(None)
        elif not full and self._rows.full.pop(digest, "") is None:
            self._ended(None)
        return full

    async def _send(self, piece: ParkedPiece) -> bool:
        """The next letters of a key. False when they are left to the next owner."""
        park_id, count = self._rows.letters(piece.digest)
        group = piece.begin(UNDER_WAY)
        async with asyncio.TaskGroup() as tasks:
            sending = [
                tasks.create_task(self._dead_letters.deliver(step, self._token(), None, Parked(park_id, count + place)))
                for place, step in enumerate(piece.steps(), start=1)
            ]
        if not all(task.result() for task in sending):
            return False
        last = group[-1].record.number
        counted = await self._rows.count(piece.digest, count + len(group), last, self._draining)
        if not counted:
            return True  # the row is gone, by hand: what is not counted is not settled, and its fate is asked for anew
        self._subscription.settle(group, "dead_lettered")
        piece.sent()
        self._failing.measure(piece)
        self._failing.got_on(piece.keys)
        return True

    # --- a key that is closing -------------------------------------------------------------------------

    async def _hold(self, digest: str) -> None:
        """Until the key is free, or parked again."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        await self._rows.close(digest, self._draining)
        while self._rows.fate(digest, _NEWEST) == "hold" and not self._draining.is_set():
            await self._pause()
            if loop.time() - since > HOLD_MOST:
                await self._rows.end_closing(digest, self._draining)
                since = loop.time()
            else:
                await self._rows.look_for(digest, self._draining)

    async def _close(self, digest: str) -> None:
        try:
            await self._rows.close(digest, self._draining)
        except Unavailable as error:
            log.warning("parked_key.left", shard_id=self._calls.shard_id, key_digest=digest, error=str(error))
        finally:
            self._closing.pop(digest, None)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK):
                await self._draining.wait()
        except TimeoutError:
            pass


_NEWEST = 1 << 512  # a number above every SequenceNumber
