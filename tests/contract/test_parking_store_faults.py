"""Parked keys when requests or answers are lost, or arrive late: a write that got no answer is repeated, by the store
or by its caller, and what arrives after something newer changes nothing."""

import asyncio
from dataclasses import replace

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.parking import Parked, ParkedKey
from tests.contract.parking_steps import CHILD, DIGEST, claimed, closing, done, parked, row_of
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, held


@pytest.fixture(params=["lose_request", "lose_response"])
def fault(request):
    return request.param


class Story:
    """A key from its parking to its end: all writes one after the other, what they return, and what is stored then."""

    def __init__(self, store, lease, child):
        self.store, self.lease, self.child = store, lease, child
        self.key = ParkedKey(DIGEST, "p1", reason="why", label=LABEL, shard_id=lease.shard_id, sequence_number="42")
        self.rows = (row_of(self.key), row_of(self.key, CHILD))

    async def tell(self, write):
        """Make every write through ``write``, which is given the call."""
        store, lease, child = self.store, self.lease, self.child
        first, second = self.rows
        assert await write(lambda: store.park(LABEL, lease, self.key, first)) is True
        await self.shows(self.key, first)
        assert await write(lambda: store.join_parked(LABEL, child, self.key, second)) is True
        await self.shows(self.key, first, second)
        first = replace(first, letters=2, last=LONG)
        assert await write(lambda: store.count_letters(LABEL, lease, [first])) == []
        await self.shows(self.key, first, second)
        key = replace(self.key, redriver="r1", claim=1)
        assert await write(lambda: store.claim_parked(self.key, "r1")) == key
        await self.shows(key, first, second)
        now = replace(key, state="closing", nonce="n1")
        assert await write(lambda: store.begin_closing(key, "n1")) == now
        await self.shows(now, first, second)
        assert await write(lambda: store.end_closing(LABEL, lease, now)) is True
        await self.shows(key, first, second)
        now = await store.begin_closing(key, "n2")
        first = replace(first, letters=3)
        assert await write(lambda: store.close_parked(LABEL, lease, now, first)) is True
        first = replace(first, closed="n2")
        seen = await store.lease(LABEL, CHILD)
        assert await write(lambda: store.close_for_owner(now, second, seen)) is True
        second = replace(second, closed="n2")
        await self.shows(now, first, second)
        first = replace(first, done=3)
        assert await write(lambda: store.redriven(now, first)) is True
        await self.shows(now, first, second)
        await store.save(LABEL, replace(child, state="done"))
        seen = await store.lease(LABEL, CHILD)
        assert await store.end_closing(LABEL, lease, now)
        assert await write(lambda: store.drop_finished(key, [(second, seen)])) is True
        await self.shows(key, first)
        now = await store.begin_closing(key, "n2")
        assert await write(lambda: store.free_parked(now, [first])) is True
        assert await store.parked_key(DIGEST) == Parked(None)
        again, _ = await parked(store, lease, park_id="p2")
        now = await closing(store, again)
        assert await write(lambda: store.release_parked(now)) is None
        assert (await store.parked_key(DIGEST)).key == replace(again, claim=1)

    async def shows(self, key, *rows):
        assert await self.store.parked_key(DIGEST) == Parked(key, rows)


@pytest.fixture
async def story(leases):
    store = leases.store()
    return Story(store, await held(store), await held(store, shard=CHILD))


@pytest.mark.parametrize("times", [1, 2])
async def test_every_write_survives_a_fault(leases, story, fault, times):
    async def write(call):
        hurt = getattr(leases.link, fault)(*leases.WRITES, times=times)
        found = await call()
        assert hurt.taken == times
        return found

    await story.tell(write)


async def test_every_write_that_never_arrived_is_reported_and_can_be_repeated(leases, story):
    async def write(call):
        leases.link.lose_request(*leases.WRITES, times=3)
        with pytest.raises(DependencyError):
            await call()
        return await call()

    await story.tell(write)


async def test_what_an_owner_repeats_after_its_every_answer_was_lost_is_a_success(leases):
    store = leases.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    key = ParkedKey(DIGEST, "p1")
    first, second = row_of(key), row_of(key, CHILD)
    counted = replace(first, letters=1, last=NUMBER)

    async def twice(call):
        leases.link.lose_response(*leases.WRITES, times=3)
        with pytest.raises(DependencyError):
            await call()
        return await call()

    assert await twice(lambda: store.park(LABEL, lease, key, first)) is True
    assert await twice(lambda: store.join_parked(LABEL, child, key, second)) is True
    assert await twice(lambda: store.count_letters(LABEL, lease, [counted])) == []
    now = await closing(store, key)
    assert await twice(lambda: store.close_parked(LABEL, lease, now, counted)) is True
    assert await store.parked_key(DIGEST) == Parked(now, (replace(counted, closed="n1"), second))


async def test_a_claim_whose_every_answer_is_lost_is_recognised_by_its_redriver(leases):
    store = leases.store()
    key, _ = await parked(store, await held(store))
    leases.link.lose_response(*leases.WRITES, times=3)
    assert await store.claim_parked(key, "r1") == replace(key, redriver="r1", claim=1)


async def test_a_claim_without_answer_that_another_redrive_was_faster_with_is_refused(leases):
    store, other = leases.store(), leases.store()
    key, shard = await parked(store, await held(store))
    late = leases.link.hold_request(*leases.WRITES, times=1)
    mine, theirs = await asyncio.gather(store.claim_parked(key, "r1"), other.claim_parked(key, "r2"))
    assert (mine, theirs) == (None, replace(key, redriver="r2", claim=1))
    await leases.deliver(late)
    assert await store.parked_key(DIGEST) == Parked(theirs, (shard,))


