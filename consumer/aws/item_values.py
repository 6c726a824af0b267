"""Single values of DynamoDB items. Reading never guesses: what is not what its name says is ``NotAFrontier``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from consumer.aws.table_rows import Item

_LONGEST_NUMBER: Final = 129


class NotAFrontier(ValueError):
    """A stored attribute has the wrong type or is not what its name says."""


def read_text(item: Item, name: str) -> str | None:
    value = item.get(name)
    if value is None:
        return None
    found = value.get("S")
    if not isinstance(found, str):
        raise NotAFrontier(f"{name} is not a string: {shown(value)}")
    return found


def read_number(item: Item, name: str) -> float:
    try:
        found = float(item[name]["N"])
    except (KeyError, TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise NotAFrontier(f"{name} is not a number: {shown(item.get(name))}")
    return found


def read_count(item: Item, name: str) -> int:
    read_number(item, name)
    found = Decimal(item[name]["N"])  # exact: a float would make another epoch of a large one
    if found != int(found) or found < 0:
        raise NotAFrontier(f"{name} is not a count: {shown(item[name])}")
    return int(found)


def read_texts(item: Item, name: str) -> tuple[str, ...]:
    value = item.get(name)
    if value is None:
        return ()
    found = value.get("L", value.get("SS"))
    if not isinstance(found, list):
        raise NotAFrontier(f"{name} is not a list: {shown(value)}")
    return tuple(_element(entry, name) for entry in found)


def _element(entry: Any, name: str) -> str:
    found = entry.get("S") if isinstance(entry, Mapping) else entry
    if not isinstance(found, str):
        raise NotAFrontier(f"{name} holds something that is not a string: {shown(entry)}")
    return found


def read_sequence_number(item: Item, name: str) -> str | None:
    found = read_text(item, name)
    return None if found is None else sequence_number(found, name)


def sequence_number(found: str, name: str) -> str:
    if not (found.isascii() and found.isdigit()) or len(found) > _LONGEST_NUMBER:
        raise NotAFrontier(f"{name} is not a sequence number: {found[:80]!r}")
    return found


def shown(value: object) -> str:
    return repr(value)[:80]


def lenient_text(item: Item, name: str) -> str:
    try:
        return read_text(item, name) or ""
    except NotAFrontier:
        return ""


def lenient_number(item: Item, name: str) -> float:
    try:
        return read_number(item, name) if name in item else 0.0
    except NotAFrontier:
        return 0.0
