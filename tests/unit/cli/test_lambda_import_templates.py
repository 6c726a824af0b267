"""Mappings inside templates: what belongs to the function, and what only a deployment knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.document import parse
from consumer.cli.lambda_import.mapping import Imported, import_mapping
from tests.unit.cli.lambda_mappings import QUEUE, STREAM, options, settings_of

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
