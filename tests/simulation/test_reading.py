"""How one shard is read, from where it starts to its end: gaps, errors, iterators, ends, memory, checkpoints."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    PermissionDenied,
    ResourceMissing,
    Throttled,
    TrimmedData,
)
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_shards import (
    Delay,
    Fault,
    Recorder,
    Refusal,
    append,
    losses,
    metric,
    run,
    settled_keys,
    shard_world,
    start,
    until,
    write,
)
from tests.support.windows import deploy

MISSING = ResourceMissing("the stream")
HALT = {"source": {"on_gap": "halt"}}


def handled(world: Simulation, count: int) -> Any:
    """A condition: so many records are settled by a handler."""
    return lambda: len(settled_keys(world)) == count


# --- gaps ----------------------------------------------------------------------------------------------


async def lose_some(world: Simulation) -> str:
    """A worker handles five records and is stopped; five more are trimmed, and five are kept. Returns the number of the
    last record that was handled."""
    first = start(world, "a")
    numbers = [world.put("k") for _ in range(5)]
    await until(world, handled(world, 5), "the first five are handled")
    await first.stop()
    gone = [world.put("k") for _ in range(5)]
    world.trim(world.stream.open_shards()[0], gone[-1])
    for _ in range(5):
        world.put("k")
    return numbers[-1]


def test_a_gap_halts_the_shard_and_is_recorded() -> None:
    world = shard_world("gap, halt", HALT)
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        last = await lose_some(world)
        second = start(world, "b")
        await until(world, lambda: world.rows()[shard].state == "halted", "the shard halts")
        (loss,) = losses(world)
        assert (loss.kind, loss.first_sequence_number) == ("gap", last)
        assert metric(second, "gaps") == 1
        await second.stop()
        row = world.rows()[shard]
        assert (row.state, row.owner) == ("halted", None)
        assert "trimmed" in row.note, "the reason survives the release"
        assert len(settled_keys(world)) == 5

    run(world, scenario, settled=False)


def test_a_gap_is_recorded_and_passed_with_continue() -> None:
    """Also when the table denies the trace for a while: nothing goes on before it is durable."""
    world = shard_world("gap, continue")

    async def scenario() -> None:
        await lose_some(world)
        denied = PermissionDenied("dynamodb:PutItem", "the table")
        refusal = Refusal(start(world, "b").links["table"], denied, "record_loss")
        await until(world, lambda: refusal.taken > 0, "the trace is refused")
        await world.sleep(60.0)
        assert len(settled_keys(world)) == 5
        assert losses(world) == []
        assert 10 < refusal.taken < 100, "attempts in a minute"
        refusal.end()
        await until(world, handled(world, 10), "what is left is handled")
        assert [loss.kind for loss in losses(world)] == ["gap"]

    run(world, scenario)


@pytest.mark.parametrize("page_records", [1000, 3])
@pytest.mark.parametrize("policy", ["halt, then continue", "continue"])
def test_what_lies_between_the_horizon_and_the_checkpoint_is_skipped(policy: str, page_records: int) -> None:
    """A position is refused as trimmed although everything is there: reading goes on from the horizon, over whole pages
    of what was handled, also when an iterator expires among them; not one record is handled twice, or an error."""
    world = shard_world(f"horizon, {policy}", stream={"page_records": page_records})
    (shard,) = world.stream.open_shards()
    refusing = TrimmedData("trimmed")

    async def scenario() -> None:
        first = start(world, "a")
        write(world, 20)
        await until(world, handled(world, 20), "the first twenty are handled")
        await first.stop()
        write(world, 5)
        if policy != "continue":
            deploy(world, source=HALT["source"])
            halting = start(world, "b")
            Refusal(halting.links["stream"], refusing, "iterator", times=1)
            await until(world, lambda: world.rows()[shard].state == "halted", "the shard halts")
            await halting.stop()
            deploy(world, source={"on_gap": "continue"})
        going_on = start(world, "c")
        if policy == "continue":
            Refusal(going_on.links["stream"], refusing, "iterator", times=1)
        expired = Refusal(going_on.links["stream"], ExpiredIterator("expired"), "get_records", but=2, times=1)
        await until(world, handled(world, 25), "the other five are handled")
        write(world, 5)
        await until(world, handled(world, 30), "it goes on")
        await until(world, lambda: expired.taken > 3, "the iterator has expired")
        await until(world, lambda: world.rows()[shard].state == "open", "its row says so")
        assert [loss.kind for loss in losses(world)] == ["gap"]

    run(world, scenario)


def test_a_vanished_shard_leaves_a_gap() -> None:
    world = shard_world("vanished", shards=2)
    gone, stays = world.stream.open_shards()

    async def scenario() -> None:
        write(world, 40)
        first = start(world, "a")
        await until(world, handled(world, 40), "everything is handled")
        await first.stop()
        world.stream.roll(gone)
        world.vanish(gone)
        write(world, 40)
        start(world, "b")
        await until(world, handled(world, 80), "what is in the child and in the other shard is handled", 300.0)
        await until(world, lambda: world.rows()[gone].state == "done", "the vanished shard is done")
        assert [(loss.kind, loss.shard_id) for loss in losses(world)] == [("gap", gone)]
        assert world.rows()[stays].state == "open"

    run(world, scenario)


@pytest.mark.parametrize("listing", ["empty", "an error"])
def test_an_error_or_an_empty_listing_never_means_gone(listing: str) -> None:
    world = shard_world("never gone", {"source": {"poll": {"idle_backoff_max": "1s"}}})

    async def scenario() -> None:
        write(world, 10)
        worker = start(world, "a")
        await until(world, handled(world, 10), "everything is handled")
        world.stream.blank = listing == "empty"
        faults = [Refusal(worker.links["stream"], MISSING, "get_records", "iterator")]
        if listing != "empty":
            faults.append(Refusal(worker.links["stream"], DependencyError("DescribeStream", "Timeout"), "list_shards"))
        await until(world, lambda: faults[0].taken >= 10, "ten reads find no shard", 120.0)
        world.stream.blank = False
        for fault in faults:
            fault.end()
        write(world, 10)
        await until(world, handled(world, 20), "reading goes on")
        assert losses(world) == []

    run(world, scenario)


# --- reading -------------------------------------------------------------------------------------------


def test_expired_iterators_repeat_nothing() -> None:
    world = shard_world("expired", stream={"page_records": 10})

    async def scenario() -> None:
        worker = start(world, "a")
        for number in range(1, 6):
            write(world, 20)
            world.stream.expire_iterators()
            await until(world, handled(world, 20 * number), "what was written is handled")
        assert metric(worker, "get_records", outcome="expired") >= 1
        assert metric(worker, "duplicates_skipped") == 0

    run(world, scenario)


def test_an_iterator_that_is_refused_for_ever_is_replaced() -> None:
    """As invalid, say, by a server that has forgotten it: not by the service's own rules, so nothing else ends it."""
    world = shard_world("refused iterator")

    async def scenario() -> None:
        worker = start(world, "a")
        write(world, 20)
        await until(world, handled(world, 20), "what was written is handled")
        asked, refused = world.stream.page, set[str]()

        def page(shard_id: str, iterator: str, limit: int) -> Any:
            if not refused or iterator in refused:
                refused.add(iterator)
                raise DependencyError("GetRecords", "InvalidArgumentException", "Invalid ShardIterator.")
            return asked(shard_id, iterator, limit)

        world.stream.page = page  # type: ignore[method-assign]  # of this one stream
        write(world, 20)
        await until(world, handled(world, 40), "it goes on with another one")
        assert metric(worker, "duplicates_skipped") == 0

    run(world, scenario)


