"""Which alerts of ``deploy/prometheus/alerts.yaml`` fire during recorded runs of a simulated fleet, and which do not.

The series are what a Prometheus would have scraped; ``promtool test rules`` judges them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.errors import PermissionDenied
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.simulation import Simulation
from tests.support.promtool import needs_promtool, run_rule_tests, series_of_the_rules
from tests.support.reported import Recording
from tests.support.simulated_shards import FAILED, Recorder, Refusal, append, keys, start

INTERVAL = 15.0  # seconds between two scrapes
MINUTE = 60.0

pytestmark = needs_promtool

Alerts = Mapping[float, set[str]]
"""The alerts that fire, by minutes since the start of the recording."""


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[Recording, Alerts], None]:
    """Checks which alerts fire, all of them, at some times of a recording."""

    def judged(recording: Recording, expected: Alerts) -> None:
        test = {
            "interval": f"{INTERVAL:g}s",
            "input_series": recording.input_series(series_of_the_rules()),
            "promql_expr_test": [
                {
                    "expr": 'max by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{minutes * MINUTE:g}s",
                    "exp_samples": [{"labels": f'{{alertname="StreamConsumer{name}"}}', "value": 1} for name in names],
                }
                for minutes, names in expected.items()
            ],
        }
        run_rule_tests(tmp_path, [test], f"{INTERVAL:g}s")

    return judged


class Fleet:
    """A recorded run of two workers on two shards, to which ten records of other keys are written every minute.

    A record whose key begins with ``poison`` fails for as long as ``is_broken``; a call takes ``busy`` seconds.
    """

    def __init__(
        self, name: str, *, retries: int = -1, bounds: KeyBounds = BOUNDS, width: int = 8, busy: float = 0.0
    ) -> None:
        config: dict[str, dict[str, Any]] = {
            "retry": {"max_retry_attempts": retries},
            "batch": {"batch_size": 1, "parallelization_factor": width},
        }
        self._busy = busy
        self.world = Simulation(name, shards=2, config=config, bounds=bounds)
        self.is_broken = True
        self.is_out = False
        self._recording = Recording(INTERVAL)

    def record(self, minutes: float, *events: tuple[float, Callable[[], Awaitable[None] | None]]) -> Recording:
        """Run for so many minutes; ``events`` happen at their minutes."""

        async def scenario(world: Simulation) -> None:
            for name in ("a", "b"):
                start(world, name, Recorder(self._behave))
            await world.until(world.balanced, MINUTE, "balance")
            writing = asyncio.create_task(self._write())
            happening = [asyncio.create_task(self._happen(minute, event)) for minute, event in events]
            await self._recording.record(world, minutes * MINUTE)
            await asyncio.gather(*happening)
            writing.cancel()

        self.world.run(scenario)
        self.world.check()
        return self._recording

    def poison(self) -> None:
        self.world.put("poison")

    def mend(self) -> None:
        self.is_broken = self.is_out = False

    def begin_outage(self) -> None:
        """Everything fails, and there is a lot of it."""
        self.is_out = True
        for number in range(100):
            self.world.put(f"x{number}")

    async def replace(self) -> None:
        """A worker stops, its shard goes to the other one, and a new process comes up with counters at 0."""
        for worker in list(self.world.workers.values()):
            await worker.stop()
            await self.world.sleep(20.0)
            worker.start()
            await self.world.sleep(20.0)

    async def _behave(self, call: HandlerCall) -> Outcome:
        await asyncio.sleep(self._busy)
        return FAILED if self.is_out or (self.is_broken and any(key.startswith("poison") for key in keys(call))) else OK

    async def _write(self) -> None:
        for number in range(10**9):
            self.world.put(f"k{number % 40}")
            await self.world.sleep(6.0)

    async def _happen(self, minute: float, event: Callable[[], Awaitable[None] | None]) -> None:
        await self.world.sleep(minute * MINUTE)
        happening = event()
        if happening is not None:
            await happening


def test_one_poison_record(judge: Callable[[Recording, Alerts], None]) -> None:
    """It fires through a deploy, which moves the shard and starts all counters anew, and ends with the cause."""
    fleet = Fleet("one poison record")
    recording = fleet.record(32, (5, fleet.poison), (13, fleet.replace), (24, fleet.mend))
    judge(
        recording,
        {
            4: set(),
            7: {"StuckKey"},
            12: {"StuckKey"},
            15: {"StuckKey"},
            18: {"StuckKey"},
            22: {"StuckKey", "Lag"},
            27: set(),
            31: set(),
        },
    )


def test_a_poison_record_that_is_half_a_day_old(judge: Callable[[Recording, Alerts], None]) -> None:
    fleet = Fleet("half a day old")
    append(fleet.world, "poison", created=fleet.world.clock.wall() - 11 * 3600 - 50 * MINUTE)
    recording = fleet.record(20, (14, fleet.mend))
    judge(recording, {2: {"StuckKey"}, 13: {"StuckKey", "Lag", "AboutToLoseRecords"}, 18: set()})


def test_a_destination_that_refuses(judge: Callable[[Recording, Alerts], None]) -> None:
    fleet = Fleet("refused letters", retries=0)
    denied: list[Refusal] = []

    def deny() -> None:
        error = PermissionDenied("sqs:SendMessage", "the queue")
        denied.extend(Refusal(worker.links["dead_letters"], error, "send") for worker in fleet.world.workers.values())

    def allow() -> None:
        for refusal in denied:
            refusal.end()

    recording = fleet.record(32, (2, deny), (3, fleet.poison), (15, allow))
    judge(
        recording,
        {
            2.5: set(),
            5: {"StuckKey"},
            8.5: {"DeadLettersRefused", "StuckKey"},
            13: {"DeadLettersRefused", "StuckKey"},
            18: {"DeadLetters"},
            28: set(),
        },
    )


def test_a_handler_that_fails_for_everything(judge: Callable[[Recording, Alerts], None]) -> None:
    """It is not one key: the shards are paused, and in the end behind."""
    fleet = Fleet("everything fails", bounds=KeyBounds(failing_keys=8))

    def break_down() -> None:
        for number in range(100):
            fleet.world.put(f"poison-{number}")

    recording = fleet.record(30, (2, break_down), (24, fleet.mend))
    judge(recording, {1: set(), 6: {"ShardPaused"}, 20: {"ShardPaused", "Lag"}, 28: set()})


def test_an_outage_of_the_handler(judge: Callable[[Recording, Alerts], None]) -> None:
    """The breakers open, and close some minutes after it is over: with the next probe."""
    fleet = Fleet("an outage")
    recording = fleet.record(36, (2, fleet.begin_outage), (24, fleet.mend))
    judge(recording, {1: set(), 5: {"BreakerOpen"}, 20: {"BreakerOpen", "Lag"}, 34: set()})


def test_a_fleet_that_is_too_slow(judge: Callable[[Recording, Alerts], None]) -> None:
    """All is old, but no key is stuck."""
    fleet = Fleet("too slow", width=1, busy=50.0)
    recording = fleet.record(30)
    judge(recording, {12: set(), 28: {"Lag"}})


def test_a_clock_that_is_four_minutes_off(judge: Callable[[Recording, Alerts], None]) -> None:
    fleet = Fleet("a fast clock", retries=0)

    def turn(seconds: float) -> None:
        process = fleet.world.workers["a"].process
        assert process is not None
        process.wall_offset += seconds

    recording = fleet.record(20, (2, lambda: turn(4 * MINUTE)), (12, lambda: turn(-4 * MINUTE)))
    judge(recording, {1.5: set(), 8: {"Clock"}, 11: {"Clock"}, 18: set()})


def test_nobody_reports(judge: Callable[[Recording, Alerts], None]) -> None:
    """Also an alert that no series of a dead fleet can raise."""
    judge(Recording(INTERVAL), {4: set(), 6: {"Absent"}})
