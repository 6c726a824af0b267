"""How a command ends when something is wrong: one line on stderr, the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from consumer.domain.errors import StreamConsumerError, first_error
from consumer.domain.urls import redact_urls

if TYPE_CHECKING:  # imported on use: neither --help nor a health check must wait for it
    from consumer.domain.stream_record import StreamRecord
    from consumer.settings.errors import Problem
    from consumer.settings.model import Settings

# But for the first, as for click, numbers of sysexits.h. 70 is also a wedged daemon.
EX_USAGE: Final = 2
EX_UNAVAILABLE: Final = 69
EX_INTERNAL: Final = 70
EX_CONFIG: Final = 78


def fail(message: str, code: int) -> NoReturn:
    """End the process with ``message``, one line without the credentials of URLs, on stderr."""
    sys.stderr.write(f"stream-consumer: {redact_urls(message)}\n")
    sys.stderr.flush()
    sys.exit(code)


def settings_or_exit(path: Path) -> Settings:
    """The settings of ``path``, or every problem on stderr and exit 78."""
    return checked_or_exit(path)[0]


def checked_or_exit(path: Path) -> tuple[Settings, list[Problem]]:
    """The same, with the warnings about what can be used as it is."""
    from consumer.settings.errors import ConfigError
    from consumer.settings.load import load_with_warnings

    try:
        return load_with_warnings(path, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EX_CONFIG)


def records_or_exit(path: Path, settings: Settings) -> list[StreamRecord]:
    """The records in a file of JSON (``event_documents``), as the source of ``settings`` would show them; or why there
    are none, on stderr, and exit 2."""
    import click

    from consumer.cli.event_documents import read_records
    from consumer.cli.kinesis_documents import of_the_source
    from consumer.cli.stderr_log import warnings_on_stderr
    from consumer.settings.aws_names import table_name

    source = settings.source
    try:
        with warnings_on_stderr():
            return list(of_the_source(read_records(path), source.kind, table_name(source.table or "")))
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        problem = f"is no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
    fail(f"{click.format_filename(path)} {' '.join(problem.split())}", EX_USAGE)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Errors of this package (also out of a task group) become one line and their exit code."""
    try:
        yield
    except* StreamConsumerError as group:
        error = first_error(group)
        code = error.exit_code if isinstance(error, StreamConsumerError) else EX_INTERNAL
        fail(" ".join(str(error).split()), code)
