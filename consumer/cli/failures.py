"""How a command ends when something is wrong: one line on stderr, the right exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from consumer.domain.errors import StreamConsumerError
from consumer.settings.errors import ConfigError
from consumer.settings.load import load_settings
from consumer.settings.model import Settings

EX_CONFIG = 78
EX_INTERNAL = 70


def fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"stream-consumer: {message}\n")
    sys.stderr.flush()
    sys.exit(code)


def settings_or_exit(path: Path) -> Settings:
    """The settings of ``path``, or every problem on stderr and exit 78."""
    try:
        return load_settings(path, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EX_CONFIG)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Errors of this package (also out of a task group) become one line and their exit code."""
    try:
        yield
    except* StreamConsumerError as group:
        error = _first(group)
        code = error.exit_code if isinstance(error, StreamConsumerError) else EX_INTERNAL
        fail(" ".join(str(error).split()), code)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
