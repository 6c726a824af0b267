"""What every lease store promises of a shard's tumbling window: written with the frontier or not at all."""

from dataclasses import replace

import pytest

from consumer.domain.errors import LeaseLost
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.windows import MAX_STATE, TimeWindow, WindowState
from tests.contract.test_lease_store import LABEL, NUMBER, SHARD, held

WINDOW = TimeWindow(1_790_000_000, 1_790_000_060)
SMALL = WindowState(WINDOW, b'{"count":1}')


async def test_a_shard_without_a_window_has_an_empty_one(leases):
    assert await leases.store().window_state(LABEL, SHARD) == WindowState()


@pytest.mark.parametrize("state", [b"{}", b'{"a":"%s"}' % (b"x" * 400_000), b'{"a":"%s"}' % (b"x" * (MAX_STATE - 8))])
async def test_what_was_saved_is_what_the_next_owner_finds(leases, state):
    store = leases.store()
    row = replace(await held(store), frontier=FrontierSnapshot(low=NUMBER))
    await store.save(LABEL, row, WindowState(WINDOW, state))
    assert await leases.store().window_state(LABEL, SHARD) == WindowState(WINDOW, state)
    found = await store.lease(LABEL, SHARD)
    assert found.frontier.low == NUMBER


async def test_a_window_shrinks_and_closes(leases):
    """No part of an older, larger state may come back."""
    store = leases.store()
    row = await held(store)
    await store.save(LABEL, row, WindowState(WINDOW, b'{"a":"%s"}' % (b"x" * 700_000)))
    await store.save(LABEL, row, SMALL)
    assert await store.window_state(LABEL, SHARD) == SMALL
    await store.save(LABEL, row)
    assert await store.window_state(LABEL, SHARD) == SMALL, "a save without a window leaves it alone"
    await store.save(LABEL, row, WindowState())
    assert await store.window_state(LABEL, SHARD) == WindowState()


async def test_nobody_but_the_owner_writes_a_window(leases):
    """A fenced owner changes neither the window nor the frontier."""
    store = leases.store()
    old = await held(store)
    await store.save(LABEL, old, SMALL)
    assert await store.take(LABEL, old, "b", "nonce") is not None
    late = replace(old, frontier=FrontierSnapshot(low=NUMBER))
    with pytest.raises(LeaseLost):
        await store.save(LABEL, late, WindowState(WINDOW, b'{"count":9}'))
    with pytest.raises(LeaseLost):
        await store.release(LABEL, late, None, WindowState())
    assert await store.window_state(LABEL, SHARD) == SMALL
    assert (await store.lease(LABEL, SHARD)).frontier == FrontierSnapshot()


@pytest.mark.parametrize("target", ["b", None])
async def test_a_hand_over_carries_the_window(leases, target):
    store = leases.store()
    row = await held(store)
    await store.release(LABEL, row, target, SMALL)
    assert await store.window_state(LABEL, SHARD) == SMALL
    assert (await store.lease(LABEL, SHARD)).owner == target


async def test_windows_are_not_among_the_leases_and_belong_to_one_shard(leases):
    store = leases.store()
    row, other = await held(store), await held(store, shard=f"{SHARD}-b")
    await store.save(LABEL, row, SMALL)
    await store.save(LABEL, other, WindowState(WINDOW, b'{"count":2}'))
    assert [lease.shard_id for lease in await store.leases(LABEL)] == [SHARD, f"{SHARD}-b"]
    assert await store.window_state(LABEL, SHARD) == SMALL
    assert await leases.store("other").window_state(LABEL, SHARD) == WindowState()


async def test_the_row_says_whether_a_window_is_open(leases):
    """Whoever takes the shard knows it without another read."""
    store = leases.store()
    row = await held(store)
    assert not row.window_open
    await store.save(LABEL, replace(row, window_open=True), SMALL)
    assert (await store.lease(LABEL, SHARD)).window_open
    taken = await store.take(LABEL, row, "b", "nonce")
    assert taken.window_open
    await store.release(LABEL, replace(taken, window_open=False), None, WindowState())
    assert not (await store.lease(LABEL, SHARD)).window_open
