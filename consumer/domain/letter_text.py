"""The text of dead letters: JSON in UTF-8 without needless escapes, and without what SQS and SNS refuse or replace."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Final

# What SQS and SNS do not take in a message, or replace without a word: lone surrogates and two that are no characters.
# JSON has escaped control characters before.
_FORBIDDEN: Final = re.compile("[\ud800-\udfff\ufffe\uffff]")
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_ESCAPES: Final = re.compile(r"\\\\|(?:\\u[0-9a-fA-F]{4})+")  # an escaped backslash is no beginning of another escape


def as_json(value: object) -> bytes:
    """Compact JSON."""
    return _encode(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _encode(text: str) -> bytes:
    return _FORBIDDEN.sub(_escaped, text).encode("utf-8")


def as_utf8(event: bytes) -> bytes:
    """The event without needless escapes, not decoded otherwise: a letter must never fail because of what is in it
    (2,000 nested levels, a broken image). Bytes that are not UTF-8 become lone surrogates, which are escaped."""
    if event.isascii() and b"\\u" not in event:
        return event
    text = event.decode("utf-8", "surrogateescape")  # beyond ASCII there is nothing but the insides of JSON strings
    return _encode(_ESCAPES.sub(_unescaped, text))


def as_ascii(document: bytes) -> bytes:
    """The same JSON with escapes for everything beyond ASCII."""
    return _BEYOND_ASCII.sub(_escaped, document.decode("utf-8")).encode("ascii")


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def _unescaped(match: re.Match[str]) -> str:
    if match[0].startswith("\\u"):
        return json.dumps(json.loads(f'"{match[0]}"'), ensure_ascii=False)[1:-1]
    return match[0]


_LAST_MOMENT = 253402300799.0  # 9999-12-31T23:59:59Z


def time_text(seconds: float) -> str:
    """Unix seconds as UTC with milliseconds; what no calendar has is the nearest that one has."""
    moment = dt.datetime.fromtimestamp(min(max(0.0, seconds), _LAST_MOMENT), tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
