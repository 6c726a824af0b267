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


@functools.cache
def _go_binary() -> Path:
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("no Go here")
    folder = Path(tempfile.gettempdir()) / f"stream-consumer-go-function-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    binary = folder / "bootstrap"
    made = subprocess.run(
        [compiler, "build", "-o", str(binary), "."],
        cwd=FOLDER / "go",
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"the Go function cannot be built here: {made.stderr.strip()[-200:]}")
    return binary


RUNTIMES = {"awslambdaric": awslambdaric, "aws-lambda-go": go}
