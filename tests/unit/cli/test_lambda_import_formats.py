"""A realistic file of each format, and the configuration that it becomes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from consumer.cli.lambda_import.command import import_event_source_mapping
from consumer.settings.load import load_settings
from consumer.settings.model import Settings
from tests.unit.cli.lambda_mappings import FILES, QUEUE, STREAM, text_of

TOPIC = "arn:aws:sns:eu-west-1:123456789012:failed"
ENVIRON = {"STREAM": STREAM, "EVENT_SOURCE_ARN": STREAM, "ON_FAILURE_DESTINATION": QUEUE}

EXPECTED: dict[str, tuple[list[str], dict[str, Any], dict[str, str]]] = {
    "sam.yaml": (
        ["--parameter", "Stage=live"],
        {
            "application": "orders-projector-live",
            "handler": {"kind": "lambda", "target": "projector/app.handler", "path": "src", "timeout": "45s"},
            "batch": {
                "batch_size": 250, "batching_window": "5s", "parallelization_factor": 4, "order": "key",
                "report_batch_item_failures": True, "tumbling_window": "0s",
            },
            "filters": [
                {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"NewImage": {"kind": {"S": ["order"]}}}},
                {"eventName": ["REMOVE"], "dynamodb": {"OldImage": {"stage": {"S": ["live"]}}}},
            ],
            "retry": {"max_retry_attempts": 8, "max_record_age": "24h", "bisect_on_error": True},
            "on_failure": {"destination": "${ON_FAILURE_DESTINATION}", "format": "full", "order": "continue"},
        },
        {},
    ),
    "cloudformation.yaml": (
        ["--mapping", "ProjectorOrders", "--parameter", "Environment=live"],
        {
            "application": "orders-projector-live",
            "handler": {"kind": "lambda", "command": ["npx", "aws-lambda-ric", "index.handler"], "timeout": "2m"},
            "batch": {"batch_size": 500, "report_batch_item_failures": "${FUNCTION_RESPONSE_TYPES}"},
            "on_failure": {"destination": "${ON_FAILURE_DESTINATION}", "format": "full", "order": "continue"},
        },
        {"FUNCTION_RESPONSE_TYPES": "true"},
    ),
    "cdk.template.json": (
        [],
        {
            "application": "Projector5DCF6E8B",
            "handler": {"kind": "lambda", "target": "orders-stream.handler", "timeout": "3s", "processes": 2},
            "batch": {"batch_size": 100, "report_batch_item_failures": True},
            "filters": [{"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "ORDER#"}]}}}}],
            "retry": {"max_retry_attempts": 10, "max_record_age": -1, "bisect_on_error": True},
        },
        {},
    ),
    "list.yaml": (
        ["--mapping", "customers", "--target", "app.handler"],
        {
            "application": "projector-customers",
            "source": {
                "kind": "dynamodb",
                "stream_arn": "arn:aws:dynamodb:eu-west-1:123456789012:table/customers/stream/2026-09-18T08:00:00.000",
                "starting_position": "2026-09-18T08:00:00Z",
                "on_gap": "continue",
            },
            "handler": {"kind": "lambda", "target": "app.handler", "timeout": "${HANDLER_TIMEOUT}", "processes": 2},
            "batch": {"batch_size": 500, "parallelization_factor": 2, "order": "key"},
            "retry": {"max_retry_attempts": 5, "max_record_age": "1h", "bisect_on_error": True},
            "on_failure": {"destination": TOPIC, "format": "full", "order": "continue"},
        },
        {"HANDLER_TIMEOUT": "10s"},
    ),
    "serverless.yml": (
        ["--mapping", "projector.stream"],
        {
            "application": "shop-prod-projector",
            "handler": {"kind": "lambda", "target": "src/projector.handler", "timeout": "6s", "processes": 2},
            "batch": {
                "batch_size": 400, "batching_window": "1s", "parallelization_factor": 2, "order": "key",
                "report_batch_item_failures": True, "tumbling_window": "0s",
            },
            "filters": [
                {
                    "eventName": ["INSERT", "MODIFY"],
                    "dynamodb": {"NewImage": {"status": {"S": [{"anything-but": ["draft"]}]}}},
                },
                {"eventName": ["REMOVE"]},
            ],
            "retry": {"max_retry_attempts": 3, "max_record_age": "2h", "bisect_on_error": True},
            "on_failure": {"destination": f"{TOPIC}-orders", "format": "full", "order": "continue"},
        },
        {},
    ),
    "state.json": (
        [],
        {
            "application": "orders-projector",
            "source": {
                "kind": "dynamodb", "stream_arn": STREAM, "starting_position": "latest", "on_gap": "continue",
            },
            "handler": {"kind": "lambda", "target": "app.handler", "timeout": "20s", "processes": 2},
            "batch": {
                "batch_size": 100, "batching_window": "0s", "parallelization_factor": 1, "order": "shard",
                "report_batch_item_failures": True, "tumbling_window": "0s",
            },
            "filters": [{"eventName": ["INSERT"]}],
            "retry": {"max_retry_attempts": 12, "max_record_age": -1, "bisect_on_error": True},
            "on_failure": {
                "destination": "arn:aws:sqs:eu-west-1:123456789012:failed", "format": "full", "order": "continue",
            },
        },
        {},
    ),
    "plan.json": (
        [],
        {
            "application": "orders-projector",
            "source": {
                "kind": "dynamodb", "stream_arn": "${EVENT_SOURCE_ARN}", "starting_position": "trim_horizon",
                "on_gap": "continue",
            },
            "handler": {"kind": "lambda", "target": "app.handler", "timeout": "3s", "processes": 2},
            "batch": {"batch_size": 300, "parallelization_factor": 1, "report_batch_item_failures": False},
            "filters": "${FILTER_CRITERIA}",
            "retry": {"max_retry_attempts": "${MAXIMUM_RETRY_ATTEMPTS}", "max_record_age": -1},
            "on_failure": {"destination": "${ON_FAILURE_DESTINATION}", "format": "full", "order": "continue"},
        },
        {"FILTER_CRITERIA": '[{"eventName": ["INSERT"]}, {"eventName": ["REMOVE"]}]', "MAXIMUM_RETRY_ATTEMPTS": "4"},
    ),
    "terraform": (
        ["--parameter", "stage=live", "--parameter", f"dead_letters_arn={QUEUE}"],
        {
            "application": "orders-live-projector",
            "handler": {"kind": "lambda", "target": "app.handler", "timeout": "90s", "processes": 3},
            "batch": {
                "batch_size": 200, "batching_window": "2s", "parallelization_factor": 3, "order": "key",
                "report_batch_item_failures": True, "tumbling_window": "0s",
            },
            "filters": [
                {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"NewImage": {"total": {"N": [{"exists": True}]}}}},
                {"eventName": ["REMOVE"], "dynamodb": {"OldImage": {"stage": {"S": ["live"]}}}},
            ],
            "retry": {"max_retry_attempts": 6, "max_record_age": "1h", "bisect_on_error": True},
            "on_failure": {"destination": QUEUE, "format": "full", "order": "continue"},
        },
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_each_format(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, and through the daemon's own loader once what only a deployment knows is set."""
    arguments, expected, more = EXPECTED[name]
    result = CliRunner().invoke(import_event_source_mapping, [str(FILES / name), *arguments])
    assert result.exit_code == 0, result.stderr
    assert contains(yaml.safe_load(result.stdout), expected)
    load(result.stdout, ENVIRON | more, tmp_path, monkeypatch)


