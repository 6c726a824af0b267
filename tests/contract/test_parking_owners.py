"""What owners of shards write to every parking store, each write with each of its conditions."""

import asyncio
from dataclasses import replace

import pytest

from consumer.domain.errors import LeaseDeleted, LeaseLost
from consumer.domain.parking import Parked, ParkedKey
from consumer.ports.parking import MOST_COUNTED
from tests.contract.parking_steps import CHILD, DIGEST, closing, parked, row_of
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, SHARD, held


async def refusing(store, lease, key, shard):
    """The writes of an owner."""
    return [
        lambda: store.park(LABEL, lease, replace(key, digest="another"), replace(shard, digest="another")),
        lambda: store.join_parked(LABEL, lease, key, replace(shard, shard_id="another")),
        lambda: store.count_letters(LABEL, lease, [replace(shard, letters=9, last=LONG)]),
        lambda: store.close_parked(LABEL, lease, key, replace(shard, letters=9, last=LONG)),
        lambda: store.end_closing(LABEL, lease, key),
    ]


async def test_a_key_is_parked_once(leases):
    store = leases.store()
    lease, other = await held(store), await held(store, "b", CHILD)
    key, shard = await parked(store, lease)
    assert await store.park(LABEL, lease, key, shard) is True, "the same once more"
    theirs = replace(key, park_id="p2", shard_id=CHILD)
    assert await store.park(LABEL, other, theirs, row_of(theirs, CHILD)) is False
    assert await store.park(LABEL, lease, theirs, row_of(theirs)) is False
    assert await store.park(LABEL, lease, key, replace(shard, first="41")) is False
    assert await store.parked_key(DIGEST) == Parked(key, (shard,))


async def test_one_of_many_owners_parks_a_key(leases):
    owners = [(leases.store(), f"{SHARD}-{n}") for n in range(6)]
    rows = [await held(store, shard=shard) for store, shard in owners]
    keys = [ParkedKey(DIGEST, f"p{n}") for n in range(6)]
    parks = [
        store.park(LABEL, row, key, row_of(key, shard))
        for (store, shard), row, key in zip(owners, rows, keys, strict=True)
    ]
    won = await asyncio.gather(*parks)
    assert sum(won) == 1
    key = keys[won.index(True)]
    assert await leases.store().parked_key(DIGEST) == Parked(key, (row_of(key, f"{SHARD}-{won.index(True)}"),))


async def test_a_shard_joins_a_key_that_is_parked(leases):
    store = leases.store()
    lease = await held(store, shard=CHILD)
    key, shard = await parked(store, await held(store))
    mine = row_of(key, CHILD, first=LONG)
    for _ in range(2):
        assert await store.join_parked(LABEL, lease, key, mine) is True
    assert await store.join_parked(LABEL, lease, key, replace(mine, first="7")) is False, "it has a row"
    assert await store.join_parked(LABEL, lease, replace(key, park_id="p2"), replace(mine, park_id="p2")) is False
    other = replace(key, digest="free")
    assert await store.join_parked(LABEL, lease, other, row_of(other, CHILD)) is False
    assert await store.parked() == [Parked(key, (shard, mine))]


async def test_no_shard_joins_a_key_that_is_closing(leases):
    store = leases.store()
    lease = await held(store, shard=CHILD)
    key, shard = await parked(store, await held(store))
    key = await closing(store, key)
    assert await store.join_parked(LABEL, lease, key, row_of(key, CHILD)) is False
    assert await store.parked_key(DIGEST) == Parked(key, (shard,))


