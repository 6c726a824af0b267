"""Lambda's event source mappings, as people have them saved, become configurations that behave the same."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.document import NotAMapping, parse
from consumer.cli.lambda_import.mapping import Imported, import_mapping
from consumer.settings import Settings, load_settings
from consumer.settings.rules import RULES
from consumer.settings.yaml_file import parse as parse_values
from consumer.settings.yaml_file import read_text

STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-09-17T13:26:53.746"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:orders-projector"

FROM_CLI: dict[str, Any] = {
    "UUID": "14e0db71-3c1f-4f0e-8b1b-1f2d3c4b5a69",
    "StartingPosition": "TRIM_HORIZON",
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "EventSourceArn": STREAM,
    "FunctionArn": FUNCTION,
    "LastModified": "2026-09-17T15:26:53.746000+02:00",
    "LastProcessingResult": "No records processed",
    "State": "Enabled",
    "StateTransitionReason": "User action",
    "DestinationConfig": {"OnFailure": {}},
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "MaximumRetryAttempts": -1,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "EventSourceMappingArn": "arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:14e0db71",
}

LIKE_LAMBDA: dict[str, Any] = {
    "application": "orders-projector",
    "aws": {"region": "eu-west-1"},
    "source": {
        "kind": "dynamodb",
        "stream_arn": STREAM,
        "starting_position": "trim_horizon",
        "on_gap": "continue",
    },
    "handler": {"kind": "lambda", "target": "app:handler", "timeout": "60s", "processes": 2},
    "batch": {
        "batch_size": 100,
        "batching_window": "0s",
        "parallelization_factor": 1,
        "report_batch_item_failures": False,
        "tumbling_window": "0s",
    },
    "retry": {"max_retry_attempts": -1, "max_record_age": -1, "bisect_on_error": False},
}
ALWAYS = {"StartingPosition", "Timeout"}  # what is always to be looked at when the target is given


def settings_of(imported: Imported, tmp_path: Path, **environ: str) -> Settings:
    """Through this package's own reader and model, without the list of what this version cannot do yet."""
    file = tmp_path / "imported.yaml"
    file.write_text(imported.yaml, encoding="utf-8")
    values = parse_values(read_text(file), str(file), environ)
    assert values.problems == []
    settings = Settings.model_validate(values.data, context={"base_dir": tmp_path})
    assert [broken for rule in RULES for broken in rule.check(settings)] == []
    return settings


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def options(imported: Imported) -> set[str]:
    return {note.option for note in imported.notes}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "as created": ({}, {}, set()),
    "batch": (
        {"BatchSize": 500, "MaximumBatchingWindowInSeconds": 90, "ParallelizationFactor": 10},
        {
            "batch": {"batch_size": 500, "batching_window": "90s", "parallelization_factor": 10},
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
        {},
        {"DestinationConfig.OnFailure.Destination"},
    ),
    "a Kafka topic": (
        {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}, "OnSuccess": {"Destination": QUEUE}}},
        {},
        {"DestinationConfig.OnFailure.Destination", "DestinationConfig.OnSuccess"},
    ),
    "a destination that SAM makes": (
        {"DestinationConfig": {"OnFailure": {"Type": "SQS"}}},
        {},
        {"DestinationConfig.OnFailure"},
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
        {},
        {f"FilterCriteria.Filters[{index}].Pattern" for index in range(4)},
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
        {"handler": {"processes": 10}},
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
    imported = import_mapping(FROM_CLI | changes, target="app.handler")
    wanted = merged(LIKE_LAMBDA, expected)
    assert yaml.safe_load(imported.yaml) == wanted
    assert options(imported) == notes | ALWAYS
    assert all(note.reason for note in imported.notes)
    settings = settings_of(imported, tmp_path)
    assert settings == Settings.model_validate(wanted, context={"base_dir": tmp_path})


def test_what_is_not_set_is_written_as_lambda_has_it(tmp_path: Path) -> None:
    imported = import_mapping({"EventSourceArn": STREAM, "FunctionName": "orders-projector"}, target="app:handler")
    assert yaml.safe_load(imported.yaml) == LIKE_LAMBDA
    settings_of(imported, tmp_path)


def test_every_value_is_explained() -> None:
    full = FROM_CLI | CASES["filters"][0] | CASES["a queue"][0]
    for line in import_mapping(full, target="app:handler").yaml.splitlines():
        is_section = line.endswith(":") and not line.startswith(" ")
        assert is_section or "#" in line or line.startswith("  - ")


def test_a_mapping_that_uses_everything_starts(tmp_path: Path) -> None:
    """Through the daemon's own loader, which refuses what is not built: no option of a DynamoDB mapping is among it."""
    options_of_batches = FROM_CLI | CASES["batch"][0] | CASES["partial responses"][0] | CASES["retries"][0]
    everything = options_of_batches | CASES["filters"][0] | CASES["a bucket"][0]
    windows = {"TumblingWindowInSeconds": 900, "ParallelizationFactor": 1, "FilterCriteria": {"Filters": []}}
    for changes in ({}, CASES["a queue"][0], CASES["a topic"][0], windows):
        file = tmp_path / "imported.yaml"
        file.write_text(import_mapping(everything | changes, target="app:handler").yaml)
        settings = load_settings(file, {})
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
    imported = import_mapping(document, target="app:handler")
    assert yaml.safe_load(imported.yaml)["source"]["starting_position"] == written
    assert ("StartingPositionTimestamp" in options(imported)) == (written == "trim_horizon")
    settings_of(imported, tmp_path)


def test_a_kinesis_source(tmp_path: Path) -> None:
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
    imported = import_mapping(FROM_CLI | {"EventSourceArn": arn}, target="app:handler")
    assert settings_of(imported, tmp_path).source.kind == "kinesis"
    assert "EventSourceArn" in options(imported)
    fan_out = import_mapping(FROM_CLI | {"EventSourceArn": f"{arn}/consumer/me:1789651613"}, target="app:handler")
    assert settings_of(fan_out, tmp_path).source.stream_arn == arn
    assert any("enhanced fan-out" in note.reason for note in fan_out.notes)


@pytest.mark.parametrize(
    "source",
    [
        {"EventSourceArn": QUEUE},
        {"EventSourceArn": "arn:aws:kafka:eu-west-1:123456789012:cluster/c/1", "Topics": ["orders"]},
        {"EventSourceArn": None, "SelfManagedEventSource": {"Endpoints": {}}, "Topics": ["orders"]},
        {"EventSourceArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"},
        {"EventSourceArn": 5},
    ],
)
def test_sources_that_are_no_stream(source: dict[str, Any], tmp_path: Path) -> None:
    imported = import_mapping(FROM_CLI | source, target="app:handler")
    assert options(imported) & {"EventSourceArn", "SelfManagedEventSource"}
    assert yaml.safe_load(imported.yaml)["source"]["stream_arn"] == "${EVENT_SOURCE_ARN}"
    assert settings_of(imported, tmp_path, EVENT_SOURCE_ARN=STREAM).source.stream_arn == STREAM


class TestTarget:
    def test_without_one_the_daemon_does_not_start(self, tmp_path: Path) -> None:
        imported = import_mapping(FROM_CLI)
        assert yaml.safe_load(imported.yaml)["handler"]["target"] == "${HANDLER_TARGET}"
        assert "FunctionArn" in options(imported)
        assert settings_of(imported, tmp_path, HANDLER_TARGET="app:handler").handler.target == "app:handler"

    @pytest.mark.parametrize(
        ("given", "kind", "target"),
        [
            ("app:handler", "lambda", "app:handler"),
            ("app.handler", "lambda", "app:handler"),
            ("src/orders/app.handler", "lambda", "src.orders.app:handler"),
            ("http://localhost:9000/2015-03-31/functions/function/invocations", "http", None),
        ],
    )
    def test_its_forms(self, given: str, kind: str, target: str | None, tmp_path: Path) -> None:
        handler = settings_of(import_mapping(FROM_CLI, target=given), tmp_path).handler
        assert (handler.kind, handler.target) == (kind, target or given)

    def test_a_url_has_no_processes(self) -> None:
        """They would be ignored: the server says how much it can do at once."""
        assert "processes" in import_mapping(FROM_CLI, target="app.handler").yaml
        assert "processes" not in import_mapping(FROM_CLI, target="http://localhost:9000/").yaml


TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Size: {Type: Number, Default: 10}
Resources:
  Orders:
    Type: AWS::DynamoDB::Table
  Projector:
    Type: AWS::Serverless::Function
    Properties:
      Handler: src/app.handler
      Timeout: 30
      Events:
        Api: {Type: Api, Properties: {Path: /}}
        Stream:
          Type: DynamoDB
          Properties:
            Stream: !GetAtt Orders.StreamArn
            StartingPosition: TRIM_HORIZON
            BatchSize: !Ref Size
            Enabled: !If [Production, true, false]
            MaximumBatchingWindowInSeconds: !Ref AWS::NoValue
            BisectBatchOnFunctionError: true
            FunctionResponseTypes:
              - ReportBatchItemFailures
            DestinationConfig:
              OnFailure:
                Type: SQS
                Destination: !Sub "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:dlq"
            FilterCriteria:
              Filters:
                - Pattern: '{"eventName": ["INSERT"]}'
                - Pattern: !Sub '{"eventName": ["${Name}"]}'
"""


def test_a_sam_template(tmp_path: Path) -> None:
    imported = import_mapping(parse(TEMPLATE))
    written = yaml.safe_load(imported.yaml)
    assert written["application"] == "Projector"
    assert written["source"]["stream_arn"] == "${STREAM}"
    assert written["batch"]["batch_size"] == "${BATCH_SIZE}"
    assert written["handler"] == {"kind": "lambda", "target": "src.app:handler", "timeout": "30s", "processes": 2}
    assert "!GetAtt Orders.StreamArn" in imported.yaml
    assert options(imported) >= {"Stream", "BatchSize", "Enabled", "OnFailureDestination"}
    assert "FilterCriteria.Filters[1].Pattern" in options(imported)
    settings = settings_of(imported, tmp_path, STREAM=STREAM, BATCH_SIZE="10", ON_FAILURE_DESTINATION=QUEUE)
    assert settings.batch.batch_size == 10
    assert settings.batch.batching_window == 0
    assert settings.on_failure.destination == QUEUE
    assert settings.filters == ({"eventName": ["INSERT"]},)


def in_template(function: dict[str, Any], reference: Any = None, **shared: Any) -> Imported:
    """A template with one function and a mapping that refers to it."""
    mapping = {"EventSourceArn": STREAM, "FunctionName": reference or {"Fn::GetAtt": ["Projector", "Arn"]}}
    resources = {
        "Mapping": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": mapping},
        "Other": {"Type": "AWS::Lambda::Function", "Properties": {"Handler": "other.handler", "Timeout": 1}},
        "Projector": function,
    }
    return import_mapping(parse(json.dumps({"Resources": resources, **shared})))


def test_what_a_template_says_about_the_function(tmp_path: Path) -> None:
    """Its own function is found behind the reference, with SAM's Globals where it is silent."""
    variables = {"Variables": {"TABLE": "x", "MODE": {"Ref": "Mode"}}}
    properties = {"Handler": "app.handler", "Environment": variables, "Runtime": "python3.12"}
    shared = {"Function": {"Timeout": 90, "Handler": "never.used", "Environment": {"Variables": {"STAGE": "x"}}}}
    imported = in_template({"Type": "AWS::Serverless::Function", "Properties": properties}, Globals=shared)
    handler = yaml.safe_load(imported.yaml)["handler"]
    assert (handler["kind"], handler["target"], handler["timeout"]) == ("lambda", "app:handler", "90s")
    assert "Environment: the function's variables are the daemon's to set: STAGE, TABLE, MODE" in map(
        str, imported.notes
    )
    assert settings_of(imported, tmp_path).handler.timeout == 90
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": {"Handler": "app.handler"}}, Globals=shared)
    assert yaml.safe_load(imported.yaml)["handler"]["timeout"] == "60s", "Globals are SAM's"
    assert "Timeout" in options(imported)


@pytest.mark.parametrize(
    "reference",
    [
        {"Ref": "Projector"},
        {"Fn::GetAtt": "Projector.Arn"},
        {"Fn::Sub": "${Projector}"},
        {"Fn::Sub": "${Projector.Arn}"},
    ],
)
def test_every_way_to_refer_to_the_function(reference: dict[str, Any]) -> None:
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": {"Handler": "app.handler"}}, reference)
    written = yaml.safe_load(imported.yaml)
    assert (written["application"], written["handler"]["target"]) == ("Projector", "app:handler")


@pytest.mark.parametrize(
    "variables", [{"Ref": "Variables"}, {"Variables": {"Fn::If": ["Live", {"A": "1"}, {"B": "2"}]}}]
)
def test_variables_that_depend_on_the_deployment_are_mentioned(variables: dict[str, Any]) -> None:
    properties = {"Handler": "app.handler", "Environment": variables}
    assert "Environment" in options(in_template({"Type": "AWS::Lambda::Function", "Properties": properties}))


@pytest.mark.parametrize(
    ("properties", "option"),
    [
        ({"Handler": "index.handler", "Runtime": "nodejs22.x"}, "Runtime"),
        ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, "PackageType"),
    ],
)
def test_code_that_is_not_python_goes_behind_a_url(properties: dict[str, Any], option: str, tmp_path: Path) -> None:
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": properties})
    assert yaml.safe_load(imported.yaml)["handler"]["kind"] == "http"
    assert option in options(imported)
    url = "http://127.0.0.1:9000/2015-03-31/functions/function/invocations"
    assert settings_of(imported, tmp_path, HANDLER_TARGET=url).handler.target == url


