"""Metrics that are collected at the scrape, out of what the worker notes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from consumer.operate.counters import PREFIX


@dataclass(slots=True)
class ShardMetrics:
    """The gauges of one shard, in seconds where the name says so; None until measured, so that no alert fires on a
    made-up 0."""

    lag_seconds: float | None = None
    oldest_unsettled_seconds: float | None = None
    iterator_age_seconds: float | None = None
    retention_headroom_seconds: float | None = None
    failing_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    breaker_state: int | None = None
    hot_key_share: float | None = None


_SHARD_GAUGES: Final = {
    "lag_seconds": (
        "Seconds that a shard is behind: the age of its oldest unsettled record, read or not; 0 with all settled."
    ),
    "oldest_unsettled_seconds": (
        "Age in seconds of the oldest record of a shard that was read or deferred and is not settled; 0 without one."
    ),
    "iterator_age_seconds": (
        "Seconds by which reading is behind: age of the last record read, or since the tip was seen; 0 at the tip."
    ),
    "retention_headroom_seconds": (
        "Seconds until the oldest unsettled record of a shard is trimmed by the service; less than 0 is loss."
    ),
    "failing_seconds": (
        "Seconds that a key of a shard, or a batch, has failed without getting a record through; 0 without one."
    ),
    "checkpoint_age_seconds": "Seconds since everything settled in a shard was last durable; 0 when it all is.",
    "hot_key_share": (
        "Share of a shard's recent records that is of one key, 0 to 1; absent while there are hardly any."
    ),
    "breaker_state": "Whether most of a shard fails, so that it is paused: 0 closed, 1 probing, 2 open.",
}


class ShardGauges(Collector):
    """The gauges of all shards that ``shards`` holds at the time of the scrape."""

    def __init__(self, shards: Mapping[str, ShardMetrics]) -> None:
        self._shards = shards

    def collect(self) -> Iterator[Metric]:
        shards = list(self._shards.items())  # atomic: the main loop adds and removes shards meanwhile
        for name, text in _SHARD_GAUGES.items():
            family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=("shard",))
            for shard_id, shard in shards:
                value = getattr(shard, name)
                if value is not None:
                    family.add_metric((shard_id,), value)
            yield family


class CredentialsEnd(Collector):
    """The gauge of the AWS credentials. The loops of a process renew theirs independently: the first end counts."""

    def __init__(self) -> None:
        self._ends: dict[str, float | None] = {}

    def of(self, loop: str) -> Callable[[float | None], None]:
        """Takes the end (Unix time; None for keys without one) of the credentials that ``loop`` signs with from now
        on."""

        def ends(at: float | None) -> None:
            self._ends[loop] = at

        return ends

    @property
    def end(self) -> float | None:
        """The first end (Unix time); None without one."""
        ends = [at for at in list(self._ends.values()) if at is not None]  # a copy: the loops run in threads
        return min(ends, default=None)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            f"{PREFIX}_credentials_expiry_seconds",
            "Seconds until the AWS credentials end; absent when they have no end.",
        )
        end = self.end
        if end is not None:
            family.add_metric((), end - time.time())
        yield family


class OptionalGauge(Collector):
    """A gauge without labels whose series is absent while ``value`` is None."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self.value: float | None = None

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._text)
        if self.value is not None:
            family.add_metric((), self.value)
        yield family
