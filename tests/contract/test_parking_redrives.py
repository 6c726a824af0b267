"""What redrives write to every parking store, each write with each of its conditions."""

import asyncio
from dataclasses import replace

import pytest

from consumer.domain.parking import Parked
from tests.contract.parking_steps import DIGEST, claimed, closing, done, parked
from tests.contract.test_lease_store import LABEL, SHARD, held


async def test_a_claim_needs_the_key_as_it_was_seen(leases):
    store = leases.store()
    key, shard = await parked(store, await held(store))
    first = await store.claim_parked(key, "r1")
    assert first == replace(key, redriver="r1", claim=1)
    assert await store.parked_changes() == 1
    for stale in (key, replace(first, claim=0), replace(first, redriver="r0"), replace(first, park_id="p0")):
        assert await store.claim_parked(stale, "r2") is None
    assert await store.claim_parked(replace(first, digest="unknown"), "r2") is None
    assert await store.parked_changes() == 1
    second = await store.claim_parked(first, "r2")
    assert second == replace(key, redriver="r2", claim=2)
    assert await store.parked_key(DIGEST) == Parked(second, (shard,))
    assert await store.parked_changes() == 2


async def test_exactly_one_of_many_redrives_claims_a_key(leases):
    store = leases.store()
    for number in range(3):
        key, _ = await parked(store, await held(store, shard=f"s{number}"), f"d{number}")
        claims = await asyncio.gather(*(leases.store().claim_parked(key, f"r{n}") for n in range(8)))
        won = [found for found in claims if found is not None]
        assert len(won) == 1
        assert (await store.parked_key(key.digest)).key == won[0]


async def test_a_claim_ends_the_closing_of_the_redrive_before(leases):
    store = leases.store()
    key, _ = await parked(store, await held(store))
    before = await closing(store, key)
    assert (before.state, before.nonce) == ("closing", "n1")
    assert await claimed(store, key, "r2") == replace(key, redriver="r2", claim=2)


async def test_what_is_done_is_written_and_never_less(leases):
    store = leases.store()
    key, shard = await parked(store, await held(store))
    assert await store.redriven(key, replace(shard, done=1)) is True, "not claimed is a claim of nobody"
    key = await claimed(store, key)
    assert await store.redriven(replace(key, claim=0, redriver=None), replace(shard, done=2)) is False
    for number in (5, 5, 3):
        assert await store.redriven(key, replace(shard, done=number)) is True
    assert (await store.parked_key(DIGEST)).shards == (replace(shard, done=5),)
    for row in (replace(shard, done=6, shard_id="unknown"), replace(shard, done=6, digest="unknown")):
        assert await store.redriven(key, row) is False
    assert (await store.parked_key(DIGEST)).shards == (replace(shard, done=5),)


async def test_letters_are_counted_while_a_redrive_works(leases):
    """The owner and the redrive write to the same row, and not to the same attributes."""
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await claimed(store, key)
    for number in range(1, 5):
        count = store.count_letters(LABEL, lease, [replace(shard, letters=number, last=str(number))])
        written = await asyncio.gather(count, leases.store().redriven(key, replace(shard, done=number - 1)))
        assert written == [[], True]
    assert (await store.parked_key(DIGEST)).shards == (replace(shard, letters=4, last="4", done=3),)


async def test_every_write_of_a_redrive_needs_its_claim(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    mine = await closing(store, key)
    row = await done(store, lease, mine, shard)
    theirs = await store.begin_closing(await claimed(store, key, "r2"), mine.nonce)
    before, changes = await store.parked(), await store.parked_changes()
    for stale in (mine, replace(theirs, claim=1), replace(theirs, redriver="r1"), replace(theirs, park_id="p0")):
        assert await store.redriven(stale, replace(row, done=9)) is False
        assert await store.begin_closing(stale, "n2") is None
        assert await store.close_for_owner(stale, row, lease) is False
        assert await store.free_parked(stale, [row]) is False
        await store.release_parked(stale)
    assert await store.parked() == before == [Parked(theirs, (row,))]
    assert await store.parked_changes() == changes
    assert await store.free_parked(theirs, [row]) is True


async def test_a_released_key_is_anybody_s(leases):
    store = leases.store()
    key, shard = await parked(store, await held(store))
    mine = await closing(store, key)
    await store.release_parked(mine)
    assert await store.parked_key(DIGEST) == Parked(replace(key, claim=1), (shard,))
    assert await store.parked_changes() == 3
    assert await claimed(store, key, "r2") == replace(key, redriver="r2", claim=2)


@pytest.mark.parametrize("state", ["draining", "done", "free", "fenced", "none"])
async def test_a_row_is_closed_for_an_owner_that_is_gone(leases, state):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    if state == "free":
        await store.release(LABEL, lease)
    elif state == "none":
        await leases.delete_lease(LABEL, SHARD)
    elif state != "fenced":
        await store.save(LABEL, replace(lease, state=state))
    seen = await store.lease(LABEL, SHARD)
    assert await store.close_for_owner(replace(key, nonce="n0"), shard, seen) is False
    assert await store.close_for_owner(key, replace(shard, shard_id="unknown"), None) is False
    assert await store.close_for_owner(key, shard, seen) is True
    assert await store.parked_key(DIGEST) == Parked(key, (replace(shard, closed="n1"),))


async def test_a_row_is_not_closed_for_an_owner_that_has_come_or_gone_on(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    seen = await store.lease(LABEL, SHARD)
    for other in (None, replace(seen, owner="b"), replace(seen, epoch=7), replace(seen, state="done")):
        assert await store.close_for_owner(key, shard, other) is False
    free = replace(seen, owner=None)
    assert await store.close_for_owner(key, shard, free) is False
    await store.take(LABEL, seen, "b", "n")
    assert await store.close_for_owner(key, shard, seen) is False
    await leases.delete_lease(LABEL, SHARD)
    assert await store.close_for_owner(key, shard, seen) is False
    assert await store.parked_key(DIGEST) == Parked(key, (shard,))


async def test_no_row_is_closed_for_an_owner_before_the_key_is_closing(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await claimed(store, key)
    assert await store.close_for_owner(replace(key, nonce="n1"), shard, await store.lease(LABEL, SHARD)) is False
    assert await store.parked_key(DIGEST) == Parked(key, (shard,))
