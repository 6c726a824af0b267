"""What one shard holds in memory never stops another."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from tests.support.simulated_shards import Recorder, keys, run, settled_keys, shard_world, start, until

WRITES = 80  # a second, over all shards but the stuck one
SECONDS = 30


@pytest.mark.parametrize("buffer", ["1MiB", "64MiB"])
def test_shards_go_on_beside_one_that_holds_the_whole_buffer(buffer: str) -> None:
    """Calls of one shard never end, and what waits there has used the buffer up: the others lag less than two seconds,
    within the bound of the byte budget."""
    config = {"limits": {"buffer": buffer}, "source": {"poll": {"idle_backoff_max": "1s"}}}
    world = shard_world(f"stuck, {buffer}", config, shards=4)
    stuck, *_ = world.stream.open_shards()
    names, written, lags, go_on = (
        (f"k{number}" for number in count()),
        dict[str, float](),
        list[float](),
        asyncio.Event(),
    )

    async def stuck_or_timed(call: HandlerCall) -> Outcome:
        if world.stream.shard_of(keys(call)[0]) == stuck:
            await go_on.wait()
        else:
            lags.extend(world.loop.now - written[key] for key in keys(call))
        return OK

    async def scenario() -> None:
        worker = start(world, "a", Recorder(stuck_or_timed))
        total = 0
        while total < 2 * world.settings.limits.buffer:
            if world.stream.shard_of(name := next(names)) == stuck:
                world.put(name, text="x" * 50_000)
                total += 50_000
        await until(world, lambda: worker.context is not None and worker.context.budget.short.is_set(), "it is full")
        assert worker.context is not None
        for _ in range(WRITES * SECONDS):
            while world.stream.shard_of(name := next(names)) == stuck:
                continue
            written[name] = world.loop.now
            world.put(name)
            await world.sleep(1 / WRITES)
            assert worker.context.budget.used > 0.7 * world.settings.limits.buffer, "or it is no test"
        await until(world, lambda: len(lags) == len(written), "the other shards have handled theirs", 2.0)
        assert max(lags) < 2.0
        assert not any(world.stream.shard_of(key) == stuck for key in settled_keys(world))
        go_on.set()

    run(world, scenario)
