"""What lag, headroom, page and metrics say while records are not settled: the truth, whoever waits for whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer import __version__
from consumer.domain.batching import KeyBounds
from consumer.domain.errors import (
    DependencyError,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
    StreamConsumerError,
    Throttled,
)
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.shards import DAY
from consumer.operate.status import StatusBoard
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from consumer.worker.reporting import Reporter
from tests.support.reported import report, shard_status
from tests.support.simulated_fleet import LogEvents
from tests.support.simulated_shards import FAILED, Recorder, Refusal, append, keys, metric, start, until

FOR_EVER: dict[str, dict[str, Any]] = {"retry": {"max_retry_attempts": -1}}
FEW = KeyBounds(line_records=4, line_bytes=64 * 1024, failing_keys=3, deferred_keys=16)


class Failing:
    """A handler that fails with every call that holds a record of ``keys``, but for the ``most`` that it lets through:
    ``passed`` of them so far, calls with one record."""

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.most = self.passed = 0

    async def __call__(self, call: HandlerCall) -> Outcome:
        if not self.keys & set(keys(call)):
            return OK
        if len(call.records) == 1 and self.passed < self.most:
            self.passed += 1
            return OK
        return FAILED


def world_of(
    name: str, config: dict[str, dict[str, Any]] | None = None, on_event: Callable[[str], None] | None = None
) -> Simulation:
    return Simulation(name, config=FOR_EVER | (config or {}), bounds=FEW, on_event=on_event)


def run(world: Simulation, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run it, and settle everything in the end."""

    async def whole(world: Simulation) -> None:
        await scenario()
        await until(world, world.everything_settled, "everything is settled", 300.0)
        await world.finish()

    world.run(whole)
    world.check()


def started(world: Simulation, behave: Callable[[HandlerCall], Awaitable[Outcome]]) -> SimulatedWorker:
    return start(world, "a", Recorder(behave))


def only_shard(world: Simulation) -> str:
    (shard_id,) = world.stream.open_shards()
    return shard_id


def gauge(worker: SimulatedWorker, name: str, shard_id: str) -> float:
    """A gauge of one shard, as a scrape would show it now."""
    report(worker)
    return metric(worker, name, shard=shard_id)


async def write_for(world: Simulation, seconds: int, *written: str) -> None:
    """A record of each key every second."""
    for _ in range(seconds):
        for key in written:
            world.put(key)
        await world.sleep(1.0)


def test_one_record_that_keeps_failing_is_what_lag_and_headroom_speak_of() -> None:
    """The others of its shard are settled within a second, so everything newer looks fine."""
    world, handler = world_of("one poison record"), Failing("poison")

    async def scenario() -> None:
        worker, shard_id = started(world, handler), only_shard(world)
        world.put("poison")
        await write_for(world, 600, "a", "b")
        lag = gauge(worker, "lag_seconds", shard_id)
        assert 598 < lag < 603
        assert gauge(worker, "oldest_unsettled_seconds", shard_id) == lag
        assert gauge(worker, "retention_headroom_seconds", shard_id) == DAY - lag
        assert gauge(worker, "iterator_age_seconds", shard_id) < 3
        shown = shard_status(worker, shard_id)
        assert (shown.lag, shown.retrying_keys, shown.deferred_keys, shown.slow_because) == (lag, 1, 0, "retrying")
        found = report(worker)
        assert found is not None
        (key,) = found.keys
        assert (len(key.digest), key.state, key.shard_id) == (16, "retrying", shard_id)
        assert found.endless_retries
        assert found.iterator_age < 3, "what an autoscaler is told: no worker more would help"
        assert abs(found.updated_at - key.since - lag) < 3
        assert metric(worker, "retrying_keys") == 1
        handler.keys.clear()
        await until(world, world.everything_settled, "the poison is handled")
        await world.sleep(10.0)
        assert gauge(worker, "lag_seconds", shard_id) == 0
        assert gauge(worker, "oldest_unsettled_seconds", shard_id) == 0
        assert shard_status(worker, shard_id).retrying_keys == 0

    run(world, scenario)


