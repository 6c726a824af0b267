"""Where things are in a JSON text: for changes that leave every other byte as it is.

Nothing is decoded but names, and nothing recurses, so depth does not matter. The text is taken for JSON; what turns out
to be none on the way raises ``Malformed``. Offsets are in bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw


class Malformed(ValueError):
    """The text is no JSON, or not of the kind that was asked for."""


_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'  # possessive: no steps back are kept, whatever a text is long
_SPACE: Final = rb"[ \t\n\r]*+"
_OPENED: Final = re.compile(_SPACE + rb"([{\[])" + _SPACE + rb"([}\]])?", re.DOTALL)
_NAME: Final = re.compile(_SPACE + rb"(" + _TEXT + rb")" + _SPACE + rb":" + _SPACE, re.DOTALL)
_GOES_ON: Final = re.compile(_SPACE + rb"([,}\]])" + _SPACE)
_SCALAR: Final = re.compile(rb"-?[0-9][0-9.eE+-]*+|true|false|null")
_TOKEN: Final = re.compile(_TEXT + rb"|[{}\[\]]", re.DOTALL)

_decode_text = json.JSONDecoder(strict=False).decode
_values_in = msgspec.json.Decoder(dict[str, Raw]).decode


def members(text: bytes, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each value of the object that is ``text[start:end]``. Malformed."""
    sizes = _sizes(text[start:end])
    at = _inside(text, start, b"{")
    while at is not None:
        found = _NAME.match(text, at)
        if found is None:
            raise Malformed(f"no name of a member at byte {at}")
        name, begins = text_of(found[1]), found.end()
        size = sizes.pop(name, 0)
        ends = begins + size if size else _end_of_value(text, begins)
        yield name, begins, ends
        at = _next(text, ends, b"}")


def elements(text: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of each value of the array that begins at ``start``. Malformed."""
    at = _inside(text, start, b"[")
    while at is not None:
        ends = _end_of_value(text, at)
        yield at, ends
        at = _next(text, ends, b"]")


def text_of(quoted: bytes) -> str:
    """What a JSON string says, with surrogates for what is no UTF-8 and for escapes without their other half."""
    inside = quoted.decode("utf-8", "surrogateescape")
    if "\\" not in inside:
        return inside[1:-1]
    try:
        text: str = _decode_text(inside)
    except ValueError as error:
        raise Malformed(f"a text does not decode: {error}") from error
    return text


def _sizes(value: bytes) -> dict[str, int]:
    """How long the values of an object are, as the fast decoder has them, which gives up where this module does not:
    deep nests, lone surrogates. A name that comes twice is told by what does not follow its value."""
    try:
        return {name: memoryview(raw).nbytes for name, raw in _values_in(value).items()}
    except (msgspec.MsgspecError, RecursionError):
        return {}


def _inside(text: bytes, start: int, opening: bytes) -> int | None:
    """Where the first thing inside of brackets begins; None when they are empty."""
    found = _OPENED.match(text, start)
    if found is None or found[1] != opening:
        raise Malformed(f"no {opening.decode()} at byte {start}")
    return None if found[2] else found.end()


def _next(text: bytes, end: int, closing: bytes) -> int | None:
    """Where the next thing begins, behind the one that ends at ``end``; None when that was the last."""
    found = _GOES_ON.match(text, end)
    if found is None or found[1] not in (b",", closing):
        raise Malformed(f"neither a comma nor {closing.decode()} at byte {end}")
    return found.end() if found[1] == b"," else None


def _end_of_value(text: bytes, start: int) -> int:
    begins = text[start : start + 1]
    if begins not in (b"{", b"[", b'"'):
        scalar = _SCALAR.match(text, start)
        if scalar is None:
            raise Malformed(f"no value at byte {start}")
        return scalar.end()
    depth = 0
    for token in _TOKEN.finditer(text, start):
        kind = token[0][:1]
        if kind in (b"{", b"["):
            depth += 1
        elif kind in (b"}", b"]"):
            depth -= 1
        if not depth:
            return token.end()
    raise Malformed(f"the value at byte {start} has no end")
