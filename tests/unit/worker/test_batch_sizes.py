"""Batching windows and the 6 MB bound: how large batches get, through a whole worker on the memory adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.worker.shard import dispatcher, reader
from tests.unit.worker.harness import World, until

MakeWorld = Callable[..., World]


class Sizes:
    """A handler that remembers how many records its calls had."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def __call__(self, call: HandlerCall) -> Outcome:
        self.seen.append(len(call.records))
        return OK


async def test_a_batching_window_gathers_until_the_batch_is_full(make_world: MakeWorld) -> None:
    """Five records, batches of two, a long window: two full ones at once, the fifth waits for a sixth."""
    sizes = Sizes()
    world = make_world(config={"batch": {"batch_size": 2, "batching_window": "300s", "parallelization_factor": 1}})
    world.write(5)
    await world.worker("a", sizes)
    await until(lambda: world.handled == 4)
    await asyncio.sleep(0.1)
    assert sizes.seen == [2, 2]
    world.write(1)
    await until(world.everything_handled)
    assert sizes.seen == [2, 2, 2]
    world.assert_in_order()


async def test_a_batching_window_ends(make_world: MakeWorld) -> None:
    """Records that came in several reads go together when the time is over."""
    sizes = Sizes()
    world = make_world(config={"batch": {"batching_window": "700ms"}})
    worker = await world.worker("a", sizes)
    for count in range(1, 4):
        world.write(3)
        await until(lambda count=count: worker.metric("in_flight_records") == 3 * count)
    assert sizes.seen == []
    await until(world.everything_handled)
    assert sizes.seen == [9]


async def test_a_batch_being_gathered_is_left_to_the_next_owner(make_world: MakeWorld) -> None:
    """A stop does not wait for the window and repeats nothing."""
    world = make_world(config={"batch": {"batching_window": "300s", "batch_size": 4}})
    world.write(7)
    first = await world.worker("a")
    await until(lambda: world.handled == 4)
    await first.drain()
    world.write(1)
    await world.worker("b")
    await until(world.everything_handled)
    world.assert_in_order(duplicates=0)
    assert [seen.worker for seen in world.seen] == ["a"] * 4 + ["b"] * 4


async def test_the_end_of_a_shard_ends_the_gathering(make_world: MakeWorld) -> None:
    world = make_world(config={"batch": {"batching_window": "300s"}})
    world.write(3)
    worker = await world.worker("a")
    await until(lambda: worker.metric("in_flight_records") == 3)
    shard = world.stream.open_shards()[0]
    world.stream.roll(shard)
    await until(world.everything_handled)
    await until(lambda: world.rows()[shard].state == "done")


async def test_a_batch_does_not_gather_what_there_is_no_memory_for(make_world: MakeWorld) -> None:
    """The buffer is full before the batch is: waiting longer would only keep the shard from being read."""
    batch = {"batching_window": "300s", "batch_size": 10_000}
    world = make_world(config={"batch": batch, "limits": {"buffer": "8MiB"}})
    for index in range(1200):
        world.stream.put({"id": f"k{index}", "text": "x" * 8000})
    worker = await world.worker("a")
    await until(lambda: worker.metric("records", result="handled") > 0)
    world.stream.roll(world.stream.open_shards()[0])
    await until(lambda: worker.metric("records", result="handled") == 1200)


async def test_only_records_that_match_the_filters_count(make_world: MakeWorld) -> None:
    sizes = Sizes()
    config = {"batch": {"batch_size": 2, "batching_window": "300s"}}
    world = make_world(config=config)
    world.settings = world.settings.model_copy(
        update={"filters": ({"dynamodb": {"Keys": {"id": {"S": [{"prefix": "yes"}]}}}},)}
    )
    await world.worker("a", sizes)
    for name in ("no1", "yes1", "no2", "no3", "yes2"):
        world.put(name)
    await until(lambda: sizes.seen == [2])


async def test_batches_stay_below_six_megabytes(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred records of 20 KB and a bound of 100 KB: five to a batch at most, and one that is larger goes alone."""
    bound = 100 * 1024
    monkeypatch.setattr(dispatcher, "MAX_EVENT", bound)
    events: list[int] = []

    async def measure(call: HandlerCall) -> Outcome:
        events.append(len(call.event()))
        records.append(len(call.records))
        return OK

    records: list[int] = []
    world = make_world(config={"batch": {"batch_size": 1000}, "limits": {"buffer": "64MiB"}})
    for index in range(100):
        size = 150 * 1024 if index == 50 else 20 * 1024
        world.stream.put({"id": "large" if index == 50 else f"k{index % 7}", "v": index, "text": "x" * size})
    await world.worker("a", measure)
    await until(lambda: sum(records) == 100)
    large = [size for size in events if size > bound]
    assert len(large) == 1
    assert records[events.index(large[0])] == 1
    assert max(records) == 4, "the frame is counted, too"


def test_a_page_is_never_taken_for_smaller_than_its_event() -> None:
    """Events are only measured when their pages could be too large: what an event adds to the wire must be counted."""
    arn = f"arn:aws-us-gov:dynamodb:us-gov-east-1:123456789012:table/{'t' * 255}/stream/2026-09-17T13:26:53.746"
    added = f',"eventSourceARN":"{arn}"'
    assert len(added) + len(".0") <= reader.ADDED_BY_EVENT


def test_the_bound_is_lambdas() -> None:
    assert dispatcher.MAX_EVENT == 6 * 1024 * 1024
