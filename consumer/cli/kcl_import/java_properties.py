"""The text of a ``.properties`` file of Java, as ``java.util.Properties.load(InputStream)`` reads it.

The file is Latin-1, and other characters are ``\\uXXXX``. Lines that begin with ``#`` or ``!`` are comments; a line
that ends with an odd number of backslashes goes on in the next one, without the white space that one begins with. A key
ends at the first ``=``, ``:`` or white space without a backslash before it. A backslash before any other character
counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from consumer.domain.errors import StreamConsumerError

_WHITE: Final = " \t\f"
_BLANK_OR_COMMENT: Final = re.compile(r"[ \t\f]*([#!].*)?")
_ENDS_OPEN: Final = re.compile(r".*?(?<!\\)(\\\\)*\\", re.DOTALL)
_KEY: Final = re.compile(r"((?:\\.|[^\\=: \t\f])*\\?)[ \t\f]*[=:]?[ \t\f]*", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|u|.|$)", re.DOTALL)
_CONTROL: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class MalformedProperties(StreamConsumerError):
    """Java would not read the file either."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Property:
    """``line`` counts from 1; it is that of the key."""

    key: str
    value: str
    line: int


def parse_properties(raw: bytes) -> list[Property]:
    """All of them, in the order of the file; of a key that comes twice the last one counts. MalformedProperties."""
    return [_property(text, line) for line, text in _logical_lines(raw.decode("latin-1"))]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines put together, without comments, with the number of the first of their parts."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not any(parts):  # a backslash alone begins nothing
            if _BLANK_OR_COMMENT.fullmatch(line):
                continue
            parts, first = [], number
        goes_on = _ENDS_OPEN.fullmatch(line) is not None
        parts.append((line[:-1] if goes_on else line).lstrip(_WHITE))
        if not goes_on:
            yield first, "".join(parts)
            parts = []
    if any(parts):
        yield first, "".join(parts)


def _property(text: str, line: int) -> Property:
    found = _KEY.match(text)
    key, rest = (found[1], text[found.end() :]) if found else (text, "")
    return Property(_unescaped(key, line), _unescaped(rest, line), line)


def _unescaped(text: str, line: int) -> str:
    def character(escape: re.Match[str]) -> str:
        named = escape[1]
        if named == "u":
            raise MalformedProperties(f"line {line}: \\u needs four hexadecimal digits")
        return chr(int(named[1:], 16)) if len(named) == 5 else _CONTROL.get(named, named)

    plain = _ESCAPE.sub(character, text)
    # Java's characters are those of UTF-16, so two escapes may be one character; half of one is shown as unknown.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
