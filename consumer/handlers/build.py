"""From the settings to the adapter that runs the user's code."""

from __future__ import annotations

from typing import assert_never

from consumer.domain.urls import secret_of
from consumer.handlers.http_handler import HttpHandler
from consumer.handlers.inline import InlineHandler
from consumer.handlers.process_pool import ProcessPoolHandler
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
        return InlineHandler(str(handler.target), path, report_failures=report_failures)
    if handler.kind == "python" or handler.kind == "lambda":
        return ProcessPoolHandler(
            kind=handler.kind,
            target=str(handler.target),
            path=path,
            processes=handler.processes,
            max_calls=handler.max_calls,
            max_memory=handler.max_memory,
            report_failures=report_failures,
            application=settings.application,
            region=settings.aws.region or _region_of(settings.source.stream_arn),
        )
    assert_never(handler.kind)


def _region_of(arn: str | None) -> str | None:
    """The fourth part of an ARN: Lambda code reads AWS_REGION when it is imported, long before the first event."""
    parts = (arn or "").split(":")
    return parts[3] if len(parts) > 5 else None
