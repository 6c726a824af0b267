"""Writes the Grafana dashboard: ``python deploy/grafana/generate.py > deploy/grafana/stream-consumer.json``.

One line a panel: its title, unit, queries and what to read out of it. Import the JSON into Grafana 10 or newer, or let
it be provisioned; the data source is chosen there. Tests make it again, have promtool read every query, look every
metric up in docs/metrics.md, and ask a real Prometheus that scrapes a real worker.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

UID = "stream-consumer"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
THIS = 'application=~"$application",table=~"$table"'
WIDTH, HEIGHT = 24, 8


class Query(NamedTuple):
    """``expr`` with ``{}`` where the labels of the application belong; ``legend`` as Grafana has it."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One picture. ``unit`` is Grafana's name of it; ``red_from`` colours a number of the headline."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    says: str
    red_from: float | None = None
    is_number: bool = False


def one(expr: str, legend: str = "{{application}}") -> tuple[Query, ...]:
    return (Query(expr, legend),)


def rate(name: str, by: str = "") -> str:
    group = f"application, {by}" if by else "application"
    return f"sum by ({group}) (rate(stream_consumer_{name}{{THIS}}[$__rate_interval]))"


def worst(name: str, by: str = "", how: str = "max") -> str:
    group = f"application, {by}" if by else "application"
    return f"{how} by ({group}) (stream_consumer_{name}{{THIS}})"


def number(title: str, unit: str, expr: str, says: str, red_from: float) -> Panel:
    return Panel(title, unit, one(expr), says, red_from, is_number=True)


def quantile(share: float) -> str:
    buckets = "sum by (application, le) (rate(stream_consumer_handler_seconds_bucket{THIS}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


