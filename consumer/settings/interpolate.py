"""`${VAR}` and `${VAR:-default}` in values, expanded after parsing.

Because the tree already exists, a value from the environment can never add keys, lists or comments: it
is only ever the text of one scalar. `$${` stands for a literal `${`; `$VAR` is left alone. As in a shell,
the default also replaces a variable that is set but empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from consumer.settings.scalars import EnvironmentText, Scalar, scalar_value

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a scalar became.

    Attributes:
        value: the value; unusable when there are problems.
        variables: names of the variables that were used.
        problems: message and hint of each missing variable or malformed reference.
    """

    value: Scalar
    variables: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


def expand(text: str, plain: bool, environ: Mapping[str, str]) -> Expansion:
    """Expand one scalar.

    Args:
        text: the scalar's text.
        plain: it was not quoted, so its type follows from its text.
        environ: the variables.

    An unquoted scalar that is one reference and nothing else gets the type of what it expanded to, so that
    `port: ${PORT}` is a number. Quoted, it is `EnvironmentText`: text, unless the key wants a number.
    """
    if "${" not in text:
        return Expansion(scalar_value(text) if plain else text)
    variables: list[str] = []
    problems: list[tuple[str, str]] = []

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        return _lookup(match, environ, variables, problems)

    whole = _REFERENCE.fullmatch(text)
    expanded = _REFERENCE.sub(replace, text)
    if problems:
        return Expansion(None, tuple(variables), tuple(problems))
    value: Scalar = expanded
    if whole is not None and whole[1] is not None:
        value = scalar_value(expanded) if plain else EnvironmentText(expanded)
    return Expansion(value, tuple(variables))


def _lookup(
    match: re.Match[str], environ: Mapping[str, str], variables: list[str], problems: list[tuple[str, str]]
) -> str:
    reference = _NAME.fullmatch(match[1])
    if not match[2]:
        problems.append(("has ${ without }", "write $${ for a literal ${"))
        return ""
    if reference is None or "${" in (reference[2] or ""):
        problems.append(("must refer to variables as ${NAME} or ${NAME:-default}", "write $${ for a literal ${"))
        return ""
    name, default = reference[1], reference[2]
    variables.append(name)
    found = environ.get(name)
    if default is not None:
        return found or default
    if found is None:
        problems.append((f"environment variable {name} is not set", f"set it, or write ${{{name}:-default}}"))
        return ""
    return found
