"""docs/guarantees.md and docs/scenarios.md name tests that exist; every guarantee names one, every scenario one or a
reason. Which of them only `make soak` runs is said beside them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
SCENARIOS = (ROOT / "docs" / "scenarios.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
MARKED = re.compile(r"`([\w/]+\.py)::(\w+)`( \(`make soak`[;)])?")


@cache
def of_make_soak(path: str) -> set[str]:
    """The tests of a file below ``tests`` of which `make test` runs no case."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assigned = [node.value for node in tree.body if isinstance(node, ast.Assign) and _names(node) == {"pytestmark"}]
    whole = any("pytest.mark.soak" in ast.unparse(value) for value in assigned)
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        test.name
        for test in tests
        if whole or "pytest.mark.soak" in [ast.unparse(decorator) for decorator in test.decorator_list]
    }


def _names(node: ast.Assign) -> set[str]:
    return {ast.unparse(target) for target in node.targets}


@pytest.mark.parametrize("page", [PAGE, SCENARIOS], ids=["guarantees", "scenarios"])
def test_every_named_test_exists(page: str) -> None:
    """A test that is renamed or removed takes its line on the page along."""
    named = NAMED.findall(page)
    assert len(named) > 60
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / "tests" / path).is_file()
        or not re.search(rf"^ *(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", [PAGE, SCENARIOS], ids=["guarantees", "scenarios"])
def test_what_only_make_soak_runs_says_so(page: str) -> None:
    """A test that moves out of `make test`, or back, takes its line on the page along."""
    named = MARKED.findall(page)
    assert {name for path, name, _ in named if name in of_make_soak(path)}
    assert [name for path, name, marked in named if bool(marked) != (name in of_make_soak(path))] == []


def test_what_only_make_soak_runs_is_found() -> None:
    assert "test_sigkill_storm" in of_make_soak("e2e/test_faults.py")
    assert "test_spans_of_reads_calls_and_checkpoints" in of_make_soak("e2e/test_tracing.py")
    assert "test_misbehaving_handlers" not in of_make_soak("e2e/test_torture.py")


def test_every_guarantee_has_its_section_with_limits_and_a_test() -> None:
    sections = dict(re.findall(r"^## (G\d) [^\n]*\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == [f"G{n}" for n in range(1, 8)]
    for name, text in sections.items():
        named = NAMED.findall(text)
        assert any(test not in of_make_soak(path) for path, test in named), f"{name} names no test of make test"
        assert "Limits" in text or name == "G6", f"{name} names no limit"


def test_every_scenario_is_shown_or_has_a_reason() -> None:
    rows = [row for row in SCENARIOS.splitlines() if row.startswith("| ") and not row.startswith(("| sc", "| ---"))]
    assert len(rows) > 40
    without = [row.split(" | ")[0] for row in rows if not NAMED.search(row)]
    assert without == []


def test_every_known_bug_names_a_test() -> None:
    rows = PAGE.partition("## Known bugs")[2].splitlines()
    rows = [row for row in rows if row.startswith("| ") and not row.startswith(("| bug", "| ---"))]
    assert len(rows) > 25
    assert [row for row in rows if not NAMED.search(row)] == []
