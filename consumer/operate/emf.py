"""Metrics as lines of the log, in CloudWatch's embedded metric format (EMF): on ECS they need no scraper.

CloudWatch makes metrics of every line whose root has ``_aws.CloudWatchMetrics``, and may read a line twice: so a line
carries how things stand and what was added since the line before, and no sum since the start. Each pair of a name and
a set of dimensions is paid for: the names are few, and shards, which come and go every four hours, are no dimension.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import structlog

from consumer.operate.counters import PREFIX
from consumer.operate.metrics import Metrics

log = structlog.get_logger()

NAMESPACE: Final = "StreamConsumer"
INTERVAL: Final = 60.0  # seconds: CloudWatch's own resolution

Unit = Literal["Seconds", "Count", "Bytes", "None"]


class Gauge(NamedTuple):
    """The series of ``name`` (with these ``labels``) as one number: the worst shard, or the sum."""

    name: str
    unit: Unit
    of: Callable[[Sequence[float]], float] = max
    labels: Mapping[str, str] = {}
    shown: str = ""


class Delta(NamedTuple):
    """By how much the counter ``name`` (its series with these ``labels``) has grown."""

    name: str
    labels: Mapping[str, str] = {}
    shown: str = ""


GAUGES: Final = (
    Gauge("lag_seconds", "Seconds"),
    Gauge("oldest_unsettled_seconds", "Seconds"),
    Gauge("iterator_age_seconds", "Seconds"),
    Gauge("retention_headroom_seconds", "Seconds", min),
    Gauge("checkpoint_age_seconds", "Seconds"),
    Gauge("hot_key_share", "None"),
    Gauge("breaker_state", "None"),
    Gauge("handler_saturation", "None"),
    Gauge("in_flight_records", "Count", sum),
    Gauge("buffered_bytes", "Bytes", sum),
    Gauge("retrying_keys", "Count", sum),
    Gauge("parked_keys", "Count"),
    Gauge("paused_shards", "Count", sum),
    Gauge("dead_letters_waiting", "Count", sum),
    Gauge("leases", "Count", sum, {"state": "owned"}, "leases_owned"),
    Gauge("leases", "Count", sum, {"state": "free"}, "leases_free"),
    Gauge("shards", "Count", sum, {"state": "halted"}, "shards_halted"),
    Gauge("shards", "Count", sum, {"state": "quarantined"}, "shards_quarantined"),
)
DELTAS: Final = (
    Delta("records", {"result": "handled"}, "records_handled"),
    Delta("records", {"result": "dead_lettered"}, "records_dead_lettered"),
    Delta("handler_errors"),
    Delta("retries"),
    Delta("dead_letters"),
    Delta("dead_letters_refused"),
    Delta("gaps"),
    Delta("throttles"),
    Delta("checkpoint_failures"),
)


class EmfLines:
    """The lines of one worker, about ``metrics``."""

    def __init__(self, metrics: Metrics, application: str, table: str) -> None:
        self._metrics = metrics
        self._dimensions = {"Application": application, "Table": table}
        self._before: dict[str, float] = {}

    async def run(self) -> None:
        """A line every INTERVAL, for ever, and one at the end for what is left of it."""
        try:
            while True:
                await asyncio.sleep(INTERVAL)
                self._write()
        finally:
            self._write()

    def line(self, now: float) -> dict[str, Any]:
        """The next line; ``now`` in Unix seconds. What was not measured is not in it."""
        series: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in self._metrics.registry.collect():
            if family.type in ("gauge", "counter"):
                kept = [sample for sample in family.samples if not sample.name.endswith("_created")]
                series[family.name.removeprefix(f"{PREFIX}_")] = [(sample.labels, sample.value) for sample in kept]

        def values(wanted: Gauge | Delta) -> list[float]:
            found = series.get(wanted.name, [])
            return [value for labels, value in found if wanted.labels.items() <= labels.items()]

        numbers: dict[str, tuple[Unit, float]] = {}
        for gauge in GAUGES:
            if measured := values(gauge):
                numbers[gauge.shown or gauge.name] = gauge.unit, gauge.of(measured)
        for delta in DELTAS:
            name, total = delta.shown or delta.name, sum(values(delta))
            numbers[name] = "Count", total - self._before.get(name, 0.0)
            self._before[name] = total
        numbers = {f"{PREFIX}_{name}": number for name, number in numbers.items() if math.isfinite(number[1])}
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [list(self._dimensions)],
            "Metrics": [{"Name": name, "Unit": unit} for name, (unit, _) in numbers.items()],
        }
        about = {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]}}
        return about | self._dimensions | {name: round(value, 3) for name, (_, value) in numbers.items()}

    def _write(self) -> None:
        log.critical("metrics.emf", verbatim=self.line(time.time()))  # whatever logging.level is
