"""``make`` finds a Python that really runs, and says what it tried when there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

# As a version manager leaves it for a version that is not selected.
SHIM = "#!/bin/sh\necho 'python: command not found' >&2\nexit 127\n"
REAL = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
OLD = "#!/bin/sh\nexit 1  # as the check answers on a Python that is too old, or that cannot make an environment\n"

Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(*arguments, **commands)``: run the Makefile in an empty folder with these commands alone on the PATH."""

    def run(*arguments: str, **commands: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, text in commands.items():
            command = folder / name.replace("_", ".")
            command.write_text(text)
            command.chmod(0o755)
        return subprocess.run(
            [str(MAKE), "-s", "-f", str(ROOT / "Makefile"), *arguments],
            cwd=tmp_path,
            env={"PATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def chosen(make: Make, *arguments: str, **commands: str) -> str:
    return make("--eval", "chosen: ; $(info $(PYTHON)) @:", "chosen", *arguments, **commands).stdout.strip()


def test_the_newest_that_runs_is_taken(make: Make) -> None:
    assert chosen(make, python3_12=REAL, python3_11=REAL, python3=REAL) == "python3.12"


def test_a_shim_that_fails_and_a_version_that_is_too_old_are_passed_over(make: Make) -> None:
    assert chosen(make, python3_13=SHIM, python3_12=OLD, python3_11=REAL, python3=OLD) == "python3.11"
    assert chosen(make, python3_11=SHIM, python3=REAL) == "python3"


def test_a_named_one_is_taken(make: Make) -> None:
    assert chosen(make, "PYTHON=mine", python3_12=REAL, mine=REAL) == "mine"


def test_without_any_the_error_names_what_was_tried(make: Make) -> None:
    result = make(".venv/bin/python", python3=OLD)
    assert result.returncode != 0
    assert "none of python3.13 python3.12 python3.11 python3 is a Python of 3.11 or newer" in result.stderr
    assert "PYTHON=" in result.stderr


def test_a_named_one_that_is_too_old_is_refused_before_anything_is_made(make: Make, tmp_path: Path) -> None:
    result = make(".venv/bin/python", "PYTHON=old", old=OLD, python3=REAL)
    assert result.returncode != 0
    assert "old is no Python of 3.11 or newer" in result.stderr
    assert not (tmp_path / ".venv").exists()
