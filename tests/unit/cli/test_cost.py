"""``cost``: against the figures of docs/performance.md, which were measured, and against chance."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consumer.cli.main import main
from consumer.domain.checkpoint_pace import CheckpointPace
from consumer.domain.fleet_cost import (
    Fleet,
    Pace,
    checkpoints_of_shard,
    lambda_invocations,
    read_within,
    reads_of_shard,
    requests,
)
from consumer.domain.polling import Arrivals
from consumer.domain.source_format import ReadingLimits

PACE = Pace(ReadingLimits(), 2.0, 5.0, 1000, 1.0, 10.0, 4)


def estimate(*words: str) -> Any:
    done = CliRunner().invoke(main, ["cost", *words, "--output", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def line(found: Any, what: str, who: str = "stream_consumer") -> Any:
    return next(one for one in found[who]["lines"] if one["what"] == what)


def test_an_idle_shard_is_polled_as_was_measured() -> None:
    """720 an hour; 3,600 with idle_backoff_max of 1 s."""
    assert reads_of_shard(0.0, 2048, PACE) * 3600 == pytest.approx(720)
    quick = Pace(PACE.reading, 2.0, 1.0, 1000, 1.0, 10.0, 4)
    assert reads_of_shard(0.0, 2048, quick) * 3600 == pytest.approx(3600)


def test_a_busy_shard_is_read_five_times_a_second_and_more_when_pages_are_full() -> None:
    assert reads_of_shard(100.0, 2048, PACE) == pytest.approx(5.0)
    assert reads_of_shard(10_000.0, 200, PACE) == pytest.approx(10.0)


@pytest.mark.parametrize("target", [0.5, 2.0])
@pytest.mark.parametrize("rate", [1e-4, 0.02, 0.3, 2.0, 20.0])
def test_in_between_it_is_what_the_reader_learns(rate: float, target: float) -> None:
    """The reader's pauses, played with arrivals at random."""
    pace = replace(PACE, target_latency=target)
    chance = random.Random(7)
    arrivals, time, waited, reads = Arrivals(), 0.0, 0.0, 0
    arrival, late, seconds = chance.expovariate(rate), [], 1000.0 + 400.0 / rate
    while time < min(seconds, 200_000.0):
        found = 0
        while arrival <= time:
            late.append(time - arrival)
            arrival += chance.expovariate(rate)
            found += 1
        reads += 1
        arrivals.looked(waited, found)
        waited = arrivals.pause(pace.pauses)
        time += waited
    assert reads_of_shard(rate, 2048, pace) == pytest.approx(reads / time, rel=0.12)
    assert read_within(rate, pace) == pytest.approx(sorted(late)[int(0.95 * len(late))], rel=0.25)


def test_what_another_target_brings_is_shown(tmp_path: Path) -> None:
    """Twice the reads for half the wait, with the target of the config among the others."""
    config = tmp_path / "consumer.yaml"
    config.write_text(
        "application: a\nsource: {table: orders, poll: {target_latency: 3s}}\n"
        "handler: {kind: http, target: 'http://localhost/'}\n"
    )
    config.chmod(0o600)
    found = estimate(str(config), "--shards", "1", "--rate", "0.25")["target_latency"]
    assert [one["seconds"] for one in found] == [0.2, 0.5, 1.0, 2.0, 3.0, 5.0]
    waits, reads = [one["read_within_seconds"] for one in found], [one["get_records"] for one in found]
    assert waits == sorted(waits)
    assert reads == sorted(reads, reverse=True)
    assert all(one["read_within_seconds"] <= one["seconds"] for one in found)
    text = CliRunner().invoke(main, ["cost", str(config)]).output
    (marked,) = (line for line in text.splitlines() if "configured" in line)
    assert marked.split()[0] == "3s"


def test_checkpoints_are_at_most_one_an_interval() -> None:
    assert checkpoints_of_shard(0.0, 1.0) == 0.0
    assert checkpoints_of_shard(1e6, 1.0) == pytest.approx(1.0)
    assert checkpoints_of_shard(0.01, 1.0) < 0.01


