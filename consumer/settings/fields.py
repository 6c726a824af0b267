"""The kinds of value a setting can have, each with its validation, its messages and its JSON Schema.

Pydantic's own conversions are too generous for a file people edit by hand: it would take `"yes"` for a
boolean and `true` for the number 1. The kinds here accept exactly what the documentation says, and say
in their errors what is allowed (`expected`) and what to do (`hint`); `messages.py` adds what was found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from consumer.settings.arns import NameRefused
from consumer.settings.scalars import EnvironmentText, scalar_value
from consumer.settings.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    UnitError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

StartingPosition = Literal["trim_horizon", "latest"] | datetime
"""Where a new application starts: a literal, or an aware datetime in UTC."""


def refused(message: str, hint: str = "") -> PydanticCustomError:
    """An error whose message `messages.py` completes with what was found."""
    return PydanticCustomError("refused", "{problem}", {"problem": message, "hint": hint})


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """An integer from `low` to `high`; `1e3` is fine, `"5"` and `true` are not."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def _check(self, value: object) -> int:
        expected = f"must be a whole number from {self.low} to {self.high}"
        value = _retyped(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            numeric = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+", value)
            raise refused(expected, "remove the quotes" if numeric else "")
        if not self.low <= value <= self.high:
            raise refused(expected)
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`, nothing else: `yes`, `on` and 1 are refused."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "boolean"}

    def _check(self, value: object) -> bool:
        value = _retyped(value)
        if not isinstance(value, bool):
            raise refused("must be true or false")
        return value


@dataclass(frozen=True, slots=True)
class DurationRange:
    """Seconds from `low` to `high`, written with a unit; with `or_forever` also the number -1."""

    low: float
    high: float
    or_forever: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._check,
            serialization=core_schema.plain_serializer_function_ser_schema(self._write, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written: JsonSchemaValue = {"type": "string", "pattern": f"^{DURATION_PATTERN}$"}
        numbers = ([-1] if self.or_forever else []) + ([0] if self.low == 0 else [])
        return {"anyOf": [written, {"enum": numbers}]} if numbers else written

    def _check(self, value: object) -> float:
        if self.or_forever and not isinstance(value, bool) and value in (-1, "-1"):
            return -1.0
        seconds = self._seconds(value)
        if not self.low <= seconds <= self.high:
            raise refused(f"must be from {self._range}")
        return seconds

    def _seconds(self, value: object) -> float:
        bare_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, str) and not bare_number:
            raise refused(f"must be a duration such as 250ms, 10s, 5m or 24h; the range is {self._range}")
        try:
            return parse_duration(str(value))
        except UnitError as error:
            raise refused(f"{error.message}; the range is {self._range}", error.hint) from None

    @property
    def _range(self) -> str:
        ends = f"{format_duration(self.low)} to {format_duration(self.high)}"
        return f"{ends}, or -1 for no limit" if self.or_forever else ends

    @staticmethod
    def _write(seconds: float) -> str | int:
        return -1 if seconds == -1 else format_duration(seconds)


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Bytes from `low` to `high`, written `64KiB`, `4MiB` or `1GiB`."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._check,
            serialization=core_schema.plain_serializer_function_ser_schema(format_size, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{SIZE_PATTERN}$"}

    def _check(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise refused(f"must be a size such as 64KiB, 4MiB or 1GiB; the range is {self._range}")
        try:
            size = parse_size(str(value))
        except UnitError as error:
            raise refused(f"{error.message}; the range is {self._range}", error.hint) from None
        if not self.low <= size <= self.high:
            raise refused(f"must be from {self._range}")
        return size

    @property
    def _range(self) -> str:
        return f"{format_size(self.low)} to {format_size(self.high)}"


@dataclass(frozen=True, slots=True)
class Text:
    """Text that matches a regular expression; `expected` says so in words."""

    pattern: str
    expected: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^({self.pattern})$"}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise refused(self.expected)
        return value


@dataclass(frozen=True, slots=True)
class Position:
    """`trim_horizon`, `latest`, or an ISO-8601 time with a zone; a time becomes an aware UTC datetime."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._check,
            serialization=core_schema.plain_serializer_function_ser_schema(self._write, when_used="json"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        time = {"type": "string", "pattern": r"^[0-9]{4}-?[0-9]{2}-?[0-9]{2}[Tt ].*(Z|[+-][0-9:]+)$"}
        return {"anyOf": [{"enum": ["trim_horizon", "latest"]}, time]}

    def _check(self, value: object) -> StartingPosition:
        if value == "trim_horizon":
            return "trim_horizon"
        if value == "latest":
            return "latest"
        moment = _moment(value)
        if moment.tzinfo is None:
            raise refused("must be a time with a time zone", "add Z for UTC, or an offset such as +02:00")
        try:
            return moment.astimezone(UTC)
        except (OverflowError, ValueError):
            raise refused("must be a time between the years 1 and 9999") from None

    @staticmethod
    def _write(value: StartingPosition) -> str:
        return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _moment(value: object) -> datetime:
    expected = "must be trim_horizon, latest or an ISO-8601 time such as 2026-01-31T12:00:00Z"
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str):
        raise refused(expected)
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise refused(expected, "a date alone does not say when; add a time and a zone")
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        literal = value.lower().replace("-", "_")
        raise refused(expected, f"did you mean {literal}?" if literal in {"trim_horizon", "latest"} else "") from None


def directory(value: object, info: ValidationInfo) -> Path:
    """An existing directory as an absolute path, relative to the configuration file's directory."""
    if not isinstance(value, str | Path):
        raise refused("must be the path of a directory")
    base = Path((info.context or {}).get("base_dir", "."))
    try:
        resolved = (base / value).resolve()
        found = resolved.is_dir()
    except (OSError, ValueError, RuntimeError):
        found = False
    if not found or not str(value):
        raise refused("must be an existing directory", "it is relative to the configuration file")
    return resolved


def shaped(check: Any) -> Any:
    """A pydantic validator function out of a `require_*` function of `arns.py`."""

    def validate(value: str) -> str:
        try:
            check(value)
        except NameRefused as error:
            raise refused(error.message, error.hint) from None
        return value

    return validate


def _retyped(value: object) -> object:
    """A quoted `"${PORT}"` came from the environment: let the key's type decide, as for `${PORT}`."""
    return scalar_value(str(value)) if isinstance(value, EnvironmentText) else value
