"""The kinds of value a setting can have, each with its check, its JSON Schema and the way it is written.

Pydantic's own conversions are too generous for a file edited by hand: it would take `"yes"` for a boolean and `true`
for the number 1. The kinds here accept exactly what the documentation says, and say in their errors what is allowed
and what to do; `messages.py` adds what was found.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from consumer.domain.urls import Url
from consumer.settings.errors import Refused
from consumer.settings.expansion import EnvironmentText, scalar_value
from consumer.settings.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

_Number = TypeVar("_Number", int, float)

_MAX_PATTERN_DEPTH = 20  # as deep as a file may be nested

StartingPosition = Literal["trim_horizon", "latest"] | datetime
"""Where a new application starts: a literal, or an aware datetime in UTC."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Metadata for `Annotated[type, kind]`.

    Attributes:
        check: the value of what the file holds; raises Refused.
        json_schema: what the file may hold.
        write: how a value is written in the file, when not as itself.
        text: `check` is only asked about text; anything else gets pydantic's own error.
    """

    check: Callable[[Any], Any]
    json_schema: JsonSchemaValue
    write: Callable[[Any], Any] | None = None
    text: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = core_schema.str_schema() if self.text else core_schema.any_schema()
        written = core_schema.plain_serializer_function_ser_schema(self.write, when_used="json") if self.write else None
        return core_schema.no_info_after_validator_function(self.check, inner, serialization=written)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self.json_schema)


def whole_number(low: int, high: int) -> Kind:
    """An integer from `low` to `high`; `1e3` is fine, `"5"` and `true` are not."""
    expected = f"must be a whole number from {low} to {high}"

    def check(value: object) -> int:
        value = _retyped(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            numeric = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+", value)
            raise Refused(expected, "remove the quotes" if numeric else "")
        if not low <= value <= high:
            raise Refused(expected)
        return value

    return Kind(check, {"type": "integer", "minimum": low, "maximum": high})


def _flag(value: object) -> bool:
    value = _retyped(value)
    if not isinstance(value, bool):
        raise Refused("must be true or false")
    return value


FLAG = Kind(_flag, {"type": "boolean"})
"""`true` or `false`, nothing else: `yes`, `on` and 1 are refused."""


FLAG_OR_NULL = Kind(lambda value: None if value is None else _flag(value), {"type": ["boolean", "null"]})
"""The same, or null where neither was chosen."""


def duration_in(low: float, high: float, *, or_forever: bool = False) -> Kind:
    """Seconds from `low` to `high`, written with a unit; with `or_forever` also the number -1."""
    ends = f"{format_duration(low)} to {format_duration(high)}" + (", or -1 for no limit" if or_forever else "")

    def check(value: object) -> float:
        if or_forever and not isinstance(value, bool) and value in (-1, "-1"):
            return -1.0
        return _quantity(value, parse_duration, "a duration such as 250ms, 10s, 5m or 24h", low, high, ends)

    def write(seconds: float) -> str | int:
        return -1 if seconds == -1 else format_duration(seconds)

    written: JsonSchemaValue = {"type": "string", "pattern": f"^{DURATION_PATTERN}$"}
    numbers = ([-1] if or_forever else []) + ([0] if low == 0 else [])
    return Kind(check, {"anyOf": [written, {"enum": numbers}]} if numbers else written, write)


def size_in(low: int, high: int, *, or_unlimited: bool = False) -> Kind:
    """Bytes from `low` to `high`, written `64KiB`, `4MiB` or `1GiB`; with `or_unlimited` also the number 0."""
    ends = f"{format_size(low)} to {format_size(high)}" + (", or 0 for no limit" if or_unlimited else "")

    def check(value: object) -> int:
        if or_unlimited and not isinstance(value, bool) and value in (0, "0"):
            return 0
        return _quantity(value, parse_size, "a size such as 64KiB, 4MiB or 1GiB", low, high, ends)

    def write(size: int) -> str | int:
        return format_size(size) if size or not or_unlimited else 0

    written: JsonSchemaValue = {"type": "string", "pattern": f"^{SIZE_PATTERN}$"}
    return Kind(check, {"anyOf": [written, {"enum": [0]}]} if or_unlimited else written, write)


def text_like(pattern: str, expected: str) -> Kind:
    """Text that matches a regular expression; `expected` says so in words."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise Refused(expected)
        return value

    return Kind(check, {"type": "string", "pattern": f"^({pattern})$"}, text=True)


def _url(text: str) -> Url:
    return Url(require_http_url(text))


