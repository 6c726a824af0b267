"""The type of an unquoted YAML scalar, by the core schema of YAML 1.2.

PyYAML follows YAML 1.1, where `on` and `no` are booleans, `010` is eight, `12:30` is 750 and `1e3` is
text. None of that is what the writer of a configuration file means.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None
"""What an unquoted scalar can be. Dates stay text: the key decides whether it wants a time."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 400  # Python refuses to read integers of thousands of digits; nobody means such a number


class EnvironmentText(str):
    """Text of a quoted scalar that was one `${VAR}` and nothing else: numbers in it may count as numbers."""

    __slots__ = ()


def scalar_value(text: str) -> Scalar:
    """The value of an unquoted scalar: null, boolean, decimal integer, float, or the text itself."""
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
        return float(
            text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").lower().replace(".nan", "nan")
        )
    return text
