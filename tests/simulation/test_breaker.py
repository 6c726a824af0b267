"""The breaker of a shard, one promise at a time: an outage of the handler fills no queue, and ends by itself.

The family of random runs mixes all of this (``breaker.py``); the rule is tested in ``tests/unit/domain``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.domain.breaker import FIRST_PAUSE, KEYS, MOST_PAUSE, OUTCOMES
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.domain.shards import DAY
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.reported import report, shard_status
from tests.support.simulated_fleet import LogEvents
from tests.support.simulated_shards import (
    FAILED,
    Config,
    Recorder,
    append,
    keys,
    letters,
    metric,
    others_settled,
    run,
    shard_world,
    start,
    until,
)

MOST_LETTERS = OUTCOMES // 2 + 1 + 2 * 8  # of the window, and what eight slots had under way
NO_RETRY: Config = {"retry": {"max_retry_attempts": 0}}
UNREACHABLE = Outcome("not_invoked", fault=HandlerFault("crashed", "ConnectionError", "nobody listens"))


class Outage(Recorder):
    """A handler that answers everything with ``answer`` while there is one, and fails with ``poison`` keys always."""

    def __init__(self, answer: Outcome | None = None) -> None:
        super().__init__(self._behave)
        self.answer = answer

    async def _behave(self, call: HandlerCall) -> Outcome:
        if self.answer is not None:
            return self.answer
        return FAILED if any(key.startswith("poison") for key in keys(call)) else OK


async def load(world: Simulation, seconds: float, among: int = 300) -> None:
    """Ten records a second of so many keys by turns."""
    for number in range(int(seconds * 10)):
        world.put(f"k{number % among}")
        await asyncio.sleep(0.1)


def breaker_state(worker: SimulatedWorker) -> float:
    """What a scrape would show now, of the only shard."""
    report(worker)
    return metric(worker, "breaker_state")


def only_shard(world: Simulation) -> str:
    (shard_id,) = world.stream.open_shards()
    return shard_id


@pytest.mark.parametrize("config", [{}, {"on_failure": {"order": "park_key"}}], ids=["continue", "park_key"])
@pytest.mark.parametrize("answer", [FAILED, UNREACHABLE], ids=["raises", "unreachable"])
def test_an_outage_sends_few_letters_and_ends_by_itself(answer: Outcome, config: dict[str, dict[str, Any]]) -> None:
    events = LogEvents()
    world, handler = shard_world("outage", {**NO_RETRY, **config}, on_event=events), Outage()

    async def scenario() -> None:
        worker, shard_id = start(world, "a", handler), only_shard(world)
        await load(world, 30.0)
        assert (breaker_state(worker), shard_status(worker, shard_id).breaker) == (0, "closed")
        handler.answer = answer
        await load(world, 200.0)
        sent = len(letters(world))
        assert sent <= (MOST_LETTERS if answer is FAILED else 0)
        assert breaker_state(worker) == 2
        shown = shard_status(worker, shard_id)
        assert answer.fault is not None
        assert (shown.breaker, shown.last_error) == ("open", answer.fault.type)
        assert answer.fault.type in shown.note
        (opened,) = events.of("breaker.opened")
        cause = "keys_fail" if answer is FAILED else "not_invoked"
        assert f"'cause': '{cause}'" in opened
        assert f"'error_type': '{answer.fault.type}'" in opened
        calls = len(handler.calls)
        await load(world, 100.0)
        assert len(handler.calls) - calls <= 2, "probes alone"
        assert len(letters(world)) == sent
        handler.answer = None
        await until(world, lambda: breaker_state(worker) == 0, "the breaker closes", MOST_PAUSE)
        await until(world, lambda: not any(item.open for item in world.history.items.values()), "all is settled")
        assert len(letters(world)) == sent if not config else len(letters(world)) >= sent
        (closed,) = events.of("breaker.closed")
        assert "'reason': 'probes'" in closed
        assert shard_status(worker, shard_id).note == ""

    run(world, scenario)


def test_keys_that_were_parked_before_follow_and_no_other_is_parked() -> None:
    world, handler = shard_world("parked", {**NO_RETRY, "on_failure": {"order": "park_key"}}), Outage()

    async def scenario() -> None:
        worker = start(world, "a", handler)
        world.put("poison")
        await until(world, lambda: len(letters(world)) == 1, "its letter")
        handler.answer = FAILED
        await load(world, 60.0)
        assert breaker_state(worker) == 2
        parked = len(world.table.parked)
        assert parked <= MOST_LETTERS
        for _ in range(200):
            world.put("poison")
            await load(world, 1.0)
        assert len(world.table.parked) == parked
        handler.answer = None

    run(world, scenario)


def test_turned_off_everything_is_given_up() -> None:
    config = {**NO_RETRY, "on_failure": {"breaker": False}}
    world, handler = shard_world("off", config), Outage(FAILED)

    async def scenario() -> None:
        worker = start(world, "a", handler)
        await load(world, 60.0)
        assert breaker_state(worker) == 0
        await until(world, world.everything_settled, "everything is given up")
        assert len(letters(world)) == 600

    run(world, scenario)


@pytest.mark.parametrize("batch_size", [1, 100])
@pytest.mark.parametrize("retries", [0, 2, -1])
def test_five_percent_of_poison_and_a_hot_key_never_open_it(retries: int, batch_size: int) -> None:
    events = LogEvents()
    config = {"retry": {"max_retry_attempts": retries}, "batch": {"batch_size": batch_size}}
    world, handler = shard_world("poison", config, on_event=events), Outage()

    async def scenario() -> None:
        start(world, "a", handler)
        for number in range(3000):
            world.put(f"poison{number % 400}" if number % 20 == 0 else f"k{number % 380}")
            world.put("poison-hot")
            await asyncio.sleep(0.02)
        await until(world, lambda: others_settled(world), "the others are handled", 10.0)
        assert events.of("breaker.opened") == []

    run(world, scenario, settled=not retries)  # with retries the hot key is hours behind


def test_endless_retries_open_it_too() -> None:
    """Nothing is given up before a day, and still a handler that fails for everything is asked less and less."""
    world, handler = shard_world("endless", {"retry": {"max_retry_attempts": -1}}), Outage(FAILED)

    async def scenario() -> None:
        worker = start(world, "a", handler)
        await load(world, 120.0)
        assert breaker_state(worker) == 2
        calls = len(handler.calls)
        await world.sleep(3600.0)
        assert len(handler.calls) - calls < 20
        assert letters(world) == []
        handler.answer = None
        await until(world, world.everything_settled, "everything is handled", MOST_PAUSE + 60.0)

    run(world, scenario)


def test_where_nothing_overtakes_a_letter_costs_a_probe() -> None:
    config = {**NO_RETRY, "batch": {"order": "shard", "batch_size": 10, "parallelization_factor": 1}}
    world, handler = shard_world("in order", config), Outage(FAILED)

    async def scenario() -> None:
        worker = start(world, "a", handler)
        await load(world, 60.0)
        assert breaker_state(worker) == 2
        sent = len(letters(world))
        assert sent <= KEYS
        await world.sleep(3600.0)
        assert len(letters(world)) - sent < 15, "one for each probe at most"
        handler.answer = None
        await until(world, world.everything_settled, "everything is settled", MOST_PAUSE + 60.0)

    run(world, scenario)


def test_the_next_owner_begins_with_a_closed_one() -> None:
    world, handler = shard_world("hand-over", NO_RETRY), Outage(FAILED)

    async def scenario() -> None:
        first = start(world, "a", handler)
        await load(world, 60.0)
        assert breaker_state(first) == 2
        handler.answer = None
        stopped_at = world.loop.now
        await first.stop()
        second = start(world, "b", handler)
        await until(world, world.everything_settled, "everything is settled", FIRST_PAUSE)
        assert world.loop.now - stopped_at < FIRST_PAUSE
        assert breaker_state(second) == 0

    run(world, scenario)


def test_it_closes_before_records_are_trimmed() -> None:
    """What would be trimmed unhandled is better off in the dead letters."""
    events = LogEvents()
    world, handler = shard_world("headroom", NO_RETRY, on_event=events), Outage(FAILED)

    async def scenario() -> None:
        start(world, "a", handler)
        old = world.clock.wall() - DAY * 7 / 8 + 1800.0
        for number in range(400):
            append(world, f"k{number}", created=old)
        await until(world, lambda: bool(events.of("breaker.opened")), "it opens")
        await world.sleep(60.0)
        assert len(letters(world)) <= MOST_LETTERS
        await until(world, world.everything_settled, "all of it is in the dead letters", 1800.0 + MOST_PAUSE)
        (closed,) = events.of("breaker.closed")
        assert "'reason': 'retention'" in closed
        assert len(letters(world)) == 400

    run(world, scenario)