async def test_a_key_that_another_redrive_has_claimed_is_not_freed_by_a_request_without_answer(leases):
    store, other = leases.store(), leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    now = await closing(store, key)
    row = await done(store, lease, now, shard)
    late = leases.link.hold_request(*leases.WRITES, times=1)
    freed, theirs = await asyncio.gather(store.free_parked(now, [row]), other.claim_parked(now, "r2"))
    assert freed is False
    await leases.deliver(late)
    assert await store.parked_key(DIGEST) == Parked(theirs, (row,))


# --- requests that arrive late ---------------------------------------------------------------------


async def given_up(leases, write):
    """A write that its sender gives up, and that arrives when it is delivered."""
    late = leases.link.hold_request(*leases.WRITES, times=3)
    with pytest.raises(DependencyError):
        await write
    return late


async def unchanged_by(leases, late):
    store = leases.store()
    before = await store.parked()
    await leases.deliver(late)
    assert await store.parked() == before


async def test_a_late_count_does_not_undo_a_newer_one(leases):
    store = leases.store()
    lease = await held(store)
    _, shard = await parked(store, lease)
    late = await given_up(leases, store.count_letters(LABEL, lease, [replace(shard, letters=1, last="50")]))
    assert await store.count_letters(LABEL, lease, [replace(shard, letters=2, last="60")]) == []
    await unchanged_by(leases, late)


async def test_a_late_count_does_not_reach_the_next_time_that_the_key_is_parked(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    late = await given_up(leases, store.count_letters(LABEL, lease, [replace(shard, letters=9, last=LONG)]))
    key = await closing(store, key)
    assert await store.free_parked(key, [await done(store, lease, key, shard)])
    await parked(store, lease, park_id="p2")
    await unchanged_by(leases, late)


async def test_a_shard_does_not_join_late(leases):
    """The key is closing by then, or parked again."""
    store = leases.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    key, shard = await parked(store, lease)
    late = await given_up(leases, store.join_parked(LABEL, child, key, row_of(key, CHILD)))
    again = await given_up(leases, store.join_parked(LABEL, child, key, row_of(key, CHILD)))
    key = await closing(store, key)
    await unchanged_by(leases, late)
    assert await store.free_parked(key, [await done(store, lease, key, shard)])
    await parked(store, lease, park_id="p2")
    await unchanged_by(leases, again)


async def test_a_late_close_does_not_close_again(leases):
    """The owner has held for too long meanwhile, ended the closing, and sent another letter."""
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    now = await closing(store, key)
    late = await given_up(leases, store.close_parked(LABEL, lease, now, shard))
    assert await store.end_closing(LABEL, lease, now) is True
    assert await store.count_letters(LABEL, lease, [replace(shard, letters=1, last=NUMBER)]) == []
    again = await store.begin_closing(replace(now, state="parked", nonce=""), "n2")
    assert again is not None
    await unchanged_by(leases, late)


async def test_a_late_end_does_not_end_the_next_closing(leases):
    store = leases.store()
    lease = await held(store)
    key, _ = await parked(store, lease)
    now = await closing(store, key)
    late = await given_up(leases, store.end_closing(LABEL, lease, now))
    assert await store.begin_closing(now, "n2") is not None
    await unchanged_by(leases, late)


async def test_writes_of_an_owner_that_arrive_after_the_lease_was_taken_change_nothing(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    now = await closing(store, key)
    counted = replace(shard, letters=9, last=LONG)
    other = replace(key, digest="other")
    writes = (
        store.park(LABEL, lease, other, row_of(other)),
        store.count_letters(LABEL, lease, [counted]),
        store.close_parked(LABEL, lease, now, counted),
        store.end_closing(LABEL, lease, now),
    )
    late = [await given_up(leases, write) for write in writes]
    assert await store.take(LABEL, lease, "b", "n") is not None
    for one in late:
        await unchanged_by(leases, one)


async def test_writes_of_a_redrive_that_arrive_after_it_let_go_change_nothing(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    now = await closing(store, key)
    row = await done(store, lease, now, shard)
    seen = await store.lease(LABEL, lease.shard_id)
    writes = (
        store.redriven(now, replace(row, done=9)),
        store.begin_closing(now, "n2"),
        store.close_for_owner(now, row, seen),
        store.free_parked(now, [row]),
        store.release_parked(now),
    )
    late = [await given_up(leases, write) for write in writes]
    await store.release_parked(now)
    await claimed(store, key, "r2")
    for one in late:
        await unchanged_by(leases, one)


async def test_a_late_claim_does_not_come_back_after_a_release(leases):
    """The key is as the claim has seen it but for the number of claims."""
    store = leases.store()
    key, _ = await parked(store, await held(store))
    late = await given_up(leases, store.claim_parked(key, "r1"))
    await store.release_parked(await claimed(store, key, "r2"))
    await unchanged_by(leases, late)


async def test_what_is_done_does_not_go_back_late(leases):
    store = leases.store()
    key, shard = await parked(store, await held(store))
    key = await claimed(store, key)
    late = await given_up(leases, store.redriven(key, replace(shard, done=1)))
    assert await store.redriven(key, replace(shard, done=2)) is True
    await unchanged_by(leases, late)
