"""Metrics that only a running fleet can fill: leases that come and go, kinds of failures, hot keys, busy places."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.domain.heavy_hitters import COUNTERS
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.reported import report, shard_status
from tests.support.simulated_fleet import LogEvents
from tests.support.simulated_shards import Recorder, keys, metric, start

TIMED_OUT = Outcome("failed", fault=HandlerFault("timeout", "Timeout", "too slow"))


def events_of(worker: SimulatedWorker) -> dict[str, float]:
    names = ("acquired", "received", "released", "handed_over", "finished", "lost", "peer_fenced")
    return {name: metric(worker, "lease_events", event=name) for name in names}


def test_every_lease_that_comes_and_goes_is_counted_and_logged() -> None:
    log = LogEvents()
    world = Simulation("leases come and go", shards=4, on_event=log)

    async def scenario(world: Simulation) -> None:
        first = start(world, "first", Recorder(_ok))
        await world.until(world.balanced, 30.0, "the first one has all")
        assert events_of(first)["acquired"] == 4
        second = start(world, "second", Recorder(_ok))
        await world.until(world.balanced, 30.0, "both have two")
        await world.sleep(5.0)  # the new owner has seen it, too
        assert events_of(first) | {"released": 0.0} == dict.fromkeys(events_of(first), 0.0) | {
            "acquired": 4,
            "handed_over": 2,
        }
        assert events_of(second) == dict.fromkeys(events_of(second), 0.0) | {"received": 2}
        assert len(log.of("lease.received")) == len(log.of("lease.passed_on")) == 2
        second.kill()
        await world.until(world.balanced, 60.0, "the first one has all again")
        await world.sleep(5.0)  # the new owner has seen it, too
        after = events_of(first)
        assert (after["acquired"], after["received"], after["peer_fenced"], after["lost"]) == (6, 0, 1, 0)
        third = start(world, "third", Recorder(_ok))
        await world.until(world.balanced, 30.0, "handed over again")
        await world.sleep(5.0)  # the new owner has seen it, too
        assert events_of(third)["received"] == 2

    world.run(scenario)
    world.check()


def test_a_key_with_half_of_the_records_is_seen_and_not_named() -> None:
    world = Simulation("a hot key", shards=1)

    async def scenario(world: Simulation) -> None:
        worker = start(world, "w", Recorder(_ok))
        await world.until(world.balanced, 30.0, "it reads")
        (shard_id,) = world.rows()
        world.put("hot")
        await world.sleep(5.0)
        report(worker)
        assert _share(worker, shard_id) is None, "of one record a share says nothing"
        for number in range(400):
            world.put("hot" if number % 2 else f"k{number}")
        await world.sleep(10.0)
        shown = shard_status(worker, shard_id)
        share = _share(worker, shard_id)
        assert shown.hot_key_share == share
        assert shown.hot_key is not None
        assert "hot" not in shown.hot_key, "a digest"
        assert share == pytest.approx(0.5, abs=1 / COUNTERS)
        assert worker.context is not None
        assert b"hot" not in worker.context.metrics.render()[0].replace(b"hot_key_share", b"")
        await world.sleep(240.0)
        assert shard_status(worker, shard_id).hot_key is None
        assert _share(worker, shard_id) is None

    world.run(scenario)
    world.check()


def test_what_fails_is_counted_by_kind() -> None:
    world = Simulation("kinds of failures", shards=1, config={"retry": {"max_retry_attempts": 1}})

    async def behave(call: HandlerCall) -> Outcome:
        return TIMED_OUT if "slow" in keys(call) else OK

    async def scenario(world: Simulation) -> None:
        worker = start(world, "w", Recorder(behave))
        world.put("slow")
        world.put("fine")
        await world.until(world.everything_settled, 60.0, "one is handled, and one a dead letter")
        failed = metric(worker, "batches", result="failed")
        assert failed >= 2
        assert metric(worker, "handler_errors", kind="timeout") == failed
        assert metric(worker, "handler_errors", kind="raised") == 0

    world.run(scenario)
    world.check()


async def _ok(call: HandlerCall) -> Outcome:
    await asyncio.sleep(0.01)
    return OK


def _share(worker: SimulatedWorker, shard_id: str) -> Any:
    assert worker.context is not None
    return worker.context.metrics.shard(shard_id).hot_key_share
