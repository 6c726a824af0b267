"""The function behind a mapping: every way to name it, and what its template says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.mapping import Imported
from tests.unit.cli.lambda_mappings import STREAM, converted, options, settings_of

ARN = "arn:aws:lambda:eu-west-1:123456789012:function"
PROJECTOR = {"Type": "AWS::Lambda::Function", "Properties": {"Handler": "app.handler"}}


def in_template(function: dict[str, Any], reference: Any = None, **shared: Any) -> Imported:
    """A template with one function, versions and aliases of it, and a mapping that refers to it."""
    mapping = {"EventSourceArn": STREAM, "FunctionName": reference or {"Fn::GetAtt": ["Projector", "Arn"]}}
    resources = {
        "Mapping": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": mapping},
        "Other": {"Type": "AWS::Lambda::Function", "Properties": {"Handler": "other.handler", "Timeout": 1}},
        "Projector": function,
        "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Projector"}}},
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "FunctionName": {"Fn::GetAtt": ["Projector", "Arn"]},
                "FunctionVersion": "1",
                "Name": "live",
            },
        },
        "AliasOfVersion": {"Type": "AWS::Lambda::Alias", "Properties": {"FunctionName": {"Ref": "Version"}}},
        "Circle": {"Type": "AWS::Lambda::Alias", "Properties": {"FunctionName": {"Ref": "Circle"}}},
    }
    parameters = {"Name": {"Type": "String", "Default": "orders"}, "Unset": {"Type": "String"}}
    return converted(json.dumps({"Resources": resources, "Parameters": parameters, **shared}))


REFERENCES: dict[str, Any] = {
    "Ref": {"Ref": "Projector"},
    "GetAtt": {"Fn::GetAtt": "Projector.Arn"},
    "GetAtt as a list": {"Fn::GetAtt": ["Projector", "Arn"]},
    "Sub": {"Fn::Sub": "${Projector}"},
    "Sub of an attribute": {"Fn::Sub": "${Projector.Arn}"},
    "Sub with an alias": {"Fn::Sub": "${Projector.Arn}:live"},
    "Sub of an ARN": {"Fn::Sub": "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${Projector}"},
    "Sub with variables": {"Fn::Sub": ["${F}:live", {"F": {"Fn::GetAtt": ["Projector", "Arn"]}}]},
    "Join": {"Fn::Join": [":", [{"Fn::GetAtt": ["Projector", "Arn"]}, "live"]]},
    "Join of an ARN": {"Fn::Join": [":", ["arn:aws:lambda:eu-west-1", "1", "function", {"Ref": "Projector"}, "live"]]},
    "a version": {"Ref": "Version"},
    "an alias": {"Ref": "Alias"},
    "an alias of a version": {"Ref": "AliasOfVersion"},
    "If with the same in both": {"Fn::If": ["Live", {"Ref": "Projector"}, {"Ref": "Projector"}]},
    "If with the function and its alias": {"Fn::If": ["Live", {"Ref": "Alias"}, {"Fn::GetAtt": ["Projector", "Arn"]}]},
    "what SAM calls a version": {"Ref": "Projector.Version"},
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_way_to_refer_to_the_function(reference: str) -> None:
    written = yaml.safe_load(in_template(PROJECTOR, REFERENCES[reference]).yaml)
    handler = written["handler"]
    assert (written["application"], handler["target"], handler["timeout"]) == ("Projector", "app.handler", "3s")


@pytest.mark.parametrize(
    "name",
    [
        "orders-projector",
        "orders-projector:live",
        f"{ARN}:orders-projector",
        f"{ARN}:orders-projector:7",
        "123456789012:function:orders-projector",
        {"Fn::Sub": "arn:aws:lambda:${AWS::Region}:${AWS::AccountId}:function:${Name}-projector:live"},
        {"Fn::Join": ["-", [{"Ref": "Name"}, "projector"]]},
        {"Ref": "Alias"},
    ],
)
def test_a_function_with_a_name(name: Any) -> None:
    properties = {"Handler": "app.handler", "FunctionName": {"Fn::Sub": "${Name}-projector"}}
    written = yaml.safe_load(in_template({"Type": "AWS::Lambda::Function", "Properties": properties}, name).yaml)
    assert (written["application"], written["handler"]["target"]) == ("orders-projector", "app.handler")


def test_a_name_that_only_a_deployment_knows() -> None:
    """It is the same on both sides, so the function is found; what it is called is to be looked at."""
    name = {"Fn::Sub": "${AWS::StackName}-projector"}
    properties = {"Handler": "app.handler", "FunctionName": name}
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": properties}, name)
    written = yaml.safe_load(imported.yaml)
    assert (written["application"], written["handler"]["target"]) == ("Projector", "app.handler")
    assert any("AWS_LAMBDA_FUNCTION_NAME" in note.reason for note in imported.notes)


@pytest.mark.parametrize(
    "reference",
    [
        {"Fn::If": ["Live", {"Ref": "Projector"}, {"Ref": "Other"}]},
        {"Ref": "Unset"},
        {"Ref": "Circle"},
        {"Fn::ImportValue": "Projector"},
        "somebody-elses",
        {"Fn::Sub": ["${F}", {"F": {"Fn::ImportValue": "Projector"}}]},
    ],
)
def test_a_function_that_is_not_known_is_not_guessed(reference: Any, tmp_path: Path) -> None:
    imported = in_template(PROJECTOR, reference)
    handler = yaml.safe_load(imported.yaml)["handler"]
    assert (handler["target"], handler["timeout"]) == ("${HANDLER_TARGET}", "${HANDLER_TIMEOUT}")
    assert settings_of(imported, tmp_path, HANDLER_TARGET="app.handler").handler.timeout == 60


def test_an_alias_that_sam_publishes() -> None:
    properties = {"Handler": "app.handler", "AutoPublishAlias": "live"}
    imported = in_template(
        {"Type": "AWS::Serverless::Function", "Properties": properties}, {"Ref": "ProjectorAliaslive"}
    )
    assert yaml.safe_load(imported.yaml)["handler"]["target"] == "app.handler"


def test_what_a_template_says_about_the_function(tmp_path: Path) -> None:
    """With SAM's Globals where the function itself is silent."""
    variables = {"Variables": {"TABLE": "x", "MODE": {"Ref": "Mode"}}}
    properties = {"Handler": "app.handler", "Environment": variables, "Runtime": "python3.12"}
    shared = {
        "Function": {
            "Timeout": 90, "Handler": "never.used", "CodeUri": "./functions/",
            "Environment": {"Variables": {"STAGE": "x"}},
        }
    }  # fmt: skip
    imported = in_template({"Type": "AWS::Serverless::Function", "Properties": properties}, Globals=shared)
    handler = yaml.safe_load(imported.yaml)["handler"]
    assert (handler["target"], handler["timeout"], handler["path"]) == ("app.handler", "90s", "./functions")
    note = "Environment: the function's variables are the daemon's to set: STAGE, TABLE, MODE"
    assert note in map(str, imported.notes)
    (tmp_path / "functions").mkdir()
    assert settings_of(imported, tmp_path).handler.timeout == 90
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": {"Handler": "app.handler"}}, Globals=shared)
    assert yaml.safe_load(imported.yaml)["handler"]["timeout"] == "3s", "Globals are SAM's"


