"""Owners and redrives that write to one key at the same time: one of them is too late, and is told."""

import asyncio
from dataclasses import replace

from consumer.domain.parking import Parked
from tests.contract.parking_steps import CHILD, claimed, closing, done, parked, row_of
from tests.contract.test_lease_store import LABEL, LONG, held


async def test_either_the_key_is_freed_or_the_closing_ends(leases):
    store, redrive = leases.store(), leases.store()
    lease = await held(store)
    for number in range(6):
        key, shard = await parked(store, lease, f"d{number}")
        key = await closing(redrive, key)
        row = await done(store, lease, key, shard)
        freed, ended = await asyncio.gather(redrive.free_parked(key, [row]), store.end_closing(LABEL, lease, key))
        assert freed is not ended
        left = (await store.parked_key(key.digest)).key
        assert left == (None if freed else replace(key, state="parked", nonce=""))


async def test_either_a_shard_joins_or_the_key_is_closing(leases):
    """One that has joined is known to whoever looks after the closing has begun."""
    store, redrive = leases.store(), leases.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    for number in range(6):
        key, shard = await parked(store, lease, f"d{number}")
        key = await claimed(redrive, key, f"r{number}")
        mine = row_of(key, CHILD)
        now_closing, joined = await asyncio.gather(
            redrive.begin_closing(key, "n1"), store.join_parked(LABEL, child, key, mine)
        )
        found = await redrive.parked_key(key.digest)
        assert found == Parked(now_closing, (shard, mine) if joined else (shard,))


async def test_a_letter_of_a_key_that_is_freed_at_the_same_time_is_counted_or_its_row_is_gone(leases):
    store, redrive = leases.store(), leases.store()
    lease = await held(store)
    for number in range(6):
        key, shard = await parked(store, lease, f"d{number}")
        key = await closing(redrive, key)
        row = await done(store, lease, key, shard)
        more = replace(row, letters=row.letters + 1, last=LONG)
        gone, freed = await asyncio.gather(store.count_letters(LABEL, lease, [more]), redrive.free_parked(key, [row]))
        assert gone == ([key.digest] if freed else [])
        assert (await store.parked_key(key.digest)).shards == (() if freed else (more,))


async def test_a_row_is_closed_for_an_owner_or_the_lease_has_a_new_one(leases):
    store, redrive = leases.store(), leases.store()
    for number in range(6):
        lease = await held(store, shard=f"s{number}")
        key, shard = await parked(store, lease, f"d{number}")
        key = await closing(redrive, key)
        await store.release(LABEL, lease)
        free = await store.lease(LABEL, lease.shard_id)
        taken, closed = await asyncio.gather(
            store.take(LABEL, free, "b", "n"), redrive.close_for_owner(key, shard, free)
        )
        assert taken is not None
        assert (await store.parked_key(key.digest)).shards[0].closed == (key.nonce if closed else "")
