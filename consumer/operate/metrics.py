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
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from consumer import __version__
from consumer.operate.collectors import CredentialsEnd, OptionalGauge, ShardGauges, ShardMetrics
from consumer.operate.counters import PREFIX, Durations, PlainCounters, PlainNumber

RECORD_RESULTS: Final = ("handled", "dead_lettered", "before_start", "superseded")
BATCH_RESULTS: Final = ("ok", "partial", "failed", "not_invoked")
DEAD_LETTER_REASONS: Final = ("RetryAttemptsExhausted", "RecordAgeExceeded", "KeyParked")
REFUSALS: Final = ("throttled", "denied", "missing", "misconfigured", "unfit", "lease_in_doubt", "error")
GET_RECORDS_OUTCOMES: Final = ("data", "empty", "throttled", "expired", "trimmed", "error")
LEASE_STATES: Final = ("owned", "target", "free", "total")
LEASE_EVENTS: Final = ("acquired", "received", "released", "handed_over", "finished", "lost", "peer_fenced")
ERROR_KINDS: Final = ("raised", "timeout", "crashed", "bad_response", "reported", "cancelled")
BREAKER_STATES: Final = ("closed", "probing", "open")  # breaker_state is the place in this list
SHARD_STATES: Final = ("waiting", "open", "deferred", "draining", "done", "halted", "quarantined")
API_OUTCOMES: Final = (
    "ok",
    "throttled",
    "denied",
    "condition_failed",
    "conflict",
    "missing",
    "expired",
    "trimmed",
    "strange",
    "timeout",
    "error",
)
OPERATIONS: Final = (
    "DescribeTable",
    "DescribeStream",
    "DescribeStreamSummary",
    "ListShards",
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
    """A metric with labels, whose children are looked up once: ``metrics.leases("owned").set(n)``. ``labels`` are the
    values known in advance, by label."""

    __slots__ = ("_children", "_parent")

    def __init__(self, parent: _Child, labels: Mapping[str, Iterable[str]]) -> None:
        self._parent: _Child = parent
        self._children: dict[tuple[str, ...], _Child] = {}
        for values in product(*labels.values()):
            self(*values)

    def __call__(self, *values: str) -> _Child:
        child = self._children.get(values)
        if child is None:
            # Two threads may both get here; labels() gives them the same child.
            child = self._children[values] = self._parent.labels(*values)
        return child

    def counted(self, label: str) -> dict[str, float]:
        """The sums of a counter's children by one of its labels. Not for often: it makes samples."""
        sums: dict[str, float] = {}
        for family in self._parent.collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    sums[sample.labels[label]] = sums.get(sample.labels[label], 0.0) + sample.value
        return sums


class Metrics:
    """All metrics of one worker process. Thread-safe: updated by the main loop, rendered by the control thread.

    ``labels`` are put on every series of this program: ``application`` and ``table``, because one scrape job may hold
    the workers of several, which must not be added up.
    """

    def __init__(self, **labels: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = labels
        self._shards: dict[str, ShardMetrics] = {}
        self.registry.register(ShardGauges(self._shards))
        self._add_record_metrics()
        self._add_aws_metrics()
        self._add_process_metrics()

    def _add_record_metrics(self) -> None:
        self.records = PlainCounters(f"{PREFIX}_records", "Records by what became of them.", "result", RECORD_RESULTS)
        self.batches = PlainCounters(f"{PREFIX}_batches", "Handler calls by outcome.", "result", BATCH_RESULTS)
        self.handler_errors = PlainCounters(
            f"{PREFIX}_handler_errors", "Handler calls with a fault, by its kind.", "kind", ERROR_KINDS
        )
        self.handler_seconds = Durations(
            f"{PREFIX}_handler_seconds", "Duration of handler calls in seconds.", _HANDLER_BUCKETS
        )
        self.in_flight_records = PlainNumber(
            GaugeMetricFamily, f"{PREFIX}_in_flight_records", "Records read and not yet settled."
        )
        for collector in (
            self.records,
            self.batches,
            self.handler_errors,
            self.handler_seconds,
            self.in_flight_records,
        ):
            self.registry.register(collector)
        self.handler_saturation = OptionalGauge(
            f"{PREFIX}_handler_saturation",
            "Share of the handler's places taken, 0 to 1, lately; absent when it takes any number of calls at once.",
        )
        self.registry.register(self.handler_saturation)
        self.retries = self._total("retries", "Handler calls that were repeats after a failure.")
        self.dead_letters = self._counters(
            "dead_letters",
            "Dead letters made durable (or discarded with a trace), by reason.",
            reason=DEAD_LETTER_REASONS,
        )
        self.dead_letters_refused = self._counters(
            "dead_letters_refused", "Times that a dead letter was not taken by its destination.", reason=REFUSALS
        )
        self.dead_letters_waiting = PlainNumber(
            GaugeMetricFamily, f"{PREFIX}_dead_letters_waiting", "Dead letters refused so far, and tried again."
        )
        self.registry.register(self.dead_letters_waiting)
        self.dead_letter_backlog = OptionalGauge(
            f"{PREFIX}_dead_letter_backlog",
            "Dead letters that wait at the destination, about; absent while that is not known.",
        )
        self.registry.register(self.dead_letter_backlog)
        self.duplicates_skipped = self._total(
            "duplicates_skipped", "Records that came again and were recognised, so not given to the handler."
        )
        self.version_ties = self._total(
            "version_ties", "Changes through Kinesis of which neither time nor images tell which of two is newer."
        )
        self.foreign_subrecords = self._total(
            "foreign_subrecords", "Sub-records of KPL aggregates that by their hash key belong into another shard."
        )
        self.filtered = self._total("filtered", "Records that no filter pattern matched.")
        self.gaps = self._total("gaps", "Times that records were trimmed by the service before they were read.")
        self.buffered_bytes = self._gauge("buffered_bytes", "Bytes of records held in memory.")
        self.retrying_keys = self._gauge(
            "retrying_keys", "Keys that wait for a retry of their record, or for its dead letter."
        )
        self.deferred_keys = self._gauge(
            "deferred_keys", "Keys whose records wait outside of memory, to be read again once they get through."
        )
        self.parked_keys = self._gauge(
            "parked_keys", "Keys of the application that are parked, as this worker knows it: the same in all of them."
        )
        self.oldest_parked_seconds = self._gauge(
            "oldest_parked_seconds", "Age in seconds of the oldest key that is parked; 0 without one."
        )
        self.paused_shards = self._gauge(
            "paused_shards", "Owned shards that start nothing new, because too many of their keys fail."
        )

    def _add_aws_metrics(self) -> None:
        self.get_records = self._counters(
            "get_records", "GetRecords calls by what they brought.", outcome=GET_RECORDS_OUTCOMES
        )
        self.throttles = self._counters(
            "throttles", "Calls that the service refused because of their rate.", operation=OPERATIONS
        )
        self.api_calls = self._counters(
            "api_calls", "AWS API calls by operation and outcome.", operation=OPERATIONS, outcome=API_OUTCOMES
        )
        self.api_seconds = Family(
            Histogram(
                "api_seconds",
                "Duration of AWS API calls in seconds.",
                ("operation",),
                namespace=PREFIX,
                buckets=_API_BUCKETS,
                registry=self.registry,
            ),
            {"operation": ()},
        )
        self.credentials = CredentialsEnd()
        self.registry.register(self.credentials)
        self.checkpoint_failures = self._total(
            "checkpoint_failures", "Writes of a frontier that failed, and were repeated."
        )
        self.leases = self._gauges("leases", "Leases as this worker sees them.", state=LEASE_STATES)
        self.lease_events = self._counters("lease_events", "What happened to this worker's leases.", event=LEASE_EVENTS)
        self.shards = self._gauges("shards", "Shards of the stream with a lease row, by state.", state=SHARD_STATES)

    def _add_process_metrics(self) -> None:
        self.loop_stall_seconds = self._gauge(
            "loop_stall_seconds", "Longest delay of the main event loop in the last measuring interval, in seconds."
        )
        self.clock_ahead_seconds = self._gauge(
            "clock_ahead_seconds", "Seconds by which this machine's clock is ahead of the one of AWS."
        )
        self._reload_successful = self._gauge(
            "config_last_reload_successful", "Whether the configuration file could be taken over when it was last read."
        )
        self._reload_success_at = self._gauge(
            "config_last_reload_success_timestamp_seconds",
            "Seconds since 1970 at which the configuration file was last taken over: at the start, or by a reload.",
        )
        self.config_reloaded(successful=True)
        build = self._gauges("build_info", "Always 1; the labels name the running build.", version=(), python=())
        build(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)  # its names have no prefix, so that every dashboard knows them

    def config_reloaded(self, *, successful: bool) -> None:
        """The configuration file was read; it counts from now on, or was refused."""
        self._reload_successful.set(successful)
        if successful:
            self._reload_success_at.set_to_current_time()

    def shard(self, shard_id: str) -> ShardMetrics:
        """The gauges of one shard. The same object until the shard is forgotten."""
        return self._shards.setdefault(shard_id, ShardMetrics())

    def forget_shard(self, shard_id: str) -> None:
        """Remove the series of a shard that is finished or given away: DynamoDB replaces shards about every four hours,
        so series that stay would grow without bound. Idempotent."""
        self._shards.pop(shard_id, None)

    def observe_api(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one AWS call. ``operation`` is the API's name (``GetRecords``), ``outcome`` one of API_OUTCOMES."""
        self.api_calls(operation, outcome).inc()
        self.api_seconds(operation).observe(seconds)
        if outcome == "throttled":
            self.throttles(operation).inc()

    def totals(self) -> dict[str, int]:
        """The counters a person looks at first, since the start of the process, for the status page."""
        totals = {result: self.records(result) for result in RECORD_RESULTS} | {
            "retries": self.retries,
            "duplicates_skipped": self.duplicates_skipped,
            "filtered": self.filtered,
            "gaps": self.gaps,
        }
        return {name: int(counter.value) for name, counter in totals.items()}

    def families(self) -> Iterator[Metric]:
        """Everything as it stands, with ``application`` and ``table``. Without the ``_created`` sample of every
        counter: a third more lines, which Prometheus does not use. The library's own switch is global to the process,
        which may hold metrics of other code, too."""
        for family in self.registry.collect():
            own = self._labels if family.name.startswith(PREFIX) else {}
            family.samples = [
                sample._replace(labels=own | sample.labels)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics if ``accept`` (a request header) asks for it."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is none; the library does not check
            encode, content_type = choose_encoder("")
        return encode(_Families(self.families)), content_type

    def _total(self, name: str, text: str) -> PlainNumber:
        counter = PlainNumber(CounterMetricFamily, f"{PREFIX}_{name}", text)
        self.registry.register(counter)
        return counter

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, namespace=PREFIX, registry=self.registry)

    def _counters(self, name: str, text: str, **labels: Iterable[str]) -> Family[Counter]:
        return Family(Counter(name, text, labels, namespace=PREFIX, registry=self.registry), labels)

    def _gauges(self, name: str, text: str, **labels: Iterable[str]) -> Family[Gauge]:
        return Family(Gauge(name, text, labels, namespace=PREFIX, registry=self.registry), labels)


class _Families(Collector):
    """What the encoders take for a registry."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()