@pytest.mark.parametrize(
    "properties",
    [
        {"CodeUri": "s3://artifacts/app.zip"},
        {"CodeUri": "build/app.zip"},
        {"CodeUri": {"Bucket": "artifacts", "Key": "app.zip"}},
        {"CodeUri": {"Ref": "Unset"}},
        {"InlineCode": "def handler(event, context): ..."},
    ],
)
def test_code_that_is_in_no_folder(properties: dict[str, Any]) -> None:
    code = {"Handler": "index.handler", **properties}
    imported = in_template({"Type": "AWS::Serverless::Function", "Properties": code})
    assert "path" not in yaml.safe_load(imported.yaml)["handler"]
    assert set(properties) <= options(imported)


@pytest.mark.parametrize("uri", [".", "./"])
def test_code_beside_the_template(uri: str) -> None:
    code = {"Handler": "index.handler", "CodeUri": uri}
    imported = in_template({"Type": "AWS::Serverless::Function", "Properties": code})
    assert "path" not in yaml.safe_load(imported.yaml)["handler"]
    assert "CodeUri" not in options(imported)


@pytest.mark.parametrize(
    "variables", [{"Ref": "Variables"}, {"Variables": {"Fn::If": ["Live", {"A": "1"}, {"B": "2"}]}}]
)
def test_variables_that_depend_on_the_deployment_are_mentioned(variables: dict[str, Any]) -> None:
    properties = {"Handler": "app.handler", "Environment": variables}
    assert "Environment" in options(in_template({"Type": "AWS::Lambda::Function", "Properties": properties}))


