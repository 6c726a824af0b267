"""Batches through whole simulated workers: how large they get, and what the log says when one fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.worker.shard import reader
from tests.support.simulated_shards import (
    Recorder,
    Refusal,
    letters,
    log_events,
    metric,
    named,
    run,
    settled_keys,
    shard_world,
    start,
    until,
    write,
)

MOST = 6 * 1024 * 1024  # bytes of an invocation's event, as in Lambda
LONG_WINDOW = {"batching_window": "300s"}
TWO_RETRIES = {"retry": {"max_retry_attempts": 2, "backoff": {"initial": "1ms", "max": "1s"}}}


def in_flight(worker: SimulatedWorker, count: int) -> Callable[[], bool]:
    """A condition: so many records are read and not settled."""
    return lambda: metric(worker, "in_flight_records") == count


# --- batching windows ------------------------------------------------------------------------------------


def test_a_batching_window_gathers_until_the_batch_is_full() -> None:
    """Five records, batches of two, a long window: two full ones at once, the fifth waits for a sixth."""
    world = shard_world("full", {"batch": LONG_WINDOW | {"batch_size": 2, "parallelization_factor": 1}})

    async def scenario() -> None:
        handler = Recorder()
        write(world, 5)
        start(world, "a", handler)
        await until(world, lambda: handler.sizes == [2, 2], "two full batches", 10.0)
        await world.sleep(200.0)
        assert handler.sizes == [2, 2]
        write(world, 1)
        await until(world, lambda: handler.sizes == [2, 2, 2], "a third one", 10.0)

    run(world, scenario)


def test_a_batching_window_ends() -> None:
    """Records that came in several reads go together when the time is over."""
    world = shard_world("ends", {"batch": {"batching_window": "60s"}, "source": {"poll": {"idle_backoff_max": "1s"}}})

    async def scenario() -> None:
        handler = Recorder()
        worker = start(world, "a", handler)
        for count in (3, 6, 9):
            write(world, 3)
            await until(world, in_flight(worker, count), f"{count} records are read")
            await world.sleep(10.0)
        assert handler.sizes == []
        await until(world, lambda: handler.sizes == [9], "one batch of all", 40.0)

    run(world, scenario)


def test_a_batch_being_gathered_is_left_to_the_next_owner() -> None:
    """A stop does not wait for the window and repeats nothing."""
    world = shard_world("next owner", {"batch": LONG_WINDOW | {"batch_size": 4}})

    async def scenario() -> None:
        before, after = Recorder(), Recorder()
        write(world, 7)
        first = start(world, "a", before)
        await until(world, lambda: before.sizes == [4], "a full batch")
        stopped_at = world.loop.now
        await first.stop()
        assert world.loop.now - stopped_at < 2.0
        write(world, 1)
        start(world, "b", after)
        await until(world, world.everything_settled, "everything is handled")
        assert (before.sizes, after.sizes) == ([4], [4])

    run(world, scenario)


def test_the_end_of_a_shard_ends_the_gathering() -> None:
    world = shard_world("end of shard", {"batch": LONG_WINDOW})
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        handler = Recorder()
        write(world, 3)
        worker = start(world, "a", handler)
        await until(world, in_flight(worker, 3), "all three are read")
        assert handler.calls == []
        world.stream.roll(shard)
        await until(world, lambda: handler.sizes == [3], "they are handled", 20.0)
        await until(world, lambda: world.rows()[shard].state == "done", "the shard is done")

    run(world, scenario)


def test_a_batch_does_not_gather_what_there_is_no_memory_for() -> None:
    """The buffer is full before the batch is: waiting longer would only keep the shard from being read."""
    batch = LONG_WINDOW | {"batch_size": 10_000}
    world = shard_world("no memory", {"batch": batch, "limits": {"buffer": "8MiB"}})

    async def scenario() -> None:
        for index in range(1200):
            world.put(f"k{index}", text="x" * 8000)
        start(world, "a")
        await until(world, lambda: len(settled_keys(world)) > 0, "a batch is handled", 60.0)
        world.stream.roll(world.stream.open_shards()[0])
        await until(world, lambda: len(settled_keys(world)) == 1200, "everything is handled")

    run(world, scenario)


def test_only_records_that_match_the_filters_count() -> None:
    filters = [{"dynamodb": {"Keys": {"id": {"S": [{"prefix": "yes"}]}}}}]
    world = shard_world("filters", {"batch": LONG_WINDOW | {"batch_size": 2}}, filters=filters)

    async def scenario() -> None:
        handler = Recorder()
        start(world, "a", handler)
        for name in ("no1", "yes1", "no2", "no3", "yes2"):
            if name.startswith("yes"):
                world.put(name)
            else:
                world.stream.put({"id": name})  # the checkers expect no call for it
        await until(world, lambda: handler.keys == [["yes1", "yes2"]], "one batch of two", saw=lambda: handler.keys)

    run(world, scenario)


# --- the 6 MB bound --------------------------------------------------------------------------------------


def test_batches_stay_below_six_megabytes() -> None:
    """Twelve records of 1.4 MB, four to a batch at most; the one that is larger than the bound goes alone."""
    config = {"batch": {"batch_size": 1000, "parallelization_factor": 1}, "limits": {"buffer": "256MiB"}}
    world = shard_world("six megabytes", config, stream={"page_bytes": 100_000_000})
    events: list[int] = []

    async def measure(call: HandlerCall) -> Outcome:
        events.append(len(call.event()))
        return OK

    async def scenario() -> None:
        handler = Recorder(measure)
        for index in range(12):
            world.put(f"k{index}", text="x" * (7_000_000 if index == 6 else 1_400_000))
        start(world, "a", handler)
        await until(world, world.everything_settled, "everything is handled")
        beyond = [keys for keys, size in zip(handler.keys, events, strict=True) if size > MOST]
        assert beyond == [["k6"]]
        assert max(handler.sizes) == 4

    run(world, scenario)


def test_a_page_is_never_taken_for_smaller_than_its_event() -> None:
    """Events are only measured when their pages could be too large: what an event adds to the wire must be counted."""
    arn = f"arn:aws-us-gov:dynamodb:us-gov-east-1:123456789012:table/{'t' * 255}/stream/2026-09-17T13:26:53.746"
    added = f',"eventSourceARN":"{arn}"'
    assert len(added) + len(".0") <= reader.ADDED_BY_EVENT


# --- the log events of a batch that fails ----------------------------------------------------------------


async def fail(call: HandlerCall) -> Outcome:
    stack = tuple(f'  File "app.py", line {line}, in f\n' for line in range(1, 41))
    return Outcome("failed", fault=HandlerFault("raised", "KeyError", "'total'", stack))


def test_a_failed_call_names_the_line_of_the_users_code() -> None:
    """Without it `KeyError: 'total'`, retried for a day, is all that a reader of the log learns."""
    world = shard_world("failed call", TWO_RETRIES, on_event=lambda _: None)

    async def scenario() -> None:
        world.put("k")
        with log_events() as events:
            start(world, "a", Recorder(fail))
            await until(world, lambda: len(letters(world)) == 1, "the dead letter")
        first = named(events, "batch.failed")[0]
        assert (first["error_type"], first["error"]) == ("KeyError", "'total'")
        assert first["error_stack"][-1] == '  File "app.py", line 40, in f\n', "the innermost frames say most"
        assert len(first["error_stack"]) == 10

    run(world, scenario)


def test_a_retry_is_announced_with_its_pause() -> None:
    world = shard_world("retry", TWO_RETRIES, on_event=lambda _: None)

    async def scenario() -> None:
        number = world.put("k")
        with log_events() as events:
            start(world, "a", Recorder(fail))
            await until(world, lambda: len(letters(world)) == 1, "the dead letter")
        retries = named(events, "batch.retry_scheduled")
        assert [(entry["attempt"], entry["after"]) for entry in retries] == [(2, 0.001), (3, 0.002)]
        for entry in retries:
            assert entry["log_level"] == "info"
            assert [entry["shard_id"]] == world.stream.open_shards()
            assert entry["records"] == 1
            assert entry["first_sequence_number"] == entry["last_sequence_number"] == number

    run(world, scenario)


@pytest.mark.parametrize("times", [1, 3])
def test_a_refused_dead_letter_names_its_records(times: int) -> None:
    world = shard_world("refused", TWO_RETRIES, on_event=lambda _: None)

    async def scenario() -> None:
        number = world.put("k")
        with log_events() as events:
            worker = start(world, "a", Recorder(fail))
            error = DependencyError("SendMessage", "ServiceUnavailable")
            Refusal(worker.links["dead_letters"], error, "send", times=times)
            await until(world, lambda: len(letters(world)) == 1, "the dead letter")
        refused = named(events, "dead_letter.refused")
        assert [entry["attempt"] for entry in refused] == list(range(1, times + 1))
        for entry in refused:
            assert entry["first_sequence_number"] == entry["last_sequence_number"] == number

    run(world, scenario)
