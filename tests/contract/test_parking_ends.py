"""When rows of a parked key may go, in every parking store: all of them with the key, or those of finished shards."""

from dataclasses import replace

import pytest

from consumer.domain.parking import Parked
from consumer.ports.parking import MOST_DROPPED, MOST_FREED
from tests.contract.parking_steps import CHILD, DIGEST, claimed, closing, done, parked, row_of
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, held


async def test_a_key_is_freed_with_all_of_its_rows(leases):
    store = leases.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    key, shard = await parked(store, lease)
    assert await store.join_parked(LABEL, child, key, row_of(key, CHILD))
    other, _ = await parked(store, lease, "other")
    key = await closing(store, key)
    rows = [
        await done(store, lease, key, shard),
        await done(store, child, key, row_of(key, CHILD), letters=0),
    ]
    changes = await store.parked_changes()
    assert await store.free_parked(key, rows) is True
    assert await store.parked_key(DIGEST) == Parked(None)
    assert [one.key for one in await store.parked()] == [other]
    assert await store.parked_changes() == changes + 1
    assert await store.free_parked(key, rows) is False
    assert await store.count_letters(LABEL, lease, [replace(shard, letters=9, last=LONG)]) == [DIGEST]
    assert await store.close_parked(LABEL, lease, key, rows[0]) is False
    assert await store.redriven(key, rows[0]) is False
    assert [one.key for one in await store.parked()] == [other], "nothing is made again"
    again = replace(key, park_id="p2", state="parked", nonce="", redriver=None, claim=0)
    assert await store.park(LABEL, lease, again, row_of(again)) is True
    assert await store.parked_key(DIGEST) == Parked(again, (row_of(again),))


async def test_a_key_is_not_freed_before_all_of_its_rows_are_closed_and_done(leases):
    store = leases.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    key, shard = await parked(store, lease)
    assert await store.join_parked(LABEL, child, key, row_of(key, CHILD))
    key = await closing(store, key)
    first = await done(store, lease, key, shard)
    second = row_of(key, CHILD)

    async def refused(key, rows):
        before = await store.parked_key(DIGEST), await store.parked_changes()
        assert await store.free_parked(key, rows) is False
        assert (await store.parked_key(DIGEST), await store.parked_changes()) == before

    await refused(key, [first, second])  # not closed
    assert await store.close_parked(LABEL, child, key, replace(second, letters=1, last=NUMBER))
    second = replace(second, letters=1, last=NUMBER, closed=key.nonce)
    await refused(key, [first, second])  # not done
    assert await store.redriven(key, replace(second, done=1))
    second = replace(second, done=1)
    await refused(key, [first, replace(second, letters=0)])  # not as given
    await refused(replace(key, nonce="n0"), [first, second])
    await refused(key, [first, replace(second, shard_id="unknown")])
    await refused(key, [first])  # the other one would be left behind
    await refused(key, [])
    assert await store.free_parked(key, [first, second]) is True


async def test_letters_that_are_counted_after_the_look_keep_the_key_parked(leases):
    store = leases.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    row = await done(store, lease, key, shard)
    assert await store.count_letters(LABEL, lease, [replace(row, letters=row.letters + 1, last=LONG)]) == []
    assert await store.free_parked(key, [row]) is False
    assert (await store.parked_key(DIGEST)).key == key


async def test_a_key_of_many_shards_is_freed(leases):
    store = leases.store()
    key, shard = await parked(store, first := await held(store))
    others = [f"s{n:02}" for n in range(MOST_FREED - 1)]
    owners = [await held(store, shard=name) for name in others]
    for owner in owners:
        assert await store.join_parked(LABEL, owner, key, row_of(key, owner.shard_id))
    key = await closing(store, key)
    rows = [await done(store, first, key, shard, letters=0)]
    rows += [await done(store, owner, key, row_of(key, owner.shard_id), letters=0) for owner in owners]
    with pytest.raises(ValueError, match=f"{MOST_FREED + 1} shard rows"):
        await store.free_parked(key, [*rows, row_of(key, "more")])
    assert await store.free_parked(key, rows) is True
    assert await store.parked() == []


