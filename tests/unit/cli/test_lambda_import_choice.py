"""Several mappings in a file: one is chosen, or each gets a file; those of other sources are named and skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from consumer.cli.lambda_import.command import import_event_source_mapping
from tests.unit.cli.lambda_mappings import FILES, FROM_CLI, QUEUE


def run(name: str, *arguments: str) -> Result:
    return CliRunner().invoke(import_event_source_mapping, [str(FILES / name), *arguments])


CHOICES = [
    ("sam.yaml", "Projector.Orders", "orders-projector-dev"),
    ("sam.yaml", "ProjectorOrders", "orders-projector-dev"),
    ("sam.yaml", "Projector", "orders-projector-dev"),
    ("sam.yaml", "Orders", "orders-projector-dev"),
    ("cloudformation.yaml", "ProjectorOrders", "orders-projector-staging"),
    ("cloudformation.yaml", "Projector", "orders-projector-staging"),
    ("cloudformation.yaml", "AuditorOrders", "Auditor"),
    ("cdk.template.json", "ProjectorDynamoDBEventSourceShopOrders0F5C7A1E2B9D", "Projector5DCF6E8B"),
    ("list.yaml", "14e0db71-3c1f-4f0e-8b1b-1f2d3c4b5a69", "projector-orders"),
    ("list.yaml", "customers", "projector-customers"),
    ("serverless.yml", "projector.stream", "shop-prod-projector"),
    ("serverless.yml", "projector", "shop-prod-projector"),
    ("serverless.yml", "audit.stream2", "shop-prod-audit-stream2"),
    ("state.json", "module.projector.aws_lambda_event_source_mapping.stream[0]", "orders-projector"),
    ("state.json", "14e0db71", "orders-projector"),
    ("plan.json", "stream", "orders-projector"),
    ("terraform", "aws_lambda_event_source_mapping.orders", "orders-dev-projector"),
    ("terraform", "orders", "orders-dev-projector"),
]


@pytest.mark.parametrize(("file", "name", "application"), CHOICES)
def test_one_is_chosen_by_any_of_its_names(file: str, name: str, application: str) -> None:
    result = run(file, "--mapping", name)
    assert result.exit_code == 0, result.stderr
    assert yaml.safe_load(result.stdout)["application"] == application


REFUSED = [
    (
        "cloudformation.yaml",
        [],
        "holds 2 event source mappings (ProjectorOrders, AuditorOrders) beside ProjectorJobs (SQS): choose one with",
    ),
    ("list.yaml", [], "(14e0db71-3c1f-4f0e-8b1b-1f2d3c4b5a69 (projector, orders), 5f0c9a34-"),
    ("cloudformation.yaml", [], "choose one with --mapping NAME, or write a file for each with --all-to FOLDER"),
    ("cloudformation.yaml", ["--mapping", "No"], "no mapping No; choose one of ProjectorOrders, AuditorOrders, Proj"),
    ("cloudformation.yaml", ["--mapping", "ProjectorJobs"], "ProjectorJobs (SQS) cannot be read here: only streams of"),
    ("list.yaml", ["--mapping", "projector"], "the name projector belongs to 2 mappings; choose one of 14e0db71-"),
    ("sam.yaml", ["--mapping", "Projector.Jobs"], "Projector.Jobs (SQS) cannot be read here"),
    ("sam.yaml", ["--parameter", "Stagee=live"], "uses no parameter Stagee; those it uses: "),
    ("list.yaml", ["--mapping", "customers", "--parameter", "a=b"], "uses no parameter a; those it uses: none"),
    ("terraform", ["--parameter", "stag=live"], "uses no parameter stag; those it uses: batch_size, dead_letters_arn"),
    ("serverless.yml", ["--mapping", "projector", "--parameter", "region=x"], "uses no parameter region"),
]


@pytest.mark.parametrize(("file", "arguments", "message"), REFUSED)
def test_an_error_says_what_there_is(file: str, arguments: list[str], message: str) -> None:
    result = run(file, *arguments)
    assert result.exit_code == 78
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_other_sources_are_named_and_skipped() -> None:
    result = run("sam.yaml")
    assert "  Projector.Jobs: skipped: it reads SQS, not a stream of DynamoDB or Kinesis\n" in result.stderr
    assert run("sam.yaml", "--mapping", "Projector").stdout == result.stdout


ALL = {
    "sam.yaml": ["orders-projector-dev"],
    "cloudformation.yaml": ["Auditor", "orders-projector-staging"],
    "list.yaml": ["projector-customers", "projector-orders"],
    "serverless.yml": [
        "shop-prod-audit-stream1",
        "shop-prod-audit-stream2",
        "shop-prod-audit-stream3",
        "shop-prod-projector",
    ],
    "terraform": ["orders-dev-projector"],
}


@pytest.mark.parametrize("file", ALL)
def test_a_file_for_each(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    result = run(file, "--all-to", str(folder))
    assert result.exit_code == 0, result.stderr
    written = {path.stem: yaml.safe_load(path.read_text()) for path in folder.iterdir()}
    assert sorted(written) == ALL[file]
    assert {name: one["application"] for name, one in written.items()} == {name: name for name in written}
    assert sorted(result.stdout.split()) == sorted(str(folder / f"{name}.yaml") for name in written)
    assert "StartingPosition: " in result.stderr


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    kept = tmp_path / "Auditor.yaml"
    kept.write_text("mine\n")
    result = run("cloudformation.yaml", "--all-to", str(tmp_path))
    assert result.exit_code == 78
    assert f"{kept}: exists: remove it, or name another folder" in result.stderr
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(kept, "mine\n")]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("sam.yaml", "--all-to", str(tmp_path / "file" / "folder"))
    assert result.exit_code == 78
    assert f"{tmp_path / 'file' / 'folder'}: cannot be written: Not a directory" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--all-to", "x", "--mapping", "Projector"],
        ["--all-to", "x", "--target", "app.handler"],
        ["--parameter", "Stage"],
        ["--parameter", "=live"],
    ],
)
def test_what_does_not_go_together_is_a_usage_error(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("sam.yaml", *arguments).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_no_two_applications_have_one_name(tmp_path: Path) -> None:
    """Leases are theirs by name; and a file system may not tell capitals."""
    names = ["orders", "Orders", "orders", "or/ders", "or-ders"]
    listed = [FROM_CLI | {"UUID": f"{index}" * 8, "FunctionArn": name} for index, name in enumerate(names)]
    result = CliRunner().invoke(
        import_event_source_mapping,
        ["-", "--all-to", str(tmp_path)],
        input=json.dumps({"EventSourceMappings": listed, "NextMarker": "more"}),
    )
    assert result.exit_code == 0, result.stderr
    assert len({path.name.lower() for path in tmp_path.iterdir()}) == len(names)
    assert "NextMarker: the list goes on" in result.stderr


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"EventSourceMappings": [FROM_CLI | {"UUID": "a", "EventSourceArn": QUEUE}]},
            "holds no event source mapping of a stream of DynamoDB or Kinesis: a (SQS)",
        ),
        ({"EventSourceMappings": []}, "is no event source mapping: wanted is the output of"),
        (
            {"Resources": {"Fn::ForEach::Streams": ["Name", ["a"], {"M": {}}]}},
            "Fn::ForEach::Streams: what it makes is not looked at",
        ),
        (
            {"Resources": {"M": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": {"Ref": "X"}}}},
            "M: its properties cannot be known from here: !Ref X",
        ),
        (
            {"Resources": {"F": {"Type": "AWS::Serverless::Function", "Properties": {"Events": {"Ref": "X"}}}}},
            "F.Events: they cannot be known from here: !Ref X",
        ),
        (
            {
                "Resources": {
                    "F": {
                        "Type": "AWS::Serverless::Function",
                        "Properties": {"Events": {"E": {"Fn::If": ["C", {"Type": "DynamoDB"}, {"Type": "Api"}]}}},
                    }
                }
            },
            "F.E: it cannot be known from here: !If C",
        ),
        (
            {"service": "a", "functions": "${file(functions.yml)}"},
            "what ${file(functions.yml)} names is not looked into",
        ),
        ({"service": "a", "functions": {"f": "${file(f.yml)}"}}, "f: what ${file(f.yml)} names is not looked into"),
        (
            {"service": "a", "functions": {"f": {"events": ["${file(f.yml)}"]}}},
            "f.events: what ${file(f.yml)} names is not looked into",
        ),
        (
            {"service": "a", "functions": {"f": {"events": "${file(f.yml)}"}}},
            "f.events: what ${file(f.yml)} names is not looked into",
        ),
        (
            {"service": "a", "functions": {"f": {"events": [{"stream": "${file(f.yml):stream}"}]}}},
            "f.stream1: what ${file(f.yml):stream} names is not looked into",
        ),
    ],
)
def test_what_cannot_be_looked_into_is_said(document: Any, message: str) -> None:
    """It may well hold the mapping that is looked for."""
    result = CliRunner().invoke(import_event_source_mapping, ["-"], input=json.dumps(document))
    assert result.exit_code == 78
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({"EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]}}, "SQS"),
        ({"EventSourceArn": {"Fn::ImportValue": "QueueArn"}}, "SQS"),
        ({"EventSourceArn": {"Ref": "Cluster"}, "Topics": ["a"], "StartingPosition": "LATEST"}, "Kafka"),
        ({"EventSourceArn": {"Ref": "Broker"}, "Queues": ["a"]}, "MQ"),
        ({"EventSourceArn": "arn:aws:rds:eu-west-1:1:cluster:x", "StartingPosition": "LATEST"}, "DocumentDB"),
        ({"EventSourceArn": "arn:aws:newservice:eu-west-1:1:x"}, "newservice"),
    ],
)
def test_sources_are_told_apart_by_what_they_refer_to(properties: dict[str, Any], kind: str) -> None:
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue"},
        "Table": {"Type": "AWS::DynamoDB::GlobalTable"},
        "Other": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties},
        "Orders": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Condition": "Live",
            "Properties": {"EventSourceArn": {"Fn::GetAtt": ["Table", "StreamArn"]}, "FunctionName": "orders"},
        },
    }
    result = CliRunner().invoke(import_event_source_mapping, ["-"], input=json.dumps({"Resources": resources}))
    assert result.exit_code == 0, result.stderr
    assert yaml.safe_load(result.stdout)["application"] == "orders"
    assert f"  Other: skipped: it reads {kind}, not a stream of DynamoDB or Kinesis\n" in result.stderr
    assert "  Condition: it exists only in deployments for which Live holds\n" in result.stderr
