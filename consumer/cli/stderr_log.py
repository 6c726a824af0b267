"""What the daemon would log, on standard error: standard output of a command is its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import structlog


def _nothing(_name: str, _fields: dict[str, Any]) -> bool:
    return False


@contextmanager
def warnings_on_stderr(taken: Callable[[str, dict[str, Any]], bool] = _nothing) -> Iterator[None]:
    """Events at WARNING and above become lines of standard error, all others nothing. ``taken`` is asked first, with
    the name of an event and its fields, and may deal with it itself."""

    def show(_logger: object, method: str, event: structlog.typing.EventDict) -> str:
        fields = dict(event)
        name = fields.pop("event", "")
        if not taken(name, fields) and method in ("warning", "error", "critical"):
            click.echo(f"{method}: {name} " + " ".join(f"{key}={value}" for key, value in fields.items()), err=True)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[show], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
