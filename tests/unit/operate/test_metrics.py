"""The exposition as Prometheus reads it, against the contract's list."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from consumer.domain.outcome import HandlerFault
from consumer.operate.metrics import (
    API_OUTCOMES,
    BATCH_RESULTS,
    DEAD_LETTER_REASONS,
    ERROR_KINDS,
    GET_RECORDS_OUTCOMES,
    LEASE_EVENTS,
    LEASE_STATES,
    OPERATIONS,
    RECORD_RESULTS,
    REFUSALS,
    SHARD_STATES,
    Metrics,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"

# CONTRACT: name as it appears in the exposition, type, label names.
CONTRACT = {
    "lag_seconds": ("gauge", {"shard"}),
    "oldest_unsettled_seconds": ("gauge", {"shard"}),
    "iterator_age_seconds": ("gauge", {"shard"}),
    "retention_headroom_seconds": ("gauge", {"shard"}),
    "checkpoint_age_seconds": ("gauge", {"shard"}),
    "breaker_state": ("gauge", {"shard"}),
    "failing_seconds": ("gauge", {"shard"}),
    "hot_key_share": ("gauge", {"shard"}),
    "records_total": ("counter", {"result"}),
    "batches_total": ("counter", {"result"}),
    "handler_errors_total": ("counter", {"kind"}),
    "handler_saturation": ("gauge", set()),
    "handler_seconds": ("histogram", set()),
    "retries_total": ("counter", set()),
    "dead_letters_total": ("counter", {"reason"}),
    "dead_letters_refused_total": ("counter", {"reason"}),
    "dead_letters_waiting": ("gauge", set()),
    "dead_letter_backlog": ("gauge", set()),
    "duplicates_skipped_total": ("counter", set()),
    "filtered_total": ("counter", set()),
    "gaps_total": ("counter", set()),
    "get_records_total": ("counter", {"outcome"}),
    "throttles_total": ("counter", {"operation"}),
    "api_calls_total": ("counter", {"operation", "outcome"}),
    "leases": ("gauge", {"state"}),
    "lease_events_total": ("counter", {"event"}),
    "checkpoint_failures_total": ("counter", set()),
    "in_flight_records": ("gauge", set()),
    "buffered_bytes": ("gauge", set()),
    "retrying_keys": ("gauge", set()),
    "deferred_keys": ("gauge", set()),
    "parked_keys": ("gauge", set()),
    "paused_shards": ("gauge", set()),
    "shards": ("gauge", {"state"}),
    "loop_stall_seconds": ("gauge", set()),
    "build_info": ("gauge", {"version", "python"}),
    "config_last_reload_successful": ("gauge", set()),
    "config_last_reload_success_timestamp_seconds": ("gauge", set()),
    "credentials_expiry_seconds": ("gauge", set()),
}


def exposition(metrics: Metrics) -> str:
    return metrics.render()[0].decode()


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in parse(exposition(metrics)):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((f"stream_consumer_{name}", frozenset(labels.items())))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def measured(metrics: Metrics) -> Metrics:
    shard = metrics.shard("shardId-1")
    shard.lag_seconds = shard.oldest_unsettled_seconds = shard.iterator_age_seconds = 1
    shard.retention_headroom_seconds = shard.checkpoint_age_seconds = shard.failing_seconds = 1
    shard.breaker_state = shard.hot_key_share = 0
    metrics.handler_saturation.value = 0.5
    metrics.dead_letter_backlog.value = 2
    metrics.credentials.of("main")(2e9)
    return metrics


@pytest.mark.parametrize("name", CONTRACT)
def test_every_metric_of_the_contract_has_its_name_type_and_labels(measured: Metrics, name: str) -> None:
    kind, labels = CONTRACT[name]
    text = exposition(measured)
    assert f"# TYPE stream_consumer_{name} {kind}\n" in text
    suffix = "_count" if kind == "histogram" else ""
    of_this = [label_set for found, label_set in samples(measured) if found == f"stream_consumer_{name}{suffix}"]
    assert of_this, name
    assert {key for key, _ in of_this[0]} == labels


def test_all_names_are_prefixed_and_total_appears_once(measured: Metrics) -> None:
    names = re.findall(r"^# TYPE (\S+) ", exposition(measured), re.MULTILINE)
    assert all(name.startswith(("stream_consumer_", "process_")) for name in names)
    assert len(names) == len(set(names))
    assert "_total_total" not in exposition(measured)
    assert "_created" not in exposition(measured)


def test_every_metric_is_documented_and_the_other_way_round(measured: Metrics) -> None:
    documented = set(re.findall(r"`stream_consumer_([a-z_]+?)(?:\{[^`]*\})?`", DOCUMENT.read_text()))
    names = re.findall(r"^# TYPE (\S+) ", exposition(measured), re.MULTILINE)
    exposed = {n.removeprefix("stream_consumer_") for n in names if n.startswith("stream_consumer_")} | {"api_seconds"}
    assert documented == exposed
    assert set(CONTRACT) <= exposed
    assert set(re.findall(r"`(process_[a-z_]+)`", DOCUMENT.read_text())) == set(names) - {
        f"stream_consumer_{name}" for name in exposed
    }


def test_what_every_dashboard_knows_of_a_process_has_no_prefix_and_no_labels_of_ours(metrics: Metrics) -> None:
    exposed = samples(metrics)
    assert exposed["process_resident_memory_bytes", frozenset()] > 1e6
    assert ("process_cpu_seconds_total", frozenset()) in exposed
    assert ("process_start_time_seconds", frozenset()) in exposed


def test_application_and_table_are_on_every_series_of_the_program(metrics: Metrics) -> None:
    """One scrape job may hold the workers of several applications; their lags must not be taken together."""
    labelled = Metrics(application="projector", table="orders")
    labelled.shard("s").lag_seconds = 1
    labelled.observe_api("GetRecords", "ok", 0.01)
    whose = {("application", "projector"), ("table", "orders")}
    found = samples(labelled)
    assert value(labelled, "lag_seconds", shard="s", application="projector", table="orders") == 1
    assert [name for name, labels in found if name.startswith("stream_consumer_") and not whose <= labels] == []
    assert [name for name, labels in found if name.startswith("process_") and labels] == []
    body, _ = labelled.render("application/openmetrics-text; version=1.0.0")
    samples_of = {s.name: s.labels for family in parse_openmetrics(body.decode()) for s in family.samples}
    assert whose <= samples_of["stream_consumer_build_info"].items()


def test_a_scrape_leaves_the_labels_of_the_next_one_alone() -> None:
    labelled = Metrics(application="projector", table="orders")
    labelled.retries.inc()
    first = exposition(labelled)
    assert [line for line in first.splitlines() if "build_info" in line] == [
        line for line in exposition(labelled).splitlines() if "build_info" in line
    ]
    assert labelled.totals()["retries"] == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("records_total", RECORD_RESULTS),
        ("batches_total", BATCH_RESULTS),
        ("handler_errors_total", ERROR_KINDS),
        ("dead_letters_total", DEAD_LETTER_REASONS),
        ("dead_letters_refused_total", REFUSALS),
        ("get_records_total", GET_RECORDS_OUTCOMES),
        ("api_calls_total", API_OUTCOMES),
        ("leases", LEASE_STATES),
        ("lease_events_total", LEASE_EVENTS),
        ("shards", SHARD_STATES),
    ],
)
def test_every_value_of_a_label_is_documented(name: str, values: tuple[str, ...]) -> None:
    (row,) = (line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `stream_consumer_{name}{{"))
    assert [found for found in values if f"`{found}`" not in row] == []


def test_help_names_the_unit_of_seconds_and_bytes(metrics: Metrics) -> None:
    for name, text in re.findall(r"^# HELP (\S+) (.+)$", exposition(metrics), re.MULTILINE):
        if name.startswith("process_"):
            continue
        if "_seconds" in name:
            assert "second" in text.lower(), name
        if name.endswith("_bytes"):
            assert "bytes" in text.lower(), name


def test_known_labels_start_at_zero(metrics: Metrics) -> None:
    found = samples(metrics)

    def value(name: str, **labels: str) -> float | None:
        return found.get((f"stream_consumer_{name}", frozenset(labels.items())))

    for result in BATCH_RESULTS:
        assert value("batches_total", result=result) == 0
    for outcome in GET_RECORDS_OUTCOMES:
        assert value("get_records_total", outcome=outcome) == 0
    for event in LEASE_EVENTS:
        assert value("lease_events_total", event=event) == 0
    for state in LEASE_STATES:
        assert value("leases", state=state) == 0
    for state in SHARD_STATES:
        assert value("shards", state=state) == 0
    for operation in OPERATIONS:
        assert value("throttles_total", operation=operation) == 0
        for outcome in API_OUTCOMES:
            assert value("api_calls_total", operation=operation, outcome=outcome) == 0
    assert value("dead_letters_total", reason="RetryAttemptsExhausted") == 0
    for reason in REFUSALS:
        assert value("dead_letters_refused_total", reason=reason) == 0
    assert value("gaps_total") == 0


def test_a_reload_that_was_refused_is_seen_until_one_succeeds(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = value(metrics, "config_last_reload_success_timestamp_seconds")
    assert value(metrics, "config_last_reload_successful") == 1
    metrics.config_reloaded(successful=False)
    assert value(metrics, "config_last_reload_successful") == 0
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == started
    monkeypatch.setattr(time, "time", lambda: 5e9)
    metrics.config_reloaded(successful=True)
    assert value(metrics, "config_last_reload_successful") == 1
    assert value(metrics, "config_last_reload_success_timestamp_seconds") == 5e9


def test_every_kind_of_fault_can_be_counted(metrics: Metrics) -> None:
    assert set(ERROR_KINDS) == set(get_args(get_type_hints(HandlerFault)["kind"]))
    assert [value(metrics, "handler_errors_total", kind=kind) for kind in ERROR_KINDS] == [0] * len(ERROR_KINDS)


def test_counting(metrics: Metrics) -> None:
    metrics.records("handled").inc(3)
    metrics.records("dead_lettered").inc(2)
    metrics.dead_letters("RecordAgeExceeded").inc()
    metrics.handler_seconds.observe(0.02)
    assert value(metrics, "records_total", result="handled") == 3
    assert value(metrics, "records_total", result="dead_lettered") == 2
    assert value(metrics, "dead_letters_total", reason="RecordAgeExceeded") == 1
    assert value(metrics, "handler_seconds_bucket", le="0.025") == 1
    assert value(metrics, "build_info", **_build(metrics)) == 1


def test_the_histogram_of_handler_calls_is_cumulative_and_bounds_belong_to_their_bucket(metrics: Metrics) -> None:
    for seconds in (0.0005, 0.001, 0.003, 1, 1.5, 1000):
        metrics.handler_seconds.observe(seconds)
    for bound, count in {"0.001": 2, "0.005": 3, "0.5": 3, "1.0": 4, "2.5": 5, "900.0": 5, "+Inf": 6}.items():
        assert value(metrics, "handler_seconds_bucket", le=bound) == count, bound
    assert value(metrics, "handler_seconds_count") == 6
    assert value(metrics, "handler_seconds_sum") == pytest.approx(1002.5045)


def test_gauges_of_the_hot_path_go_both_ways(metrics: Metrics) -> None:
    metrics.in_flight_records.inc(5)
    metrics.in_flight_records.dec(2)
    assert value(metrics, "in_flight_records") == 3


def test_totals_for_the_status_page(metrics: Metrics) -> None:
    metrics.records("handled").inc(7)
    metrics.gaps.inc()
    totals = metrics.totals()
    assert list(totals)[:2] == ["handled", "dead_lettered"]
    assert (totals["handled"], totals["gaps"], totals["retries"]) == (7, 1, 0)


def _build(metrics: Metrics) -> dict[str, str]:
    (labels,) = [dict(labels) for name, labels in samples(metrics) if name == "stream_consumer_build_info"]
    return labels


def test_a_shards_series_appear_with_the_first_value_and_go_with_the_shard(metrics: Metrics) -> None:
    shard = metrics.shard("shardId-7")
    assert "shardId-7" not in exposition(metrics), "a 0 that was not measured would raise alerts"
    assert metrics.shard("shardId-7") is shard
    shard.lag_seconds = 4
    shard.retention_headroom_seconds = 80000
    assert value(metrics, "lag_seconds", shard="shardId-7") == 4
    assert value(metrics, "iterator_age_seconds", shard="shardId-7") is None

    metrics.forget_shard("shardId-7")
    metrics.forget_shard("shardId-7")
    shard.lag_seconds = 9
    shard.checkpoint_age_seconds = 9
    assert "shardId-7" not in exposition(metrics)


def test_a_shard_that_comes_back_gets_no_values_of_its_former_holder(metrics: Metrics) -> None:
    before = metrics.shard("s")
    before.lag_seconds = 1
    metrics.forget_shard("s")
    again = metrics.shard("s")
    assert value(metrics, "lag_seconds", shard="s") is None
    again.lag_seconds = 2
    before.lag_seconds = 5
    assert value(metrics, "lag_seconds", shard="s") == 2


def test_many_shards_over_time_leave_nothing_behind(metrics: Metrics) -> None:
    size = len(exposition(metrics).splitlines())
    for number in range(300):
        shard = metrics.shard(f"shardId-{number}")
        shard.lag_seconds = number
        metrics.forget_shard(f"shardId-{number}")
    assert len(exposition(metrics).splitlines()) == size


def test_api_calls(metrics: Metrics) -> None:
    metrics.observe_api("GetRecords", "ok", 0.01)
    metrics.observe_api("GetRecords", "throttled", 0.02)
    metrics.observe_api("SendMessage", "throttled", 0.02)
    assert value(metrics, "api_calls_total", operation="GetRecords", outcome="ok") == 1
    assert value(metrics, "throttles_total", operation="GetRecords") == 1
    assert value(metrics, "throttles_total", operation="SendMessage") == 1
    assert value(metrics, "api_seconds_count", operation="GetRecords") == 2


def test_two_workers_in_one_process_do_not_share_numbers(metrics: Metrics) -> None:
    other = Metrics()
    metrics.gaps.inc()
    assert value(other, "gaps_total") == 0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text; version=1.0.0, text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("application/openmetrics-text; version=evil", "text/plain; version=0.0.4"),
        ("\x00;;;,,,=", "text/plain; version=0.0.4"),
    ],
)
def test_content_negotiation(metrics: Metrics, accept: str, content_type: str) -> None:
    body, found = metrics.render(accept)
    assert found.startswith(content_type)
    if "openmetrics" in content_type:
        assert {f.name for f in parse_openmetrics(body.decode())} >= {"stream_consumer_records"}


def test_rendering_while_shards_come_and_go(metrics: Metrics) -> None:
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            shard = metrics.shard(f"s{number % 10}")
            shard.lag_seconds = number
            metrics.forget_shard(f"s{number % 10}")
            number += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(50):
            assert list(parse(exposition(metrics)))
    finally:
        stop.set()
        thread.join()
