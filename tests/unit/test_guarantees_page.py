"""docs/guarantees.md names tests that exist, and every guarantee names one."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_named_test_exists() -> None:
    """A test that is renamed or removed takes its line on the page along."""
    named = NAMED.findall(PAGE)
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


def test_every_known_bug_names_a_test() -> None:
    rows = PAGE.partition("## Known bugs")[2].splitlines()
    rows = [row for row in rows if row.startswith("| ") and not row.startswith(("| bug", "| ---"))]
    assert len(rows) > 25
    assert [row for row in rows if not NAMED.search(row)] == []