OF_OURS = "and on (job, instance) stream_consumer_build_info{THIS}"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Headline": (
        number("Lag", "s", worst("lag_seconds"), "Age of the oldest unsettled record, read or not.", 300),
        number(
            "Used of the retention",
            "percentunit",
            "max by (application) (stream_consumer_lag_seconds{THIS} / "
            "(stream_consumer_lag_seconds{THIS} + stream_consumer_retention_headroom_seconds{THIS}))",
            "At 100 % records are lost.",
            0.5,
        ),
        number(
            "Dead letters in the last hour",
            "none",
            "sum by (application) (increase(stream_consumer_dead_letters_total{THIS}[1h]))",
            "Records that were given up; stream-consumer dlq list shows them.",
            1,
        ),
        number(
            "Dead letters refused",
            "none",
            worst("dead_letters_waiting", how="sum"),
            "Their destination does not take them; their keys wait.",
            1,
        ),
        number(
            "Dead letters to redrive",
            "none",
            worst("dead_letter_backlog"),
            "Messages in their queue, about; stream-consumer dlq list shows them. Nothing for S3 and SNS.",
            1,
        ),
        number("Keys parked", "none", worst("parked_keys"), "Until stream-consumer dlq redrive frees them.", 1),
        number(
            "Shards stopped or without owner",
            "none",
            "max by (application) (sum by (application, instance) "
            '(stream_consumer_shards{THIS,state=~"halted|quarantined"}))'
            ' + min by (application) (stream_consumer_leases{THIS,state="free"})',
            "They wait for a decision, or for a worker.",
            1,
        ),
    ),
    "Lag": (
        Panel("Lag by shard", "s", one(worst("lag_seconds", "shard"), "{{shard}}"), "The larger one of the next two."),
        Panel(
            "Oldest unsettled record",
            "s",
            one(worst("oldest_unsettled_seconds", "shard"), "{{shard}}"),
            "A line that grows while the next picture stays low is a key that fails.",
        ),
        Panel(
            "How far reading is behind",
            "s",
            one(worst("iterator_age_seconds", "shard"), "{{shard}}"),
            "What more workers or processes help.",
        ),
        Panel(
            "Time to loss",
            "s",
            one(worst("retention_headroom_seconds", "shard", "min"), "{{shard}}"),
            "Until the oldest unsettled record is trimmed.",
        ),
    ),
    "Throughput": (
        Panel("Records", "ops", one(rate("records_total", "result"), "{{result}}"), "What became of them."),
        Panel(
            "Not given to the handler",
            "ops",
            (Query(rate("filtered_total"), "filtered"), Query(rate("duplicates_skipped_total"), "known already")),
            "",
        ),
        Panel(
            "Records held",
            "none",
            one(worst("in_flight_records", "instance", "sum"), "{{instance}}"),
            "Read and not settled.",
        ),
        Panel("Buffer", "bytes", one(worst("buffered_bytes", "instance", "sum"), "{{instance}}"), "Of limits.buffer."),
    ),
    "Handler": (
        Panel("Calls", "ops", one(rate("batches_total", "result"), "{{result}}"), ""),
        Panel(
            "Duration of calls",
            "s",
            tuple(Query(quantile(share), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
            "",
        ),
        Panel(
            "Saturation",
            "percentunit",
            one(worst("handler_saturation", "instance"), "{{instance}}"),
            "Share of the places taken. Near 100 % with lag: the handler is the limit.",
        ),
        Panel("Faults", "ops", one(rate("handler_errors_total", "kind"), "{{kind}}"), ""),
        Panel(
            "Keys that fail",
            "none",
            (
                Query(worst("retrying_keys", how="sum"), "retrying"),
                Query(worst("deferred_keys", how="sum"), "deferred"),
                Query(worst("parked_keys"), "parked"),
            ),
            "",
        ),
        Panel(
            "Longest failing key",
            "s",
            one(worst("failing_seconds", "shard"), "{{shard}}"),
            "For how long a key has failed without getting a record through.",
        ),
        Panel("Retries", "ops", one(rate("retries_total"), "retries"), ""),
        Panel(
            "Share of the hottest key",
            "percentunit",
            one(worst("hot_key_share", "shard"), "{{shard}}"),
            "A key is handled one batch at a time: above half it is the limit of its shard.",
        ),
        Panel(
            "Breaker, and paused shards",
            "none",
            (
                Query(worst("breaker_state", "shard"), "{{shard}} (1 probing, 2 open)"),
                Query(worst("paused_shards", how="sum"), "paused shards"),
            ),
            "",
        ),
    ),
    "Dead letters": (
        Panel("Sent", "ops", one(rate("dead_letters_total", "reason"), "{{reason}}"), ""),
        Panel("Refused", "ops", one(rate("dead_letters_refused_total", "reason"), "{{reason}}"), "And sent again."),
        Panel("Oldest parked key", "s", one(worst("oldest_parked_seconds")), "A queue forgets letters after 14 days."),
        Panel("Gaps", "none", one("sum by (application) (increase(stream_consumer_gaps_total{THIS}[1h]))"), "Loss."),
    ),
    "AWS": (
        Panel(
            "GetRecords",
            "ops",
            one(rate("get_records_total", "outcome"), "{{outcome}}"),
            "Calls are billed, also empty ones.",
        ),
        Panel("Calls", "ops", one(rate("api_calls_total", "operation"), "{{operation}}"), ""),
        Panel(
            "Calls that failed",
            "ops",
            one(
                "sum by (application, operation, outcome) "
                '(rate(stream_consumer_api_calls_total{THIS,outcome!="ok"}[$__rate_interval])) > 0',
                "{{operation}} {{outcome}}",
            ),
            "",
        ),
        Panel("Throttles", "ops", one(rate("throttles_total", "operation"), "{{operation}}"), ""),
        Panel(
            "Mean duration of calls",
            "s",
            one(
                "sum by (application, operation) (rate(stream_consumer_api_seconds_sum{THIS}[$__rate_interval])) / "
                "sum by (application, operation) (rate(stream_consumer_api_seconds_count{THIS}[$__rate_interval]))",
                "{{operation}}",
            ),
            "",
        ),
        Panel(
            "Credentials end in",
            "s",
            one(worst("credentials_expiry_seconds", "instance", "min"), "{{instance}}"),
            "Absent for keys without an end.",
        ),
    ),
    "Fleet": (
        Panel(
            "Workers",
            "none",
            one("count by (application, version) (stream_consumer_build_info{THIS})", "{{version}}"),
            "Two versions: a deploy.",
        ),
        Panel(
            "Shards of each worker",
            "none",
            one('sum by (application, instance) (stream_consumer_leases{THIS,state="owned"})', "{{instance}}"),
            "",
        ),
        Panel("Shards", "none", one(worst("shards", "state"), "{{state}}"), ""),
        Panel(
            "Leases that moved",
            "none",
            one(
                "sum by (application, event) (increase(stream_consumer_lease_events_total{THIS}[$__rate_interval]))",
                "{{event}}",
            ),
            "Without deploys they do not.",
        ),
        Panel(
            "Checkpoint age", "s", one(worst("checkpoint_age_seconds", "shard"), "{{shard}}"), "Settled, not durable."
        ),
        Panel("Checkpoints that failed", "ops", one(rate("checkpoint_failures_total")), "Each is repeated."),
    ),
    "Process": (
        Panel(
            "CPU",
            "percentunit",
            one(f"rate(process_cpu_seconds_total[$__rate_interval]) {OF_OURS}", "{{instance}}"),
            "Of one core; without the worker processes.",
        ),
        Panel("Memory", "bytes", one(f"process_resident_memory_bytes {OF_OURS}", "{{instance}}"), ""),
        Panel(
            "Stalls of the event loop",
            "s",
            one(worst("loop_stall_seconds", "instance"), "{{instance}}"),
            "Large ones: code with isolation: inline blocks it.",
        ),
        Panel(
            "Clock",
            "s",
            one(worst("clock_ahead_seconds", "instance"), "{{instance}}"),
            "Ahead of AWS. Beyond five minutes every call is refused.",
        ),
        Panel("Open files", "none", one(f"process_open_fds {OF_OURS}", "{{instance}}"), ""),
        Panel(
            "Configuration in force",
            "none",
            one(worst("config_last_reload_successful", "instance", "min"), "{{instance}}"),
            "0: the file was refused at its last reload.",
        ),
    ),
}


def expression(query: Query) -> str:
    return query.expr.replace("{THIS", "{" + THIS)


def _panel(panel: Panel, number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "color": {"mode": "palette-classic"}}
    made: dict[str, Any] = {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": [
            {
                "datasource": SOURCE,
                "refId": chr(ord("A") + place),
                "expr": expression(query),
                "legendFormat": query.legend,
                "instant": panel.is_number,
                "range": not panel.is_number,
            }
            for place, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
    if panel.is_number:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red_from}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}
        made |= {"type": "stat", "options": {"colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}}}
    elif panel.title in ("Clock", "Time to loss"):
        del defaults["min"]  # below 0 it means something
    return made


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y += 1
        width, height = (WIDTH // len(row), 4) if row[0].is_number else (WIDTH // 2, HEIGHT)
        x = 0
        for panel in row:
            panels.append(_panel(panel, len(panels) + 1, x, y, width, height))
            x += width
            if x + width > WIDTH:
                x, y = 0, y + height
        y += height if x else 0
    return {
        "uid": UID,
        "title": "stream-consumer",
        "tags": ["stream-consumer", "dynamodb"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                },
                _variable("application", "label_values(stream_consumer_build_info, application)"),
                _variable("table", 'label_values(stream_consumer_build_info{application=~"$application"}, table)'),
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