JAVA = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"
COMMANDS = [
    ({"Runtime": "provided.al2023", "Handler": "bootstrap"}, ["./bootstrap"], {}),
    ({"Runtime": "provided.al2", "Handler": {"Ref": "Unset"}}, ["./bootstrap"], {}),
    ({"Runtime": "nodejs22.x", "Handler": "src/index.handler"}, ["npx", "aws-lambda-ric", "src/index.handler"], {}),
    (
        {"Runtime": "nodejs20.x", "Handler": {"Ref": "Unset"}},
        ["npx", "aws-lambda-ric", "${HANDLER}"],
        {"HANDLER": "index.handler"},
    ),
    (
        {"Runtime": "java21", "Handler": "example.Handler::handleRequest"},
        ["java", "-cp", "${FUNCTION_JAR}", JAVA, "example.Handler::handleRequest"],
        {"FUNCTION_JAR": "function.jar"},
    ),
    (
        {"Runtime": "java21", "Handler": "example.Handler", "CodeUri": "target/app.jar"},
        ["java", "-cp", "target/app.jar", JAVA, "example.Handler"],
        {},
    ),
    ({"Runtime": "ruby3.3", "Handler": "app.handler"}, ["aws_lambda_ric", "app.handler"], {}),
    ({"Runtime": "go1.x", "Handler": "main"}, ["./main"], {}),
    ({"Runtime": "dotnet8", "Handler": "A::B::C"}, ["${HANDLER_COMMAND}"], {"HANDLER_COMMAND": "./bootstrap"}),
]


@pytest.mark.parametrize(("properties", "command", "environ"), COMMANDS)
def test_another_runtime_is_a_command(
    properties: dict[str, Any],
    command: list[str],
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported = in_template({"Type": "AWS::Serverless::Function", "Properties": {"Timeout": 5, **properties}})
    handler = yaml.safe_load(imported.yaml)["handler"]
    assert (handler["kind"], handler["command"]) == ("lambda", command)
    assert "target" not in handler
    assert any(note.option == "Runtime" and str(properties["Runtime"]) in note.reason for note in imported.notes)
    for program in ("npx", "java", "aws_lambda_ric", "bootstrap", "main"):
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = [environ.get(part.strip("${}"), part) if part.startswith("${") else part for part in command]
    assert settings_of(imported, tmp_path, **environ).handler.command == tuple(expected)


def test_an_image_goes_behind_a_url(tmp_path: Path) -> None:
    properties = {"PackageType": "Image", "Code": {"ImageUri": "x"}}
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": properties})
    handler = yaml.safe_load(imported.yaml)["handler"]
    assert (handler["kind"], handler["target"]) == ("http", "${HANDLER_TARGET}")
    assert "processes" not in handler
    assert "PackageType" in options(imported)
    url = "http://127.0.0.1:9000/2015-03-31/functions/function/invocations"
    assert settings_of(imported, tmp_path, HANDLER_TARGET=url).handler.target == url


@pytest.mark.parametrize("handler", [{"Ref": "Unset"}, "", "nothing", "a.b.", "../app.handler", 5])
def test_a_handler_that_names_nothing(handler: Any, tmp_path: Path) -> None:
    imported = in_template(
        {"Type": "AWS::Lambda::Function", "Properties": {"Handler": handler, "Runtime": "python3.12"}}
    )
    assert yaml.safe_load(imported.yaml)["handler"]["target"] == "${HANDLER_TARGET}"
    assert settings_of(imported, tmp_path, HANDLER_TARGET="app.handler").handler.target == "app.handler"


@pytest.mark.parametrize(
    "timeout", [{"Ref": "Unset"}, {"Fn::If": ["Live", 60, {"Ref": "AWS::NoValue"}]}, "soon", 0, 901]
)
def test_a_time_limit_that_is_not_known(timeout: Any, tmp_path: Path) -> None:
    """A shorter one than Lambda's would end calls that it lets finish, so none is made up."""
    imported = in_template({"Type": "AWS::Lambda::Function", "Properties": {"Handler": "a.b", "Timeout": timeout}})
    assert yaml.safe_load(imported.yaml)["handler"]["timeout"] == "${HANDLER_TIMEOUT}"
    assert settings_of(imported, tmp_path, HANDLER_TIMEOUT="15m").handler.timeout == 900
