"""The stub stream server as a context manager, how to steer it, and what processes of a run get as environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


class StubStream:
    """``benchmarks.stub_stream`` as a child process; ``endpoint`` is its URL."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.stub_stream"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        if len(line) != 2:
            raise RuntimeError("the stub stream server did not start")
        self.endpoint = f"http://127.0.0.1:{line[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid


def steer(endpoint: str, operation: str, **options: Any) -> dict[str, Any]:
    """Call ``Configure``, ``Put`` or ``Stats`` of the stub (see ``benchmarks.stub_stream``)."""
    request = urllib.request.Request(
        endpoint, json.dumps(options).encode(), {"X-Amz-Target": f"Bench.{operation}"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        stats: dict[str, Any] = json.load(answer)
        return stats


def child_environment() -> dict[str, str]:
    """What rows and daemons run with: credentials for the stub, and nothing that points at a real account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, **CREDENTIALS, "PYTHONPATH": os.pathsep.join(path for path in (str(Path.cwd()), *sys.path) if path)}
