"""The environment and command line of a worker process: what Lambda code expects to find, and how it starts."""

from __future__ import annotations

import datetime as dt
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from consumer.domain.function_name import VARIABLE, function_name
from consumer.handlers.handler_context import DEFAULT_MEMORY_MB, FUNCTION_VERSION

# The folder that holds the package: needed when the daemon runs from a checkout. It goes through the command line and
# not through PYTHONPATH, which belongs to the user and is inherited by everything the user's code starts.
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from consumer.handlers.worker_main import main; main()"


def worker_command(descriptor: int) -> list[str]:
    """The command of a worker: ``-P`` keeps the daemon's working directory off ``sys.path``."""
    arguments = [_PACKAGE_PARENT, str(descriptor), str(os.getpid()), "stream-consumer-worker"]
    return [sys.executable, "-P", "-c", _BOOTSTRAP, *arguments]


def program_environment(own: Mapping[str, str], application: str, folder: Path, region: str | None) -> dict[str, str]:
    """The same for a program that speaks the Lambda Runtime API: ``LAMBDA_TASK_ROOT`` is where it starts. That switches
    the X-Ray SDKs on, which would look for a daemon that is not there, so they are told to stay quiet."""
    environment = worker_environment(own, application, "", region)
    if "_HANDLER" not in own:
        del environment["_HANDLER"]
    environment.setdefault("LAMBDA_TASK_ROOT", str(folder))
    environment.setdefault("AWS_XRAY_SDK_ENABLED", "false")
    environment.setdefault("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
    return environment


def worker_environment(own: Mapping[str, str], application: str, target: str, region: str | None) -> dict[str, str]:
    """The daemon's own environment, and Lambda's variables where the user set none.

    A variable that is set wins, so that code moved off Lambda can keep its function name (Powertools derives
    idempotency keys from it). ``LAMBDA_TASK_ROOT`` is not set: its presence turns X-Ray tracing on.
    """
    function = function_name(own, application)
    environment = {**own, VARIABLE: function}
    environment.setdefault("AWS_LAMBDA_FUNCTION_VERSION", FUNCTION_VERSION)
    environment.setdefault("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", DEFAULT_MEMORY_MB)
    environment.setdefault("AWS_LAMBDA_LOG_GROUP_NAME", f"/aws/lambda/{function}")
    today = dt.datetime.now(tz=dt.UTC)
    environment.setdefault("AWS_LAMBDA_LOG_STREAM_NAME", f"{today:%Y/%m/%d}/[{FUNCTION_VERSION}]{uuid.uuid4().hex}")
    environment.setdefault("_HANDLER", target.replace(":", "."))
    environment.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
    known = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or region
    if known:
        environment.setdefault("AWS_REGION", known)
        environment.setdefault("AWS_DEFAULT_REGION", known)
    return environment
