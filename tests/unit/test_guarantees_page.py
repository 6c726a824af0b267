"""docs/guarantees.md and docs/scenarios.md name tests that exist; every guarantee names one, every scenario one or a
reason."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
SCENARIOS = (ROOT / "docs" / "scenarios.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


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


def test_every_guarantee_has_its_section_with_limits_and_a_test() -> None:
    sections = dict(re.findall(r"^## (G\d) [^\n]*\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == [f"G{n}" for n in range(1, 8)]
    for name, text in sections.items():
        assert NAMED.search(text), f"{name} names no test"
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
