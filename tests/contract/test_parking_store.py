"""What every parking store promises, on the one in memory and on real servers: each write with each of its conditions.

A scenario is told with the writes themselves: ``parked`` is a key with its first shard row, ``claimed`` and ``closing``
are what a redrive makes of it.
"""

import asyncio
from dataclasses import replace

import pytest

from consumer.domain.deferred import digest_of
from consumer.domain.errors import LeaseDeleted, LeaseLost
from consumer.domain.parking import Parked, ParkedKey, ParkedShard
from consumer.ports.parking import MOST_COUNTED, MOST_DROPPED, MOST_FREED
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, SHARD, held

DIGEST = digest_of(b"customer#1")
CHILD = "shardId-00000001700000000001-abcdef02"


def row_of(key, shard_id=SHARD, label=LABEL, **fields):
    return ParkedShard(key.digest, label, shard_id, key.park_id, **{"first": NUMBER, **fields})


async def parked(store, lease, digest=DIGEST, park_id="p1", **fields):
    """A key that the owner of ``lease`` has parked, and the row of its shard."""
    key = ParkedKey(digest, park_id, since=1_700_000_000.25, reason="RetryAttemptsExhausted")
    key = replace(key, label=LABEL, shard_id=lease.shard_id, sequence_number="42", **fields)
    shard = row_of(key, lease.shard_id)
    assert await store.park(LABEL, lease, key, shard) is True
    return key, shard


async def claimed(store, key, redriver="r1"):
    seen = (await store.parked_key(key.digest)).key
    found = await store.claim_parked(seen, redriver)
    assert found is not None
    return found


async def closing(store, key, nonce="n1"):
    """A key that a redrive has claimed and is closing."""
    found = await store.begin_closing(await claimed(store, key), nonce)
    assert found is not None
    return found


async def done(store, lease, key, shard, letters=2):
    """Close a shard row with so many letters, all of them done; the key is closing."""
    shard = replace(shard, letters=letters, last=LONG if letters else "")
    assert await store.close_parked(LABEL, lease, key, shard) is True
    shard = replace(shard, done=letters)
    assert await store.redriven(key, shard) is True
    return replace(shard, closed=key.nonce)


async def refusing(store, lease, key, shard):
    """The writes of an owner."""
    return [
        lambda: store.park(LABEL, lease, replace(key, digest="another"), replace(shard, digest="another")),
        lambda: store.join_parked(LABEL, lease, key, replace(shard, shard_id="another")),
        lambda: store.count_letters(LABEL, lease, [replace(shard, letters=9, last=LONG)]),
        lambda: store.close_parked(LABEL, lease, key, replace(shard, letters=9, last=LONG)),
        lambda: store.end_closing(LABEL, lease, key),
    ]


