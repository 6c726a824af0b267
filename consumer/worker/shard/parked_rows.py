"""The rows of parked keys that the owner of a shard writes (``domain/parking.py``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from consumer.domain.batching import Entry
from consumer.domain.parking import Parked, ParkedKey, ParkedShard
from consumer.domain.settlement import GiveUp
from consumer.worker.context import WorkerContext
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.known_parked_keys import KnownParkedKeys, T

log = structlog.get_logger()

MOST_COUNTED = 50  # rows in one write
LOOK = 2.0  # seconds between readings of a shard that waits until no key is parked


class ParkedRows(KnownParkedKeys):
    """Of one shard at one epoch. Every write is repeated until there is an answer, and conditional on the lease."""

    def __init__(self, context: WorkerContext, lease: HeldLease) -> None:
        super().__init__(context, lease)
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._token = context.ports.random.token
        self._uncounted: dict[str, ParkedShard] = {}
        self._uncountable: set[str] = set()  # keys whose rows are gone, although they have letters
        self._counting = asyncio.Lock()

    async def park(self, digest: str, entry: Entry, step: GiveUp, stop: asyncio.Event) -> None:
        """Park a key whose record is given up, or find that it is. Unavailable when ``stop`` is set first."""
        record, shard_id = entry.record, self._lease.shard_id
        key = ParkedKey(
            digest,
            self._token(),
            since=self._clock.wall(),
            reason=step.condition,
            label=self._label,
            shard_id=shard_id,
            sequence_number=record.sequence_number,
        )
        shard = ParkedShard(digest, self._label, shard_id, key.park_id, first=record.number)
        store, label = self._store, self._label
        with self._keys.parking(digest):
            is_parked = await self._written(lambda row: store.park(label, row, key, shard), stop)
        if is_parked:
            self._wrote(digest, Parked(key, (shard,)))
            log.warning(
                "key.parked",
                shard_id=shard_id,
                key_digest=digest,
                park_id=key.park_id,
                sequence_number=record.sequence_number,
                condition=step.condition,
            )
        else:
            await self.look_for(digest, stop)

    async def join(self, digest: str, entry: Entry, stop: asyncio.Event) -> None:
        """Make this shard's row of a parked key, or find why not. Unavailable when ``stop`` is set first."""
        key = self._view(digest).key
        if key is not None:
            shard = ParkedShard(digest, self._label, self._lease.shard_id, key.park_id, first=entry.record.number)
            store, label = self._store, self._label
            if await self._written(lambda row: store.join_parked(label, row, key, shard), stop):
                self._wrote(digest, Parked(key, (shard,)))
                return
        await self.look_for(digest, stop)

    async def count(self, digest: str, letters: int, last: str, stop: asyncio.Event) -> bool:
        """The letters of a key are durable up to this ordinal, of the record with the number ``last``: write that
        down. One write serves all who ask while another one is under way. False when there is no such row any more, and
        the letters do not count. Unavailable when ``stop`` is set first."""
        row = self._row(digest)
        if row is None:
            await self.look_for(digest, stop)
            return False
        counted = replace(row, letters=letters, last=last)
        self._own[digest] = Parked(self._view(digest).key, (counted,))
        self._uncounted[digest] = counted
        async with self._counting:
            if self._uncounted.get(digest) is counted:
                batch = dict(list(self._uncounted.items())[: MOST_COUNTED - 1]) | {digest: counted}
                store, label, rows = self._store, self._label, list(batch.values())
                gone = await self._written(lambda held: store.count_letters(label, held, rows), stop)
                self._uncountable.update(gone)
                for name, written in batch.items():
                    if self._uncounted.get(name) is written:
                        del self._uncounted[name]
        if digest not in self._uncountable:
            return True
        self._uncountable.discard(digest)
        log.error("parked_key.row_gone", shard_id=self._lease.shard_id, key_digest=digest, letters=letters)
        self._forget(digest)
        await self.look_for(digest, stop)
        return False

    async def close(self, digest: str, stop: asyncio.Event) -> None:
        """Answer a closing, if it is unanswered. Nothing of the key may be under way. Unavailable when ``stop`` is set
        first."""
        key, row = self._view(digest).key, self._row(digest)
        if key is None or row is None or not self.is_unanswered(digest):
            await self.look_for(digest, stop)
            return
        store, label = self._store, self._label
        if await self._written(lambda held: store.close_parked(label, held, key, row), stop):
            self._wrote(digest, Parked(key, (replace(row, closed=key.nonce),)))
            log.info("key.closed", shard_id=self._lease.shard_id, key_digest=digest, letters=row.letters)
        else:
            await self.look_for(digest, stop)

    async def end_closing(self, digest: str, stop: asyncio.Event) -> None:
        """The redrive takes too long: what follows goes on to the dead letters. Unavailable when ``stop`` is set
        first."""
        key = self._view(digest).key
        if key is not None and key.state == "closing":
            store, label = self._store, self._label
            await self._written(lambda held: store.end_closing(label, held, key), stop)
            log.warning("key.parked_again", shard_id=self._lease.shard_id, key_digest=digest)
        await self.look_for(digest, stop)

    async def _written(self, write: Callable[..., Awaitable[T]], stop: asyncio.Event) -> T:
        """Repeat a write that is conditional on the lease. LeaseLost."""
        answer: list[T] = []

        async def once() -> None:
            async def conditional(row: object, _: object) -> None:
                answer[:] = [await write(row)]

            await self._lease.write(conditional)

        await self._durable(once, stop)
        return answer[0]

    async def wait_until_none(self, stop: asyncio.Event) -> bool:
        """For a shard that handles its records in order, and so can hold back no single key: wait until no key is
        parked, and answer what is closing. False when ``stop`` is set first. Unavailable."""
        if self.any:
            log.error("parked_keys.in_order", shard_id=self._lease.shard_id, keys=len(self._read.by_digest))
        while self.any and not stop.is_set():
            for digest in self.to_close():
                await self.close(digest, stop)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await stop.wait()
            self.parked_changed(await self._durable(self._keys.read, stop))
        return not self.any
