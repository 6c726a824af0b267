"""What a reset makes of damaged lease rows, on a real table: in memory a damage has no attribute."""

import time
import uuid

import pytest

from consumer.domain.errors import MisconfiguredResource, first_error
from consumer.domain.replay import plan_reset
from consumer.domain.replay_start import ReplayStart
from consumer.domain.shards import ShardInfo
from consumer.redrive.session import RedriveSession
from consumer.replay.in_place import Rewrite, set_back
from consumer.worker.clock import SystemClock
from tests.contract.test_lease_store import LABEL, SHARD, held

OTHER = "shardId-00000001700000000009-00000009"


async def reset(leases, name, value):
    """Of a damaged row and one beside it: how it ended, and both rows."""
    store, clock = leases.store(), SystemClock()
    await store.prepare(create=True)
    for shard_id in (SHARD, OTHER):
        await held(store, shard=shard_id)
    await leases.set_attribute(f"app#{LABEL}", f"shard#{SHARD}", name, value)
    rows = {row.shard_id: row for row in await store.leases(LABEL)}
    assert rows[SHARD].corrupt
    plan = plan_reset(ReplayStart(time.time()), (), [ShardInfo(SHARD), ShardInfo(OTHER)], rows)
    session = RedriveSession(store, clock, "reset", uuid.uuid4().hex, 5.0)
    error = None
    try:
        async with session.opened():
            work = Rewrite(store, session, clock, LABEL, "reset to latest", lambda: uuid.uuid4().hex)
            assert await set_back(work, plan) == 2
    except* MisconfiguredResource as group:
        error = first_error(group)
    return error, await store.lease(LABEL, SHARD), await store.lease(LABEL, OTHER)


@pytest.mark.parametrize("name", ["low", "runs", "deferred", "state", "replay_from"])
async def test_a_row_whose_progress_was_damaged_is_repaired(dynamodb_leases, name):
    error, row, _ = await reset(dynamodb_leases, name, {"BOOL": True})
    assert error is None
    assert (row.corrupt, row.state, row.replay is not None) == ("", "waiting", True)


@pytest.mark.parametrize("name", ["parents", "starting_sequence_number"])
async def test_a_row_that_is_still_damaged_afterwards_is_named_and_the_others_are_written(dynamodb_leases, name):
    error, row, other = await reset(dynamodb_leases, name, {"BOOL": True})
    assert f"the row of {SHARD} stays quarantined" in str(error)
    assert f"{name} is not a" in str(error)
    assert (bool(row.corrupt), row.replay is not None) == (True, True)
    assert other.replay is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", {"BOOL": True}), ("owner", {"BOOL": True}), ("v", {"N": "9"})],
    ids=["epoch", "owner", "v"],
)
async def test_a_row_that_cannot_be_taken_is_named_and_nothing_is_written(dynamodb_leases, name, value):
    """It is not that a worker has gone on with it."""
    error, row, other = await reset(dynamodb_leases, name, value)
    assert f"the row of {SHARD} stays quarantined" in str(error)
    assert row.corrupt in str(error)
    assert (row.replay, other.replay) == (None, None)
