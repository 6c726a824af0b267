"""What surrounds the code: workflows, issue forms, hooks. They run elsewhere; what can be seen is checked here."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_jobs_may_do_little(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "what comes from outside goes through the environment"
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_an_action_is_the_same_one_everywhere() -> None:
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))}
    assert len({line.partition("@")[0] for line in used}) == len(used)


def test_ci_runs_what_developers_run() -> None:
    for name, job in (("tests", "tests"), ("release", "build")):
        steps = load(GITHUB / "workflows" / f"{name}.yml")["jobs"][job]["steps"]
        assert ".ci/run" in [step.get("run") for step in steps]


def test_only_what_was_tested_is_published_and_no_secret_is_needed() -> None:
    jobs = load(GITHUB / "workflows" / "release.yml")["jobs"]
    assert {name: job.get("needs") for name, job in jobs.items()} == {
        "build": None,
        "publish": "build",
        "image": "build",
    }
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "pypi"
    secrets = set(re.findall(r"secrets\.(\w+)", (GITHUB / "workflows" / "release.yml").read_text(encoding="utf-8")))
    assert secrets == {"GITHUB_TOKEN"}
    (push,) = [step["with"] for step in jobs["image"]["steps"] if "build-push" in step.get("uses", "")]
    assert (push["platforms"], push["provenance"], push["sbom"]) == ("linux/amd64,linux/arm64", "mode=max", True)
    arguments = re.findall(r"(?m)^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert {line.partition("=")[0] for line in push["build-args"].split("\n") if line} <= set(arguments)


def test_what_a_workflow_makes_is_a_target() -> None:
    wanted = re.findall(r"run: make (.*)", "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS))
    assert wanted
    targets = set(re.findall(r"(?m)^([a-z-]+):", MAKEFILE))
    assert {target for line in wanted for target in line.split()} <= targets


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    speedups = tomllib.loads((ROOT / "speedups" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert speedups == version
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def third_party(path: Path) -> Iterator[str]:
    """Top-level names of what a file imports that is neither Python's own nor the package's."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [node.module]
        yield from {name.partition(".")[0] for name in named} - sys.stdlib_module_names - {"consumer"}


def test_every_dependency_is_used_and_everything_used_is_one() -> None:
    """By import names. ``aioboto3`` brings the layers below it, ``pydantic`` its core, ``python-hcl2`` its parser."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {re.split(r"[<>=\[ ;]", line)[0] for line in [*project["dependencies"], *extras]}
    imports = {"PyYAML": "yaml", "prometheus-client": "prometheus_client", "python-hcl2": "hcl2"}
    imports |= {name: "opentelemetry" for name in declared if name.startswith("opentelemetry-")}
    brought = {"aiobotocore", "boto3", "botocore", "lark", "pydantic_core"}
    used = {name for path in (ROOT / "consumer").rglob("*.py") for name in third_party(path)}
    assert used - brought == {imports.get(name, name) for name in declared}


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    recipe = MAKEFILE.partition("\nsbom:")[2].partition("\n\n")[0]
    assert "cyclonedx-py requirements requirements/runtime.lock" in recipe


def test_the_hooks_are_the_tools_of_make_check() -> None:
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert all(hook["language"] == "system" for hook in hooks.values())
    for name in ("ruff-check", "ruff-format", "lint-imports", "mypy"):
        command = hooks[name]["entry"].removeprefix(".venv/").removesuffix(" --force-exclude")
        assert f"$(BIN)/{command.removeprefix('bin/')}" in MAKEFILE, command


def test_the_bug_form_asks_for_what_an_engineer_needs() -> None:
    form = load(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    fields = {field["id"]: field for field in form["body"] if "id" in field}
    assert len(fields) == len([field for field in form["body"] if field["type"] != "markdown"])
    required = {name for name, field in fields.items() if field.get("validations", {}).get("required")}
    assert {"what", "versions", "config", "logs"} <= required
    assert "check-config FILE --print-effective" in fields["config"]["attributes"]["description"]
    assert "stream-consumer --version" in fields["versions"]["attributes"]["description"]


@pytest.mark.parametrize("name", ["bug.yml", "idea.yml"])
def test_issue_forms_have_the_shape_that_the_host_wants(name: str) -> None:
    form = load(GITHUB / "ISSUE_TEMPLATE" / name)
    assert set(form) == {"name", "description", "labels", "body"}
    for field in form["body"]:
        assert field["type"] in ("markdown", "textarea", "dropdown")
        assert field["attributes"].get("value" if field["type"] == "markdown" else "label")
        if field["type"] == "dropdown":
            assert len(set(field["attributes"]["options"])) == len(field["attributes"]["options"]) > 1
