"""The variables of serverless.yml, and what its stream events become."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.mapping import Imported
from tests.unit.cli.lambda_mappings import QUEUE, STREAM, converted

SERVICE: dict[str, Any] = {
    "service": "shop",
    "custom": {
        "sizes": {"dev": 5, "live": 50, "text": "7"},
        "loop": "${self:custom.loop}",
        "twice": "${self:custom.twice}${self:custom.twice}",
        "chain": "${self:custom.${self:custom.next}}",
        "next": "size",
        "size": 9,
        "stream": {"type": "dynamodb", "arn": STREAM, "batchSize": 6},
        "arn": STREAM,
    },
    "provider": {"name": "aws", "runtime": "python3.12"},
}


def imported(stream: Any, function: dict[str, Any] | None = None, **parameters: str) -> Imported:
    functions = {"projector": {"handler": "app.handler", "events": [{"stream": stream}], **(function or {})}}
    return converted(SERVICE | {"functions": functions}, parameters=parameters)


def written(stream: Any, function: dict[str, Any] | None = None, **parameters: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(imported(stream, function, **parameters).yaml)
    return data


VARIABLES: list[tuple[Any, dict[str, str], Any]] = [
    ("${self:custom.sizes.dev}", {}, 5),
    ("${self:custom.sizes.text}", {}, 7),
    ("${self:custom.chain}", {}, 9),
    ("${self:custom.sizes.${opt:stage, 'dev'}}", {}, 5),
    ("${self:custom.sizes.${opt:stage, 'dev'}}", {"stage": "live"}, 50),
    ("${self:custom.sizes.${sls:stage}}", {}, 5),
    ("${self:custom.sizes.${sls:stage}}", {"stage": "live"}, 50),
    ("${self:custom.nothing, 8}", {}, 8),
    ("${self:custom.nothing, self:custom.size}", {}, 9),
    ('${opt:size, "3"}', {}, 3),
    ("${param:size}", {"size": "4"}, 4),
    ("${env:SIZE}", {"SIZE": "4"}, 4),
    ("${env:SIZE, 2}", {}, 2),
    ("${env:SIZE}", {}, None),
    ("${opt:size}", {}, None),
    ("${self:custom.nothing}", {}, None),
    ("${self:custom.loop}", {}, None),
    ("${self:custom.twice}", {}, None),
    ("${self:custom.sizes}", {}, 100),
    ("${self:custom.sizes.${env:STAGE}}", {}, None),
    ("${file(sizes.yml):dev}", {}, None),
    ("${file(sizes.yml):dev, 4}", {}, None),
    ("${ssm:/size}", {}, None),
    ("${cf:stack.Size}", {}, None),
    ("1${self:custom.size}", {}, 19),
    ("1${opt:x}", {}, None),
    ("${", {}, None),
    ("\x000\x00 ${opt:x}", {}, None),
    ({"Ref": "Size"}, {}, None),
]


@pytest.mark.parametrize(("text", "parameters", "size"), VARIABLES)
def test_variables(text: Any, parameters: dict[str, str], size: int | None) -> None:
    """Known where the file itself or a parameter says it; otherwise a variable without a default."""
    batch = written({"arn": STREAM, "batchSize": text}, **parameters)["batch"]
    assert batch["batch_size"] == (size if size is not None else "${BATCH_SIZE}")


def test_a_default_that_was_used_is_noted() -> None:
    notes = [str(note) for note in imported({"arn": STREAM, "batchSize": "${opt:size, 4}"}).notes]
    assert any(note.startswith("parameter size: its default 4 is used") for note in notes)


@pytest.mark.parametrize(
    ("stream", "arn", "size"),
    [
        (STREAM, STREAM, 10),
        ("${self:custom.arn}", STREAM, 10),
        ("${self:custom.stream}", STREAM, 6),
        ("${cf:tables.OrdersStream}", "${EVENT_SOURCE_ARN}", 10),
        ({"type": "dynamodb", "arn": {"Fn::GetAtt": ["Orders", "StreamArn"]}}, "${EVENT_SOURCE_ARN}", 10),
        ({"type": "dynamodb", "arn": {"Fn::ImportValue": "stream"}, "batchSize": 0}, "${EVENT_SOURCE_ARN}", 10),
        ({"arn": {"Fn::Join": ["", ["arn:aws:dynamodb:eu-west-1:1:table/a/stream/", "b"]]}}, None, 10),
    ],
)
def test_the_stream(stream: Any, arn: str | None, size: int) -> None:
    """Ten records and TRIM_HORIZON are what the framework writes for a stream event that does not say."""
    data = written(stream)
    assert data["source"]["stream_arn"] == (arn or "arn:aws:dynamodb:eu-west-1:1:table/a/stream/b")
    assert data["source"]["starting_position"] == "trim_horizon"
    assert data["batch"]["batch_size"] == size


OPTIONS: list[tuple[dict[str, Any], str, Any]] = [
    ({"filterPatterns": [{"eventName": ["INSERT"]}, {"a": ["${opt:x}"]}]}, "filters", "${FILTER_CRITERIA}"),
    ({"filterPatterns": "${file(patterns.yml)}"}, "filters", "${FILTER_CRITERIA}"),
    ({"filterPatterns": [{"eventName": ["${opt:x, 'INSERT'}"]}]}, "filters", [{"eventName": ["INSERT"]}]),
    ({"destinations": {"onFailure": QUEUE}}, "on_failure.destination", QUEUE),
    ({"destinations": {"onFailure": {"arn": QUEUE, "type": "sqs"}}}, "on_failure.destination", QUEUE),
    (
        {"destinations": {"onFailure": {"type": "sqs", "arn": {"Ref": "Failed"}}}},
        "on_failure.destination",
        "${ON_FAILURE_DESTINATION}",
    ),
    ({"destinations": "${file(x.yml)}"}, "on_failure.destination", "${ON_FAILURE_DESTINATION}"),
    ({"functionResponseType": "ReportBatchItemFailures"}, "batch.report_batch_item_failures", True),
    ({"functionResponseType": "${opt:x}"}, "batch.report_batch_item_failures", "${FUNCTION_RESPONSE_TYPES}"),
    ({"tumblingWindowInSeconds": 60}, "batch.tumbling_window", "1m"),
    ({"batchWindow": 5}, "batch.batching_window", "5s"),
    ({"maximumRetryAttempts": 0}, "retry.max_retry_attempts", 0),
    ({"startingPosition": "LATEST"}, "source.starting_position", "latest"),
]


@pytest.mark.parametrize(("settings", "path", "value"), OPTIONS)
def test_options(settings: dict[str, Any], path: str, value: Any) -> None:
    data: Any = written({"arn": STREAM, **settings})
    for part in path.split("."):
        data = data[part]
    assert data == value


@pytest.mark.parametrize(
    ("function", "application", "handler"),
    [
        ({}, "shop-dev-projector", {"target": "app.handler", "timeout": "6s"}),
        ({"name": "orders", "timeout": 20}, "orders", {"timeout": "20s"}),
        ({"timeout": "${opt:x}"}, "shop-dev-projector", {"timeout": "${HANDLER_TIMEOUT}"}),
        ({"runtime": "nodejs22.x"}, "shop-dev-projector", {"command": ["npx", "aws-lambda-ric", "app.handler"]}),
        ({"image": "app:7"}, "shop-dev-projector", {"kind": "http", "target": "${HANDLER_TARGET}"}),
        ({"name": "${opt:x}"}, "projector", {}),
    ],
)
def test_the_function(function: dict[str, Any], application: str, handler: dict[str, Any]) -> None:
    data = written(STREAM, function)
    assert data["application"] == application
    assert handler.items() <= data["handler"].items()


def test_the_file_is_read_as_yaml_1_2() -> None:
    """As the framework does it: in YAML 1.1 these would be true, false, 8 and 750, and match other records."""
    text = f"""
