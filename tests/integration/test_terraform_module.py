"""The Terraform module, parsed: its references, its variables, and that it makes what the CloudFormation template does.

``terraform validate`` needs the AWS provider, which cannot be downloaded here. Instead the names of arguments are held
against those in the provider's documentation (tests/support/terraform_arguments.json, out of the npm package
@cdktf/provider-aws 21.22.1); their types and which of them are required are not. ``terraform fmt`` is run when there is
a terraform.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
from hcl2 import SerializationOptions

from tests.integration.test_deploy_files import OF_THE_STACK, cloudformation
from tests.support.iam_policies import require_least_privilege

MODULE = Path(__file__).parents[2] / "deploy" / "terraform"
EXAMPLE = MODULE / "examples" / "fargate"
OPTIONS = SerializationOptions(strip_string_quotes=True, explicit_blocks=False, with_comments=False)

Block = dict[str, Any]


def parsed(folder: Path) -> dict[str, list[Block]]:
    """All blocks of the files in a folder, by their kinds."""
    found: dict[str, list[Block]] = {}
    for file in sorted(folder.glob("*.tf")):
        for kind, blocks in hcl2.loads(file.read_text(), serialization_options=OPTIONS).items():
            found.setdefault(kind, []).extend(blocks)
    return found


def named(blocks: list[Block]) -> Iterator[tuple[str, Block]]:
    for block in blocks:
        yield from block.items()


@pytest.fixture(scope="module")
def module() -> dict[str, list[Block]]:
    return parsed(MODULE)


@pytest.fixture(scope="module")
def resources(module: dict[str, list[Block]]) -> dict[str, Block]:
    """Their bodies by ``type.name``."""
    return {f"{kind}.{name}": body for kind, block in named(module["resource"]) for name, body in block.items()}


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform, which knows its own format, is not installed")
def test_terraform_finds_the_files_well_formed() -> None:
    command = ["terraform", "fmt", "-check", "-recursive", "-diff", str(MODULE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("folder", [MODULE, EXAMPLE], ids=["module", "example"])
def test_every_reference_resolves_and_every_variable_is_used(folder: Path) -> None:
    blocks = parsed(folder)
    text = "\n".join(re.sub(r"(?m)(^|\s)#.*$", "", file.read_text()) for file in folder.glob("*.tf"))
    variables = {name for name, _ in named(blocks.get("variable", []))}
    bodies = text.split("\nvariable ")  # a validation uses its own variable
    outside = "\n".join(part.partition("\n}\n")[2] if index else part for index, part in enumerate(bodies))
    assert set(re.findall(r"\bvar\.(\w+)", outside)) == variables
    known = {name for name, _ in named(blocks.get("locals", []))}
    assert set(re.findall(r"\blocal\.(\w+)", text)) == known
    for kind, prefix in (("resource", ""), ("data", r"data\.")):
        made = {f"{one}.{name}" for one, block in named(blocks.get(kind, [])) for name in block}
        used = set(re.findall(rf"(?<![\w.]){prefix}(aws_\w+\.\w+)", text))
        assert used <= made, kind


def unknown(body: Block, known: set[str]) -> Iterator[str]:
    """The arguments and blocks in ``body``, at any depth of blocks, that the provider does not have."""
    for name, value in body.items():
        if name.startswith("__") or name in ("count", "lifecycle"):  # Terraform's own
            continue
        if name not in known:
            yield name
        for block in value if isinstance(value, list) else ():
            if isinstance(block, dict):
                yield from unknown(block, known)


def test_the_provider_knows_every_argument(module: dict[str, list[Block]]) -> None:
    arguments = json.loads((Path(__file__).parents[1] / "support" / "terraform_arguments.json").read_text())
    checked = 0
    for keyword, prefix in (("resource", ""), ("data", "data.")):
        for kind, block in named(module[keyword]):
            for name, body in block.items():
                assert list(unknown(body, set(arguments[prefix + kind].split()))) == [], f"{kind}.{name}"
                checked += 1
    assert checked > 20


def test_every_variable_and_output_is_described_and_every_variable_typed(module: dict[str, list[Block]]) -> None:
    for name, body in named(module["variable"]):
        assert body["description"].endswith("."), name
        assert body["type"], name
    for name, body in named(module["output"]):
        assert body["description"].endswith("."), name
        assert body["value"], name


def test_what_can_be_wrong_with_a_variable_is_checked(module: dict[str, list[Block]]) -> None:
    variables = dict(named(module["variable"]))
    for name in set(variables) - {"tags"}:
        for validation in variables[name]["validation"]:
            assert name in validation["condition"]
            assert validation["error_message"].startswith(name)
    assert {name for name, body in variables.items() if "default" not in body} == {"application", "source_table"}


def test_the_example_gives_the_module_what_it_takes(module: dict[str, list[Block]]) -> None:
    ((_, given),) = named(parsed(EXAMPLE)["module"])
    variables = dict(named(module["variable"]))
    assert (EXAMPLE / given["source"]).resolve() == MODULE
    arguments = {name for name in given if not name.startswith("__")} - {"source"}
    assert {name for name, body in variables.items() if "default" not in body} <= arguments <= set(variables)
    inner = set(re.findall(r"(?m)^    (\w+)\s+=", (MODULE / "variables.tf").read_text()))
    assert set(given["ecs"]) <= inner


# --- what it makes, and that the template makes the same


def test_the_lease_table_is_protected(resources: dict[str, Block]) -> None:
    table = resources["aws_dynamodb_table.leases"]
    assert (table["hash_key"], table["range_key"]) == ("pk", "sk")
    assert [(each["name"], each["type"]) for each in table["attribute"]] == [("pk", "S"), ("sk", "S")]
    assert table["deletion_protection_enabled"] is True
    assert table["point_in_time_recovery"][0]["enabled"] is True
    assert table["billing_mode"] == "PAY_PER_REQUEST"


def test_the_queue_keeps_letters_as_long_as_it_can(resources: dict[str, Block]) -> None:
    queue = resources["aws_sqs_queue.dead_letters"]
    properties = cloudformation("service.yaml")["Resources"]["DeadLetters"]["Properties"]
    assert queue["message_retention_seconds"] == properties["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert queue["sqs_managed_sse_enabled"] is True


def test_the_bucket_is_closed(resources: dict[str, Block]) -> None:
    block = resources["aws_s3_bucket_public_access_block.large_letters"]
    names = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    assert all(block[name] is True for name in names)


def test_the_role_may_do_what_the_template_allows_and_no_more(module: dict[str, list[Block]]) -> None:
    documents = {name: body for _, block in named(module["data"]) for name, body in block.items()}
    statements = []
    for statement in documents["consume"]["statement"]:
        conditions: dict[str, dict[str, Any]] = {}
        for one in statement.get("condition", ()):
            value = one["values"][0] if one["test"] == "Null" else one["values"]
            conditions[one["test"]] = {one["variable"]: value}
        statements.append(
            {
                "Sid": statement["sid"],
                "Effect": statement.get("effect", "Allow"),
                "Action": statement["actions"],
                "Resource": statement["resources"],
                "Condition": conditions,
            }
        )
    require_least_privilege(statements, OF_THE_STACK)
    assert all("*" not in resource.split("/")[0] for one in statements for resource in one["Resource"])


def test_the_task_is_that_of_the_template() -> None:
    text = (MODULE / "ecs.tf").read_text()
    (daemon,) = cloudformation("service.yaml")["Resources"]["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    task = text[text.index("container_definitions") : text.index('resource "aws_ecs_service"')]
    assert re.findall(r'\{ name = "([A-Z_]+)"', task) == [entry["Name"] for entry in daemon["Environment"]]
    assert re.findall(r"stopTimeout\s+= (\d+)", task) == [str(daemon["StopTimeout"])]
    assert json.dumps(daemon["HealthCheck"]["Command"]) in task
    assert re.search(r"readonlyRootFilesystem\s+= true", task)
    assert 'drop = ["ALL"]' in task


@pytest.mark.parametrize(
    ("alarm", "of_the_template"),
    [
        ("behind", "Behind"),
        ("caught_up", "CaughtUp"),
        ("lag", "Lag"),
        ("stuck_key", "StuckKey"),
        ("dead_letters", "DeadLettersArrived"),
    ],
)
def test_the_alarms_are_those_of_the_template(alarm: str, of_the_template: str, resources: dict[str, Block]) -> None:
    ours = resources[f"aws_cloudwatch_metric_alarm.{alarm}"]
    theirs = cloudformation("service.yaml")["Resources"][of_the_template]["Properties"]
    for name in ("namespace", "metric_name", "statistic", "period", "evaluation_periods", "comparison_operator"):
        assert ours[name] == theirs["".join(word.title() for word in name.split("_"))], name
    assert ours["treat_missing_data"] == theirs["TreatMissingData"]
    assert set(ours["dimensions"]) == {dimension["Name"] for dimension in theirs["Dimensions"]}
    if isinstance(theirs["Threshold"], int):
        assert ours["threshold"] == theirs["Threshold"]


@pytest.mark.parametrize(("policy", "of_the_template"), [("out", "ScaleOut"), ("in", "ScaleIn")])
def test_the_scaling_is_that_of_the_template(policy: str, of_the_template: str, resources: dict[str, Block]) -> None:
    (ours,) = resources[f"aws_appautoscaling_policy.{policy}"]["step_scaling_policy_configuration"]
    theirs = cloudformation("service.yaml")["Resources"][of_the_template]["Properties"]
    wanted = theirs["StepScalingPolicyConfiguration"]
    assert ours["cooldown"] == wanted["Cooldown"]
    (step,), (of_theirs,) = ours["step_adjustment"], wanted["StepAdjustments"]
    assert int(str(step["scaling_adjustment"]).strip("${}")) == of_theirs["ScalingAdjustment"]
