"""What owners and redrives do to a parked key, as the contracts of parking stores tell it: ``parked`` is a key with its
first shard row, ``claimed`` and ``closing`` are what a redrive makes of it."""

from dataclasses import replace

from consumer.domain.deferred import digest_of
from consumer.domain.parking import ParkedKey, ParkedShard
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, SHARD

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
