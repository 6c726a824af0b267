"""The linters of the platforms' own ecosystems over everything in deploy/, config/ and the Dockerfiles."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
DOCKERFILES = [ROOT / "Dockerfile", *(ROOT / "deploy").rglob("*Dockerfile")]
# DL3059 asks to merge RUN instructions into one shell line: here each is a layer of its own, in exec form.
ACCEPTED = "DL3059"


def lint(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPTS / tool), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_yamllint_finds_nothing() -> None:
    result = lint("yamllint", "--strict", "-c", "deploy/.yamllint.yaml", "config", "deploy")
    assert result.returncode == 0, result.stdout


def test_yamllint_would_find_a_key_that_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n")
    assert lint("yamllint", "-c", "deploy/.yamllint.yaml", str(tmp_path)).returncode != 0


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    result = lint("hadolint", "--ignore", ACCEPTED, "--failure-threshold", "info", str(file))
    assert result.returncode == 0, result.stdout + result.stderr