def test_every_place_of_a_cloudformation_function(tmp_path: Path) -> None:
    keys = [
        "FunctionName", "StartingPosition", "BatchSize", "MaximumBatchingWindowInSeconds", "ParallelizationFactor",
        "FunctionResponseTypes", "TumblingWindowInSeconds", "FilterCriteria", "MaximumRetryAttempts", "Enabled",
        "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError", "DestinationConfig", "EventSourceArn", "Tags",
    ]  # fmt: skip
    in_json = {key: {"Fn::GetAtt": ["Some", "Thing"]} for key in keys}
    in_yaml = "\n".join(f"{key}: !GetAtt Some.Thing" for key in keys)
    for text in (json.dumps({"Type": "AWS::Lambda::EventSourceMapping", "Properties": in_json}), in_yaml):
        imported = import_mapping(parse(text), target="app:handler")
        assert options(imported) >= set(keys) - {"FunctionName"}
        written = yaml.safe_load(imported.yaml)
        assert written["application"] == "Some"
        assert written["batch"]["parallelization_factor"] == "${PARALLELIZATION_FACTOR}"


def test_one_of_a_list() -> None:
    assert yaml.safe_load(import_mapping({"EventSourceMappings": [FROM_CLI]}, target="app:handler").yaml) == LIKE_LAMBDA
    with pytest.raises(NotAMapping, match=r"holds 2 event source mappings \(a, b\)"):
        import_mapping({"EventSourceMappings": [FROM_CLI | {"UUID": "a"}, FROM_CLI | {"UUID": "b"}]})


