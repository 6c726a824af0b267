"""The configured handler outside of the daemon: started once, for a look at whether it can be, or for one call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import click
import structlog

from consumer.domain.errors import HandlerImportError
from consumer.handlers.build import build_handler
from consumer.ports.handler import Handler
from consumer.settings.model import Settings


@asynccontextmanager
async def started_handler(settings: Settings) -> AsyncIterator[Handler]:
    """The handler in one worker process, also an inline one: user code that hangs or ends its process must end nothing
    else. HandlerImportError."""
    alone = settings.handler.model_copy(update={"processes": 1, "isolation": "process"})
    handler = build_handler(settings.model_copy(update={"handler": alone}))
    try:
        await handler.start()
        yield handler
    finally:
        await handler.close()


async def import_problem(settings: Settings) -> HandlerImportError | None:
    """Why the handler cannot be started; None when it can, or is behind a URL."""
    if settings.handler.kind == "http":
        return None
    try:
        async with started_handler(settings):
            return None
    except HandlerImportError as error:
        return error


@contextmanager
def output_on_stderr() -> Iterator[list[dict[str, Any]]]:
    """What the handler prints, and what the daemon would log at WARNING and above, goes to standard error. Yields the
    lines of the handler: ``stream`` and ``line``, also after the end."""
    lines: list[dict[str, Any]] = []

    def show(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        name = event.pop("event", "")
        if name == "handler.output":
            lines.append({"stream": event["stream"], "line": event["line"]})
            click.echo(event["line"], err=True)
        elif name == "handler.metrics":
            text = json.dumps(event["verbatim"])
            lines.append({"stream": "stdout", "line": text})
            click.echo(text, err=True)
        elif method in ("warning", "error", "critical"):
            click.echo(f"{method}: {name} " + " ".join(f"{key}={value}" for key, value in event.items()), err=True)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[show], cache_logger_on_first_use=False)
    try:
        yield lines
    finally:
        structlog.configure(**before)
