"""What every parking store reads: all keys of one application, and nothing else."""

from consumer.domain.parking import Parked
from tests.contract.parking_steps import CHILD, DIGEST, claimed, parked, row_of
from tests.contract.test_lease_store import LABEL, SHARD, held


async def test_nothing_is_parked_at_first(leases):
    store = leases.store()
    assert await store.parked() == []
    assert await store.parked_key(DIGEST) == Parked(None)
    assert await store.parked_changes() == 0


async def test_a_parked_key_comes_back_as_it_was_written(leases):
    store = leases.store()
    key, shard = await parked(store, await held(store))
    assert await leases.store().parked_key(DIGEST) == Parked(key, (shard,))
    assert await leases.store().parked() == [Parked(key, (shard,))]
    assert await store.parked_changes() == 0, "only steps of redrives are to be noticed"


async def test_keys_come_in_the_order_of_their_digests(leases):
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


async def test_applications_do_not_see_each_other_s_keys(leases):
    one, two = leases.store("app"), leases.store("app2")
    key, _ = await parked(one, await held(one))
    await claimed(one, key)
    assert await two.parked() == []
    assert await two.parked_changes() == 0
    assert await one.parked_changes() == 1
    assert await one.leases(LABEL) == [await one.lease(LABEL, SHARD)], "no lease is among them"
    assert await one.sessions() == []