class TestOwners:
    async def test_nothing_is_parked_at_first(self, leases):
        store = leases.store()
        assert await store.parked() == []
        assert await store.parked_key(DIGEST) == Parked(None)
        assert await store.parked_changes() == 0

    async def test_a_parked_key_comes_back_as_it_was_written(self, leases):
        store = leases.store()
        key, shard = await parked(store, await held(store))
        assert await leases.store().parked_key(DIGEST) == Parked(key, (shard,))
        assert await leases.store().parked() == [Parked(key, (shard,))]
        assert await store.parked_changes() == 0, "only steps of redrives are to be noticed"

    async def test_keys_come_in_the_order_of_their_digests(self, leases):
        store = leases.store()
        lease, child = await held(store), await held(store, shard=CHILD)
        keys = {}
        for digest in ("b", "-a", "_", "aa", "a", "Z"):
            key, _ = await parked(store, lease, digest)
            assert await store.join_parked(LABEL, child, key, row_of(key, CHILD))
            keys[digest] = key
        found = await store.parked()
        assert [one.key for one in found] == [keys[digest] for digest in sorted(keys)]
        assert [[row.shard_id for row in one.shards] for one in found] == [[SHARD, CHILD]] * len(keys)
        for digest, key in keys.items():
            one = await store.parked_key(digest)
            assert (one.key, len(one.shards)) == (key, 2)
            assert one.of(LABEL, CHILD) == row_of(key, CHILD)

    async def test_applications_do_not_see_each_other_s_keys(self, leases):
        one, two = leases.store("app"), leases.store("app2")
        key, _ = await parked(one, await held(one))
        await claimed(one, key)
        assert await two.parked() == []
        assert await two.parked_changes() == 0
        assert await one.parked_changes() == 1
        assert await one.leases(LABEL) == [await one.lease(LABEL, SHARD)], "no lease is among them"
        assert await one.sessions() == []

    async def test_a_key_is_parked_once(self, leases):
        store = leases.store()
        lease, other = await held(store), await held(store, "b", CHILD)
        key, shard = await parked(store, lease)
        assert await store.park(LABEL, lease, key, shard) is True, "the same once more"
        theirs = replace(key, park_id="p2", shard_id=CHILD)
        assert await store.park(LABEL, other, theirs, row_of(theirs, CHILD)) is False
        assert await store.park(LABEL, lease, theirs, row_of(theirs)) is False
        assert await store.park(LABEL, lease, key, replace(shard, first="41")) is False
        assert await store.parked_key(DIGEST) == Parked(key, (shard,))

    async def test_one_of_many_owners_parks_a_key(self, leases):
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

    async def test_a_shard_joins_a_key_that_is_parked(self, leases):
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

    async def test_no_shard_joins_a_key_that_is_closing(self, leases):
        store = leases.store()
        lease = await held(store, shard=CHILD)
        key, shard = await parked(store, await held(store))
        key = await closing(store, key)
        assert await store.join_parked(LABEL, lease, key, row_of(key, CHILD)) is False
        assert await store.parked_key(DIGEST) == Parked(key, (shard,))

    async def test_letters_are_counted_upwards_and_where_the_key_is_still_parked(self, leases):
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

    async def test_many_rows_are_counted_in_one_write(self, leases):
        store = leases.store()
        lease = await held(store)
        rows = [(await parked(store, lease, f"d{n:02}"))[1] for n in range(MOST_COUNTED)]
        counted = [replace(row, letters=1, last=NUMBER) for row in rows]
        assert await store.count_letters(LABEL, lease, counted) == []
        assert [one.shards for one in await store.parked()] == [(row,) for row in counted]
        with pytest.raises(ValueError, match=f"{MOST_COUNTED + 1} rows"):
            await store.count_letters(LABEL, lease, [*counted, replace(counted[0], digest="more")])

    async def test_a_row_is_closed_with_its_counts_and_the_nonce(self, leases):
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

    async def test_an_owner_that_has_held_for_too_long_ends_the_closing(self, leases):
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

    async def test_a_stale_owner_writes_nothing(self, leases):
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


