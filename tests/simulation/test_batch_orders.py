"""``batch.order``: what becomes of a batch of which one record fails, call by call."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.test_lambda_checklist import LIKE_LAMBDA
from tests.support.simulated_shards import (
    Recorder,
    answers,
    checkpointed,
    fails,
    keys,
    letters,
    run,
    shard_world,
    start,
)

BY_KEY: dict[str, dict[str, Any]] = LIKE_LAMBDA | {"batch": LIKE_LAMBDA["batch"] | {"order": "key"}}


@pytest.mark.parametrize(
    ("order", "alone", "calls"),
    [
        ("shard", False, [[1, 2, 3, 4], [1, 2], [1], [2], [2], [3, 4]]),
        ("key", False, [[1, 2, 3, 4], [1, 2], [3, 4], [1], [2], [2]]),
        ("shard", True, [[1, 2, 3, 4], [2, 3, 4], [2], [2], [3, 4]]),
        ("key", True, [[1, 2, 3, 4], [3, 4], [2]]),
    ],
    ids=["raises, shard", "raises, key", "stops and names it, shard", "stops and names it, key"],
)
def test_what_becomes_of_the_records_beside_a_failing_one(*, order: str, alone: bool, calls: list[list[int]]) -> None:
    """One retry, with bisect. ``shard`` is what AWS made of four records of which the second fails: nothing overtakes.
    ``key``: cutting costs no retry, and the others go on before the failing one is tried again."""
    config = {
        "batch": {"batch_size": 4, "order": order, "parallelization_factor": 1, "batching_window": "1s"},
        "retry": {"max_retry_attempts": 1, "bisect_on_error": True},
    }
    world = shard_world(f"sequence {order} {alone}", config)

    async def scenario() -> None:
        numbers = [world.put(f"item{index}") for index in range(1, 5)]
        named = {"batchItemFailures": [{"itemIdentifier": numbers[1]}]}
        handler = Recorder(answers(lambda call: (named if alone else "no answer") if "item2" in keys(call) else None))
        start(world, "worker", handler)
        await checkpointed(world, numbers[3])
        assert [[int(key.removeprefix("item")) for key in call] for call in handler.keys] == calls
        (found,) = letters(world)
        assert [one["dynamodb"]["SequenceNumber"] for one in found["payload"]["Records"]] == [numbers[1]]

    run(world, scenario)


def test_a_named_record_is_tried_alone() -> None:
    """Item 5 is settled as if its batch had held nothing else, so the first call is the first of its four. One named
    record may mean that the function stopped there, and what lies before it is handled."""
    world = shard_world("failures by key", BY_KEY)

    async def scenario() -> None:
        numbers = [world.put(f"item{index}") for index in range(6)]
        bad = {"batchItemFailures": [{"itemIdentifier": numbers[5]}]}
        handler = Recorder(answers(lambda call: bad if "item5" in keys(call) else None))
        start(world, "worker", handler)
        await checkpointed(world, numbers[5])
        assert handler.keys == [["item0", "item1", "item2"], ["item3", "item4", "item5"], *[["item5"]] * 3]
        (found,) = letters(world)
        assert found["requestContext"]["approximateInvokeCount"] == 4
        assert found["DDBStreamBatchInfo"]["batchSize"] == 1

    run(world, scenario)


def test_each_failing_key_has_its_own_retries_and_its_own_letter() -> None:
    """Both keys of the batch fail: they are cut apart after the first call."""
    world = shard_world("destination by key", BY_KEY | {"retry": BY_KEY["retry"] | {"max_retry_attempts": 1}})

    async def scenario() -> None:
        numbers = [world.put(key) for key in ("a", "b")]
        handler = Recorder(fails)
        start(world, "worker", handler)
        await checkpointed(world, numbers[-1])
        assert handler.keys[0] == ["a", "b"]
        assert sorted(handler.keys[1:]) == [["a"]] * 2 + [["b"]] * 2
        assert [letter["requestContext"]["approximateInvokeCount"] for letter in letters(world)] == [2, 2]
        named = [[one["dynamodb"]["SequenceNumber"] for one in one["payload"]["Records"]] for one in letters(world)]
        assert sorted(named) == [[number] for number in numbers]

    run(world, scenario)