def test_iterators_that_expire_at_once_are_no_busy_loop() -> None:
    world = shard_world("expired at once")

    async def scenario() -> None:
        write(world, 50)
        error = ExpiredIterator("the clock of the service is wrong")
        worker = start(world, "a")
        refusal = Refusal(worker.links["stream"], error, "get_records")
        await world.sleep(60.0)
        assert 3 <= refusal.taken <= 12
        assert metric(worker, "get_records", outcome="expired") == refusal.taken
        refusal.end()
        await until(world, handled(world, 50), "reading goes on")

    run(world, scenario)


def test_throttled_reads_are_counted_and_waited_out() -> None:
    world = shard_world("throttled")

    async def scenario() -> None:
        write(world, 50)
        worker = start(world, "a")
        throttled = Throttled("GetRecords", "ProvisionedThroughputExceededException")
        refusal = Refusal(worker.links["stream"], throttled, "get_records")
        await until(world, lambda: refusal.taken >= 5, "five reads are throttled")
        await world.sleep(0.1)  # the answer is under way
        assert metric(worker, "get_records", outcome="throttled") == refusal.taken
        refusal.end()
        await until(world, handled(world, 50), "everything is handled")

    run(world, scenario)


def test_reading_goes_on_where_it_was_after_the_stream_was_missing_for_a_while() -> None:
    """Also after a gap, when the first read was from the horizon."""
    world = shard_world("missing for a while")
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        await lose_some(world)
        handler = Recorder()
        worker = start(world, "b", handler)
        await until(world, handled(world, 10), "what is left is handled")
        before = world.rows()[shard]
        refusal = Refusal(worker.links["stream"], MISSING, "get_records")
        await until(world, lambda: refusal.taken > 2, "some reads find no stream")
        refusal.end()
        world.put("k")
        await until(world, handled(world, 11), "the next record is handled")
        assert sum(handler.sizes) == 6, "each once"
        after = world.rows()[shard]
        assert (after.owner, after.epoch) == (before.owner, before.epoch), "the lease was kept all the time"

    run(world, scenario)


