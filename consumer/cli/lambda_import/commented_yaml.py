"""Writing a configuration file with a comment on every value.

PyYAML's writer has no comments, so the lines are put together here. Text is quoted unless YAML 1.1 and this package's
own reader both take it for the same text without quotes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from consumer.settings.expansion import scalar_value

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./:+-]*[A-Za-z0-9]|[0-9]+(ms|s|m|h)")
_MAX_COMMENT = 400


class Reference(str):
    """A `${VAR}` that is meant to be expanded; in all other text `${` is escaped."""

    __slots__ = ()


class _Flow(yaml.SafeDumper):
    """Quotes all text and never breaks a line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Flow.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text.replace("${", "$${"), style='"')
)
_Flow.add_representer(
    Reference, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
)


def scalar(value: Any) -> str:
    """A value as one line of YAML."""
    if isinstance(value, Reference):
        return value
    if isinstance(value, str) and _PLAIN.fullmatch(value) and scalar_value(value) == value == yaml.safe_load(value):
        return value
    text = yaml.dump(value, Dumper=_Flow, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def one_line(text: object) -> str:
    """Text that cannot end a comment or a line of a terminal."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return shown if len(shown) <= _MAX_COMMENT else f"{shown[: _MAX_COMMENT - 3]}..."


class Writer:
    """Lines of a YAML file, top-level keys and one level of sections."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._indent = ""

    def comment(self, text: str) -> None:
        self._lines.append(f"{self._indent}# {one_line(text)}")

    def section(self, name: str) -> None:
        """What follows belongs to this section, until the next one."""
        self._lines.append(f"{name}:")
        self._indent = "  "

    def top_level(self) -> None:
        """What follows belongs to no section."""
        self._indent = ""

    def value(self, key: str, value: Any, comment: str) -> None:
        """`key: value  # comment` in the current section."""
        self._lines.append(f"{self._indent}{key}: {scalar(value)}  # {one_line(comment)}")

    def item(self, value: Any, comment: str) -> None:
        """An item of the list that the section is, with its comment above (it may be long)."""
        self._lines += [f"{self._indent}# {one_line(comment)}", f"{self._indent}- {scalar(value)}"]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
