"""What is wrong with a configuration file: every problem, each with its place.

A rejected file should need one run, not one run per mistake. So nothing in this package stops at the first finding;
problems are collected and raised together as one `ConfigError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Location = tuple[str | int, ...]
"""Keys and list indexes from the root, as pydantic reports them."""

SECRET_NAME = re.compile(
    r"secret|access_?key|session_?token|token$|passw|credential|api_?key|private_?key", re.IGNORECASE
)
"""Names (of keys and of variables) whose values must not be shown."""


class Refused(ValueError):
    """A value cannot be used. `message` says what is allowed, `hint` what to write instead; it may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        file: the file as the user named it.
        line: 1-based line, or 0 when there is none (the file cannot be read, the settings are from code).
        path: the key, dotted (`batch.batch_size`, `filters[0].eventName`), or `yaml` for syntax.
        message: what was found and what is allowed.
        hint: what to do about it; may be empty.
    """

    file: str
    line: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        subject = f"{self.path}: " if self.path else ""
        advice = f" ({self.hint})" if self.hint else ""
        return " ".join(f"{place}: {subject}{self.message}{advice}".splitlines())


class ConfigError(Exception):
    """The configuration cannot be used; exit code 78.

    `problems` is sorted by line; `str()` is one line per problem, `file:line: path: problem (hint)`.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=lambda p: (p.line, p.path)))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def write_location(location: Location) -> str:
    """`batch.batch_size`, `filters[0].eventName`; a key that is no plain word is quoted, a very long one cut."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        shown = part if len(part) <= 60 else f"{part[:57]}..."
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", shown):
            shown = repr(shown)
        text = f"{text}.{shown}" if text else shown
    return text


def read_location(path: str) -> Location:
    """The inverse of `write_location` for keys that are plain words."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path))
