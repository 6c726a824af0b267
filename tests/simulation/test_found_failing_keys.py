"""What a hostile reading of failing keys has found: each was seen to lose records or to hold up others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from consumer.domain.batching import KeyBounds
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.polling import HORIZON
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_shards import FAILED, Recorder, keys, poison, start

FOR_EVER: Mapping[str, Any] = {"retry": {"max_retry_attempts": -1}}
HOUR = 3600.0


class Failing:
    """Every call with a record of a key in ``bad`` fails; each takes ``seconds``."""

    def __init__(self, *bad: str, seconds: float = 0.0) -> None:
        self.bad = set(bad)
        self._seconds = seconds

    async def __call__(self, call: HandlerCall) -> Outcome:
        await asyncio.sleep(self._seconds)
        return FAILED if self.bad & set(keys(call)) else OK


async def balanced(world: Simulation, handler: Recorder) -> SimulatedWorker:
    worker = start(world, "w", handler)
    await world.until(world.balanced, 60.0)
    await asyncio.sleep(5.0)
    return worker


def run(
    config: Mapping[str, Any], scenario: Callable[[Simulation], Awaitable[None]], bounds: KeyBounds | None = None
) -> Simulation:
    """Run to the end of the scenario; no promise may be broken on the way."""
    world = Simulation("found", config=config, **({} if bounds is None else {"bounds": bounds}))
    history = world.run(scenario)
    assert not history.violations, history.violations[:3]
    return world


def unsettled(world: Simulation, prefix: str) -> int:
    items = world.history.items.values()
    return sum(item.key.startswith(prefix) and item.settled_at is None for item in items)


def test_records_that_are_read_again_come_in_the_order_of_their_numbers() -> None:
    """A function that stops at the first failure has come to what has lower numbers, and to nothing else."""
    world = Simulation(
        "found",
        bounds=KeyBounds(line_records=6),
        config={
            **FOR_EVER,
            "source": {"table": "orders", "poll": {"idle_backoff_max": "1s"}},
            "batch": {"parallelization_factor": 2},
        },
    )
    fails, gates, reached, failed_once = [True], dict[str, asyncio.Event](), set[str](), set[str]()
    bad = ""

    async def stops_at_the_first(call: HandlerCall) -> Outcome:
        for record in call.records:
            number = record.sequence_number
            if number in gates:
                await gates[number].wait()
            if (record.keys["id"] == "K" and fails) or (number == bad and number not in failed_once):
                failed_once.add(number)
                return Outcome("partial", failed=(number,), exact=False)
            reached.add(number)
        return OK

    async def scenario(world: Simulation) -> None:
        nonlocal bad
        await balanced(world, Recorder(stops_at_the_first))
        world.put("K")
        await asyncio.sleep(5.0)
        numbers = [world.put("K") for _ in range(9)]  # more than may wait: K is deferred
        await asyncio.sleep(3.0)
        gates[numbers[8]] = asyncio.Event()
        first = world.put("A")
        gates[first] = asyncio.Event()
        await asyncio.sleep(3.0)
        second = world.put("A")  # waits behind the first one
        bad = world.put("K")  # later than that, and left to the second reader
        await asyncio.sleep(3.0)
        fails.clear()
        await asyncio.sleep(60.0)
        other = world.put("B")
        gates[other] = asyncio.Event()
        await asyncio.sleep(3.0)
        gates.pop(numbers[8]).set()
        await asyncio.sleep(5.0)
        gates.pop(first).set()
        await asyncio.sleep(5.0)
        gates.pop(other).set()
        await asyncio.sleep(60.0)
        assert second in reached
        assert world.everything_settled()

    world.run(scenario)


def test_a_key_that_is_deferred_while_it_is_read_again_leaves_its_pass() -> None:
    """Its line is the longest when all that waits behind failing keys is too much: what the second reader would hand
    on next does not follow what is held."""
    mended: set[str] = set()
    passes_all = False

    async def fails_until_mended(call: HandlerCall) -> Outcome:
        return OK if passes_all or mended.issuperset(record.sequence_number for record in call.records) else FAILED

    async def scenario(world: Simulation) -> None:
        nonlocal passes_all
        await balanced(world, Recorder(fails_until_mended))
        for number in range(40):
            for key in "AB":
                put = world.put(key, note="x" * 4000)
                if number == 0:
                    mended.add(put)  # below: until then nothing is
        first, mended_later = frozenset(mended), mended.copy()
        mended.clear()
        await world.until(lambda: len(deferred_of(world)) == 2, 60.0, "both are deferred")
        mended.update(mended_later)
        await world.until(lambda: {n for n, passed in deferred_of(world) if passed} >= first, 60.0, "are read again")
        await asyncio.sleep(60.0)
        passes_all = True
        await asyncio.sleep(600.0)
        assert world.everything_settled()

    few = {"source": {"table": "orders", "poll": {"max_records": 2}}, "limits": {"buffer": "1MiB"}}
    run({**FOR_EVER, **few}, scenario)


def deferred_of(world: Simulation) -> list[tuple[str, bool]]:
    """The first unsettled record of each deferred key, or the one before, then with True."""
    (row,) = world.rows().values()
    return [(key.number, key.passed) for key in row.frontier.deferred]


def test_a_throttled_batch_of_which_half_is_too_old_leaves_nothing_behind() -> None:
    """The shard goes on: what was given up is no failing key any more."""
    throttled = [True]

    async def behave(call: HandlerCall) -> Outcome:
        return Outcome("not_invoked") if throttled else OK

    handler = Recorder(behave)
    config = {"retry": {"max_retry_attempts": -1, "max_record_age": "60s"}, "limits": {"buffer": "1MiB"}}
    world = Simulation("found", config=config)

    async def scenario(world: Simulation) -> None:
        for number in range(30):
            world.put(f"a{number}", pad="x" * 3000)
        await asyncio.sleep(30.0)
        for number in range(30):
            world.put(f"b{number}", pad="x" * 3000)
        start(world, "w", handler)
        await asyncio.sleep(55.0)  # all of them are in one batch, half of which is too old now
        throttled.clear()
        await asyncio.sleep(60.0)
        world.put("fresh")
        await asyncio.sleep(30.0)

    world.run(scenario)
    assert ["fresh"] in handler.keys
    assert world.everything_settled()


def test_a_full_list_of_deferred_keys_gets_shorter_while_another_key_fails() -> None:
    """They catch up once they are mended, although one more key has too much behind it."""
    failing = Failing("D0", "D1")
    handler = Recorder(failing)

    async def scenario(world: Simulation) -> None:
        await balanced(world, handler)
        for _ in range(9):
            world.put("D0")
            world.put("D1")
            await asyncio.sleep(1.0)
        await asyncio.sleep(40.0)
        assert [len(row.frontier.deferred) for row in world.rows().values()] == [2]
        failing.bad.add("P")
        for _ in range(9):
            world.put("P")
            await asyncio.sleep(1.0)
        failing.bad = {"P"}
        await asyncio.sleep(600.0)
        world.put("fresh")
        await asyncio.sleep(30.0)

    world = run(FOR_EVER, scenario, KeyBounds(line_records=4, failing_keys=50, deferred_keys=2))
    assert not unsettled(world, "D")
    assert not unsettled(world, "fresh")
    assert unsettled(world, "P")


def test_the_end_of_a_shard_with_a_full_list_holds_up_no_other_key() -> None:
    """A failing key for which there is no entry keeps its parent open, and nothing else."""
    failing = Failing("D0", "P", seconds=0.5)

    async def scenario(world: Simulation) -> None:
        await balanced(world, Recorder(failing))
        for _ in range(8):
            world.put("D0")
        await asyncio.sleep(20.0)
        world.put("P")
        await asyncio.sleep(40.0)
        for number in range(40):
            world.put(f"k{number}")
        world.stream.roll(world.stream.open_shards()[0])
        await asyncio.sleep(HOUR)

    config = {**FOR_EVER, "batch": {"batch_size": 1, "parallelization_factor": 1}}
    world = run(config, scenario, KeyBounds(line_records=4, failing_keys=50, deferred_keys=1))
    assert not unsettled(world, "k")


def test_a_gap_does_not_wait_for_a_refused_letter() -> None:
    """With ``on_gap: continue`` the shard is read on at once."""
    handler = Recorder(poison)

    async def scenario(world: Simulation) -> None:
        worker = await balanced(world, handler)
        worker.links["dead_letters"].weather = Weather(throttle=1.0)
        world.put("poison")
        await asyncio.sleep(20.0)
        worker.links["stream"].weather = Weather(throttle=1.0)
        await asyncio.sleep(5.0)
        world.trim(world.stream.open_shards()[0], world.put("lost"))
        worker.links["stream"].weather = Weather()
        for number in range(5):
            world.put(f"new{number}")
        await asyncio.sleep(60.0)
        assert len(world.gaps_recorded()) == 1

    config = {"retry": {"max_retry_attempts": 0}}
    assert not unsettled(run(config, scenario), "new")


def test_a_shard_that_was_trimmed_whole_is_not_read_again_without_end() -> None:
    """The second reader finds nothing at the horizon: it looks as rarely as the first one, and there is no lag."""
    failing = Failing("D0")

    async def scenario(world: Simulation) -> None:
        worker = await balanced(world, Recorder(failing))
        for _ in range(9):
            world.put("D0")
            await asyncio.sleep(1.0)
        await asyncio.sleep(20.0)
        world.trim(world.stream.open_shards()[0])
        failing.bad.clear()
        await asyncio.sleep(HORIZON)  # until then the main reader expects more
        before = world.calls["get_records"]
        await asyncio.sleep(600.0)
        assert world.calls["get_records"] - before < 2 * 600.0 / 5.0 + 10, "two readers, a poll in five seconds each"
        assert worker.coordinator is not None
        (shard,) = worker.coordinator.workers
        assert shard.ages(world.clock.wall()).lag < 1.0

    run(FOR_EVER, scenario, KeyBounds(line_records=4))