service: shop
provider: {{name: aws}}
base: &base {{batchSize: 3}}
functions:
  projector:
    handler: app.handler
    events:
      - stream:
          <<: *base
          arn: {STREAM}
          filterPatterns:
            - dynamodb: {{NewImage: {{on: {{S: [yes, off, 010, 12:30, 2026-01-31, "1", ~]}}}}}}
            - a: [1, 1.5, true, null]
"""
    data = yaml.safe_load(converted(text).yaml)
    values = ["yes", "off", 10, "12:30", "2026-01-31", "1", None]
    assert data["filters"] == [{"dynamodb": {"NewImage": {"on": {"S": values}}}}, {"a": [1, 1.5, True, None]}]
    assert data["batch"]["batch_size"] == 3


def test_functions_may_be_a_list_and_mappings_be_resources() -> None:
    mapping = {"EventSourceArn": STREAM, "FunctionName": "auditor", "StartingPosition": "LATEST"}
    document = SERVICE | {
        "functions": [{"a": {"handler": "a.handler"}}, {"b": {"handler": "b.handler", "events": [{"stream": STREAM}]}}],
        "resources": [{"Resources": {"M": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": mapping}}}],
    }
    assert yaml.safe_load(converted(document, mapping="b").yaml)["handler"]["target"] == "b.handler"
    assert yaml.safe_load(converted(document, mapping="M").yaml)["application"] == "auditor"
