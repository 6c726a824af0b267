"""A letter of a parked key that is not there, or cannot be read: never passed over in silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from structlog.testing import capture_logs

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
KEY = ParkedKey("digest", "park", label=LABEL, shard_id=SHARD, sequence_number="1")


def letter(ordinal: int, problem: str = "") -> ParkedLetter:
    event = b'{"Records":[{"eventID":"1","eventName":"INSERT","dynamodb":{"SequenceNumber":"%d"}}]}' % ordinal
    return ParkedLetter(() if problem else records_from_event(event), ordinal, problem=problem)


class Box:
    def __init__(self, *letters: ParkedLetter) -> None:
        self.letters = list(letters)

    async def find(self, shard: ParkedShard, ordinal: int) -> list[ParkedLetter]:
        await asyncio.sleep(0)
        return [one for one in self.letters if one.handle == ordinal]

    async def remove(self, letter: ParkedLetter) -> None:
        await asyncio.sleep(0)
        self.letters.remove(letter)


def redriven(box: Box, letters: int, *, accept_loss: bool) -> tuple[KeyResult, list[str], MemoryRedriveClaims, bool]:
    """One key with so many counted letters: the result, what was handled, the traces, and whether it is free."""
    handled: list[str] = []
    claims = MemoryRedriveClaims()
    ended: list[tuple[KeyResult, bool]] = []

    async def handle(records: Sequence[StreamRecord], shard: ParkedShard) -> int:
        await asyncio.sleep(0)
        handled.extend(record.number for record in records)
        return len(records)

    async def body(clock: Process) -> None:
        store = MemoryLeaseStore(MemoryTable(service_time=time.time), "app", time.time)
        await store.add_lease(LABEL, LeaseRow(SHARD))
        lease = await store.take(LABEL, LeaseRow(SHARD), "worker", "nonce")
        assert lease is not None
        shard = ParkedShard(KEY.digest, LABEL, SHARD, KEY.park_id, first="1")
        assert await store.park(LABEL, lease, KEY, shard)
        assert await store.count_letters(LABEL, lease, [replace(shard, letters=letters, last=str(letters))]) == []
        session = RedriveSession(store, clock, "host/1", "token", 10.0)
        tokens = iter(map(str, range(1000)))
        async with session.opened():
            note = claims.note_lost_letter if accept_loss else None
            redrive = ParkedRedrive(store, box, handle, session, lambda: next(tokens), note)
            result = await redrive.redrive(KEY.digest)
        ended.append((result, (await store.parked_key(KEY.digest)).key is None))

    in_virtual_time(body)
    ((result, free),) = ended
    return result, handled, claims, free


def test_a_missing_letter_leaves_the_key_parked_and_what_follows_untouched() -> None:
    result, handled, claims, free = redriven(Box(letter(1), letter(3)), 3, accept_loss=False)
    assert (result.left, result.handled, free) == ("missing", 1, False)
    assert "letter 2 of 3" in result.detail
    assert handled == ["1"]
    assert claims.lost == []


def test_a_loss_that_is_accepted_leaves_a_trace_and_frees_the_key() -> None:
    with capture_logs() as logs:
        result, handled, claims, free = redriven(Box(letter(1), letter(3)), 3, accept_loss=True)
    assert (result.left, free) == (None, True)
    assert handled == ["1", "3"]
    assert [(digest, ordinal) for digest, _, ordinal, _ in claims.lost] == [("digest", 2)]
    (entry,) = [entry for entry in logs if entry["event"] == "dead_letter.passed_over"]
    assert (entry["log_level"], entry["ordinal"]) == ("error", 2)


def test_a_letter_that_cannot_be_read_says_why() -> None:
    result, handled, _, free = redriven(Box(letter(1), letter(2, "its payload is gone")), 2, accept_loss=False)
    assert (result.left, free) == ("unreadable", False)
    assert "its payload is gone" in result.detail
    assert handled == ["1"]


def test_of_two_copies_the_readable_one_counts() -> None:
    box = Box(letter(1, "damaged"), letter(1))
    result, handled, _, free = redriven(box, 1, accept_loss=False)
    assert (result.left, free) == (None, True)
    assert handled == ["1"]
    assert box.letters == [], "all copies of it are removed"
