"""Every metric of the daemon, on a registry of its own.

No module-level registry: two workers in one process (the simulator, tests, an embedding application) never mix their
numbers. Labels carry names that this code base knows in advance, or a shard id; never a key, a table row or any text
from user data. Label values known in advance start at 0, so that ``rate()`` and ``increase()`` see the first event.

Counters of pages and API calls are cheap because the child of a label value is resolved once (``Family``): looking it
up through ``labels()`` costs three times the increment itself. What every batch counts is cheaper still (``counters``).

docs/metrics.md explains each of them; a test keeps the two lists equal.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from consumer import __version__
from consumer.operate.counters import Durations, PlainCounters, PlainGauge

PREFIX: Final = "stream_consumer"

RECORD_RESULTS: Final = ("handled", "dead_lettered", "before_start")
BATCH_RESULTS: Final = ("ok", "partial", "failed", "not_invoked")
DEAD_LETTER_REASONS: Final = ("RetryAttemptsExhausted", "RecordAgeExceeded")
GET_RECORDS_OUTCOMES: Final = ("data", "empty", "throttled", "expired", "trimmed", "error")
LEASE_STATES: Final = ("owned", "target", "free", "total")
LEASE_EVENTS: Final = ("acquired", "released", "handed_over", "finished", "lost", "fenced")
SHARD_STATES: Final = ("waiting", "open", "draining", "done", "halted", "quarantined")
API_OUTCOMES: Final = (
    "ok",
    "throttled",
    "denied",
    "condition_failed",
    "missing",
    "expired",
    "trimmed",
    "timeout",
    "error",
)
OPERATIONS: Final = (
    "DescribeTable",
    "DescribeStream",
    "GetShardIterator",
    "GetRecords",
    "GetItem",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "Query",
    "TransactWriteItems",
)

# Handlers take from a no-op (1 ms) to Lambda's own limit (900 s); API calls from 1 ms to their time-outs.
_HANDLER_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_API_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_Child = TypeVar("_Child", Counter, Gauge, Histogram)


class Family(Generic[_Child]):
    """A metric with labels, whose children are looked up once: ``metrics.records("handled").inc(n)``."""

    __slots__ = ("_children", "_parent")

    def __init__(self, parent: _Child, known: Iterable[tuple[str, ...]] = ()) -> None:
        self._parent: _Child = parent
        self._children: dict[tuple[str, ...], _Child] = {}
        for values in known:
            self(*values)

    def __call__(self, *values: str) -> _Child:
        child = self._children.get(values)
        if child is None:
            # Two threads may both get here; labels() gives them the same child.
            child = self._children[values] = self._parent.labels(*values)
        return child


class ShardGauge:
    """One gauge of one shard. Its series appears with the first measurement, so that no alert fires on a made-up 0,
    and never comes back after ``close``, however late a straggling task still reports."""

    __slots__ = ("_child", "_closed", "_lock", "_parent", "_shard_id", "_value")

    def __init__(self, parent: Gauge, shard_id: str) -> None:
        self._parent = parent
        self._shard_id = shard_id
        self._child: Gauge | None = None
        self._value: float | None = None
        self._closed = False
        self._lock = Lock()

    def set(self, value: float) -> None:
        if value == self._value:  # most gauges of an idle shard, every second
            return
        self._value = value
        child = self._child
        if child is None:
            with self._lock:
                if self._closed:
                    return
                child = self._child = self._parent.labels(self._shard_id)
        child.set(value)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._parent.remove(self._shard_id)


class ShardMetrics:
    """The gauges of one shard, all in seconds. ``close`` removes its series when the shard is finished or given away:
    DynamoDB replaces shards about every four hours, so series that stay would grow without bound."""

    __slots__ = ("_metrics", "checkpoint_age", "iterator_age", "lag", "retention_headroom", "shard_id")

    def __init__(self, metrics: Metrics, shard_id: str) -> None:
        self._metrics = metrics
        self.shard_id = shard_id
        self.lag = ShardGauge(metrics.lag_seconds, shard_id)
        self.iterator_age = ShardGauge(metrics.iterator_age_seconds, shard_id)
        self.retention_headroom = ShardGauge(metrics.retention_headroom_seconds, shard_id)
        self.checkpoint_age = ShardGauge(metrics.checkpoint_age_seconds, shard_id)

    def close(self) -> None:
        """Remove all series of the shard. Idempotent; later ``set`` calls do nothing."""
        if self._metrics.forget_shard(self):
            for gauge in (self.lag, self.iterator_age, self.retention_headroom, self.checkpoint_age):
                gauge.close()


class Metrics:
    """All metrics of one worker process. Thread-safe: updated by the main loop, rendered by the control thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shards: dict[str, ShardMetrics] = {}
        self._shards_lock = Lock()
        self._add_shard_gauges()
        self._add_record_metrics()
        self._add_aws_metrics()
        self._add_process_metrics()

    def _add_shard_gauges(self) -> None:
        self.lag_seconds = self._shard_gauge(
            "lag_seconds", "Seconds between now and the newest settled record of a shard; 0 when it is read to its tip."
        )
        self.iterator_age_seconds = self._shard_gauge(
            "iterator_age_seconds", "Age in seconds of the last record read from a shard; 0 when it is read to its tip."
        )
        self.retention_headroom_seconds = self._shard_gauge(
            "retention_headroom_seconds",
            "Seconds until the oldest unsettled record of a shard is trimmed by the service; less than 0 is loss.",
        )
        self.checkpoint_age_seconds = self._shard_gauge(
            "checkpoint_age_seconds", "Seconds since everything settled in a shard was last durable; 0 when it all is."
        )

    def _add_record_metrics(self) -> None:
        self.records = PlainCounters(f"{PREFIX}_records", "Records by what became of them.", "result", RECORD_RESULTS)
        self.batches = PlainCounters(f"{PREFIX}_batches", "Handler calls by outcome.", "result", BATCH_RESULTS)
        self.handler_seconds = Durations(
            f"{PREFIX}_handler_seconds", "Duration of handler calls in seconds.", _HANDLER_BUCKETS
        )
        self.in_flight_records = PlainGauge(f"{PREFIX}_in_flight_records", "Records read and not yet settled.")
        for metric in (self.records, self.batches, self.handler_seconds, self.in_flight_records):
            self.registry.register(metric)
        self.retries = self._counter("retries", "Handler calls that were repeats after a failure.")
        self.dead_letters = Family(
            self._counter(
                "dead_letters", "Dead letters made durable (or discarded with a trace), by reason.", "reason"
            ),
            _each(DEAD_LETTER_REASONS),
        )
        self.duplicates_skipped = self._counter(
            "duplicates_skipped", "Records read again and recognised as settled, so not given to the handler."
        )
        self.filtered = self._counter("filtered", "Records that no filter pattern matched.")
        self.gaps = self._counter("gaps", "Times that records were trimmed by the service before they were read.")
        self.buffered_bytes = self._gauge("buffered_bytes", "Bytes of records held in memory.")
        self.retrying_keys = self._gauge("retrying_keys", "Keys whose records wait, or follow, behind a dead letter.")

    def _add_aws_metrics(self) -> None:
        self.get_records = Family(
            self._counter("get_records", "GetRecords calls by what they brought.", "outcome"),
            _each(GET_RECORDS_OUTCOMES),
        )
        self.throttles = Family(
            self._counter("throttles", "Calls that the service refused because of their rate.", "operation"),
            _each(OPERATIONS),
        )
        self.api_calls = Family(
            self._counter("api_calls", "AWS API calls by operation and outcome.", "operation", "outcome"),
            [(operation, outcome) for operation in OPERATIONS for outcome in API_OUTCOMES],
        )
        self.api_seconds = Family(
            Histogram(
                "api_seconds",
                "Duration of AWS API calls in seconds.",
                ("operation",),
                namespace=PREFIX,
                buckets=_API_BUCKETS,
                registry=self.registry,
            )
        )
        self.leases = Family(self._gauge("leases", "Leases as this worker sees them.", "state"), _each(LEASE_STATES))
        self.lease_events = Family(
            self._counter("lease_events", "What happened to this worker's leases.", "event"), _each(LEASE_EVENTS)
        )
        self.shards = Family(
            self._gauge("shards", "Shards of the stream with a lease row, by state.", "state"), _each(SHARD_STATES)
        )

    def _add_process_metrics(self) -> None:
        self.loop_stall_seconds = self._gauge(
            "loop_stall_seconds", "Longest delay of the main event loop in the last measuring interval, in seconds."
        )
        build = self._gauge("build_info", "Always 1; the labels name the running build.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(namespace=PREFIX, registry=self.registry)

    def shard(self, shard_id: str) -> ShardMetrics:
        """The gauges of one shard. The same object until it is closed."""
        with self._shards_lock:
            found = self._shards.get(shard_id)
            if found is None:
                found = self._shards[shard_id] = ShardMetrics(self, shard_id)
            return found

    def forget_shard(self, shard: ShardMetrics) -> bool:
        """True when ``shard`` was the current holder of its id: only then are the series its own to remove."""
        with self._shards_lock:
            if self._shards.get(shard.shard_id) is not shard:
                return False
            del self._shards[shard.shard_id]
            return True

    def observe_api(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one AWS call. ``operation`` is the API's name (``GetRecords``), ``outcome`` one of API_OUTCOMES."""
        self.api_calls(operation, outcome).inc()
        self.api_seconds(operation).observe(seconds)
        if outcome == "throttled":
            self.throttles(operation).inc()

    def totals(self) -> dict[str, int]:
        """The counters a person looks at first, since the start of the process, for the status page.

        Asks each counter alone: a look-up through the registry would collect every series of every shard.
        """
        totals = {result: int(self.records(result).value) for result in RECORD_RESULTS}
        others = {
            "retries": self.retries,
            "duplicates_skipped": self.duplicates_skipped,
            "filtered": self.filtered,
            "gaps": self.gaps,
        }
        return totals | {name: _total(counter) for name, counter in others.items()}

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics if ``accept`` (a request header) asks for it."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is none; the library does not check
            encode, content_type = choose_encoder("")
        return encode(_WithoutCreationTimes(self.registry)), content_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _shard_gauge(self, name: str, text: str) -> Gauge:
        return self._gauge(name, text, "shard")


class _WithoutCreationTimes(Collector):
    """Drops the ``_created`` sample of every counter: a third more lines, which Prometheus does not use. The library's
    own switch is global to the process, and the process may be an embedding application's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def _each(values: Iterable[str]) -> list[tuple[str, ...]]:
    return [(value,) for value in values]


def _total(counter: Counter) -> int:
    (family,) = counter.collect()
    return int(family.samples[0].value)
