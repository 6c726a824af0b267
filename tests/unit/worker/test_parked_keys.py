"""What a worker knows of parked keys: old views, rows that are gone, and tables that cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.domain.batching import Entry, PageHold
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.parking import Parked
from consumer.domain.settlement import GiveUp
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.parked_keys import READ_AGAIN, ParkedKeys
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.parked_rows import ParkedRows
from tests.unit.domain.support import records
from tests.unit.worker.lease_owner import APPLICATION, Owner, with_owner

D = "digest"
NEVER = asyncio.Event()


def entry_of(owner: Owner, number: int) -> Entry:
    (record,) = records(number)
    return Entry(0, b"k", record, PageHold(BudgetAccount(owner.context.budget), 0, left=1, event_bytes=0))


async def parked_rows(owner: Owner, lease: HeldLease) -> ParkedRows:
    rows = ParkedRows(owner.context, lease)
    await rows.load(NEVER)
    return rows


async def park(owner: Owner, rows: ParkedRows, digest: str = D, number: int = 5) -> None:
    entry = entry_of(owner, number)
    step = GiveUp([entry.record], "RetryAttemptsExhausted", 1, None, invoked=True)
    await rows.park(digest, entry, step, NEVER)


def gate(store: Any, name: str) -> tuple[asyncio.Event, asyncio.Event]:
    """The next call of this method has read what it returns when the first event is set, and returns it when the second
    one is."""
    method, read, may_return = getattr(store, name), asyncio.Event(), asyncio.Event()

    async def late(*args: Any) -> Any:
        setattr(store, name, method)
        found = await method(*args)
        read.set()
        await may_return.wait()
        return found

    setattr(store, name, late)
    return read, may_return


def test_a_reading_that_is_older_than_a_look_does_not_free_a_key() -> None:
    """It takes seconds when many keys are parked, and a parent shard parks keys meanwhile."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        mine, parent = await parked_rows(owner, lease), ParkedRows(owner.context, lease)
        read, may_return = gate(owner.store, "parked")
        reading = asyncio.create_task(owner.context.parked.read())
        await read.wait()
        await park(owner, parent)
        await mine.look(D)
        assert mine.is_parked(D)
        may_return.set()
        await reading
        assert mine.is_parked(D), "that was read before the key was parked"
        owner.table.parked.clear()
        owner.table.parked_shards.clear()
        await owner.context.parked.read()
        assert not mine.is_parked(D)

    with_owner(work)


def test_letters_whose_row_is_gone_do_not_count() -> None:
    """By hand, or because a redrive has freed the key: their records must not leave the books for them."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        rows = await parked_rows(owner, lease)
        await park(owner, rows)
        await park(owner, rows, "other")
        assert await rows.count(D, 1, "5", NEVER)
        del owner.table.parked[APPLICATION, D]
        owner.table.parked_shards = {place: row for place, row in owner.table.parked_shards.items() if place[1] != D}
        counted = await asyncio.gather(rows.count(D, 2, "6", NEVER), rows.count("other", 1, "5", NEVER))
        assert counted == [False, True]
        assert not rows.is_parked(D)
        assert not await rows.count(D, 3, "7", NEVER), "nor do those of a key that is known to have no row"

    with_owner(work)


def test_keys_that_are_being_parked_count_towards_the_bound_at_once() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        rows, known = await parked_rows(owner, lease), owner.context.parked
        await asyncio.gather(*(park(owner, rows, f"k{number}", number) for number in range(3)), at(known, 3))
        await known.read()
        assert (known.at_least, len(known)) == (3, 3)
        owner.table.parked.clear()
        owner.table.parked_shards.clear()
        await known.read()
        assert known.at_least == 0

    async def at(known: ParkedKeys, expected: int) -> None:
        assert known.at_least == expected

    with_owner(work)


def test_a_row_that_cannot_be_read_ends_no_watching() -> None:
    """One that is damaged, or of a newer version: what is known counts on, and the fleet works."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        rows, known = await parked_rows(owner, lease), owner.context.parked
        await park(owner, rows)
        method: Callable[[], Awaitable[list[Parked]]] = owner.store.parked
        damaged = True

        async def parked() -> list[Parked]:
            if damaged:
                raise MisconfiguredResource("row app#parked/digest is damaged")
            return await method()

        owner.store.parked = parked  # type: ignore[method-assign]  # a damaged table
        watching = asyncio.create_task(known.watch())
        with capture_logs() as logs:
            await asyncio.sleep(2 * READ_AGAIN)
        assert {entry["event"] for entry in logs} == {"parked_keys.read_failed"}
        assert rows.is_parked(D)
        damaged = False
        await asyncio.sleep(2 * READ_AGAIN)
        assert len(known) == 1
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    with_owner(work)


def test_a_damaged_row_is_told_once_with_its_key_and_again_when_it_is_damaged_anew() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        rows, known = await parked_rows(owner, lease), owner.context.parked
        await park(owner, rows)
        await park(owner, rows, "other")
        said = []
        for damaged in (True, True, False, True):
            owner.table.parked_damage.clear()
            if damaged:
                owner.table.parked_damage[APPLICATION, D, "", ""] = "row app#parked/digest: put it right"
            with capture_logs() as logs:
                await known.read()
            said.append([(one["event"], one["key_digest"], one["problem"]) for one in logs])
            assert rows.is_parked(D)
            assert rows.fate(D, 9) == ("hold" if damaged else "letter")
            assert rows.fate("other", 9) == "letter"
            assert rows.fate("third", 9) == "handle"
        told = [("parked_key.damaged", D, "row app#parked/digest: put it right")]
        assert said == [told, [], [], told]

    with_owner(work)


def test_letters_are_not_counted_in_a_row_that_cannot_be_read() -> None:
    """So their records stay in the books, and become the same letters when it was put right."""

    async def work(owner: Owner, lease: HeldLease) -> None:
        rows = await parked_rows(owner, lease)
        await park(owner, rows)
        assert await rows.count(D, 1, "5", NEVER)
        ((place),) = owner.table.parked_shards
        owner.table.parked_damage[place] = "damaged"
        assert not await rows.count(D, 2, "6", NEVER)
        assert rows.fate(D, 6) == "hold"
        owner.table.parked_damage.clear()
        await rows.look(D)
        assert (rows.fate(D, 6), rows.letters(D)[1]) == ("letter", 1)

    with_owner(work)


def test_steps_of_redrives_are_noticed_although_their_number_was_damaged() -> None:
    async def work(owner: Owner, lease: HeldLease) -> None:
        rows, known = await parked_rows(owner, lease), owner.context.parked
        await park(owner, rows)
        await known.read()

        async def damaged() -> int:
            raise MisconfiguredResource("row app#parked/!changes is damaged")

        owner.store.parked_changes = damaged  # type: ignore[method-assign]  # a damaged table
        watching = asyncio.create_task(known.watch())
        with capture_logs():
            for state, fate in (("closing", "hold"), ("parked", "letter"), ("closing", "hold")):
                key = owner.table.parked[APPLICATION, D]
                owner.table.parked[APPLICATION, D] = replace(key, state=state, nonce="n" if state == "closing" else "")
                await asyncio.sleep(3.0)
                assert rows.fate(D, 9) == fate
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    with_owner(work)
