"""The same seed gives the same run: in one process, in another one, and with another hash seed of Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.scenarios import run


def digest(family: str, seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.simulation.simulate", family, "--seed", str(seed)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"digest ([0-9a-f]{32})", done.stdout)
    assert found is not None, done.stdout
    return found[1]


@pytest.mark.parametrize("family", ["protocol", "fleet"])
def test_the_same_in_every_process(family: str) -> None:
    """No set whose order matters, no address, no real clock and no real randomness."""
    assert digest(family, 3, "1") == run(family, 3).digest


def test_records_are_the_same_with_any_hash_seed() -> None:
    assert digest("records", 0, "1") == digest("records", 0, "7")


def test_another_seed_is_another_run() -> None:
    assert run("fleet", 1).digest != run("fleet", 2).digest
