"""Lambda's event source mappings, as people have them saved, become configurations that behave the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.found import NotAMapping
from consumer.cli.lambda_import.intrinsics import Intrinsic
from consumer.settings.load import load_settings
from tests.unit.cli.lambda_mappings import (
    ALWAYS,
    ENVIRON,
    FROM_CLI,
    FUNCTION,
    LIKE_LAMBDA,
    QUEUE,
    STREAM,
    converted,
    merged,
    options,
    settings_of,
)

NO_DESTINATION = {"on_failure": {"destination": "${ON_FAILURE_DESTINATION}", "format": "full", "order": "continue"}}
VALUES = {
    "ON_FAILURE_DESTINATION": QUEUE,
    "FILTER_CRITERIA": '[{"eventName": ["INSERT"]}]',
    "FUNCTION_RESPONSE_TYPES": "true",
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "as created": ({}, {}, set()),
    "batch": (
        {"BatchSize": 500, "MaximumBatchingWindowInSeconds": 90, "ParallelizationFactor": 10},
        {
            "batch": {"batch_size": 500, "batching_window": "90s", "parallelization_factor": 10, "order": "key"},
            "handler": {"processes": 10},
        },
        set(),
    ),
    "tumbling window": ({"TumblingWindowInSeconds": 900}, {"batch": {"tumbling_window": "15m"}}, set()),
    "partial responses": (
        {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
        {"batch": {"report_batch_item_failures": True}},
        set(),
    ),
    "retries": (
        {"MaximumRetryAttempts": 0, "MaximumRecordAgeInSeconds": 60, "BisectBatchOnFunctionError": True},
        {"retry": {"max_retry_attempts": 0, "max_record_age": "1m", "bisect_on_error": True}},
        set(),
    ),
    "a week": ({"MaximumRecordAgeInSeconds": 604800}, {"retry": {"max_record_age": "168h"}}, set()),
    "texts of a template": (
        {"BatchSize": "7", "BisectBatchOnFunctionError": "true", "MaximumRetryAttempts": "-1"},
        {"batch": {"batch_size": 7}, "retry": {"bisect_on_error": True}},
        set(),
    ),
    "latest": ({"StartingPosition": "LATEST"}, {"source": {"starting_position": "latest"}}, set()),
    "a queue": (
        {"DestinationConfig": {"OnFailure": {"Destination": QUEUE}}},
        {"on_failure": {"destination": QUEUE, "format": "full", "order": "continue"}},
        set(),
    ),
    "a topic": (
        {"DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE.replace("sqs", "sns")}}},
        {"on_failure": {"destination": QUEUE.replace("sqs", "sns"), "format": "full", "order": "continue"}},
        set(),
    ),
    "a bucket": (
        {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::failed-orders"}}},
        {"on_failure": {"destination": "s3://failed-orders", "format": "lambda", "order": "continue"}},
        set(),
    ),
    "a FIFO queue": (
        {"DestinationConfig": {"OnFailure": {"Destination": f"{QUEUE}.fifo"}}},
        NO_DESTINATION,
        {"DestinationConfig.OnFailure.Destination", "OnFailureDestination"},
    ),
    "a Kafka topic": (
        {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}, "OnSuccess": {"Destination": QUEUE}}},
        NO_DESTINATION,
        {"DestinationConfig.OnFailure.Destination", "DestinationConfig.OnSuccess", "OnFailureDestination"},
    ),
    "a destination that SAM makes": (
        {"DestinationConfig": {"OnFailure": {"Type": "SQS"}}},
        NO_DESTINATION,
        {"OnFailureDestination"},
    ),
    "filters": (
        {
            "FilterCriteria": {
                "Filters": [
                    {"Pattern": '{"eventName": ["INSERT"], "eventName": ["REMOVE"]}'},
                    {"Pattern": '{"dynamodb": {"NewImage": {"a b": {"S": [{"prefix": "x: #"}, null, "on", "1e3"]}}}}'},
                    {"Pattern": '{"dynamodb": {"SizeBytes": [{"numeric": [">", 1.5, "<=", 100]}, true]}}'},
                ]
            }
        },
        {
            "filters": [
                {"eventName": ["REMOVE"]},
                {"dynamodb": {"NewImage": {"a b": {"S": [{"prefix": "x: #"}, None, "on", "1e3"]}}}},
                {"dynamodb": {"SizeBytes": [{"numeric": [">", 1.5, "<=", 100]}, True]}},
            ]
        },
        set(),
    ),
    "no filters": ({"FilterCriteria": {"Filters": []}}, {}, set()),
    "broken filters": (
        {"FilterCriteria": {"Filters": [{"Pattern": "{"}, {"Pattern": "[]"}, {"Pattern": '{"a": [NaN]}'}, {}]}},
        {"filters": "${FILTER_CRITERIA}"},
        {"FilterCriteria", *(f"FilterCriteria.Filters[{index}].Pattern" for index in range(4))},
    ),
    "a disabled one": ({"State": "Disabled"}, {}, {"State"}),
    "a disabled one of a template": ({"Enabled": False}, {}, {"Enabled"}),
    "no counterpart": (
        {
            "KMSKeyArn": "arn:aws:kms:eu-west-1:1:key/x",
            "MetricsConfig": {"Metrics": ["EventCount"]},
            "Tags": {"team": "orders"},
            "Topics": [],
            "Surprise": 1,
        },
        {},
        {"KMSKeyArn", "MetricsConfig", "Tags", "Surprise"},
    ),
    "values Lambda refuses": (
        {
            "BatchSize": 0,
            "ParallelizationFactor": 11,
            "MaximumRecordAgeInSeconds": 59,
            "MaximumRetryAttempts": True,
            "BisectBatchOnFunctionError": "maybe",
            "FunctionResponseTypes": ["Other"],
            "StartingPosition": "NEWEST",
        },
        {"handler": {"processes": 10}, "batch": {"report_batch_item_failures": "${FUNCTION_RESPONSE_TYPES}"}},
        {
            "BatchSize",
            "ParallelizationFactor",
            "MaximumRecordAgeInSeconds",
            "MaximumRetryAttempts",
            "BisectBatchOnFunctionError",
            "FunctionResponseTypes",
        },
    ),
    "an alias": ({"FunctionArn": f"{FUNCTION}:live"}, {}, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_documents_of_the_cli(name: str, tmp_path: Path) -> None:
    changes, expected, notes = CASES[name]
    imported = converted(FROM_CLI | changes, target="app:handler")
    wanted = merged(LIKE_LAMBDA, expected)
    assert yaml.safe_load(imported.yaml) == wanted
    assert options(imported) == notes | ALWAYS
    assert all(note.reason for note in imported.notes)
    settings = settings_of(imported, tmp_path, **VALUES)
    file = tmp_path / "wanted.yaml"
    file.write_text(json.dumps(wanted))
    assert settings == load_settings(file, ENVIRON | VALUES)


def test_what_is_not_set_is_written_as_lambda_has_it(tmp_path: Path) -> None:
    imported = converted({"EventSourceArn": STREAM, "FunctionName": "orders-projector"}, target="app:handler")
    assert yaml.safe_load(imported.yaml) == LIKE_LAMBDA
    settings_of(imported, tmp_path)


def test_every_value_is_explained() -> None:
    full = FROM_CLI | CASES["filters"][0] | CASES["a queue"][0]
    for line in converted(full, target="app:handler").yaml.splitlines():
        is_section = line.endswith(":") and not line.startswith(" ")
        assert is_section or "#" in line or line.startswith("  - ")


def test_a_mapping_that_uses_everything_starts(tmp_path: Path) -> None:
    """Through the daemon's own loader, which refuses what is not built: no option of a DynamoDB mapping is among it."""
    options_of_batches = FROM_CLI | CASES["batch"][0] | CASES["partial responses"][0] | CASES["retries"][0]
    everything = options_of_batches | CASES["filters"][0] | CASES["a bucket"][0]
    windows = {"TumblingWindowInSeconds": 900, "ParallelizationFactor": 1, "FilterCriteria": {"Filters": []}}
    for changes in ({}, CASES["a queue"][0], CASES["a topic"][0], windows):
        file = tmp_path / "imported.yaml"
        file.write_text(converted(everything | changes, target="app:handler").yaml)
        settings = load_settings(file, ENVIRON)
        assert settings.batch.batch_size == 500
        assert settings.batch.batching_window == 90
        assert settings.batch.tumbling_window == (900 if changes is windows else 0)
        assert settings.batch.report_batch_item_failures is settings.retry.bisect_on_error is True
        assert settings.on_failure.format == ("full" if settings.on_failure.destination_kind != "s3" else "lambda")