def contains(written: Any, expected: Any) -> bool:
    """Every expected key has its value; in a section there may be more."""
    for key, value in expected.items():
        found = written[key]
        assert contains(found, value) if isinstance(value, dict) else found == value, f"{key}: {found}"
    return True


def load(text: str, environ: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With the folder of the code and the programs of other runtimes, which a configuration must find."""
    (folder / "src").mkdir(exist_ok=True)
    for program in ("npx", "java", "aws_lambda_ric", "bootstrap"):
        (folder / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))
    file = folder / "imported.yaml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, environ)


def test_templates_out_of_a_stack() -> None:
    """``aws cloudformation get-template``: a template in YAML is a text there, and one in JSON an object."""
    whole = json.loads(text_of("cdk.template.json"))
    bodies = [whole, json.dumps(whole), text_of("cdk.template.json")]
    outputs = [json.dumps({"TemplateBody": body, "StagesAvailable": ["Original"]}) for body in bodies]
    outputs.append(yaml.safe_dump({"StagesAvailable": ["Original"], "TemplateBody": text_of("cdk.template.json")}))
    results = [CliRunner().invoke(import_event_source_mapping, ["-"], input=text) for text in outputs]
    direct = CliRunner().invoke(import_event_source_mapping, ["-"], input=text_of("cdk.template.json"))
    assert direct.exit_code == 0
    assert {result.stdout for result in results} == {direct.stdout}


def test_yaml_in_a_template_body() -> None:
    text = json.dumps({"TemplateBody": text_of("sam.yaml")})
    result = CliRunner().invoke(import_event_source_mapping, ["-"], input=text)
    assert yaml.safe_load(result.stdout)["application"] == "orders-projector-dev"


def test_a_state_file_is_as_good_as_what_shows_it() -> None:
    """``terraform.tfstate`` itself."""
    shown = json.loads(text_of("state.json"))["values"]["root_module"]
    child = shown["child_modules"][0]["resources"]
    state = {
        "version": 4,
        "terraform_version": "1.9.8",
        "resources": [
            {
                "mode": "managed",
                "module": "module.projector",
                "type": one["type"],
                "name": one["name"],
                "instances": [{"attributes": one["values"], **({"index_key": 0} if "index" in one else {})}],
            }
            for one in child
        ],
    }
    shown["resources"] = []
    texts = [json.dumps(state), json.dumps({"terraform_version": "1", "values": {"root_module": shown}})]
    results = [CliRunner().invoke(import_event_source_mapping, ["-"], input=text) for text in texts]
    assert results[0].exit_code == 0
    assert results[0].stdout == results[1].stdout


def test_one_file_of_terraform_without_its_module() -> None:
    """Then what the others say is not known: nothing is guessed."""
    file = FILES / "terraform" / "mappings.tf"
    for argument in (str(file), "-"):
        result = CliRunner().invoke(import_event_source_mapping, [argument], input=file.read_bytes())
        written = yaml.safe_load(result.stdout)
        assert written["handler"]["target"] == "${HANDLER_TARGET}"
        assert written["batch"]["batch_size"] == "${BATCH_SIZE}"
        assert written["filters"] == "${FILTER_CRITERIA}"
        assert written["on_failure"]["destination"] == "${ON_FAILURE_DESTINATION}"


def test_without_the_parser_of_terraform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hcl2", None)
    result = CliRunner().invoke(import_event_source_mapping, [str(FILES / "terraform" / "mappings.tf")])
    assert result.exit_code == 78
    assert "pip install 'dynamodb-stream-consumer[terraform]'" in result.stderr
    assert "terraform show -json" in result.stderr


def test_broken_terraform_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "good.tf").write_text("locals {}\n")
    (tmp_path / "main.tf").write_text('resource "aws_lambda_event_source_mapping" "x" {\n  batch_size = = 3\n}\n')
    result = CliRunner().invoke(import_event_source_mapping, [str(tmp_path)])
    assert result.exit_code == 78
    assert "is not valid Terraform in main.tf: line 2, column 16" in result.stderr
    assert result.stderr.count("\n") == 1
