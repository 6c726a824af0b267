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

from consumer.operate.counters import PREFIX
from consumer.operate.logs import write_verbatim
from consumer.operate.metrics import Metrics

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
    Gauge("failing_seconds", "Seconds"),
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
    Gauge("dead_letter_backlog", "Count"),
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
    """The lines of one worker, about ``metrics``. ``write`` is given each, and returns False when it is lost."""

    def __init__(
        self,
        metrics: Metrics,
        application: str,
        table: str,
        write: Callable[[Mapping[str, Any]], bool] = write_verbatim,
    ) -> None:
        self._metrics = metrics
        self._dimensions = {"Application": application, "Table": table}
        self._put = write
        self._written: Mapping[str, float] = {}  # counters, with all that lines have told of them

    async def run(self) -> None:
        """A line every INTERVAL, for ever, and one at the end for what is left of it."""
        try:
            while True:
                await asyncio.sleep(INTERVAL)
                self.write(time.time())
        finally:
            self.write(time.time())

    def write(self, now: float) -> None:
        """Write a line; ``now`` in Unix seconds. What was added and could not be told is in the next one."""
        line, counted = self._line(now)
        if self._put(line):
            self._written = counted

    def _line(self, now: float) -> tuple[dict[str, Any], dict[str, float]]:
        """The next line, without what was not measured, and the counters that it is about."""
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
        counted = {delta.shown or delta.name: sum(values(delta)) for delta in DELTAS}
        for name, total in counted.items():
            numbers[name] = "Count", total - self._written.get(name, 0.0)
        numbers = {f"{PREFIX}_{name}": number for name, number in numbers.items() if math.isfinite(number[1])}
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [list(self._dimensions)],
            "Metrics": [{"Name": name, "Unit": unit} for name, (unit, _) in numbers.items()],
        }
        about = {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]}}
        line = about | self._dimensions | {name: round(value, 3) for name, (_, value) in numbers.items()}
        return line, counted
