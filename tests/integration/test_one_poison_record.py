"""One poison record under default settings: within two minutes of its first failure the status page, the metrics and an
alert name its shard and what to do. A recorded run of a simulated fleet, in which everything else goes on.

``tests/e2e/test_one_poison_record.py`` is the same with real daemons and a real Prometheus (``make soak``).
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.operate.status_json import status_json
from consumer.settings.load import settings_from
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support.commands import require_command
from tests.support.promtool import needs_promtool, run_rule_tests, series_of_the_rules
from tests.support.reported import Recording, board_of
from tests.support.simulated_shards import FAILED, Recorder, keys, start, until

WITHIN = 120.0  # seconds from the first failure
SHARDS = 4
POISON = "poison"
DESTINATION = "arn:aws:sqs:us-east-1:000000000000:dead-letters"

Failing = Callable[[HandlerCall], Awaitable[Outcome]]
Document = dict[str, Any]


async def raises(call: HandlerCall) -> Outcome:
    return FAILED


async def reports(call: HandlerCall) -> Outcome:
    """The handler returns what has failed."""
    failed = tuple(one.sequence_number for one in call.records if one.keys["id"] == POISON)
    return Outcome("partial", failed=failed, fault=HandlerFault("reported", "BatchItemFailures", ""))


async def exits(call: HandlerCall) -> Outcome:
    return Outcome("failed", fault=HandlerFault("crashed", "Runtime.ExitError", "exit status 1"))


async def hangs(call: HandlerCall) -> Outcome:
    await asyncio.sleep(call.timeout)
    return Outcome("failed", fault=HandlerFault("timeout", "Sandbox.Timedout", "timed out"))


class Run:
    """Two workers with default settings on a stream of four shards, to which a record of another key is written every
    second. ``failing`` is what becomes of a call with the poison record; ``backlog``: so many records of other keys are
    there before any worker is. ``kinds`` of the handler are the same to the worker, but for what it makes of them."""

    def __init__(
        self,
        name: str,
        failing: Failing = raises,
        *,
        destination: bool = False,
        kind: str = "lambda",
        backlog: int = 0,
        interval: float = 15.0,
    ) -> None:
        self.world = Simulation(name, shards=SHARDS)
        target = "http://127.0.0.1:9/handle" if kind == "http" else "simulated:handler"
        given: Document = {
            "application": APPLICATION,
            "source": {"table": "orders"},
            "handler": {"kind": kind, "target": target},
        }
        self.world.settings = settings_from(
            given | ({"on_failure": {"destination": DESTINATION}} if destination else {})
        )
        self.recording = Recording(interval)
        self.failures: list[float] = []  # their times since the recording began
        self.pages: dict[str, Document] = {}  # of each worker, two minutes after the first failure
        self.owner = ""  # of the shard, then
        self._failing = failing
        self._backlog = backlog
        self._began = 0.0

    @property
    def shard(self) -> str:
        return str(self.world.stream.shard_of(POISON))

    def play(self, disturb: Callable[[SimulatedWorker], Awaitable[None]] | None = None, after: float = 0.0) -> None:
        """Until two and a half minutes after the first failure. ``disturb`` gets the owner of the shard, so many
        seconds ``after`` it."""

        async def scenario(world: Simulation) -> None:
            self._began = world.loop.now
            for number in range(self._backlog):
                world.put(f"old-{number}")
            if self._backlog:
                world.put(POISON)
            for name in ("a", "b"):
                start(world, name, Recorder(self._behave))
            recording = asyncio.create_task(self.recording.record(world, 600.0))
            writing = asyncio.create_task(self._write())
            if not self._backlog:
                await until(world, world.balanced, "the workers share the shards", 120.0)
                await world.sleep(37.0)  # a quiet minute for comparison
                world.put(POISON)
            await until(world, lambda: bool(self.failures), "the poison record fails", 120.0)
            if disturb is not None:
                await world.sleep(self.failures[0] + after - self._now())
                await disturb(self._owner())
            await world.sleep(self.failures[0] + WITHIN - self._now())
            self.owner = self._owner().name
            self.pages = {worker.name: json.loads(status_json(board_of(worker))) for worker in world.workers.values()}
            await world.sleep(30.0)
            recording.cancel()
            writing.cancel()

        with capture_logs():
            self.world.run(scenario)
        self.world.check()

    def _now(self) -> float:
        return self.world.loop.now - self._began

    def _owner(self) -> SimulatedWorker:
        owner = self.world.rows()[self.shard].owner
        return next(worker for worker in self.world.workers.values() if worker.incarnation == owner)

    async def _behave(self, call: HandlerCall) -> Outcome:
        if POISON not in keys(call):
            return OK
        outcome = await self._failing(call)
        self.failures.append(self._now())
        return outcome

    async def _write(self) -> None:
        for number in range(10**9):
            self.world.put(f"k{number % 40}")
            await self.world.sleep(1.0)

    # --- what is to be seen ----------------------------------------------------------------------------

    def check_pages(self) -> None:
        """The pages of all workers name the shard, and a command that exists and is about it."""
        assert set(self.pages) == {"a", "b"}
        for name, page in self.pages.items():
            assert page["problems"], (name, page["headline"])
            first = page["problems"][0]
            assert first["code"] == ("stuck_keys" if name == self.owner else "stuck_keys_elsewhere"), (name, page)
            assert (page["severity"], first["shards"]) == ("warning", [self.shard])
            assert self.shard in page["headline"], name
            assert self.shard in shlex.split(first["command"]), first
            require_command(first["command"].removeprefix("stream-consumer "))

    def check_metrics(self) -> None:
        """The metrics say of this shard alone that a key fails, and for how long."""
        number = int((self.failures[0] + WITHIN) // self.recording.interval)
        found = {
            dict(labels)["shard"]: value
            for (name, labels), value in self.recording.scrapes[number].items()
            if name == "stream_consumer_failing_seconds"
        }
        assert set(found) == set(self.world.stream.open_shards())
        assert {shard for shard, seconds in found.items() if seconds > 0} == {self.shard}

    def check_alerts(self, folder: Path) -> None:
        """The warning rings for this shard within two minutes, nothing else does, and nothing did before."""

        def rings(at: float, shards: list[str]) -> Document:
            labels = '{{alertname="StreamConsumerStuckKey",severity="warning",shard="{}"}}'
            return {
                "expr": 'max by (alertname, severity, shard) (ALERTS{alertstate="firing"})',
                "eval_time": f"{at:.0f}s",
                "exp_samples": [{"labels": labels.format(shard), "value": 1} for shard in shards],
            }

        interval = f"{self.recording.interval:g}s"
        expected = [rings(self.failures[0], []), rings(self.failures[0] + WITHIN, [self.shard])]
        series = self.recording.input_series(series_of_the_rules())
        test = {"interval": interval, "input_series": series, "promql_expr_test": expected}
        run_rule_tests(folder, [test], interval)


RUNS: dict[str, Callable[[], Run]] = {
    "no destination": lambda: Run("no destination"),
    "a destination, and scrapes every 30 s": lambda: Run("slow scrapes", destination=True, interval=30.0),
    "it hangs in a full batch": lambda: Run("hangs in a full batch", hangs, backlog=400),
    "it is reported": lambda: Run("reported", reports, kind="python"),
    "it ends the process": lambda: Run("exits", exits),
    "it hangs": lambda: Run("hangs", hangs, kind="http"),
    "in a full batch": lambda: Run("full batch", backlog=400),
}
QUICK = 3  # runs that are no soak runs
SOME = [
    pytest.param(name, marks=[pytest.mark.xdist_group(name), *([pytest.mark.soak] if place >= QUICK else [])])
    for place, name in enumerate(RUNS)
]


@cache
def played(name: str) -> Run:
    run = RUNS[name]()
    run.play()
    return run


@pytest.mark.parametrize("name", SOME)
def test_page_and_metrics_name_the_shard_and_what_to_do(name: str) -> None:
    run = played(name)
    run.check_pages()
    run.check_metrics()


@needs_promtool
@pytest.mark.parametrize("name", SOME)
def test_the_alert_rings(name: str, tmp_path: Path) -> None:
    played(name).check_alerts(tmp_path)


# --- the owner of the shard starts anew meanwhile: the next one sees the record fail within seconds


async def deploy(worker: SimulatedWorker) -> None:
    """The other worker gets the shard meanwhile."""
    await worker.stop()
    worker.start()


async def crash(worker: SimulatedWorker) -> None:
    worker.kill()
    await asyncio.sleep(5.0)
    worker.start()


START = {"deploy": deploy, "crash": crash}
LATE = 80.0  # seconds after the first failure: the alert rings


@cache
def played_with(start_anew: str, after: float) -> Run:
    run = Run(f"{start_anew} after {after:g} s")
    run.play(START[start_anew], after)
    return run


STARTS = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in START]


@pytest.mark.parametrize("start_anew", STARTS)
def test_the_pages_say_it_after_a_start(start_anew: str) -> None:
    run = played_with(start_anew, LATE)
    run.check_pages()
    run.check_metrics()


@needs_promtool
@pytest.mark.parametrize("start_anew", STARTS)
def test_the_alert_outlives_a_start(start_anew: str, tmp_path: Path) -> None:
    played_with(start_anew, LATE).check_alerts(tmp_path)


@needs_promtool
@pytest.mark.soak
@pytest.mark.parametrize("start_anew", STARTS)
def test_the_alert_rings_after_an_early_start(start_anew: str, tmp_path: Path) -> None:
    """A start before it rang costs the time until the record fails again."""
    played_with(start_anew, 20.0).check_alerts(tmp_path)
