"""What is wrong with a configuration file: every problem, each with its place.

A reader of a rejected file should need one run, not one run per mistake. So nothing in this package
raises at the first finding; problems are collected and raised together as one `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        file: the file as the user named it.
        line: 1-based line, or 0 when the finding is about the file as a whole (it cannot be read).
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