class Slow(Fault):
    """Reads take so many seconds."""

    def __init__(self, worker: SimulatedWorker, seconds: float) -> None:
        super().__init__(worker.links["stream"], ["get_records"])
        self._seconds = seconds

    async def meet(self, operation: str, apply: Callable[[], Any]) -> Any:
        await asyncio.sleep(self._seconds)
        return await self._carry(operation, apply)


def set_all_the_time(worker: SimulatedWorker, chance: random.Random) -> None:
    """Where no service tells the time, the worker goes by a clock of its machine that is put right again and again."""
    assert worker.context is not None
    clock = worker.context.ports.clock
    right = clock.wall
    clock.wall = lambda: right() + chance.uniform(0.0, 0.4)  # type: ignore[method-assign]  # of this process alone


@pytest.mark.parametrize(("seconds", "set_clock"), [(0.0, False), (0.1, False), (0.15, False), (0.0, True)])
def test_near_the_tip_a_shard_is_read_five_times_a_second_however_long_a_read_takes(
    seconds: float, set_clock: bool
) -> None:
    world = shard_world(f"slow reads {seconds}")

    async def scenario() -> None:
        worker = start(world, "a")
        slow = Slow(worker, seconds)
        await until(world, lambda: slow.taken > 0, "the shard is read")
        if set_clock:
            set_all_the_time(worker, world.rng("a clock"))
        for _ in range(40):  # the first ones wake the shard
            world.put("k")
            await world.sleep(0.05)
        before = slow.taken
        for _ in range(200):
            world.put("k")
            await world.sleep(0.05)
        assert 45 <= slow.taken - before <= 55

    run(world, scenario)


