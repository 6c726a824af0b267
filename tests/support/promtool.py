"""What ``promtool`` says of rules and expressions. Without it the tests that need it are skipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian and Ubuntu: package prometheus)"
)


def run_rule_tests(folder: Path, tests: Sequence[Mapping[str, Any]], evaluation_interval: str) -> None:
    """``promtool test rules`` on the shipped alerts; AssertionError with what it says when a test fails."""
    document = {"rule_files": [str(RULES)], "evaluation_interval": evaluation_interval, "tests": tests}
    path = folder / "alerts.test.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    _promtool("test", "rules", str(path))


def series_of_the_rules() -> list[str]:
    """The metrics of this program that the shipped alerts look at."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return sorted({name for rule in rules for name in re.findall(r"stream_consumer_\w+", rule["expr"])})


def check_expressions(folder: Path, expressions: Sequence[str]) -> None:
    """AssertionError when one of the expressions is no PromQL."""
    rules = [{"record": f"checked:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    path = folder / "expressions.yaml"
    path.write_text(json.dumps({"groups": [{"name": "checked", "rules": rules}]}))
    _promtool("check", "rules", str(path))


def _promtool(*arguments: str) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