@pytest.mark.parametrize("order", ["key", "shard"])
def test_how_long_a_key_fails_counts_from_its_first_failure(order: str) -> None:
    """However old its record is; it counts anew with each record of the key that gets through."""
    batch = {"order": order, "parallelization_factor": 1 if order == "shard" else 8}
    world, handler = world_of(f"failing in order of the {order}", {"batch": batch}), Failing("poison")

    async def scenario() -> None:
        old = world.clock.wall() - 3600
        append(world, "poison", created=old)
        append(world, "poison", created=old + 1)
        worker, shard_id = started(world, handler), only_shard(world)
        await until(world, lambda: metric(worker, "retries") > 0, "it fails")
        await write_for(world, 100, "a")
        assert 98 < gauge(worker, "failing_seconds", shard_id) < 103
        shown = shard_status(worker, shard_id)
        assert (round(shown.failing_for or 0), shown.last_error) == (
            round(gauge(worker, "failing_seconds", shard_id)),
            "ValueError",
        )
        handler.most = 1
        await until(world, lambda: handler.passed == 1, "the first of its records is handled")
        await write_for(world, 40, "a")
        assert 30 < gauge(worker, "failing_seconds", shard_id) < 45
        handler.keys.clear()
        await until(world, world.everything_settled, "the other one is handled, too", 120.0)
        assert gauge(worker, "failing_seconds", shard_id) == 0
        assert shard_status(worker, shard_id).failing_for is None

    run(world, scenario)


def test_a_key_whose_records_all_become_letters_is_not_stuck() -> None:
    world, handler = world_of("letters of one key", {"retry": {"max_retry_attempts": 2}}), Failing("poison")

    async def scenario() -> None:
        worker, shard_id = started(world, handler), only_shard(world)
        longest = 0.0
        for _ in range(60):
            world.put("poison")
            await world.sleep(1.0)
            longest = max(longest, gauge(worker, "failing_seconds", shard_id))
        assert metric(worker, "dead_letters") > 30
        assert longest < 3, "each record is through within a second"

    run(world, scenario)


def test_a_deferred_key_counts_with_its_oldest_record() -> None:
    """Nothing of what waits behind it is in memory, and the books have passed it."""
    events = LogEvents()
    world, handler = world_of("a deferred key", on_event=events), Failing("poison")

    async def scenario() -> None:
        worker, shard_id = started(world, handler), only_shard(world)
        await write_for(world, 300, "poison", "a")
        shown = shard_status(worker, shard_id)
        assert (shown.retrying_keys, shown.deferred_keys) == (1, 1)
        found = report(worker)
        assert found is not None
        assert [key.state for key in found.keys] == ["retrying", "deferred"]
        assert len({key.digest for key in found.keys}) == 1
        assert len(events.of("key.deferred")) == 1
        assert metric(worker, "deferred_keys") == 1
        assert 298 < gauge(worker, "lag_seconds", shard_id) < 303
        handler.keys.clear()
        await until(world, lambda: not shard_status(worker, shard_id).deferred_keys, "it has caught up", 120.0)
        await world.sleep(10.0)
        assert gauge(worker, "lag_seconds", shard_id) == 0

    run(world, scenario)


def test_a_key_that_waits_for_its_parent_counts_in_the_child() -> None:
    """Its records of the child can be trimmed before those of the parent get through."""
    world, handler = world_of("a key of the parent"), Failing("poison")

    async def scenario() -> None:
        worker, parent = started(world, handler), only_shard(world)
        world.put("poison")
        await world.sleep(10.0)
        world.stream.roll(parent)
        child = only_shard(world)
        await until(world, lambda: world.rows()[parent].state == "deferred", "the parent waits for its key only")
        world.put("poison")
        await write_for(world, 200, "a")
        assert 198 < gauge(worker, "lag_seconds", child) < 203
        assert 208 < gauge(worker, "lag_seconds", parent) < 225
        assert metric(worker, "shards", state="deferred") == 1
        handler.keys.clear()
        await until(world, world.everything_settled, "both are handled", 120.0)
        await world.sleep(10.0)
        assert gauge(worker, "lag_seconds", child) == 0

    run(world, scenario)


def test_a_reader_that_may_not_read_is_not_at_the_tip() -> None:
    """It was when it looked last; what was written since then is not known."""
    world = world_of("no permission any more")

    async def scenario() -> None:
        worker, shard_id = started(world, Failing()), only_shard(world)
        world.put("a")
        await world.sleep(60.0)
        assert gauge(worker, "lag_seconds", shard_id) == gauge(worker, "iterator_age_seconds", shard_id) == 0
        denied = Refusal(worker.links["stream"], PermissionDenied("dynamodb:GetRecords", "the stream"), "get_records")
        await world.sleep(300.0)
        lag = gauge(worker, "lag_seconds", shard_id)
        assert 295 < lag < 306
        assert gauge(worker, "iterator_age_seconds", shard_id) == lag
        assert gauge(worker, "oldest_unsettled_seconds", shard_id) == 0
        shown = shard_status(worker, shard_id)
        assert shown.slow_because == "denied"
        assert "dynamodb:GetRecords" in shown.note
        denied.end()
        await until(world, lambda: shard_status(worker, shard_id).note == "", "it reads again")
        await world.sleep(1.0)
        assert gauge(worker, "lag_seconds", shard_id) == 0

    run(world, scenario)


