"""The lines for CloudWatch: its format to the letter, how things stand and what was added since the line before."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from consumer.operate.emf import DELTAS, GAUGES, INTERVAL, EmfLines
from consumer.operate.metrics import Metrics
from consumer.testing.virtual_loop import Process
from tests.support.virtual_time import in_virtual_time

# Of the specification of the embedded metric format: what PutMetricData takes as a unit, and its limits.
UNITS = {"Seconds", "Count", "Bytes", "None"}
MOST_METRICS, MOST_DIMENSIONS = 100, 30
P = "stream_consumer_"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(application="projector", table="orders")


class Lines:
    """The lines of a worker, of which some may be lost."""

    def __init__(self, metrics: Metrics) -> None:
        self.written: list[Mapping[str, Any]] = []
        self.lose = False
        self.emf = EmfLines(metrics, "projector", "orders", self._write)

    def _write(self, line: Mapping[str, Any]) -> bool:
        if not self.lose:
            self.written.append(line)
        return not self.lose

    def line(self, now: float) -> Mapping[str, Any]:
        """The next one."""
        self.emf.write(now)
        return self.written[-1]


@pytest.fixture
def lines(metrics: Metrics) -> Lines:
    return Lines(metrics)


def checked(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line, as CloudWatch reads them."""
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    about = line["_aws"]
    assert set(about) == {"Timestamp", "CloudWatchMetrics"}
    assert type(about["Timestamp"]) is int
    (directive,) = about["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert 1 <= len(directive["Namespace"]) <= 1024
    assert len(directive["Metrics"]) <= MOST_METRICS
    for dimensions in directive["Dimensions"]:
        assert len(dimensions) <= MOST_DIMENSIONS
        assert all(isinstance(line[name], str) and line[name] for name in dimensions)
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert len(names) == len(set(names))
    assert {metric["Unit"] for metric in directive["Metrics"]} <= UNITS
    assert all(type(line[name]) in (int, float) for name in names)
    assert set(line) == {"_aws", "Application", "Table", *names}
    return {name.removeprefix(P): line[name] for name in names}


def test_the_format(metrics: Metrics, lines: Lines) -> None:
    metrics.shard("s").lag_seconds = 1.23456
    line = lines.line(1_700_000_000.5)
    assert checked(line)["lag_seconds"] == 1.235
    assert line["_aws"]["Timestamp"] == 1_700_000_000_500
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Application", "Table"]]
    assert (line["Application"], line["Table"]) == ("projector", "orders")


def test_counters_are_what_was_added_since_the_line_before(metrics: Metrics, lines: Lines) -> None:
    """CloudWatch may read a line twice, and adds up: a sum since the start would count everything again."""
    metrics.records("handled").inc(5)
    metrics.throttles("GetRecords").inc(2)
    metrics.throttles("Query").inc()
    first = checked(lines.line(0.0))
    assert (first["records_handled"], first["records_dead_lettered"], first["throttles"]) == (5, 0, 3)
    metrics.records("handled").inc(2)
    second = checked(lines.line(60.0))
    assert (second["records_handled"], second["throttles"]) == (2, 0)
    assert checked(lines.line(120.0))["records_handled"] == 0


def test_what_a_lost_line_would_have_told_is_in_the_next_one(metrics: Metrics, lines: Lines) -> None:
    """A log that is not read loses lines, and a dead letter among them would never ring."""
    lines.line(0.0)
    lines.lose = True
    metrics.records("dead_lettered").inc()
    lines.emf.write(60.0)
    lines.lose = False
    metrics.records("dead_lettered").inc(2)
    assert checked(lines.line(120.0))["records_dead_lettered"] == 3


def test_of_shards_the_worst_one_counts_and_none_is_named(metrics: Metrics, lines: Lines) -> None:
    for number, lag in enumerate((3.0, 70.0, 5.0)):
        shard = metrics.shard(f"shardId-{number}")
        shard.lag_seconds, shard.retention_headroom_seconds = lag, 86400 - lag
    metrics.leases("owned").set(3)
    metrics.leases("total").set(9)
    line = lines.line(0.0)
    found = checked(line)
    assert (found["lag_seconds"], found["retention_headroom_seconds"], found["leases_owned"]) == (70, 86330, 3)
    assert "shardId" not in json.dumps(line)


def test_states_are_told_apart(metrics: Metrics, lines: Lines) -> None:
    metrics.leases("owned").set(3)
    metrics.leases("free").set(1)
    metrics.shards("halted").set(2)
    metrics.shards("quarantined").set(4)
    found = checked(lines.line(0.0))
    wanted = {"leases_owned": 3, "leases_free": 1, "shards_halted": 2, "shards_quarantined": 4}
    assert {name: found[name] for name in wanted} == wanted


def test_what_was_not_measured_is_not_there(metrics: Metrics, lines: Lines) -> None:
    found = checked(lines.line(0.0))
    assert not {"lag_seconds", "hot_key_share", "handler_saturation", "dead_letter_backlog"} & set(found)
    metrics.shard("s").lag_seconds = math.nan
    metrics.handler_saturation.value = 0.5
    found = checked(lines.line(0.0))
    assert "lag_seconds" not in found
    assert found["handler_saturation"] == 0.5


def test_every_name_is_a_metric_that_exists(metrics: Metrics, lines: Lines) -> None:
    shard = metrics.shard("s")
    for name in shard.__slots__:
        setattr(shard, name, 1.0)
    metrics.handler_saturation.value = 0.1
    metrics.dead_letter_backlog.value = 1
    assert len(checked(lines.line(0.0))) == len(GAUGES) + len(DELTAS)
    families = {family.name: family for family in metrics.registry.collect()}
    for wanted in (*GAUGES, *DELTAS):
        samples = families[P + wanted.name].samples
        assert any(wanted.labels.items() <= sample.labels.items() for sample in samples), wanted


def test_a_line_a_minute_and_one_for_the_rest_at_the_end(metrics: Metrics, lines: Lines) -> None:
    async def work(clock: Process) -> None:
        running = asyncio.create_task(lines.emf.run())
        await asyncio.sleep(2 * INTERVAL + 1)
        metrics.records("handled").inc(4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [checked(line)["records_handled"] for line in lines.written] == [0, 0, 4]

    in_virtual_time(work)