async def test_letters_are_counted_upwards_and_where_the_key_is_still_parked(leases):
    store = leases.store()
    lease = await held(store)
    rows = [(await parked(store, lease, digest))[1] for digest in "abc"]
    counted = [replace(row, letters=3, last=LONG) for row in rows]
    assert await store.count_letters(LABEL, lease, []) == []
    assert await store.count_letters(LABEL, lease, counted[:2]) == []
    late = [replace(rows[0], letters=2, last="50"), replace(rows[1], letters=4, last="60"), counted[2]]
    gone = [replace(counted[2], digest="gone"), replace(rows[2], park_id="p0", letters=9, last="70")]
    assert await store.count_letters(LABEL, lease, [late[0], gone[0], late[1], late[2]]) == ["gone"]
    assert await store.count_letters(LABEL, lease, [gone[1]]) == ["c"]
    assert await store.count_letters(LABEL, lease, [counted[0]]) == []
    found = {one.key.digest: one.shards[0] for one in await store.parked()}
    assert found == {"a": counted[0], "b": late[1], "c": counted[2]}


async def test_many_rows_are_counted_in_one_write(leases):
    store = leases.store()
    lease = await held(store)
    rows = [(await parked(store, lease, f"d{n:02}"))[1] for n in range(MOST_COUNTED)]
    counted = [replace(row, letters=1, last=NUMBER) for row in rows]
    assert await store.count_letters(LABEL, lease, counted) == []
    assert [one.shards for one in await store.parked()] == [(row,) for row in counted]
    with pytest.raises(ValueError, match=f"{MOST_COUNTED + 1} rows"):
        await store.count_letters(LABEL, lease, [*counted, replace(counted[0], digest="more")])


async def test_a_row_is_closed_with_its_counts_and_the_nonce(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    final = replace(shard, letters=2, last=LONG)
    assert await store.close_parked(LABEL, lease, replace(key, nonce="n1"), final) is False, "it is not closing"
    key = await closing(store, key)
    for other in (replace(key, nonce="n0"), replace(key, park_id="p0")):
        assert await store.close_parked(LABEL, lease, other, replace(final, park_id=other.park_id)) is False
    assert await store.close_parked(LABEL, lease, key, replace(final, shard_id="unknown")) is False
    assert await store.parked_key(DIGEST) == Parked(key, (shard,))
    for _ in range(2):
        assert await store.close_parked(LABEL, lease, key, final) is True
    assert await store.parked_key(DIGEST) == Parked(key, (replace(final, closed="n1"),))
    assert await store.close_parked(LABEL, lease, key, replace(final, letters=1)) is False, "it counts more"
    assert await store.parked_key(DIGEST) == Parked(key, (replace(final, closed="n1"),))


async def test_an_owner_that_has_held_for_too_long_ends_the_closing(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    now_closing = await closing(store, key)
    changes = await store.parked_changes()
    for other in (replace(now_closing, nonce="n0"), replace(now_closing, park_id="p0")):
        assert await store.end_closing(LABEL, lease, other) is False
    assert await store.end_closing(LABEL, lease, now_closing) is True
    found = await store.parked_key(DIGEST)
    assert found == Parked(replace(now_closing, state="parked", nonce=""), (shard,)), "and stays claimed"
    assert await store.end_closing(LABEL, lease, now_closing) is False
    assert await store.close_parked(LABEL, lease, now_closing, shard) is False, "the nonce is worthless"
    assert await store.parked_changes() == changes
    assert await store.end_closing(LABEL, lease, replace(now_closing, digest="unknown")) is False


async def test_a_stale_owner_writes_nothing(leases):
    store = leases.store()
    stale = await held(store, "a")
    key, _ = await parked(store, stale)
    key = await closing(store, key)
    current = await store.take(LABEL, stale, "b", "n")
    before = await store.parked()
    for lease in (stale, replace(stale, owner="b"), replace(current, owner="a")):
        for write in await refusing(store, lease, key, before[0].shards[0]):
            with pytest.raises(LeaseLost, match=r"owner b, epoch 2"):
                await write()
    assert await store.parked() == before
    await leases.delete_lease(LABEL, SHARD)
    for write in await refusing(store, current, key, before[0].shards[0]):
        with pytest.raises(LeaseDeleted):
            await write()
    assert await store.parked() == before