def test_a_reader_that_waits_for_room_says_so() -> None:
    world = world_of("no room", {"limits": {"buffer": "1MiB"}})

    async def scenario() -> None:
        worker, shard_id = started(world, BusyUntil(world, 100.0)), only_shard(world)
        for _ in range(10):
            world.put("a", large="x" * 300_000)
        await world.sleep(60.0)
        assert shard_status(worker, shard_id).slow_because == "room"
        assert gauge(worker, "iterator_age_seconds", shard_id) > 55
        found = report(worker)
        assert found is not None
        assert found.iterator_age > 55, "what an autoscaler is told: another worker would have room"
        await until(world, lambda: shard_status(worker, shard_id).slow_because != "room", "there is room", 200.0)

    run(world, scenario)


class BusyUntil:
    """A handler that answers nothing for so many seconds from now on."""

    def __init__(self, world: Simulation, seconds: float) -> None:
        self._world, self._until = world, world.loop.now + seconds

    async def __call__(self, call: HandlerCall) -> Outcome:
        await self._world.sleep(max(0.0, self._until - self._world.loop.now))
        return OK


def test_a_shard_that_only_waits_for_its_children_is_not_behind() -> None:
    """Also when another worker has taken it over, which never reads it."""
    world = world_of("children that are not listed yet")

    async def scenario() -> None:
        first, parent = started(world, Failing()), only_shard(world)
        world.put("a")
        await world.sleep(10.0)
        world.stream.hide_children(240.0)
        world.stream.roll(parent)
        await until(world, lambda: world.rows()[parent].state == "draining", "it is settled")
        assert gauge(first, "lag_seconds", parent) == 0
        await first.stop()
        second = start(world, "b", Recorder())
        await world.sleep(100.0)
        assert world.rows()[parent].owner == second.incarnation
        assert gauge(second, "lag_seconds", parent) == 0
        assert gauge(second, "iterator_age_seconds", parent) == 0

    run(world, scenario)


