"""How the functions are started here. A test is skipped, with the reason, where what it needs is missing."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ASKED = "STREAM_CONSUMER_TEST_RUNTIMES"
RUNTIME_PYTHON = FOLDER.parents[1] / ".venv-runtime" / "bin" / "python"


def runtime_python() -> str:
    """An environment of its own, with another boto3 than the daemon's and without the daemon (``make`` makes it)."""
    python = Path(os.environ.get("STREAM_CONSUMER_RUNTIME_PYTHON", RUNTIME_PYTHON))
    if not python.exists():
        pytest.skip("no environment with awslambdaric: make .venv-runtime/.ready")
    return str(python)


def awslambdaric(target: str = "with_boto3.handler") -> tuple[str, ...]:
    """AWS's own client for Python."""
    return (runtime_python(), "-m", "awslambdaric", target)


def go() -> tuple[str, ...]:
    """The binary of the function in Go, built once."""
    return (str(_go_binary()),)


def _go_binary() -> Path:
    folder = _folder("go")
    binary = folder / "bootstrap"
    _build(("go", "build", "-o", str(binary), "."), FOLDER / "go")
    return binary


# -- those that take minutes to build, and download what they need


def rust() -> tuple[str, ...]:
    return (str(_built_when_asked("rust", ("cargo", "build", "--quiet")) / "target" / "debug" / "bootstrap"),)


def java() -> tuple[str, ...]:
    build = ("mvn", "-q", "-B", "compile", "dependency:copy-dependencies", "-DoutputDirectory=lib")
    folder = _built_when_asked("java", build)
    main = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"
    return ("java", "-cp", f"{folder}/target/classes:{folder}/lib/*", main, "example.Handler")


def node() -> tuple[str, ...]:
    """To be started in the folder that holds ``node_modules``, which is the function's."""
    folder = _built_when_asked("node", ("npm", "install", "--no-package-lock", "--no-audit", "--no-fund"))
    return (str(folder / "node_modules" / ".bin" / "aws-lambda-ric"), "index.handler")


def _built_when_asked(language: str, command: tuple[str, ...]) -> Path:
    if os.environ.get(ASKED) != "all":
        pytest.skip(f"{ASKED}=all builds it, which takes minutes and downloads what it needs")
    folder = _folder(language)
    shutil.copytree(FOLDER / language, folder, dirs_exist_ok=True)
    _build(command, folder)
    return folder


def _folder(language: str) -> Path:
    """Outside of the repository, and of this user; kept, so that a second build is quick."""
    folder = Path(tempfile.gettempdir()) / f"stream-consumer-{language}-function-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _build(command: tuple[str, ...], folder: Path) -> None:
    if problem := _problem_of_build(command, folder):
        pytest.skip(problem)


@functools.cache
def _problem_of_build(command: tuple[str, ...], folder: Path) -> str:
    """Once in a process, also when it fails: every test would wait for it again."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]} here"
    go = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    made = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **go, "CARGO_TARGET_DIR": str(folder / "target")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return f"it cannot be built here: {(made.stderr + made.stdout).strip()[-200:]}" if made.returncode else ""
