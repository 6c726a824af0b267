"""Runs one row in this process: ``python -m benchmarks.row MODULE FUNCTION '{"its": "arguments"}'``."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.servers import child_environment

MARK = "RESULT "


def run_row(module: str, function: str, arguments: dict[str, Any], deadline: float = 600.0) -> dict[str, Any]:
    """Run a row of ``benchmarks.rows`` in a process of its own; ``deadline`` in seconds."""
    command = [sys.executable, "-m", "benchmarks.row", module, function, json.dumps(arguments)]
    ended = subprocess.run(
        command, check=False, env=child_environment(), capture_output=True, text=True, timeout=deadline
    )
    for line in reversed(ended.stdout.splitlines()):
        if line.startswith(MARK):
            result: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return result
    raise RuntimeError(f"{module}.{function} gave no result:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")


if __name__ == "__main__":
    name, entry, given = sys.argv[1:]
    outcome = getattr(importlib.import_module(f"benchmarks.rows.{name}"), entry)(**json.loads(given))
    print(MARK + json.dumps(outcome), flush=True)
    os._exit(0)