@pytest.mark.parametrize("rate", [0.1, 1.0, 5.0])
def test_checkpoints_are_what_chance_makes_of_the_pace(rate: float) -> None:
    """The pause between two writes, played with records at random that are settled as they come."""
    chance, pace = random.Random(7), CheckpointPace()
    time, writes, settled = 0.0, 0, 0
    while time < 20_000:
        time += chance.expovariate(rate)
        settled += 1
        if (rest := pace.rest(time, 1.0)) > 0:
            due = time + rest
            while (following := time + chance.expovariate(rate)) < due:
                time, settled = following, settled + 1
            time = due
        pace.wrote(time, settled)
        writes += 1
    assert checkpoints_of_shard(rate, 1.0) == pytest.approx(writes / time, rel=0.05)


def test_sessions_as_measured_and_lease_rows_within_the_budget_of_a_fleet() -> None:
    found = requests(Fleet(1000, 1, 0.0, 2048), PACE)
    assert found.renewals * 3600 == pytest.approx(1440)
    assert found.looks * 3600 + found.lease_rows * 3600 == pytest.approx(7200 + 110 * 720)
    assert requests(Fleet(50_000, 100, 0.0, 2048), PACE).lease_rows == 150.0


def test_lambda_gathers_between_its_polls() -> None:
    assert lambda_invocations(Fleet(1, 1, 1.0, 2048), 100, 0.0) == 1.0
    assert lambda_invocations(Fleet(1, 1, 4000.0, 2048), 100, 0.0) == 40.0
    assert lambda_invocations(Fleet(2, 1, 20.0, 2048), 100, 5.0) == pytest.approx(20 / 50)
    assert lambda_invocations(Fleet(1, 1, 0.0, 2048), 100, 0.0) == 0.0


def test_the_figures_follow_the_config(tmp_path: Path) -> None:
    config = tmp_path / "consumer.yaml"
    config.write_text(
        "application: a\nsource: {table: orders, poll: {idle_backoff_max: 30s}}\nhandler: {kind: http, target: "
        "'http://localhost/'}\ncheckpoint: {interval: 10s}\n"
    )
    config.chmod(0o600)
    usual, slower = (estimate(*words, "--rate", "0") for words in ([], [str(config)]))
    assert line(usual, "GetRecords")["requests"] == 4 * 720 * 730
    assert line(slower, "GetRecords")["requests"] == 4 * 120 * 730
    busy = estimate("--config", str(config), "--rate", "4000")
    assert line(busy, "checkpoints")["requests"] == pytest.approx(4 * 730 * 360, rel=0.01)


def test_prices_have_a_date_and_a_warning() -> None:
    found = estimate("--shards", "100", "--rate", "0")
    reads = line(found, "GetRecords")
    assert reads["dollars"] == pytest.approx((100 * 720 * 730 - 2.5e6) / 1e5 * 0.02, rel=1e-3)
    assert estimate("--shards", "100", "--rate", "0", "--region-factor", "1.2")["stream_consumer"][
        "dollars_a_month"
    ] == pytest.approx(1.2 * found["stream_consumer"]["dollars_a_month"], abs=0.02)
    text = CliRunner().invoke(main, ["cost"]).output
    assert found["prices"]["as_of"] in text
    assert "Check them before you decide" in text


def test_own_prices(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"table_writes_per_million": 6.25, "region": "eu-central-1", "as_of": "2027-01-01"}')
    usual, own = estimate(), estimate("--prices", str(path))
    writes = [line(found, "session renewals")["dollars"] for found in (usual, own)]
    assert writes[1] == pytest.approx(10 * writes[0], rel=1e-3)
    assert line(usual, "GetRecords") == line(own, "GetRecords")
    assert own["prices"] == {"as_of": "2027-01-01", "region": "eu-central-1", "note": ""}


@pytest.mark.parametrize(
    ("content", "why"),
    [("[]", "one JSON object"), ("{", "line 1 column 2"), ('{"reads": 1}', "reads is no price that is known")],
)
def test_prices_that_cannot_be_used(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    done = CliRunner().invoke(main, ["cost", "--prices", str(path)])
    assert (done.exit_code, "cannot be used" in done.stderr, why in done.stderr) == (2, True, True)


def test_kinesis_and_dead_letters() -> None:
    found = estimate("--kind", "kinesis", "--rate", "500", "--record-size", "1000", "--dead-letters", "1000000")
    assert line(found, "GetRecords")["dollars"] == pytest.approx(500 * 1000 * 730 * 3600 / 1e9 * 0.04, rel=1e-3)
    assert line(found, "dead letters")["dollars"] == pytest.approx(0.40)
    assert not math.isnan(found["lambda"]["dollars_a_month"])