def test_half_of_what_a_shard_can_give_waits_for_less_than_one_look() -> None:
    """A page fills in half of the time between two looks: it is asked for then, with no more reads for its records."""
    most, seconds = 20, 0.05
    world = shard_world("half load", {"source": {"poll": {"max_records": most}}}, stream={"page_records": most})
    put: dict[str, float] = {}
    handled_at: dict[str, float] = {}

    async def handle(call: HandlerCall) -> Outcome:
        handled_at.update((record.sequence_number, world.loop.now) for record in call.records)
        return OK

    async def scenario() -> None:
        slow = Slow(start(world, "a", Recorder(handle)), seconds)
        rate = most / seconds / 2
        for number in range(int(4 * rate)):
            put[world.put(f"k{number % 20}")] = world.loop.now
            if number == rate:
                put.clear()  # what came before has woken the shard
                before = slow.taken
            await world.sleep(1 / rate)
        reads = slow.taken - before
        await until(world, handled(world, int(4 * rate)), "everything is handled")
        waits = sorted(handled_at[number] - at for number, at in put.items())
        assert waits[len(waits) // 2] < 0.1
        assert waits[int(0.99 * len(waits))] < 0.2
        assert reads < 1.3 * len(put) / most

    run(world, scenario)


def test_empty_pages_are_not_the_end() -> None:
    world = shard_world("empty pages", stream={"last_page": "empty"})
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        write(world, 20)
        world.stream.empty_pages(shard, 5)
        world.stream.roll(shard)
        write(world, 20)
        start(world, "a")
        await until(world, handled(world, 40), "everything is handled")
        await until(world, lambda: world.rows()[shard].state == "done", "the shard is done")

    run(world, scenario)


@pytest.mark.parametrize(("times", "seconds"), [(1, 10.0), (3, 120.0)])
def test_every_child_is_registered_when_one_of_the_writes_fails(times: int, seconds: float) -> None:
    """At the parent's end; after several failures by the next complete listing."""
    world = shard_world("children")

    async def scenario() -> None:
        write(world, 10)
        worker = start(world, "a")
        await until(world, handled(world, 10), "everything is handled")
        attempts = 3 * times  # the store tries every write three times
        error = DependencyError("PutItem", "Timeout")
        refusal = Refusal(worker.links["table"], error, "add_lease", but=1, times=attempts)
        world.stream.split(world.stream.open_shards()[0])
        write(world, 40)
        await until(world, handled(world, 50), "both children are handled", seconds)
        assert refusal.taken > attempts, "or it is no test"

    run(world, scenario)


# --- memory --------------------------------------------------------------------------------------------


def test_a_stalled_handler_stops_the_reader() -> None:
    config = {"limits": {"buffer": "1MiB"}}
    world = shard_world("stalled", config, stream={"page_records": 200})
    go_on = asyncio.Event()

    async def stalled(call: HandlerCall) -> Outcome:
        await go_on.wait()
        return OK

    async def scenario() -> None:
        for index in range(2000):
            world.put(f"k{index}", text="x" * 2000)
        worker = start(world, "a", Recorder(stalled))
        await world.sleep(120.0)
        assert worker.context is not None
        assert 750_000 < worker.context.budget.used < 3_000_000
        assert world.calls["get_records"] <= 3
        go_on.set()
        await until(world, handled(world, 2000), "everything is handled")
        await world.sleep(10.0)
        assert worker.context.budget.used <= worker.context.budget.page_reserve

    run(world, scenario)


# --- where it starts -----------------------------------------------------------------------------------


def test_latest_drops_what_is_older_and_is_resolved_once() -> None:
    world = shard_world("latest", {"source": {"starting_position": "latest"}})
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        world.put("old")
        world.stream.roll(shard)
        world.put("old")
        await world.sleep(100.0)
        first = start(world, "a")
        Refusal(first.links["table"], DependencyError("PutItem", "Timeout"), "add_lease")
        await until(world, lambda: bool(world.table.registrations), "the start is registered")
        first.kill()
        assert world.rows() == {}, "or it is no test"
        registered = dict(world.table.registrations)
        world.put("new")
        await world.sleep(100.0)
        second = start(world, "b")
        await until(world, lambda: settled_keys(world) == ["new"], "what is new is handled, alone")
        assert world.table.registrations == registered
        assert world.rows()[shard].state == "done"
        assert metric(second, "records", result="before_start") == 1

    run(world, scenario)


def test_latest_keeps_records_without_a_time() -> None:
    world = shard_world("no time", {"source": {"starting_position": "latest"}})

    async def scenario() -> None:
        item = append(world, "odd", created=0, NewImage={"v": {"N": "1"}})
        item.created = float("inf")  # for the checker of the start position
        await world.sleep(100.0)
        start(world, "a")
        await until(world, lambda: settled_keys(world) == ["odd"], "it is handled")

    run(world, scenario)


# --- checkpoints ---------------------------------------------------------------------------------------


def test_a_save_under_way_ends_before_the_next_write() -> None:
    """A cut-off save could be applied late, after the end of the shard was written with the same owner and epoch."""
    lines: list[str] = []
    world = shard_world("save under way", on_event=lines.append)
    (shard,) = world.stream.open_shards()

    def saved() -> list[str]:
        """The states that were written, in order."""
        words = [line.split() for line in lines]
        return [line[5] for line in words if line[1] == "save" and line[2] == shard]

    async def scenario() -> None:
        delay = Delay(start(world, "a").links["table"], "save")
        world.put("k")
        await until(world, lambda: delay.taken == 1, "a save begins")
        world.stream.roll(shard)
        await world.sleep(60.0)
        assert (delay.taken, delay.cut_off, saved()) == (1, 0, [])
        delay.end()
        await until(world, lambda: world.rows()[shard].state == "done", "the shard is done")
        assert saved() == ["open", "draining", "done"]
        assert delay.cut_off == 0

    run(world, scenario)