def require_http_url(url: str) -> str:
    """An absolute http or https URL with a host. Raises Refused."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", url):
        raise Refused("must be an http:// or https:// URL with a host")
    return url


HTTP_URL = Kind(_url, {"type": "string"}, text=True)
"""An absolute http or https URL, whose credentials are not shown."""


def _position(value: object) -> StartingPosition:
    if value == "trim_horizon":
        return "trim_horizon"
    if value == "latest":
        return "latest"
    moment = _moment(value)
    if moment.tzinfo is None:
        raise Refused("must be a time with a time zone", "add Z for UTC, or an offset such as +02:00")
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise Refused("must be a time between the years 1 and 9999") from None


def _moment(value: object) -> datetime:
    expected = "must be trim_horizon, latest or an ISO-8601 time such as 2026-01-31T12:00:00Z"
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str):
        raise Refused(expected)
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise Refused(expected, "a date alone does not say when; add a time and a zone")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        literal = value.lower().replace("-", "_")
        raise Refused(expected, f"did you mean {literal}?" if literal in {"trim_horizon", "latest"} else "") from None


def _write_position(value: StartingPosition) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


_TIME: JsonSchemaValue = {"type": "string", "pattern": r"^[0-9]{4}-?[0-9]{2}-?[0-9]{2}[Tt ].*(Z|[+-][0-9:]+)$"}
POSITION = Kind(_position, {"anyOf": [{"enum": ["trim_horizon", "latest"]}, _TIME]}, _write_position)
"""`trim_horizon`, `latest`, or an ISO-8601 time with a zone; a time becomes an aware UTC datetime."""


COMMAND_SCHEMA: JsonSchemaValue = {"type": "array", "items": {"type": "string", "minLength": 1}}


def command_line(value: object) -> tuple[str, ...]:
    """A program and its arguments, as a list: no shell looks at it."""
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) and part for part in value):
        raise Refused("must be a list of texts: a program and its arguments", 'such as ["/opt/fn/bootstrap"]')
    return tuple(str(part) for part in value)


def patterns(value: object) -> object:
    """Filters as they are, or as one text of JSON: that is how the value of a variable holds a whole list."""
    if not isinstance(value, str):
        return () if value is None else value
    try:
        read = json.loads(value, parse_constant=_not_in_json)
    except (ValueError, RecursionError):
        return value
    return read if isinstance(read, list) and _is_shallow(read, _MAX_PATTERN_DEPTH) else value


def _not_in_json(constant: str) -> object:
    raise ValueError(constant)


def _is_shallow(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)


def directory(value: object, info: ValidationInfo) -> Path:
    """An existing directory as an absolute path, relative to the configuration file's directory."""
    if not isinstance(value, str | Path):
        raise Refused("must be the path of a directory")
    base = Path((info.context or {}).get("base_dir", "."))
    try:
        resolved = (base / value).resolve()
        found = resolved.is_dir()
    except (OSError, ValueError, RuntimeError):
        found = False
    if not found or not str(value):
        raise Refused("must be an existing directory", "it is relative to the configuration file")
    return resolved


def interpreter(value: object, info: ValidationInfo) -> Path | None:
    """A Python: a path, relative to the configuration file's directory, or the name of a program. Not resolved, since
    the one of a virtual environment is most often a link, and knows its environment by its own place."""
    if value is None or value == "":
        return None
    if not isinstance(value, str | Path):
        raise Refused("must be the path of a Python interpreter", "such as /opt/fn/.venv/bin/python")
    base = Path((info.context or {}).get("base_dir", "."))
    found = shutil.which(base / value if "/" in str(value) else value)
    if found is None:
        raise Refused("must be a Python interpreter that can be run", "a path is relative to the configuration file")
    return Path(found).absolute()


def _quantity(
    value: object, parse: Callable[[str], _Number], expected: str, low: float, high: float, ends: str
) -> _Number:
    """A written duration or size in its range; a number is taken for one whose unit was forgotten."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Refused(f"must be {expected}; the range is {ends}")
    try:
        quantity = parse(str(value))
    except Refused as error:
        raise Refused(f"{error.message}; the range is {ends}", error.hint) from None
    if not low <= quantity <= high:
        raise Refused(f"must be from {ends}")
    return quantity


def _retyped(value: object) -> object:
    """A quoted `"${PORT}"` came from the environment: let the key's type decide, as for `${PORT}`."""
    return scalar_value(str(value)) if isinstance(value, EnvironmentText) else value
