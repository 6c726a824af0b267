"""One value of an event source mapping, however the API, the CLI or a template writes it.

Readers return ``UNSET`` for what Lambda would not have taken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from consumer.settings.units import format_duration

UNSET: Final = object()


def show(value: Any) -> str:
    """A value for a note, cut when it is long."""
    text = "nothing" if value is UNSET else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def whole_number(low: int, high: int) -> Callable[[Any], Any]:
    """A reader of whole numbers in a range; templates also write them as text."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        usable = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if usable else UNSET

    return read


def boolean(value: Any) -> Any:
    """true or false, also as text."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value if isinstance(value, bool) else UNSET


def record_age(value: Any) -> Any:
    """MaximumRecordAgeInSeconds as a duration of the configuration."""
    seconds = whole_number(-1, 604_800)(value)
    if seconds is UNSET or 0 <= seconds < 60:
        return UNSET
    return -1 if seconds == -1 else format_duration(seconds)


def moment_text(value: Any) -> str:
    """A time as the CLI or a template writes it (text or Unix seconds), in UTC; empty when it is none."""
    try:
        if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?(E[0-9]+)?", value.strip()):
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            value = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if not isinstance(value, datetime):
            return ""
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""


def bucket_url(name: str) -> str:
    """A bucket's ARN as `s3://bucket`; anything else as it is."""
    bucket = re.fullmatch(r"arn:[^:]+:s3:::([^\s]+)", name)
    return f"s3://{bucket[1]}" if bucket else name


def json_object(text: str) -> Any:
    """The pattern; None when it is no JSON object. Of repeated keys the last one counts, as in Lambda."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        pattern = json.loads(text, parse_constant=refuse)
        text.encode("utf-8")
        json.dumps(pattern, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):  # UnicodeEncodeError too: a lone surrogate matches nothing
        return None
    return pattern if isinstance(pattern, dict) else None
