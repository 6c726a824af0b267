"""One shard and what can go wrong with it: poison, gaps, ends, iterators, throttles, memory, checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from consumer.domain.errors import DependencyError, ExpiredIterator, PermissionDenied, ResourceMissing, Throttled
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from tests.unit.worker.harness import FAILED, World, of, until

MakeWorld = Callable[..., World]
ALONE = {"batch": {"batch_size": 1}}  # or the other keys of the batch wait, too
REFUSED = DependencyError("SendMessage", "ServiceUnavailable")


async def poison(call: HandlerCall) -> Outcome:
    return FAILED if any(key.startswith("poison") for key, _ in of(call)) else OK


def good(world: World) -> int:
    return sum(count for key, count in world.written.items() if not key.startswith("poison"))


# --- dead letters --------------------------------------------------------------------------------------


async def test_only_the_keys_of_a_refused_dead_letter_wait(make_world: MakeWorld) -> None:
    """Nothing passes it: not the frontier, not a later record of its key; all other keys go on."""
    letters = MemoryDeadLetters()
    letters.fail_next(REFUSED, 10_000)
    world = make_world(dead_letters=letters, config=ALONE)
    first = world.put("poison")
    world.write(100)
    world.put("poison")
    worker = await world.worker("a", poison)
    await until(lambda: world.handled == good(world))
    shard = world.stream.open_shards()[0]
    await until(lambda: len(world.rows()[shard].frontier.runs) > 0)
    low = world.rows()[shard].frontier.low
    assert low is None or int(low) < int(first)
    assert letters.delivered == []
    letters._faults.clear()
    await until(lambda: len(letters.delivered) == 2)
    numbers = [letter.json()["DDBStreamBatchInfo"]["startSequenceNumber"] for letter in letters.delivered]
    assert numbers[0] == first
    await until(lambda: int(world.rows()[shard].frontier.low or 0) >= int(numbers[1]))
    assert worker.metric("dead_letters") == 2
    world.assert_in_order()


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("destination", [True, False])
async def test_refused_dead_letters_take_no_place(make_world: MakeWorld, *, destination: bool, factor: int) -> None:
    """More of them than batches may run at once, and yet other keys go on: also the good records of their batches come
    to their turn when the destination is back, and never more batches at once than configured."""
    letters = MemoryDeadLetters()
    letters.fail_next(REFUSED, 10_000)
    batch = {"batch_size": 4, "parallelization_factor": factor}
    world = make_world(dead_letters=letters if destination else None, config={"batch": batch}, page_records=4)
    running, most = 0, 0

    async def behave(call: HandlerCall) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return await poison(call)

    worker = await world.worker("a", behave)
    worker.link.refuse["record_loss"] = DependencyError("TransactWriteItems", "Timeout")
    for index in range(8):
        world.put(f"poison{index}")
        world.put(f"beside{index}")
    world.write(40)
    await until(lambda: {f"k{index}" for index in range(20)} <= {seen.key for seen in world.seen})
    await until(lambda: sum(w.retrying_keys for w in worker.coordinator.workers) >= 8)
    letters._faults.clear()
    worker.link.refuse.clear()
    await until(lambda: world.handled == good(world))
    await until(lambda: (len(letters.delivered) if destination else len(world.losses())) == 8)
    assert most <= factor
    world.assert_in_order()


@pytest.mark.parametrize("destination", [True, False])
async def test_a_refused_dead_letter_does_not_hold_up_a_hand_over(make_world: MakeWorld, *, destination: bool) -> None:
    """The shard moves to the newcomer, which goes on trying; without a limit of time nothing else would move."""
    letters = MemoryDeadLetters()
    letters.fail_next(REFUSED, 10_000)
    world = make_world(shards=2, dead_letters=letters if destination else None, config=ALONE)
    for index in range(8):
        world.put(f"poison{index}")
    world.write(40)
    first = await world.worker("a", poison)
    first.link.refuse["record_loss"] = DependencyError("TransactWriteItems", "Timeout")
    await until(lambda: world.handled == good(world))
    second = await world.worker("b", poison)
    await until(lambda: sorted(world.owners().values()) == [1, 1])
    world.write(40)
    await until(lambda: world.handled == good(world))
    letters._faults.clear()
    first.link.refuse.clear()
    buried = (lambda: len(letters.delivered)) if destination else (lambda: len(world.losses()))
    await until(lambda: buried() == 8)
    assert second.incarnation in world.owners()
    world.assert_in_order()


async def test_a_record_that_grows_too_old_during_the_back_off_is_not_sent_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda never sends a record above its maximum age; the back-off must not be a way round that."""
    retry = {"max_retry_attempts": -1, "max_record_age": "1m", "backoff": {"initial": "300ms", "max": "300ms"}}
    world = make_world(config={"retry": retry})
    real, ahead = world.clock.wall, [0.0]
    monkeypatch.setattr(world.clock, "wall", lambda: real() + ahead[0])

    async def fail(call: HandlerCall) -> Outcome:
        asyncio.get_running_loop().call_later(0.1, ahead.__setitem__, 0, 3600.0)
        return Outcome("failed", fault=HandlerFault("raised", "ValueError", "never"))

    world.put("slow")
    worker = await world.worker("a", fail)
    await until(lambda: len(world.losses()) == 1)
    assert len(worker.handler.calls) == 1
    assert world.losses()[0].reason.startswith("RecordAgeExceeded")