@pytest.mark.parametrize(
    "document",
    [{}, {"a": 1}, {"Resources": {}}, {"Resources": {"A": None}}, {"Type": "AWS::S3::Bucket"}, [], None, 5, "text"],
)
def test_what_is_no_mapping(document: Any) -> None:
    with pytest.raises(NotAMapping, match="is no event source mapping"):
        import_mapping(document)


@pytest.mark.parametrize(
    "text", ["{", '{"a": 1,}]', "a: [", "\x00", "a: b: c", "[" * 100_000, "a: 2026-13-45", "? [a]: 1"]
)
def test_what_is_neither_json_nor_yaml(text: str) -> None:
    with pytest.raises(NotAMapping):
        import_mapping(parse(text))


HOSTILE = ["x\ny: 1", "# a", "a: b", "${HOME}", "\u2028", "\x7f\x1b[31m", "'\"", "yes", "010", "", "é😀", "2026-13-45"]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_cannot_break_the_file(text: str, tmp_path: Path) -> None:
    pattern = {"eventName": [text, {"prefix": text}]}
    document = FROM_CLI | {
        "FunctionArn": text,
        text: text,
        "BatchSize": text,
        "StartingPosition": text,
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps(pattern)}]},
    }
    imported = import_mapping(document, target="app:handler")
    settings = settings_of(imported, tmp_path)
    assert settings.filters == (pattern,)
    assert all(line.isprintable() for line in imported.yaml.split("\n"))
    assert all(str(note).isprintable() for note in imported.notes)


def test_anything_in_any_place_is_noted_and_never_crashes(tmp_path: Path) -> None:
    choose = random.Random(4)
    values: list[Any] = [None, 0, -1, 1e308, float("inf"), True, "", "x", [], [None], {}, {"a": []}, [[{}]], QUEUE]
    for _ in range(500):
        document = {key: choose.choice([value, *values]) for key, value in (FROM_CLI | {"FilterCriteria": {}}).items()}
        imported = import_mapping(document, target="app:handler")
        settings_of(imported, tmp_path, EVENT_SOURCE_ARN=STREAM)
