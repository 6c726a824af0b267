"""Mappings of Kinesis streams become configurations of kind kinesis, whatever the tool that wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.mapping import Imported
from tests.unit.cli.lambda_mappings import (
    ALWAYS,
    FROM_CLI,
    LIKE_LAMBDA,
    converted,
    merged,
    options,
    settings_of,
    text_of,
)

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
MAPPING = FROM_CLI | {"EventSourceArn": STREAM}
LIKE_LAMBDA_OF_KINESIS = merged(
    LIKE_LAMBDA, {"source": {"kind": "kinesis", "stream_arn": STREAM, "duplicates": "keep"}}
)
SHAPE = "changes that DynamoDB puts into this stream reach the handler as records of DynamoDB Streams, not as a text in"
FAN_OUT = (
    "enhanced fan-out is not offered; the shards are polled, and share five reads and 2 MB a second with the other"
)


def reasons(imported: Imported, option: str) -> str:
    return " | ".join(note.reason for note in imported.notes if note.option == option)


def source_of(imported: Imported) -> dict[str, Any]:
    source: dict[str, Any] = yaml.safe_load(imported.yaml)["source"]
    return source


PATTERN = {"data": {"dynamodb": {"NewImage": {"status": {"S": ["paid"]}}}}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as created": ({}, {}),
    "a time": (
        {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1789651613},
        {"source": {"starting_position": "2026-09-17T13:26:53Z"}},
    ),
    "a window": ({"TumblingWindowInSeconds": 60}, {"batch": {"tumbling_window": "1m"}}),
    "a factor": (
        {"ParallelizationFactor": 10},
        {"batch": {"parallelization_factor": 10, "order": "key"}, "handler": {"processes": 10}},
    ),
    "filters": ({"FilterCriteria": {"Filters": [{"Pattern": json.dumps(PATTERN)}]}}, {"filters": [PATTERN]}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_in_lambda(name: str, tmp_path: Path) -> None:
    changes, expected = CASES[name]
    imported = converted(MAPPING | changes, target="app:handler")
    assert yaml.safe_load(imported.yaml) == merged(LIKE_LAMBDA_OF_KINESIS, expected)
    assert options(imported) - ALWAYS == {"EventSourceArn"}
    assert SHAPE in reasons(imported, "EventSourceArn")
    assert settings_of(imported, tmp_path).source.kind == "kinesis"


def test_a_consumer_is_read_by_polling_its_stream(tmp_path: Path) -> None:
    imported = converted(MAPPING | {"EventSourceArn": f"{STREAM}/consumer/fast:1607282941"}, target="app:handler")
    assert source_of(imported)["stream_arn"] == STREAM
    assert f"is a consumer: {FAN_OUT}" in reasons(imported, "EventSourceArn")
    settings_of(imported, tmp_path)


def test_an_arn_that_cannot_be_one(tmp_path: Path) -> None:
    imported = converted(MAPPING | {"EventSourceArn": "arn:aws:kinesis:eu-west-1:1:stream"}, target="app:handler")
    assert source_of(imported)["stream_arn"] == "${EVENT_SOURCE_ARN}"
    assert "must be the ARN of a Kinesis stream" in reasons(imported, "EventSourceArn")
    assert settings_of(imported, tmp_path, EVENT_SOURCE_ARN=STREAM).source.stream_arn == STREAM


@pytest.mark.parametrize(
    "arn",
    [
        {"Fn::GetAtt": ["Clicks", "Arn"]},
        {"Fn::GetAtt": ["Consumer", "ConsumerARN"]},
        {"Fn::Sub": "arn:aws:kinesis:${AWS::Region}:1:stream/x"},
    ],
)
def test_an_arn_that_only_a_deployment_knows(arn: Any, tmp_path: Path) -> None:
    resources = {
        "Clicks": {"Type": "AWS::Kinesis::Stream"},
        "Consumer": {"Type": "AWS::Kinesis::StreamConsumer"},
        "M": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {"EventSourceArn": arn, "FunctionName": "f", "StartingPosition": "LATEST"},
        },
    }
    imported = converted({"Resources": resources}, target="app:handler")
    assert source_of(imported)["kind"] == "kinesis"
    assert "set EVENT_SOURCE_ARN to the ARN of the stream" in reasons(imported, "EventSourceArn")
    assert settings_of(imported, tmp_path, EVENT_SOURCE_ARN=STREAM).source.stream_arn == STREAM


def test_an_event_of_sam() -> None:
    event = {"Type": "Kinesis", "Properties": {"Stream": STREAM, "StartingPosition": "LATEST", "BatchSize": 7}}
    imported = converted(event, target="app:handler")
    assert source_of(imported)["stream_arn"] == STREAM
    assert yaml.safe_load(imported.yaml)["batch"]["batch_size"] == 7


def test_one_beside_streams_of_tables() -> None:
    chosen = converted(text_of("serverless.yml"), mapping="audit.stream3", target="app:handler")
    assert source_of(chosen)["stream_arn"] == STREAM
    assert source_of(converted(text_of("serverless.yml"), mapping="audit.stream1"))["kind"] == "dynamodb"


def test_a_stream_event_of_serverless() -> None:
    stream = {
        "type": "kinesis",
        "arn": {"Fn::GetAtt": ["Clicks", "Arn"]},
        "consumer": True,
        "startingPosition": "AT_TIMESTAMP",
        "startingPositionTimestamp": 1789651613,
    }
    service = {"service": "shop", "provider": {"name": "aws"}, "functions": {"f": {"events": [{"stream": stream}]}}}
    imported = converted(service, target="app:handler")
    assert source_of(imported) == {
        "kind": "kinesis",
        "stream_arn": "${EVENT_SOURCE_ARN}",
        "starting_position": "2026-09-17T13:26:53Z",
        "on_gap": "continue",
        "duplicates": "keep",
    }
    assert reasons(imported, "consumer").startswith(FAN_OUT)
    assert "StartingPositionTimestamp" not in options(imported)
