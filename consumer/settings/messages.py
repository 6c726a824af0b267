"""Pydantic's errors as sentences for the reader of a rejected file.

Each says what is allowed and what was found, and where it can, what was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from consumer.domain.urls import redact_urls
from consumer.settings.errors import SECRET_NAME, Location, Refused, write_location
from consumer.settings.model import Settings
from consumer.settings.yaml_file import Values

_MAX_SHOWN = 60
_QUOTE = "'"


def explain(error: ErrorDetails, values: Values) -> tuple[str, str]:
    """Message and hint for one pydantic error."""
    kind, location = error["type"], error["loc"]
    if kind == "missing":
        return "is required", _MISSING.get(location, "")
    if kind == "extra_forbidden":
        return _unknown_key(location)
    found = f", found {_found(error['input'], location, values)}"
    context = error.get("ctx", {})
    refused = context.get("error")
    if isinstance(refused, Refused):
        return refused.message if ", found " in refused.message else refused.message + found, refused.hint
    if kind == "literal_error":
        expected = str(context["expected"])
        return f"must be {expected.replace(_QUOTE, '')}{found}", _meant_value(error["input"], expected)
    if kind == "string_type":
        return f"must be text{found}", "put it in quotes" if isinstance(error["input"], int | float) else ""
    if kind == "dict_type" and str(error["input"]).lstrip().startswith("{"):
        return _WRONG_TYPES[kind] + found, "as Lambda has it in its Pattern: take the quotes away, JSON is YAML"
    return _WRONG_TYPES.get(kind, error["msg"]) + found, ""


_MISSING: dict[Location, str] = {
    ("application",): "the name of this consumer",
    ("source",): "at least source.table, or source.stream of Kinesis",
    ("handler",): "at least handler.target",
    ("handler", "target"): "for example myapp.handlers:handler",
}
_WRONG_TYPES = {
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
}


def is_unknown_key(error: ErrorDetails) -> bool:
    """The error is about a key rather than its value."""
    return error["type"] == "extra_forbidden"


def _found(value: object, location: Location, values: Values) -> str:
    place = values.places.get(location)
    if place is not None and place.secret:
        return "a value that is not shown"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or value == "":
        return "nothing"
    written = place.text if place is not None and place.text is not None else str(value)
    shown = redact_urls(written)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
    return repr(shown) if isinstance(value, str) else " ".join(shown.split())


def _meant_value(written: object, expected: str) -> str:
    choices = re.findall(r"'([^']+)'", expected)
    if not isinstance(written, str) or len(written) > _MAX_SHOWN:
        return ""
    close = difflib.get_close_matches(written.lower().replace("-", "_"), choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else ""


def _unknown_key(location: Location) -> tuple[str, str]:
    key = str(location[-1])
    if key == "<<":
        return "unknown key", "merge keys are not supported; repeat the values"
    if SECRET_NAME.search(key):
        return (
            "credentials do not belong in this file",
            "the SDK's own chain finds them: environment variables, profile, or the role of the machine",
        )
    known = [one[-1] for one in _all_keys() if one[:-1] == location[:-1]]
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key[:_MAX_SHOWN]).replace("-", "_").lower()
    if snake not in known:
        wrong_level = (write_location(one) for one in _all_keys() if one[-1] == snake)
        elsewhere = next(wrong_level, _LAMBDA_NAMES.get(snake))
        if elsewhere:
            return "unknown key", f"did you mean {elsewhere}?"
    close = difflib.get_close_matches(snake, known, n=1, cutoff=0.6)
    if close:
        return "unknown key", f"did you mean {close[0]}?"
    return "unknown key", f"allowed here: {', '.join(known)}" if known else ""


_LAMBDA_NAMES = {
    "maximum_batching_window_in_seconds": "batch.batching_window",
    "maximum_record_age_in_seconds": "retry.max_record_age",
    "maximum_retry_attempts": "retry.max_retry_attempts",
    "bisect_batch_on_function_error": "retry.bisect_on_error",
    "tumbling_window_in_seconds": "batch.tumbling_window",
    "function_response_types": "batch.report_batch_item_failures",
    "event_source_arn": "source.stream_arn",
    "starting_position_timestamp": "source.starting_position",
    "stream_name": "source.stream",
    "filter_criteria": "filters",
    "destination_config": "on_failure.destination",
}
"""Lambda's names for what is called differently here, in snake_case."""


def _all_keys(section: type[BaseModel] = Settings, around: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that a file may have, in the order of the model."""
    for name, field in section.model_fields.items():
        yield (*around, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _all_keys(field.annotation, (*around, name))
