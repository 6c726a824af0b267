"""Durations and sizes as they are written in the file: `250ms`, `10s`, `5m`, `24h`; `64KiB`, `4MiB`.

A bare number is refused on purpose: `timeout: 60` means seconds to one reader and milliseconds to the
next. Arithmetic is exact, so that a value printed by `format_*` parses back to the very same value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from consumer.settings.errors import Refused

DURATION_PATTERN = r"(0|[0-9]+(\.[0-9]+)?(ms|s|m|h|d))"
"""Regular expression of a written duration; also published in the JSON Schema."""

SIZE_PATTERN = r"[0-9]+(\.[0-9]+)?(KiB|MiB|GiB)"
"""Regular expression of a written size; also published in the JSON Schema."""

_Units = Mapping[str, int | Fraction]
_DURATION_UNITS: _Units = {"ms": Fraction(1, 1000), "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_BARE_ZERO = re.compile(r"\s*\+?0+(\.0+)?\s*")
_QUANTITY = re.compile(r"([-+]?[0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_MAX_TEXT = 40  # longer than any sensible quantity; keeps exact arithmetic cheap


def parse_duration(text: str) -> float:
    """Seconds from `250ms`, `10s`, `5m`, `24h`, `7d` or `0`.

    Raises:
        Refused: unit missing or unknown, negative, or not a duration at all.
    """
    if _BARE_ZERO.fullmatch(text):
        return 0.0
    add_unit = f"add a unit: {text.strip()}s or {text.strip()}ms"
    return float(_parse(text, _DURATION_UNITS, "must be a duration such as 250ms, 10s, 5m or 24h", add_unit))


def format_duration(seconds: float) -> str:
    """The shortest exact text for a duration in seconds: the largest unit that gives a whole number."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"not a duration: {seconds!r}")
    if seconds == 0:
        return "0s"
    written = Decimal(repr(seconds))
    for unit in ("h", "m", "s", "ms"):
        count = Fraction(written) / _DURATION_UNITS[unit]
        if count.denominator == 1:
            return f"{count.numerator}{unit}"
    return f"{written:f}s"


def parse_size(text: str) -> int:
    """Bytes from `64KiB`, `4MiB` or `1GiB`.

    Raises:
        Refused: unit missing or decimal (KB, MB), negative, or not a whole number of bytes.
    """
    count = _parse(text, _SIZE_UNITS, "must be a size such as 64KiB, 4MiB or 1GiB", "add a unit: KiB, MiB or GiB")
    if count.denominator != 1:
        raise Refused("must be a whole number of bytes")
    return int(count)


def format_size(size: int) -> str:
    """The exact text for a size in bytes: the largest unit that divides it, else a decimal of KiB."""
    if size < 0:
        raise ValueError(f"not a size: {size!r}")
    for unit, factor in reversed(_SIZE_UNITS.items()):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    # a division by 2**10 is exact in ten decimals, and a Decimal has 28 digits
    return f"{(Decimal(size) / 1024).normalize():f}KiB"


def _parse(text: str, units: _Units, expected: str, add_unit: str) -> Fraction:
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= _MAX_TEXT else None
    if match is None:
        raise Refused(expected)
    number, unit = match.groups()
    if number.startswith("-"):
        raise Refused("must not be negative")
    if unit not in units:
        raise Refused(expected, _unit_hint(unit, tuple(units)) if unit else add_unit)
    return Fraction(number) * units[unit]


def _unit_hint(unit: str, known: tuple[str, ...]) -> str:
    for candidate in known:
        if candidate.lower() == unit.lower() or candidate.lower().replace("i", "") == unit.lower():
            return f"write {candidate}, not {unit}"
    return f"units are {', '.join(known)}"
