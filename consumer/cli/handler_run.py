"""The configured handler outside of the daemon: started once, for a look at whether it can be, or for one call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import click

from consumer.cli.stderr_log import warnings_on_stderr
from consumer.domain.errors import HandlerImportError
from consumer.handlers.build import build_handler
from consumer.ports.handler import Handler
from consumer.settings.model import Settings


@asynccontextmanager
async def started_handler(settings: Settings, processes: int = 1) -> AsyncIterator[Handler]:
    """The handler in worker processes, also an inline one: user code that hangs or ends its process must end nothing
    else. HandlerImportError."""
    alone = settings.handler.model_copy(update={"processes": processes, "isolation": "process"})
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

    def taken(name: str, fields: dict[str, Any]) -> bool:
        if name == "handler.output":
            lines.append({"stream": fields["stream"], "line": fields["line"]})
        elif name == "handler.metrics":
            lines.append({"stream": "stdout", "line": json.dumps(fields["verbatim"])})
        else:
            return False
        click.echo(lines[-1]["line"], err=True)
        return True

    with warnings_on_stderr(taken):
        yield lines