TIMES = [
    ("2026-09-17T15:26:53.746000+02:00", "2026-09-17T13:26:53.746000Z"),
    ("2026-09-17T13:26:53", "2026-09-17T13:26:53Z"),
    (1789651613, "2026-09-17T13:26:53Z"),
    ("1789651613", "2026-09-17T13:26:53Z"),
    (1789651613.5, "2026-09-17T13:26:53.500000Z"),
    ("soon", "trim_horizon"),
    (None, "trim_horizon"),
    (1e30, "trim_horizon"),
    (float("nan"), "trim_horizon"),
]


@pytest.mark.parametrize(("moment", "written"), TIMES)
def test_starting_at_a_time(moment: Any, written: str, tmp_path: Path) -> None:
    document = FROM_CLI | {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": moment}
    imported = converted(document, target="app:handler")
    assert yaml.safe_load(imported.yaml)["source"]["starting_position"] == written
    assert ("StartingPositionTimestamp" in options(imported)) == (written == "trim_horizon")
    settings_of(imported, tmp_path)


@pytest.mark.parametrize(
    "source",
    [{"EventSourceArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"}, {"EventSourceArn": 5}],
)
def test_sources_that_are_no_stream(source: dict[str, Any], tmp_path: Path) -> None:
    imported = converted(FROM_CLI | source, target="app:handler")
    assert "EventSourceArn" in options(imported)
    assert yaml.safe_load(imported.yaml)["source"]["stream_arn"] == "${EVENT_SOURCE_ARN}"
    assert settings_of(imported, tmp_path, EVENT_SOURCE_ARN=STREAM).source.stream_arn == STREAM


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"EventSourceArn": QUEUE}, "SQS"),
        ({"EventSourceArn": "arn:aws:kafka:eu-west-1:123456789012:cluster/c/1", "Topics": ["orders"]}, "Kafka"),
        ({"EventSourceArn": None, "SelfManagedEventSource": {"Endpoints": {}}, "Topics": ["orders"]}, "Kafka"),
    ],
)
def test_sources_that_cannot_be_read(source: dict[str, Any], kind: str) -> None:
    with pytest.raises(
        NotAMapping, match=rf"no event source mapping of a stream of DynamoDB or Kinesis: 14e0db71\S+ \({kind}\)"
    ):
        converted(FROM_CLI | source, target="app:handler")


