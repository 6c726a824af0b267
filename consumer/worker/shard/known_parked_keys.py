"""What one shard knows of parked keys (``domain/parking.py``).

A view of a key that was read before this owner's own last write to it says nothing new, and is not believed: an owner
that has closed a key must never take an older view for its freedom to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import structlog

from consumer.domain.errors import LeaseLost
from consumer.domain.parking import Fate, Parked, ParkedShard, fate
from consumer.worker.context import WorkerContext
from consumer.worker.parked_keys import Reading
from consumer.worker.retrying import Backoff, retrying
from consumer.worker.shard.held_lease import HeldLease

log = structlog.get_logger()

T = TypeVar("T")

PAUSES = Backoff(0.3, 5.0)
FREE = Parked(None)


class KnownParkedKeys:
    """Of one shard at one epoch. ``closing`` is set when a key that has a row here began to close."""

    def __init__(self, context: WorkerContext, lease: HeldLease) -> None:
        self.closing = asyncio.Event()
        self.full: dict[str, None] = {}  # keys that wait because too many are parked, or too many of their letters
        self._keys = context.parked
        self._label = context.stream.label
        self._validity = context.validity
        self._lease = lease
        self._most_keys = context.bounds.parked_keys
        self._most_letters = context.bounds.parked_letters
        self._read = Reading(0, ())
        self._own: dict[str, Parked] = {}  # keys of which more is known
        self._known_at: dict[str, int] = {}  # the moment of this owner's last write to a key, or of a later view of it
        self._unsure: dict[str, None] = {}  # to be looked at

    async def load(self, stop: asyncio.Event) -> None:
        """Read all parked keys: before anything of the shard is handled. Unavailable when ``stop`` is set first."""
        self._keys.listen(self)
        self.parked_changed(await self._durable(self._keys.read, stop))

    def forget(self) -> None:
        """The lease ends."""
        self._keys.forget(self)

    @property
    def any(self) -> bool:
        """Whether any key may be parked."""
        return bool(self._read.by_digest or self._own)

    @property
    def letters_here(self) -> int:
        """Keys that are parked with a row of this shard."""
        return sum(self._row(digest) is not None for digest in self._own)

    def is_parked(self, digest: str) -> bool:
        """Whether the records of a key may have to follow it. Not being so is certain, being so is not."""
        found = self._own.get(digest)
        return digest in self._read.by_digest if found is None else found.key is not None or bool(found.damaged)

    def fate(self, digest: str, number: int) -> Fate:
        """What becomes of the next record of a key. While a row of it cannot be read it waits."""
        if self._view(digest).is_unsure(self._label, self._lease.shard_id):
            return "hold"
        return fate(self._view(digest).key, self._row(digest), number)

    def is_full_for(self, digest: str) -> bool:
        """Whether the next letter of a key, or parking it, would be one too many."""
        row = self._row(digest)
        if row is not None:
            return row.letters >= self._most_letters
        return self._view(digest).key is None and self._keys.at_least >= self._most_keys

    def letters(self, digest: str) -> tuple[str, int]:
        """The park id of a key that has a row here, and how many letters it has by now."""
        row = self._row(digest)
        return (row.park_id, row.letters) if row is not None else ("", 0)

    def parked_changed(self, reading: Reading) -> None:
        """``parked_keys.Listener``."""
        self._read = reading
        for digest in dict.fromkeys((*self._own, *reading.of(self._label, self._lease.shard_id))):
            self._learn(digest, reading.began, reading.by_digest.get(digest, FREE))

    def to_close(self) -> list[str]:
        """Keys that are closing, and wait for this owner's answer, or of which nothing certain is known."""
        unanswered = [digest for digest in self._own if self.is_unanswered(digest)]
        unsure, self._unsure = self._unsure, {}
        return list(dict.fromkeys((*unanswered, *unsure)))

    async def look(self, digest: str) -> None:
        """Read one key again. Unavailable."""
        began, found = await self._keys.look(digest)
        self._learn(digest, began, found)

    async def look_for(self, digest: str, stop: asyncio.Event) -> None:
        """``look``, repeated until there is an answer. Unavailable when ``stop`` is set first."""
        await self._durable(lambda: self.look(digest), stop)

    def _learn(self, digest: str, began: int, found: Parked) -> None:
        if began < self._known_at.get(digest, 0):
            if found.key is None or found.key.state == "closing":
                self._unsure[digest] = None
                self.closing.set()
            return
        mine, theirs = self._row(digest), found.of(self._label, self._lease.shard_id)
        damaged = found.damaged
        if mine is not None and theirs is not None and mine.park_id == theirs.park_id and mine.letters > theirs.letters:
            theirs = replace(theirs, letters=mine.letters, last=mine.last)  # under way
            found = Parked(found.key, (theirs,))
        if found.key is None and not damaged and digest not in self._read.by_digest:
            self._own.pop(digest, None)
            self._known_at.pop(digest, None)
        else:
            self._own[digest] = Parked(found.key, (theirs,) if theirs is not None else (), damaged)
            self._known_at[digest] = began
        if self.is_unanswered(digest):
            self.closing.set()

    def is_unanswered(self, digest: str) -> bool:
        """Whether the key is closing, and this owner has not closed it."""
        key, row = self._view(digest).key, self._row(digest)
        return key is not None and key.state == "closing" and row is not None and row.closed != key.nonce

    def _view(self, digest: str) -> Parked:
        return self._own.get(digest) or self._read.by_digest.get(digest, FREE)

    def _row(self, digest: str) -> ParkedShard | None:
        found = self._view(digest)
        row = found.of(self._label, self._lease.shard_id)
        return row if row is not None and found.key is not None and row.park_id == found.key.park_id else None

    def _forget(self, digest: str) -> None:
        """What was known of a key is wrong."""
        self._own.pop(digest, None)
        self._known_at.pop(digest, None)

    def _wrote(self, digest: str, known: Parked) -> None:
        self._own[digest] = known
        self._known_at[digest] = self._keys.moment()

    async def _durable(self, attempt: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T:
        shard_id = self._lease.shard_id

        def failed(error: Exception, attempts: int) -> None:
            log.warning("parked_key.write_failed", shard_id=shard_id, attempts=attempts, error=str(error))
            if self._validity.fenced:
                raise LeaseLost(shard_id, self._lease.epoch, "the session is fenced") from error

        return await retrying(attempt, PAUSES, failed, stop=stop)