async def test_without_a_destination_a_discard_leaves_a_loss(make_world: MakeWorld) -> None:
    world = make_world()
    world.write(20)
    number = world.put("poison")
    world.write(20)
    await world.worker("a", poison)
    await until(lambda: world.handled == 40 and len(world.losses()) == 1)
    (loss,) = world.losses()
    assert (loss.kind, loss.first_sequence_number, loss.last_sequence_number) == ("discarded", number, number)
    world.assert_in_order()


async def test_a_fenced_worker_buries_nothing_more(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are too old need no handler call, but their dead letters belong to the next owner all the same."""
    letters = MemoryDeadLetters()
    world = make_world(dead_letters=letters, config={"retry": {"max_record_age": "1m"}})
    worker = await world.worker("a")
    world.write(5)
    await until(world.everything_handled)
    worker.context.validity.lost()
    real = world.clock.wall
    monkeypatch.setattr(world.clock, "wall", lambda: real() + 3600)
    world.stream.append("old", {"ApproximateCreationDateTime": real() - 100, "NewImage": {"id": {"S": "old"}}})
    await until(lambda: worker.metric("in_flight_records") == 1)
    await asyncio.sleep(0.2)
    assert letters.delivered == []
    assert world.losses() == []


# --- gaps ----------------------------------------------------------------------------------------------


async def lose_some(world: World) -> tuple[str, str]:
    """A worker handles five records and is drained; five more are trimmed, and five are kept."""
    shard = world.stream.open_shards()[0]
    first = await world.worker("a")
    for _ in range(5):
        last = world.put("k")
    await until(lambda: world.handled == 5)
    await first.drain()
    for _ in range(5):
        gone = world.put("k")
    world.stream.trim(shard, gone)
    for _ in range(5):
        world.put("k")
    return shard, last


async def test_a_gap_halts_the_shard_and_is_recorded(make_world: MakeWorld) -> None:
    world = make_world()
    shard, last = await lose_some(world)
    second = await world.worker("b")
    await until(lambda: world.rows()[shard].state == "halted")
    (loss,) = world.losses()
    assert (loss.kind, loss.first_sequence_number) == ("gap", last)
    assert second.metric("gaps") == 1
    await second.drain()
    row = world.rows()[shard]
    assert (row.state, row.owner) == ("halted", None)
    assert "trimmed" in row.note  # the reason survives the release
    assert world.handled == 5


async def test_a_gap_is_recorded_and_passed_with_continue(make_world: MakeWorld) -> None:
    """Also when the table denies the trace for a while: nothing goes on before it is durable."""
    world = make_world(config={"source": {"on_gap": "continue"}})
    await lose_some(world)
    second = await world.worker("b")
    second.link.refuse["record_loss"] = PermissionDenied("dynamodb:PutItem", "the table")
    await until(lambda: second.link.calls["record_loss"] > 0)
    await asyncio.sleep(0.1)
    assert world.handled == 5
    assert second.link.calls["record_loss"] < 10
    second.link.refuse.clear()
    await until(lambda: world.handled == 10)
    assert [loss.kind for loss in world.losses()] == ["gap"]
    assert world.overlaps == 0


async def test_a_vanished_shard_leaves_a_gap(make_world: MakeWorld) -> None:
    world = make_world(shards=2, config={"source": {"on_gap": "continue"}})
    world.write(40)
    first = await world.worker("a")
    await until(world.everything_handled)
    await first.drain()
    gone, stays = world.stream.open_shards()
    world.stream.roll(gone)
    world.stream.vanish(gone)
    world.write(40)
    await world.worker("b")
    await until(world.everything_handled)
    await until(lambda: world.rows()[gone].state == "done")
    assert [(loss.kind, loss.shard_id) for loss in world.losses()] == [("gap", gone)]
    assert world.rows()[stays].state == "open"
    world.assert_in_order()


async def test_an_error_or_an_empty_listing_never_means_gone(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(config={"source": {"on_gap": "continue"}})
    world.write(10)
    worker = await world.worker("a")
    await until(world.everything_handled)
    slept: list[float] = []
    real = world.clock.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(min(seconds, 0.02))

    monkeypatch.setattr(world.clock, "sleep", sleep)
    monkeypatch.setattr(world.stream, "listed", list)
    worker.source_link.refuse |= {name: ResourceMissing("the stream") for name in ("get_records", "iterator")}
    await until(lambda: slept.count(5.0) >= 3)
    monkeypatch.undo()
    worker.source_link.refuse.clear()
    world.write(10)
    await until(world.everything_handled)
    assert world.losses() == []
    world.assert_in_order()


# --- reading -------------------------------------------------------------------------------------------


async def test_expired_iterators_repeat_nothing(make_world: MakeWorld) -> None:
    world = make_world(page_records=10)
    worker = await world.worker("a")
    for _ in range(5):
        world.write(20)
        world.stream.expire_iterators()
        await until(world.everything_handled)
    await until(lambda: worker.metric("get_records", outcome="expired") >= 1)
    assert worker.metric("duplicates_skipped") == 0
    world.assert_in_order()


async def test_iterators_that_expire_at_once_are_no_busy_loop(make_world: MakeWorld) -> None:
    world = make_world()
    worker = await world.worker("a")
    worker.source_link.refuse["get_records"] = ExpiredIterator("the clock of the service is wrong")
    await until(lambda: worker.metric("get_records", outcome="expired") >= 2)
    calls = worker.source_link.calls["get_records"]
    await asyncio.sleep(0.3)
    assert worker.source_link.calls["get_records"] <= calls + 2


async def test_reading_goes_on_where_it_was_after_the_stream_was_missing_for_a_while(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a gap, when the first read was from the horizon."""
    world = make_world(config={"source": {"on_gap": "continue"}})
    await lose_some(world)
    worker = await world.worker("b")
    await until(lambda: world.handled == 10)
    real = world.clock.sleep

    async def sleep(seconds: float) -> None:
        await real(min(seconds, 0.02))

    monkeypatch.setattr(world.clock, "sleep", sleep)
    worker.source_link.refuse["get_records"] = ResourceMissing("the stream")
    calls = worker.source_link.calls["get_records"]
    await until(lambda: worker.source_link.calls["get_records"] > calls + 2)
    running = list(worker.coordinator.workers)
    worker.source_link.refuse.clear()
    world.put("k")
    await until(lambda: world.handled == 11)
    assert list(worker.coordinator.workers) == running  # the same one: it did not fail
    assert len(world.seen) == 11


async def test_throttled_reads_are_counted_and_waited_out(make_world: MakeWorld) -> None:
    world = make_world()
    world.write(50)
    worker = await world.worker("a")
    worker.source_link.refuse["get_records"] = Throttled("GetRecords", "ProvisionedThroughputExceededException")
    await until(lambda: worker.metric("get_records", outcome="throttled") >= 2)
    worker.source_link.refuse.clear()
    await until(world.everything_handled)
    world.assert_in_order()


async def test_empty_pages_are_not_the_end(make_world: MakeWorld) -> None:
    world = make_world()
    world.stream.last_page = "empty"
    shard = world.stream.open_shards()[0]
    world.write(20)
    world.stream.empty_pages(shard, 5)
    world.stream.roll(shard)
    world.write(20)
    await world.worker("a")
    await until(world.everything_handled)
    await until(lambda: world.rows()[shard].state == "done")
    world.assert_in_order()


async def test_a_shard_ends_only_after_its_retries(make_world: MakeWorld) -> None:
    """The reader is through long before the poison is: neither the end nor the children come earlier."""
    letters = MemoryDeadLetters()
    letters.fail_next(REFUSED, 10_000)
    world = make_world(dead_letters=letters)
    world.put("poison")
    shard = world.stream.open_shards()[0]
    world.stream.roll(shard)
    world.put("child")
    await world.worker("a", poison)
    await until(lambda: len(world.rows()) == 2)
    await asyncio.sleep(0.3)
    assert world.rows()[shard].state in ("waiting", "open")
    assert world.handled == 0
    letters._faults.clear()
    await until(lambda: world.handled == 1)
    assert world.rows()[shard].settled


async def test_every_child_is_registered_when_one_of_the_writes_fails(make_world: MakeWorld) -> None:
    world = make_world()
    world.write(10)
    worker = await world.worker("a")
    await until(world.everything_handled)
    parent = world.stream.open_shards()[0]
    failing = iter([False, True, True, True])
    add = worker.store.add_lease

    async def add_lease(label: str, row: Any) -> bool:
        if next(failing, False):
            raise DependencyError("PutItem", "Timeout")
        return await add(label, row)

    worker.store.add_lease = add_lease  # type: ignore[method-assign]
    world.stream.split(parent)
    world.write(40)
    await until(world.everything_handled, 10)
    world.assert_in_order()


# --- memory --------------------------------------------------------------------------------------------


async def test_a_stalled_handler_stops_the_reader(make_world: MakeWorld) -> None:
    world, go = make_world(config={"limits": {"buffer": "1MiB"}}, page_records=200), asyncio.Event()

    async def stalled(call: HandlerCall) -> Outcome:
        await go.wait()
        return OK

    for index in range(2000):
        world.written[f"k{index}"] += 1
        world.stream.put({"id": f"k{index}", "v": 1, "text": "x" * 2000})
    worker = await world.worker("a", stalled)
    await until(lambda: worker.context.budget.used > 750_000)
    await asyncio.sleep(0.2)
    pages = sum(w.reader.state.pages for w in worker.coordinator.workers)
    assert pages <= 3
    assert worker.context.budget.used < 3_000_000
    go.set()
    await until(world.everything_handled)
    await until(lambda: worker.context.budget.used <= worker.context.budget.page_reserve)


async def test_a_parked_record_never_stops_the_reading_on_a_small_budget(make_world: MakeWorld) -> None:
    letters = MemoryDeadLetters()
    letters.fail_next(REFUSED, 10_000)
    world = make_world(config={"limits": {"buffer": "1MiB"}}, dead_letters=letters)
    world.put("poison")
    await world.worker("a", poison)
    await until(lambda: len(letters._faults) < 10_000)
    for _ in range(3):
        world.write(20)
        await until(lambda: world.handled == good(world), 5)


# --- where it starts -----------------------------------------------------------------------------------


async def test_latest_drops_what_is_older_and_is_resolved_once(make_world: MakeWorld) -> None:
    world = make_world(start_at="latest")
    shard = world.stream.open_shards()[0]
    real = world.clock.wall
    world.clock.wall = lambda: real() - 100  # type: ignore[method-assign]
    world.put("old")
    world.stream.roll(shard)
    world.put("old")
    world.clock.wall = real  # type: ignore[method-assign]
    first = await world.worker("a")
    await first.kill()  # perhaps before any row exists
    world.put("new")
    registered = first.registration
    world.clock.wall = lambda: real() + 100  # type: ignore[method-assign]
    second = await world.worker("b")
    await until(lambda: [one.key for one in world.seen] == ["new"])
    assert second.registration == registered
    assert world.rows()[shard].state == "done"
    assert second.metric("records", result="before_start") == 1


async def test_latest_keeps_records_without_a_time(make_world: MakeWorld) -> None:
    world = make_world(start_at="latest")
    world.stream.append("odd", {"ApproximateCreationDateTime": 0, "NewImage": {"v": {"N": "1"}}})
    await world.worker("a")
    await until(lambda: [one.key for one in world.seen] == ["odd"])


# --- checkpoints ---------------------------------------------------------------------------------------


async def test_a_save_under_way_ends_before_the_next_write(make_world: MakeWorld) -> None:
    """A cut-off save could be applied late, after the end of the shard was written with the same owner and epoch."""
    world = make_world()
    worker = await world.worker("a")
    saves: list[str] = []
    go = asyncio.Event()
    save = worker.store.save

    async def slow_save(label: str, held: Any, window: Any = None) -> None:
        saves.append(f"begin {held.state}")
        try:
            if held.state == "open":
                await go.wait()
            await save(label, held, window)
        except asyncio.CancelledError:
            saves.append("cut off")
            raise
        saves.append(f"end {held.state}")

    worker.store.save = slow_save  # type: ignore[method-assign]
    world.put("k")
    await until(lambda: saves == ["begin open"])
    world.stream.roll(world.stream.open_shards()[0])
    await asyncio.sleep(0.2)
    assert saves == ["begin open"]
    go.set()
    await until(lambda: "end done" in saves)
    assert saves[:3] == ["begin open", "end open", "begin draining"]


async def test_poison_does_not_hold_up_other_keys(make_world: MakeWorld) -> None:
    """With retries left and long back-off, only the poison's own key waits; a twin key is never handled twice."""
    patient = {"retry": {"max_retry_attempts": -1, "backoff": {"initial": "10s", "max": "10s"}}}
    world = make_world(config=patient | ALONE, page_records=50)
    world.put("poison")
    world.write(300)
    world.put("poison")
    worker = await world.worker("a", poison)
    await until(lambda: world.handled == 300)
    assert {key for call in worker.handler.calls for key, version in of(call) if version > 1} >= {"k0"}
    assert not any(("poison", 2) in of(call) for call in worker.handler.calls)
    assert sum(w.retrying_keys for w in worker.coordinator.workers) >= 1
    world.assert_in_order()
