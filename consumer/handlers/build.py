"""From the settings to the adapter that runs the user's code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

from consumer.domain.function_name import function_name
from consumer.domain.urls import secret_of
from consumer.handlers.channel import Listener
from consumer.handlers.environment import lambda_environment, worker_environment
from consumer.handlers.frame_channel import FrameChannel
from consumer.handlers.frames import Setup
from consumer.handlers.http_handler import HttpHandler
from consumer.handlers.inline import InlineHandler
from consumer.handlers.process_pool import ProcessPoolHandler
from consumer.handlers.runtime_api import RuntimeApiChannel
from consumer.ports.handler import Handler
from consumer.settings.model import Settings


def build_handler(settings: Settings) -> Handler:
    """The handler that ``settings.handler`` describes, not started.

    ``isolation: inline`` counts for ``python`` only. Lambda code keeps state in module globals and relies on one call
    at a time per process and on being killed at its time limit, so it always gets processes.
    """
    handler = settings.handler
    path = str(handler.path)
    report_failures = settings.batch.report_batch_item_failures
    if handler.kind == "http":
        return HttpHandler(secret_of(handler.target), report_failures=report_failures)
    if handler.kind == "python" and handler.isolation == "inline":
        return InlineHandler(str(handler.target), path, report_failures=report_failures is not False)
    if handler.kind == "python" or handler.kind == "lambda":
        options: dict[str, Any] = {
            "processes": handler.processes,
            "max_calls": handler.max_calls,
            "max_memory": handler.max_memory,
            "report_failures": report_failures,
            "application": settings.application,
            "region": settings.aws.region or _region_of(settings.source.stream_arn),
        }
        if handler.command:
            return pool_of_programs(handler.command, path, **options)
        python = str(handler.python) if handler.python is not None else None
        return pool_of_workers(handler.kind, str(handler.target), path, python=python, **options)
    assert_never(handler.kind)


def pool_of_workers(
    kind: Literal["lambda", "python"],
    target: str,
    path: str | None,
    *,
    python: str | None = None,
    application: str,
    region: str | None = None,
    report_failures: bool | None,
    **options: Any,
) -> ProcessPoolHandler:
    """Processes that import ``target``, in the interpreter ``python`` or in the daemon's own. ``application`` names the
    function and ``region`` is AWS's, where the daemon's environment says neither; ``options`` are of the pool."""
    setup = Setup(kind, target, path, report_failures is not False)

    def environment() -> Mapping[str, str]:
        if kind == "lambda":
            return lambda_environment(os.environ, application, Path(path or "."), region, target)
        return worker_environment(os.environ, application, target, region)

    def channel(listener: Listener) -> FrameChannel:
        return FrameChannel(setup, python, listener)

    return ProcessPoolHandler(channel, environment=environment, report_failures=report_failures, **options)


def pool_of_programs(
    command: Sequence[str],
    path: str,
    *,
    application: str,
    region: str | None = None,
    report_failures: bool | None,
    **options: Any,
) -> ProcessPoolHandler:
    """Processes of a program that speaks the Lambda Runtime API, started in the folder ``path``."""

    def environment() -> Mapping[str, str]:
        found = lambda_environment(os.environ, application, Path(path), region)
        if len(command) > 1:  # as AWS's emulator does: some clients look only there
            found.setdefault("_HANDLER", command[-1])
        return found

    def channel(listener: Listener) -> RuntimeApiChannel:
        return RuntimeApiChannel(list(command), path, function_name(os.environ, application), listener)

    return ProcessPoolHandler(channel, environment=environment, report_failures=report_failures, **options)


def _region_of(arn: str | None) -> str | None:
    """The fourth part of an ARN: Lambda code reads AWS_REGION when it is imported, long before the first event."""
    parts = (arn or "").split(":")
    return parts[3] if len(parts) > 5 else None
