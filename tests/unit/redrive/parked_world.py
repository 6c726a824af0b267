"""Parked keys in a table in memory, with their letters in a box, and a redrive of them in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from consumer.domain.events import records_from_event
from consumer.domain.lease import LeaseRow
from consumer.domain.parking import ParkedKey, ParkedShard
from consumer.domain.stream_record import StreamRecord
from consumer.ports.parked_letters import ParkedLetter
from consumer.redrive.parked import KeyResult, ParkedRedrive
from consumer.redrive.session import RedriveSession
from consumer.testing.memory_claims import MemoryRedriveClaims
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.testing.virtual_loop import Process
from tests.support.virtual_time import in_virtual_time

LABEL, SHARD = "2026-09-17T13:26:53.746", "shardId-1"
DIGEST = "digest"


def letter(ordinal: int, problem: str = "", digest: str = DIGEST) -> ParkedLetter:
    event = b'{"Records":[{"eventID":"1","eventName":"INSERT","dynamodb":{"SequenceNumber":"%d"}}]}' % ordinal
    return ParkedLetter(() if problem else records_from_event(event), (digest, ordinal), problem=problem)


class Box:
    """The letters of every key; ``failures`` are raised by its next calls, one each."""

    def __init__(self, *letters: ParkedLetter) -> None:
        self.letters = list(letters)
        self.failures: list[Exception] = []
        self.fail_removing = False  # nothing else

    async def find(self, shard: ParkedShard, ordinal: int) -> list[ParkedLetter]:
        if not self.fail_removing:
            await self._call()
        return [one for one in self.letters if one.handle == (shard.digest, ordinal)]

    async def remove(self, letter: ParkedLetter) -> None:
        await self._call()
        self.letters.remove(letter)

    async def _call(self) -> None:
        await asyncio.sleep(0.01)
        if self.failures:
            raise self.failures.pop(0)


@dataclass(slots=True)
class RedriveWorld:
    """``handled`` are the numbers of records, in the order of their calls."""

    store: MemoryLeaseStore
    session: RedriveSession
    box: Box
    lease: LeaseRow
    claims: MemoryRedriveClaims = field(default_factory=MemoryRedriveClaims)
    handled: list[str] = field(default_factory=list)

    async def park(self, letters: int, digest: str = DIGEST) -> None:
        """A key with so many counted letters of one shard."""
        key = ParkedKey(digest, f"park-{digest}", label=LABEL, shard_id=SHARD, sequence_number="1")
        shard = ParkedShard(digest, LABEL, SHARD, key.park_id, first="1")
        assert await self.store.park(LABEL, self.lease, key, shard)
        counted = replace(shard, letters=letters, last=str(letters))
        assert await self.store.count_letters(LABEL, self.lease, [counted]) == []

    def redrive(self, *, accept_loss: bool = False) -> ParkedRedrive:
        tokens = iter(map(str, range(1000)))
        note = self.claims.note_lost_letter if accept_loss else None
        return ParkedRedrive(self.store, self.box, self._handle, self.session, lambda: next(tokens), note)

    async def is_free(self, digest: str = DIGEST) -> bool:
        return (await self.store.parked_key(digest)).key is None

    async def _handle(self, records: Sequence[StreamRecord], shard: ParkedShard) -> int:
        await asyncio.sleep(0.05)
        self.handled.extend(record.number for record in records)
        return len(records)


def in_redrive_world(box: Box, body: Callable[[RedriveWorld], Awaitable[None]]) -> None:
    """Run ``body`` with an open session, beside a lease that nobody renews."""

    async def whole(clock: Process) -> None:
        store = MemoryLeaseStore(MemoryTable(service_time=time.time), "app", time.time)
        await store.add_lease(LABEL, LeaseRow(SHARD))
        lease = await store.take(LABEL, LeaseRow(SHARD), "worker", "nonce")
        assert lease is not None
        session = RedriveSession(store, clock, "host/1", "token", 10.0)
        async with session.opened():
            await body(RedriveWorld(store, session, box, lease))

    in_virtual_time(whole)


def redriven(box: Box, letters: int, *, accept_loss: bool) -> tuple[KeyResult, RedriveWorld, bool]:
    """One key with so many counted letters: the result, the world, and whether it is free."""
    ended: list[tuple[KeyResult, RedriveWorld, bool]] = []

    async def body(world: RedriveWorld) -> None:
        await world.park(letters)
        result = await world.redrive(accept_loss=accept_loss).redrive(DIGEST)
        ended.append((result, world, await world.is_free()))

    in_redrive_world(box, body)
    return ended[0]