class TestOrder:
    """Lambda with a factor of 1 has the order of the shard; what a mapping leaves out is 1."""

    @pytest.mark.parametrize(
        ("factor", "order"), [(None, "shard"), (1, "shard"), ("1", "shard"), (2, "key"), (10, "key")]
    )
    def test_it_follows_from_the_parallelization_factor(self, factor: Any, order: str, tmp_path: Path) -> None:
        imported = converted(FROM_CLI | {"ParallelizationFactor": factor}, target="app:handler")
        assert settings_of(imported, tmp_path).batch.order == order

    @pytest.mark.parametrize(
        ("changes", "recommended"),
        [({}, True), ({"ParallelizationFactor": 2}, False), ({"TumblingWindowInSeconds": 60}, False)],
    )
    def test_another_one_is_recommended_where_it_can_be_chosen(
        self, changes: dict[str, Any], *, recommended: bool
    ) -> None:
        written = converted(FROM_CLI | changes, target="app:handler").yaml
        assert ("`order: key`" in written) == recommended

    def test_a_factor_that_only_a_deployment_knows_leaves_it_to_be_chosen(self, tmp_path: Path) -> None:
        document = FROM_CLI | {"ParallelizationFactor": Intrinsic("Ref", "Factor")}
        imported = converted(document, target="app:handler")
        assert yaml.safe_load(imported.yaml)["batch"]["order"] == "${BATCH_ORDER}"
        assert any("BATCH_ORDER" in note.reason for note in imported.notes)
        chosen = settings_of(imported, tmp_path, PARALLELIZATION_FACTOR="4", BATCH_ORDER="key")
        assert (chosen.batch.parallelization_factor, chosen.batch.order) == (4, "key")


class TestTarget:
    def test_without_one_the_daemon_does_not_start(self, tmp_path: Path) -> None:
        imported = converted(FROM_CLI)
        assert yaml.safe_load(imported.yaml)["handler"]["target"] == "${HANDLER_TARGET}"
        assert "FunctionArn" in options(imported)
        assert settings_of(imported, tmp_path, HANDLER_TARGET="app:handler").handler.target == "app:handler"

    @pytest.mark.parametrize(
        ("given", "kind", "target"),
        [
            ("app:handler", "lambda", "app:handler"),
            ("app.handler", "lambda", "app.handler"),
            ("src/orders/app.handler", "lambda", "src/orders/app.handler"),
            ("orders-stream.handler", "lambda", "orders-stream.handler"),
            ("http://localhost:9000/2015-03-31/functions/function/invocations", "http", None),
        ],
    )
    def test_its_forms(self, given: str, kind: str, target: str | None, tmp_path: Path) -> None:
        handler = settings_of(converted(FROM_CLI, target=given), tmp_path).handler
        assert (handler.kind, handler.target) == (kind, target or given)

    def test_a_url_has_no_processes(self) -> None:
        """They would be ignored: the server says how much it can do at once."""
        assert "processes" in converted(FROM_CLI, target="app.handler").yaml
        assert "processes" not in converted(FROM_CLI, target="http://localhost:9000/").yaml
