"""What a value in Terraform is: literals, variables, locals and jsonencode are known, and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.mapping import Imported
from tests.unit.cli.lambda_mappings import QUEUE, STREAM, converted, text_of

MODULE = """
variable "size" {
  type    = number
  default = 5
}
variable "word" {
  default = "INSERT"
}
variable "secret" {
  default   = "hush"
  sensitive = true
}
variable "unset" {}
variable "settings" {
  default = { size = 6, words = ["INSERT"] }
}
locals {
  size  = var.size
  loop  = local.loop
  twice = "${local.twice}${local.twice}"
  names = { size = 8 }
}
resource "aws_lambda_event_source_mapping" "orders" {
  event_source_arn  = "%s"
  function_name     = "orders"
  starting_position = "LATEST"
  %s
}
"""


def imported(body: str, **parameters: str) -> Imported:
    return converted(MODULE.replace("%s", STREAM, 1).replace("%s", body, 1), parameters=parameters)


VALUES: list[tuple[str, dict[str, str], Any]] = [
    ("7", {}, 7),
    ('"7"', {}, 7),
    ("7e0", {}, 7),
    ("var.size", {}, 5),
    ("var.size", {"size": "4"}, 4),
    ('"${var.size}0"', {}, 50),
    ("local.size", {"size": "4"}, 4),
    ("local.names.size", {}, 8),
    ("var.settings.size", {}, 6),
    ("var.settings.size", {"settings": '{"size": 3}'}, 3),
    ("var.settings.size", {"settings": "{"}, None),
    ("null", {}, 100),
    ("var.unset", {}, None),
    ("var.unset", {"unset": "2"}, 2),
    ("local.loop", {}, None),
    ("local.twice", {}, None),
    ("local.nothing", {}, None),
    ("aws_ssm_parameter.size.value", {}, None),
    ("data.aws_ssm_parameter.size.value", {}, None),
    ("var.size > 3 ? 5 : 6", {}, None),
    ("min(5, 6)", {}, None),
    ("var.settings.words[0]", {}, None),
    ("each.value.size", {}, None),
    ("module.sizes.size", {}, None),
]


@pytest.mark.parametrize(("expression", "parameters", "size"), VALUES)
def test_values(expression: str, parameters: dict[str, str], size: int | None) -> None:
    batch = yaml.safe_load(imported(f"batch_size = {expression}", **parameters).yaml)["batch"]
    assert batch["batch_size"] == (size if size is not None else "${BATCH_SIZE}")


INSERT = {"eventName": ["INSERT"]}
PATTERNS: list[tuple[str, Any]] = [
    ('jsonencode({ eventName = ["INSERT"] })', INSERT),
    ('jsonencode({ "eventName" : [var.word] })', INSERT),
    ("jsonencode({ eventName = var.settings.words })", INSERT),
    (
        'jsonencode({ a = [{ numeric = [">", 1.5] }, { exists = false }, null] })',
        {"a": [{"numeric": [">", 1.5]}, {"exists": False}, None]},
    ),
    ('"{\\"eventName\\": [\\"INSERT\\"]}"', INSERT),
    ('"{\\"eventName\\": [\\"${var.word}\\"]}"', INSERT),
    ('"{\\"\\u0065ventName\\": [\\"INSERT\\"]}"', INSERT),
    ('<<EOT\n{"eventName": ["INSERT"]}\nEOT', INSERT),
    ('<<-EOT\n    {"eventName":\n      ["${var.word}"]}\n    EOT', INSERT),
    ('"{\\"a\\": [\\"$${literal}\\"]}"', {"a": ["$${literal}"]}),  # as the file escapes it
    ("jsonencode({ eventName = [var.unset] })", None),
    ("jsonencode({ (var.word) = [1] })", None),
    ('jsonencode({ for name in ["a"] : name => [1] })', None),
    ("jsonencode(local.pattern)", None),
    ('"{\\"eventName\\": [\\"${var.unset}\\"]}"', None),
    ('"{\\"eventName\\": [\\"%{ if true }INSERT%{ endif }\\"]}"', None),
    ('"{\\"eventName\\": [\\"${upper("insert")}\\"]}"', None),
    ('file("pattern.json")', None),
    ("var.unset", None),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "pattern"), PATTERNS)
def test_patterns(expression: str, pattern: Any) -> None:
    """One that is not known takes the whole list with it."""
    for known in ("", 'filter {\n pattern = jsonencode({ eventName = ["MODIFY"] })\n }\n'):
        body = f"filter_criteria {{\n {known} filter {{\n pattern = {expression}\n }}\n }}"
        written = yaml.safe_load(imported(body).yaml)["filters"]
        beside = [{"eventName": ["MODIFY"]}] if known else []
        assert written == ("${FILTER_CRITERIA}" if pattern is None else [*beside, pattern])


DYNAMIC = 'dynamic "{}" {{\n for_each = var.unset\n content {{\n {} \n}}\n}}'
BLOCKS = [
    ("destination_config = var.unset", "on_failure"),
    ('destination_config = "x"', "on_failure"),
    ("destination_config {\n}\ndestination_config {\n}", "on_failure"),
    ("filter_criteria = var.unset", "filters"),
    ("filter_criteria {\n}\nfilter_criteria {\n}", "filters"),
    ("filter_criteria {\n" + DYNAMIC.format("filter", "pattern = filter.value") + "\n}", "filters"),
    (DYNAMIC.format("filter_criteria", "filter {\n pattern = 1\n}"), "filters"),
    (DYNAMIC.format("destination_config", "on_failure {\n destination_arn = 1\n}"), "on_failure"),
    ("destination_config {\n" + DYNAMIC.format("on_failure", "destination_arn = 1") + "\n}", "on_failure"),
]


@pytest.mark.parametrize(("body", "section"), BLOCKS)
def test_blocks_that_are_not_known(body: str, section: str) -> None:
    written = yaml.safe_load(imported(body).yaml)[section]
    destination = {"destination": "${ON_FAILURE_DESTINATION}", "format": "full", "order": "continue"}
    assert written == ("${FILTER_CRITERIA}" if section == "filters" else destination)


def test_notes() -> None:
    body = "count = 2\nenabled = false\nkms_key_arn = var.secret\nnew_option = 1"
    notes = [str(note) for note in imported(body).notes]
    assert any(note.startswith("count: makes several mappings") for note in notes)
    assert any(note.startswith("Enabled: the mapping is disabled") for note in notes)
    assert any(note.startswith("new_option: not an option that is known here") for note in notes)
    assert any(note.startswith("parameter secret: its default is used") for note in notes)
    assert not any("hush" in note for note in notes)


def plan(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text_of("plan.json"))
    return copy.deepcopy(document) | changes


def test_what_nobody_sets_is_the_default_and_not_unknown() -> None:
    """The provider reads these back from Lambda; a plan has them among the unknown."""
    written = yaml.safe_load(converted(plan()).yaml)
    assert written["batch"]["parallelization_factor"] == 1
    assert written["retry"]["max_record_age"] == -1


def test_without_its_configuration_all_that_a_plan_does_not_know_is_asked_for() -> None:
    written = yaml.safe_load(converted(plan(configuration={})).yaml)
    assert written["batch"]["parallelization_factor"] == "${PARALLELIZATION_FACTOR}"
    assert written["retry"]["max_record_age"] == "${MAXIMUM_RECORD_AGE_IN_SECONDS}"
    assert written["filters"] == "${FILTER_CRITERIA}"


def test_without_its_changes_the_configuration_tells_what_is_not_known() -> None:
    written = yaml.safe_load(converted(plan(resource_changes=[])).yaml)
    assert written["source"]["stream_arn"] == "${EVENT_SOURCE_ARN}"
    assert written["retry"]["max_retry_attempts"] == "${MAXIMUM_RETRY_ATTEMPTS}"


@pytest.mark.parametrize("named", ["aws_lambda_alias.live.arn", "aws_lambda_function.this.arn"])
def test_the_function_of_a_plan(named: str) -> None:
    document = plan()
    module = document["configuration"]["root_module"]["module_calls"]["projector"]["module"]
    alias = {
        "address": "module.projector.aws_lambda_alias.live",
        "mode": "managed",
        "type": "aws_lambda_alias",
        "name": "live",
    }
    document["planned_values"]["root_module"]["child_modules"][0]["resources"].append(alias)
    module["resources"][2]["expressions"]["function_name"]["references"] = [named, named.rpartition(".")[0]]
    assert yaml.safe_load(converted(document).yaml)["handler"]["target"] == "app.handler"


def test_a_destination_that_is_known_in_part() -> None:
    document = plan()
    mapping = document["planned_values"]["root_module"]["child_modules"][0]["resources"][1]["values"]
    mapping["destination_config"] = [{"on_failure": [{"destination_arn": QUEUE}]}]
    document["resource_changes"][0]["change"]["after_unknown"]["destination_config"] = [{"on_failure": [{}]}]
    assert yaml.safe_load(converted(document).yaml)["on_failure"]["destination"] == QUEUE
