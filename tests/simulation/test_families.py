"""A few seeds of every family of random runs; ``make soak`` runs thousands of others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.authorities import NONE_ELSE


@pytest.mark.parametrize(
    ("family", "first", "seeds"),
    [
        ("protocol", 0, 4),
        ("records", 0, 4),
        ("weather", 0, 3),
        ("fleet", 0, 3),
        ("failing_keys", 0, 1),
        ("breaker", 0, 1),
        ("kinesis", 0, 3),
        ("parking", 0, 5),
        ("parked_child", 0, 3),
        ("blocked", 0, 3),
        ("older_view", 0, 3),
        ("lost_parent", 0, 3),
    ],
)
def test_no_promise_is_broken(family: str, first: int, seeds: int) -> None:
    """In a process of its own, with Python's hash seed fixed: what fails is repeated by the command it prints."""
    command = [sys.executable, "-m", "tests.simulation.simulate", family, "--first", str(first), "--seeds", str(seeds)]
    environment = {**os.environ, **NONE_ELSE, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
