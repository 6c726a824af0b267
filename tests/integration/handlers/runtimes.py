"""Programs that speak the Lambda Runtime API: a small one of the tests' own, and what starts them."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from consumer.handlers.build import pool_of_programs
from consumer.handlers.process_pool import ProcessPoolHandler

# What a bootstrap in the standard library looks like. ``handle(event, headers)`` is the function.
BOOTSTRAP = """
import http.client, json, os, sys, time
BASE = "/2018-06-01/runtime"
def ask(method, path, body=None, headers={}, client=http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])):
    client.request(method, BASE + path, body, headers)
    answer = client.getresponse()
    return answer, answer.read()
def run(handle):
    while True:
        answer, event = ask("GET", "/invocation/next")
        request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        try:
            result = json.dumps(handle(json.loads(event), answer.headers))
        except Exception as error:
            said = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": ["a line", {"path": "x.go", "line": 3, "label": "f"}]}
            ask("POST", f"/invocation/{request_id}/error", json.dumps(said))
        else:
            ask("POST", f"/invocation/{request_id}/response", result)
        sys.stdout.flush()
"""  # noqa: E501  # as a program would have it


def write_program(folder: Path, text: str, name: str = "bootstrap") -> tuple[str, ...]:
    """The command of a program with the functions of ``BOOTSTRAP`` at hand."""
    (folder / "runtime_client.py").write_text(BOOTSTRAP)
    program = folder / name
    program.write_text(f"#!{sys.executable}\nfrom runtime_client import *\n{textwrap.dedent(text)}")
    program.chmod(0o755)
    return (f"./{name}",)


@asynccontextmanager
async def running_program(
    command: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    import_timeout: float = 30.0,
    **options: Any,
) -> AsyncIterator[ProcessPoolHandler]:
    """A pool that was started."""
    chosen: dict[str, Any] = {"processes": 1, "report_failures": True, "application": "orders-projector"} | options
    with mock.patch.dict(os.environ, environment or {}):
        handler = pool_of_programs(command, str(folder), region="eu-west-1", **chosen)
        handler.import_timeout = import_timeout
        try:
            await handler.start()
            yield handler
        finally:
            await handler.close()
