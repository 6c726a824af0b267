"""Parked keys in a table in memory, with their letters in a box, and a redrive of them in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from consumer.domain.events import records_from_event
from consumer.domain.lease import LeaseRow, LeaseState, SessionRow
from consumer.domain.parking import ParkedKey, ParkedShard
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord
from consumer.ports.parked_letters import ParkedLetter
from consumer.redrive.parked import KeyResult, ParkedRedrive
from consumer.redrive.parked_keys import ParkedHandling
from consumer.redrive.reading_again import ReadingAgain
from consumer.redrive.session import RedriveSession
from consumer.testing.memory_claims import MemoryRedriveClaims
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.testing.virtual_loop import Process
from tests.support.virtual_time import in_virtual_time

LABEL, SHARD = "2026-09-17T13:26:53.746", "shardId-1"
DIGEST = "digest"


def letter(
    ordinal: int, problem: str = "", digest: str = DIGEST, *, item: str = "a", lacks: tuple[str, ...] = ()
) -> ParkedLetter:
    change = b'{"SequenceNumber":"%d","Keys":{"id":{"S":"%b"}}}' % (ordinal, item.encode())
    event = b'{"Records":[{"eventID":"1","eventName":"INSERT","dynamodb":%b}]}' % change
    records = () if problem else records_from_event(event)
    return ParkedLetter(records, (digest, ordinal), lacks, problem)


class Items:
    """``ports.SourceItems``: ``versions`` of items by their key, which every reading makes one more."""

    table = "t"

    def __init__(self, **versions: int) -> None:
        self.versions = versions

    async def item(self, keys: dict[str, dict[str, str]]) -> dict[str, dict[str, str]] | None:
        await asyncio.sleep(0.01)
        key = keys["id"]["S"]
        if key not in self.versions:
            return None
        self.versions[key] += 1
        return {"id": {"S": key}, "v": {"N": str(self.versions[key])}}


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


class NoHandling(ParkedHandling):
    """The redrive of the world handles by itself."""

    def __init__(self) -> None:
        self.reasons = {}
        self.filtered = 0


@dataclass(slots=True)
class RedriveWorld:
    """``handled`` are the numbers of records, in the order of their calls."""

    table: MemoryTable
    store: MemoryLeaseStore
    session: RedriveSession
    box: Box
    lease: LeaseRow
    claims: MemoryRedriveClaims = field(default_factory=MemoryRedriveClaims)
    handled: list[str] = field(default_factory=list)
    images: list[tuple[str, object]] = field(default_factory=list)  # event names and versions, as they were handled
    failing: set[str] = field(default_factory=set)
    again: ReadingAgain = ReadingAgain(None)

    async def park(self, letters: int, digest: str = DIGEST) -> None:
        """A key with so many counted letters of one shard."""
        key = ParkedKey(digest, f"park-{digest}", label=LABEL, shard_id=SHARD, sequence_number="1")
        shard = ParkedShard(digest, LABEL, SHARD, key.park_id, first="1")
        assert await self.store.park(LABEL, self.lease, key, shard)
        counted = replace(shard, letters=letters, last=str(letters))
        assert await self.store.count_letters(LABEL, self.lease, [counted]) == []

    async def live(self) -> None:
        """The owner of the first shard renews its session, for ever."""
        await self.store.open_session(SessionRow("worker"))
        for counter in itertools.count(1):
            await asyncio.sleep(1.0)
            await self.store.bump_session("worker", counter)

    async def join(self, shard_id: str, first: int, letters: int, *, state: LeaseState) -> None:
        """The parked key goes on in another shard, which is in this state then."""
        await self.store.add_lease(LABEL, LeaseRow(shard_id))
        lease = await self.store.take(LABEL, LeaseRow(shard_id), "worker", "nonce")
        key = (await self.store.parked_key(DIGEST)).key
        assert lease is not None
        assert key is not None
        shard = ParkedShard(DIGEST, LABEL, shard_id, key.park_id, first=str(first))
        assert await self.store.join_parked(LABEL, lease, key, shard)
        if letters:
            counted = replace(shard, letters=letters, last=str(first + letters - 1))
            assert await self.store.count_letters(LABEL, lease, [counted]) == []
        await self.store.save(LABEL, replace(lease, state=state))

    def redrive(self, *, accept_loss: bool = False) -> ParkedRedrive:
        tokens = iter(map(str, range(1000)))
        note = self.claims.note_lost_letter if accept_loss else None
        return ParkedRedrive(self.store, self.box, self._handle, self.session, lambda: next(tokens), note, self.again)

    async def is_free(self, digest: str = DIGEST) -> bool:
        return (await self.store.parked_key(digest)).key is None

    async def _handle(self, records: Sequence[StreamRecord], shard: ParkedShard) -> int:
        await asyncio.sleep(0.05)
        for count, record in enumerate(records):
            if record.number in self.failing:
                return count
            assert isinstance(record, Record)
            self.handled.append(record.number)
            self.images.append((record.event_name, (record.new_image or {}).get("v")))
        return len(records)


def in_redrive_world(box: Box, body: Callable[[RedriveWorld], Awaitable[None]]) -> None:
    """Run ``body`` with an open session, beside a lease that nobody renews."""

    async def whole(clock: Process) -> None:
        table = MemoryTable(service_time=time.time)
        store = MemoryLeaseStore(table, "app", time.time)
        await store.add_lease(LABEL, LeaseRow(SHARD))
        lease = await store.take(LABEL, LeaseRow(SHARD), "worker", "nonce")
        assert lease is not None
        session = RedriveSession(store, clock, "host/1", "token", 10.0)
        async with session.opened():
            await body(RedriveWorld(table, store, session, box, lease))

    in_virtual_time(whole)


def redriven(
    box: Box, letters: int, *, accept_loss: bool = False, again: ReadingAgain | None = None, failing: str = ""
) -> tuple[KeyResult, RedriveWorld, bool]:
    """One key with so many counted letters: the result, the world, and whether it is free."""
    ended: list[tuple[KeyResult, RedriveWorld, bool]] = []

    async def body(world: RedriveWorld) -> None:
        world.again = again or world.again
        world.failing = {failing}
        await world.park(letters)
        result = await world.redrive(accept_loss=accept_loss).redrive(DIGEST)
        ended.append((result, world, await world.is_free()))

    in_redrive_world(box, body)
    return ended[0]