class TestRedrives:
    async def test_a_claim_needs_the_key_as_it_was_seen(self, leases):
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

    async def test_exactly_one_of_many_redrives_claims_a_key(self, leases):
        store = leases.store()
        for number in range(3):
            key, _ = await parked(store, await held(store, shard=f"s{number}"), f"d{number}")
            claims = await asyncio.gather(*(leases.store().claim_parked(key, f"r{n}") for n in range(8)))
            won = [found for found in claims if found is not None]
            assert len(won) == 1
            assert (await store.parked_key(key.digest)).key == won[0]

    async def test_a_claim_ends_the_closing_of_the_redrive_before(self, leases):
        store = leases.store()
        key, _ = await parked(store, await held(store))
        before = await closing(store, key)
        assert (before.state, before.nonce) == ("closing", "n1")
        assert await claimed(store, key, "r2") == replace(key, redriver="r2", claim=2)

    async def test_what_is_done_is_written_and_never_less(self, leases):
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

    async def test_letters_are_counted_while_a_redrive_works(self, leases):
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

    async def test_every_write_of_a_redrive_needs_its_claim(self, leases):
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

    async def test_a_released_key_is_anybody_s(self, leases):
        store = leases.store()
        key, shard = await parked(store, await held(store))
        mine = await closing(store, key)
        await store.release_parked(mine)
        assert await store.parked_key(DIGEST) == Parked(replace(key, claim=1), (shard,))
        assert await store.parked_changes() == 3
        assert await claimed(store, key, "r2") == replace(key, redriver="r2", claim=2)

    @pytest.mark.parametrize("state", ["draining", "done", "free", "fenced", "none"])
    async def test_a_row_is_closed_for_an_owner_that_is_gone(self, leases, state):
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

    async def test_a_row_is_not_closed_for_an_owner_that_has_come_or_gone_on(self, leases):
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

    async def test_no_row_is_closed_for_an_owner_before_the_key_is_closing(self, leases):
        store = leases.store()
        lease = await held(store)
        key, shard = await parked(store, lease)
        key = await claimed(store, key)
        assert await store.close_for_owner(replace(key, nonce="n1"), shard, await store.lease(LABEL, SHARD)) is False
        assert await store.parked_key(DIGEST) == Parked(key, (shard,))

    async def test_a_key_is_freed_with_all_of_its_rows(self, leases):
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

    async def test_a_key_is_not_freed_before_all_of_its_rows_are_closed_and_done(self, leases):
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

    async def test_letters_that_are_counted_after_the_look_keep_the_key_parked(self, leases):
        store = leases.store()
        lease = await held(store)
        key, shard = await parked(store, lease)
        key = await closing(store, key)
        row = await done(store, lease, key, shard)
        assert await store.count_letters(LABEL, lease, [replace(row, letters=row.letters + 1, last=LONG)]) == []
        assert await store.free_parked(key, [row]) is False
        assert (await store.parked_key(DIGEST)).key == key

    async def test_a_key_of_many_shards_is_freed(self, leases):
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

    async def finished(self, leases, *, letters=2, state="done", rows=1):
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
    async def test_the_rows_of_shards_that_get_no_further_letters_are_dropped(self, leases, state):
        absent = state == "absent"
        store, key, found = await self.finished(leases, state="done" if absent else state, rows=3)
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

    async def test_a_key_is_free_without_any_row(self, leases):
        store, key, found = await self.finished(leases)
        assert await store.drop_finished(key, found) is True
        assert await store.parked() == [Parked(key)]
        now = await store.begin_closing(key, "n1")
        assert await store.free_parked(now, []) is True
        assert await store.parked() == []

    async def test_no_row_is_dropped_that_could_get_letters_or_has_some(self, leases):
        store, key, found = await self.finished(leases)
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
    async def test_a_row_that_was_dropped_does_not_come_back_with_a_late_request(self, leases, state):
        store, key, found = await self.finished(leases, state=state)
        ((row, lease),) = found
        assert await store.drop_finished(key, found) is True
        late = row_of(key, row.shard_id)
        assert await store.join_parked(LABEL, replace(lease, state="open"), key, late) is False
        assert await store.parked() == [Parked(key)]

    async def test_rows_are_dropped_by_the_dozen(self, leases):
        store, key, found = await self.finished(leases, letters=0, rows=MOST_DROPPED)
        with pytest.raises(ValueError, match=f"{MOST_DROPPED + 1} shard rows"):
            await store.drop_finished(key, [*found, found[0]])
        assert await store.drop_finished(key, found) is True
        assert await store.parked() == [Parked(key)]


class TestRaces:
    async def test_either_the_key_is_freed_or_the_closing_ends(self, leases):
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

    async def test_either_a_shard_joins_or_the_key_is_closing(self, leases):
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

    async def test_a_letter_of_a_key_that_is_freed_at_the_same_time_is_counted_or_its_row_is_gone(self, leases):
        store, redrive = leases.store(), leases.store()
        lease = await held(store)
        for number in range(6):
            key, shard = await parked(store, lease, f"d{number}")
            key = await closing(redrive, key)
            row = await done(store, lease, key, shard)
            more = replace(row, letters=row.letters + 1, last=LONG)
            gone, freed = await asyncio.gather(
                store.count_letters(LABEL, lease, [more]), redrive.free_parked(key, [row])
            )
            assert gone == ([key.digest] if freed else [])
            assert (await store.parked_key(key.digest)).shards == (() if freed else (more,))

    async def test_a_row_is_closed_for_an_owner_or_the_lease_has_a_new_one(self, leases):
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