def test_a_shard_that_is_paused_says_so() -> None:
    events = LogEvents()
    world, handler = world_of("everything fails", on_event=events), Failing("a", "b", "c", "d")

    async def scenario() -> None:
        worker, shard_id = started(world, handler), only_shard(world)
        await write_for(world, 20, "a", "b", "c", "d", "e")
        assert shard_status(worker, shard_id).slow_because == "paused"
        assert metric(worker, "paused_shards") == 1
        assert (len(events.of("shard.paused")), events.of("shard.resumed")) == (1, [])
        handler.keys.clear()
        await until(world, world.everything_settled, "everything is handled", 120.0)
        assert shard_status(worker, shard_id).slow_because is None
        assert metric(worker, "paused_shards") == 0
        assert len(events.of("shard.resumed")) == 1

    run(world, scenario)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Throttled("SendMessage", "Throttling"), "throttled"),
        (PermissionDenied("sqs:SendMessage", "the queue"), "denied"),
        (ResourceMissing("the queue"), "missing"),
        (MisconfiguredResource("the queue is FIFO now"), "misconfigured"),
        (DependencyError("SendMessage", "InternalError"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_letter_that_is_refused_is_seen_until_it_is_taken(error: StreamConsumerError, reason: str) -> None:
    world = world_of(f"refused: {reason}", {"retry": {"max_retry_attempts": 0}})

    async def scenario() -> None:
        worker = started(world, Failing("poison"))
        await until(world, lambda: bool(worker.links), "a process")
        refusal = Refusal(worker.links["dead_letters"], error, "send")
        world.put("poison")
        await until(world, lambda: refusal.taken == 3, "three attempts")
        await world.sleep(0.1)
        assert metric(worker, "dead_letters_waiting") == 1
        shown = report(worker)
        assert shown is not None
        assert (shown.letters_waiting, shown.shards[0].slow_because) == (1, "destination")
        assert metric(worker, "dead_letters_refused", reason=reason) == 3
        assert metric(worker, "dead_letters_refused") == 3
        refusal.end()
        await until(world, world.everything_settled, "the letter is taken")
        shown = report(worker)
        assert shown is not None
        assert (shown.letters_waiting, shown.shards[0].slow_because) == (0, None)
        assert metric(worker, "dead_letters_waiting") == 0
        assert metric(worker, "dead_letters", reason="RetryAttemptsExhausted") == 1

    run(world, scenario)


def test_a_letter_that_does_not_fit_is_counted_and_does_not_wait() -> None:
    world = world_of("a large letter", {"retry": {"max_retry_attempts": 0}})
    world.dead_letters.maximum_size = 1800

    async def scenario() -> None:
        worker = started(world, Failing("poison"))
        world.put("poison", large="x" * 5000)
        await until(world, world.everything_settled, "it is taken in another form")
        assert metric(worker, "dead_letters_refused", reason="unfit") == 1
        assert metric(worker, "dead_letters_waiting") == 0

    run(world, scenario)


def test_a_record_from_before_the_fleet_was_up_is_as_old_as_it_is() -> None:
    world, handler = world_of("eleven hours down"), Failing("poison")

    async def scenario() -> None:
        append(world, "poison", created=world.clock.wall() - 11 * 3600)
        worker, shard_id = started(world, handler), only_shard(world)
        await write_for(world, 60, "a")
        assert abs(gauge(worker, "retention_headroom_seconds", shard_id) - (13 * 3600 - 60)) < 5
        handler.keys.clear()

    run(world, scenario)


def test_calls_that_take_all_slots_are_why_a_shard_is_behind() -> None:
    world = world_of("one slot", {"batch": {"parallelization_factor": 1, "batch_size": 1}})

    async def scenario() -> None:
        worker, shard_id = started(world, BusyUntil(world, 60.0)), only_shard(world)
        for key in "abc":
            world.put(key)
        await world.sleep(30.0)
        assert shard_status(worker, shard_id).slow_because == "slot"
        await until(world, world.everything_settled, "all are handled", 300.0)
        await world.sleep(5.0)
        assert shard_status(worker, shard_id).slow_because is None

    run(world, scenario)


def test_the_snapshot_has_the_fleet_the_lineage_and_how_fast_shards_are_read() -> None:
    world = world_of("a fleet")

    async def scenario() -> None:
        first, parent = started(world, Failing()), only_shard(world)
        second = start(world, "b", Recorder())
        await write_for(world, 10, "a")
        shown = report(first)
        assert shown is not None
        assert [worker.mine for worker in shown.fleet] == [True, False]
        assert {worker.incarnation for worker in shown.fleet} == {first.incarnation, second.incarnation}
        assert sum(worker.leases for worker in shown.fleet) == 1
        assert {worker.version for worker in shown.fleet} == {__version__}
        assert all(worker.started_at for worker in shown.fleet)
        world.stream.roll(parent)
        child = only_shard(world)
        await until(world, lambda: world.rows()[parent].state == "done", "the parent is finished")
        await world.sleep(5.0)
        shown = report(first)
        assert shown is not None
        assert [(shard.shard_id, shard.parents) for shard in shown.shards] == [(child, (parent,))]
        assert (shown.finished, shown.finished_count) == (((parent, ()),), 1)

    run(world, scenario)


def test_shards_that_nobody_takes_are_counted_with_how_long() -> None:
    config = {**FOR_EVER, "limits": {"max_shards": 1}}
    world = Simulation("one worker for two shards", shards=2, config=config)

    async def whole(world: Simulation) -> None:
        worker = start(world, "a", Recorder())
        await world.sleep(60.0)
        shown = report(worker)
        assert shown is not None
        assert shown.free_leases == 1
        assert 40 < shown.free_for < 60
        second = start(world, "b", Recorder())
        await until(
            world, lambda: second.coordinator is not None and len(second.coordinator.workers) == 1, "it is taken"
        )
        await world.sleep(5.0)
        shown = report(worker)
        assert shown is not None
        assert (shown.free_leases, shown.free_for) == (0, 0.0)
        await world.finish()

    world.run(whole)
    world.check()


def test_the_reporter_remembers_how_it_was() -> None:
    """Lag and rates of the last minutes, of a process whose reports come every second."""
    world, handler = world_of("a history"), Failing("poison")

    async def scenario() -> None:
        worker, shard_id = started(world, handler), only_shard(world)
        await until(world, lambda: worker.coordinator is not None, "a session")
        assert worker.context is not None
        assert worker.coordinator is not None
        board = StatusBoard()
        reporter = Reporter(worker.context, worker.coordinator, board, 0.0)
        world.put("poison")
        for _ in range(60):
            world.put("a")
            world.put("b")
            await world.sleep(1.0)
            reporter.report()
        assert board.status is not None
        past = board.status.history
        assert 5 <= len(past.lag) <= 6
        assert past.lag[-1] is not None
        assert 50 < past.lag[-1] < 65
        assert past.handled[-1] is not None
        assert 1.5 < past.handled[-1] < 2.5
        shard = next(one for one in board.status.shards if one.shard_id == shard_id)
        assert shard.read_rate is not None
        assert 1.5 < shard.read_rate < 2.5
        handler.keys.clear()

    run(world, scenario)
