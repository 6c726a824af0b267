"""A deploy that changes the order of a shard whose failing keys are deferred, through whole workers."""

from __future__ import annotations

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.simulated_shards import FAILED, Recorder, keys, losses, run, start, until
from tests.support.windows import Counting, deploy, window_world

KEY_ORDER = {"tumbling_window": "0s", "parallelization_factor": 8}


async def _poison(call: HandlerCall) -> Outcome:
    return FAILED if "bad" in keys(call) else OK


def _state(world: Simulation, shard_id: str) -> str:
    return world.rows()[shard_id].state if shard_id in world.rows() else "no row"


def keys_seen(handler: Recorder) -> list[str]:
    return [key for call in handler.calls for key in keys(call)]


async def _leave_deferred(world: Simulation) -> str:
    """A worker that has read a shard to its end, while a key goes on failing, and is stopped. Returns the shard."""
    (shard_id,) = world.stream.open_shards()
    worker = start(world, "before", Recorder(_poison))
    for _ in range(2):  # none of another key: that would be handled twice, and it may
        world.put("bad")
    world.stream.roll(shard_id)
    await until(world, lambda: _state(world, shard_id) == "deferred", "its key waits")
    await worker.stop()
    assert len(world.rows()[shard_id].frontier.deferred) == 1
    return shard_id


def test_a_shard_that_waits_for_a_key_is_read_again_when_windows_are_opened() -> None:
    """A window has one order, so what is deferred cannot stay behind: the shard goes back to its first unsettled
    record, and its children wait until it is through."""
    world, handler = window_world("opened", batch=KEY_ORDER, retry={"max_retry_attempts": -1}), Counting()

    async def scenario() -> None:
        shard_id = await _leave_deferred(world)
        deploy(world, batch={"tumbling_window": "60s", "parallelization_factor": 1})
        start(world, "after", handler)
        world.put("bad")
        await until(world, lambda: _state(world, shard_id) == "done", "it is read to its end")
        await until(world, lambda: len(keys_seen(handler)) == 3, "the child follows")

    run(world, scenario)
    assert losses(world) == []
    assert keys_seen(handler) == ["bad"] * 3, "those that were deferred, and the one in the child"
