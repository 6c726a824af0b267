"""The text of a scalar as a value: `${VAR}` expanded, then typed by the core schema of YAML 1.2.

References are expanded after parsing: the tree already exists, so a value from the environment is only ever the text
of one scalar and can never add keys, lists or comments (`filters` alone reads such a text as JSON). `${VAR:-default}`
has a default, which as in a shell also replaces a variable that is set but empty; `$${` stands for a literal `${`;
`$VAR` is left alone.

PyYAML follows YAML 1.1, where `on` and `no` are booleans, `010` is eight, `12:30` is 750 and `1e3` is text. None of
that is what is meant in a configuration file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from consumer.settings.errors import Refused

Scalar = str | int | float | bool | None
"""What an unquoted scalar can be. Dates stay text: the key decides whether it wants a time."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 400  # Python refuses to read integers of thousands of digits; no setting is such a number

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_ESCAPE = "write $${ for a literal ${"


class EnvironmentText(str):
    """Text of a quoted scalar that was one `${VAR}` and nothing else: numbers in it may count as numbers."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a scalar became.

    Attributes:
        value: the value; unusable when there are problems.
        variables: names of the variables that were used.
        problems: each missing variable and malformed reference.
    """

    value: Scalar
    variables: tuple[str, ...] = ()
    problems: tuple[Refused, ...] = ()


def scalar_value(text: str) -> Scalar:
    """The value of an unquoted scalar: null, boolean, integer, float, or the text itself."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 10)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def expand(text: str, plain: bool, environ: Mapping[str, str]) -> Expansion:
    """Expand one scalar, which is `plain` when it is unquoted and untagged: then its type follows from its text.

    An unquoted scalar that is one reference and nothing else gets the type of what it expanded to, so that
    `port: ${PORT}` is a number. Quoted, it is `EnvironmentText`: text, unless the key wants a number.
    """
    if "${" not in text:
        return Expansion(scalar_value(text) if plain else text)
    variables: list[str] = []
    problems: list[Refused] = []

    def replace(match: re.Match[str]) -> str:
        try:
            return "${" if match[0] == "$${" else _lookup(match, environ, variables)
        except Refused as problem:
            problems.append(problem)
            return ""

    expanded = _REFERENCE.sub(replace, text)
    whole = _REFERENCE.fullmatch(text)
    value: Scalar = expanded
    if whole is not None and whole[1] is not None:
        value = scalar_value(expanded) if plain else EnvironmentText(expanded)
    return Expansion(value, tuple(variables), tuple(problems))


def _lookup(match: re.Match[str], environ: Mapping[str, str], variables: list[str]) -> str:
    """The text a reference stands for; its name is added to `variables`. Raises Refused."""
    if not match[2]:
        raise Refused("has ${ without }", _ESCAPE)
    reference = _NAME.fullmatch(match[1])
    if reference is None or "${" in (reference[2] or ""):
        raise Refused("must refer to variables as ${NAME} or ${NAME:-default}", _ESCAPE)
    name, default = reference[1], reference[2]
    variables.append(name)
    found = environ.get(name)
    if default is not None:
        return found or default
    if found is None:
        raise Refused(f"environment variable {name} is not set", f"set it, or write ${{{name}:-default}}")
    return found