async def finished(leases, *, letters=2, state="done", rows=1):
    """A claimed key with rows of so many shards, all of their letters done, and the leases of these."""
    store = leases.store()
    owners = [await held(store, shard=f"s{n:02}") for n in range(rows)]
    key, _ = await parked(store, owners[0])
    found = []
    for number, owner in enumerate(owners):
        row = row_of(key, owner.shard_id)
        if number:
            assert await store.join_parked(LABEL, owner, key, row)
        if letters:
            row = replace(row, letters=letters, last=LONG)
            assert await store.count_letters(LABEL, owner, [row]) == []
        found.append((replace(row, done=letters), replace(owner, state=state)))
        await store.save(LABEL, replace(owner, state=state))
    key = await claimed(store, key)
    for row, _ in found:
        assert await store.redriven(key, row)
    return store, key, found


@pytest.mark.parametrize("state", ["draining", "done", "absent"])
async def test_the_rows_of_shards_that_get_no_further_letters_are_dropped(leases, state):
    absent = state == "absent"
    store, key, found = await finished(leases, state="done" if absent else state, rows=3)
    if absent:
        for row, _ in found:
            await leases.delete_lease(LABEL, row.shard_id)
        found = [(row, None) for row, _ in found]
    assert await store.drop_finished(key, found[:2]) is True
    assert await store.parked_key(DIGEST) == Parked(key, (found[2][0],)), "and the key stays parked"
    assert await store.drop_finished(key, found[:2]) is False
    now = await store.begin_closing(key, "n1")
    assert await store.close_for_owner(now, *found[2]) is True
    assert await store.free_parked(now, [replace(found[2][0], closed="n1")]) is True, "it knows of one row only"


async def test_a_key_is_free_without_any_row(leases):
    store, key, found = await finished(leases)
    assert await store.drop_finished(key, found) is True
    assert await store.parked() == [Parked(key)]
    now = await store.begin_closing(key, "n1")
    assert await store.free_parked(now, []) is True
    assert await store.parked() == []


async def test_no_row_is_dropped_that_could_get_letters_or_has_some(leases):
    store, key, found = await finished(leases)
    ((row, lease),) = found

    async def refused(key, row, lease):
        before = await store.parked_key(DIGEST)
        assert await store.drop_finished(key, [(row, lease)]) is False
        assert await store.parked_key(DIGEST) == before

    with pytest.raises(ValueError, match="not settled"):
        await store.drop_finished(key, [(row, replace(lease, state="open"))])
    await refused(key, row, None)
    await refused(key, row, replace(lease, state="draining"))
    await refused(key, replace(row, letters=1), lease)
    await refused(key, replace(row, shard_id="unknown"), None)
    await refused(replace(key, claim=0), row, lease)
    await refused(replace(key, park_id="p0"), row, lease)
    assert await store.count_letters(LABEL, lease, [replace(row, letters=3, last=LONG)]) == []
    await refused(key, replace(row, letters=3), lease)  # not done
    assert await store.redriven(key, replace(row, done=3))
    now = await store.begin_closing(key, "n1")
    await refused(now, replace(row, letters=3), lease)
    assert await store.end_closing(LABEL, lease, now)
    assert await store.drop_finished(key, [(replace(row, letters=3), lease)]) is True


@pytest.mark.parametrize("state", ["draining", "done"])
async def test_a_row_that_was_dropped_does_not_come_back_with_a_late_request(leases, state):
    store, key, found = await finished(leases, state=state)
    ((row, lease),) = found
    assert await store.drop_finished(key, found) is True
    late = row_of(key, row.shard_id)
    assert await store.join_parked(LABEL, replace(lease, state="open"), key, late) is False
    assert await store.parked() == [Parked(key)]


async def test_rows_are_dropped_by_the_dozen(leases):
    store, key, found = await finished(leases, letters=0, rows=MOST_DROPPED)
    with pytest.raises(ValueError, match=f"{MOST_DROPPED + 1} shard rows"):
        await store.drop_finished(key, [*found, found[0]])
    assert await store.drop_finished(key, found) is True
    assert await store.parked() == [Parked(key)]
