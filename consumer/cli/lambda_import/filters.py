"""FilterCriteria as `filters`: all of the patterns, or a variable in place of the list.

A record is delivered when one of the patterns matches, so a list that lacks a pattern skips records. No pattern is
ever left out: when one of them cannot be known, none is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from consumer.cli.lambda_import.commented_yaml import Writer
from consumer.cli.lambda_import.intrinsics import Unresolved, holds_unresolved
from consumer.cli.lambda_import.options import Options
from consumer.cli.lambda_import.values import UNSET, json_object, show

_OPTION = "FilterCriteria"
_ERROR = "FilterCriteriaError"
_HINT = ", a list of patterns in JSON"


def write_filters(options: Options, out: Writer) -> None:
    """The section `filters`; nothing for a mapping without filters."""
    criteria = options.get(_OPTION)
    if criteria is UNSET and options.is_set(_ERROR):
        criteria = Unresolved(f"{_ERROR} {options.peek(_ERROR, None)}")  # Lambda has filters and could not show them
    filters = criteria.get("Filters", UNSET) if isinstance(criteria, Mapping) else criteria
    if filters in (UNSET, None) or filters == []:
        if isinstance(criteria, Mapping) and set(criteria) - {"Filters"}:
            options.note(_OPTION, f"is known by Filters only, found {show(dict(criteria))}")
        return
    patterns = [_pattern(entry) for entry in filters] if isinstance(filters, list) else []
    places = [f"{_OPTION}.Filters[{index}].Pattern" for index in range(len(patterns))]
    wrong = [(place, reason) for place, (_, reason) in zip(places, patterns, strict=True) if reason]
    if not isinstance(filters, list):
        wrong = [(_OPTION, "it is known after a deployment only" if holds_unresolved(filters) else "it is no list")]
    if not wrong:
        out.section("filters")
        for place, (pattern, _) in zip(places, patterns, strict=True):
            out.item(pattern, place)
        return
    for place, reason in wrong:
        options.note(place, f"{reason}: no filter is written, for without this one records would be skipped")
    out.top_level()
    for place, (pattern, reason) in zip(places, patterns, strict=True):
        shown = pattern if reason else json.dumps(pattern, ensure_ascii=False)
        out.comment(f"{place}: {shown}")
    out.value("filters", *options.reference(_OPTION, _shown(filters), _HINT))


def _pattern(entry: Any) -> tuple[Any, str]:
    """A pattern, and what is wrong with it; then it is as it was written."""
    pattern = entry.get("Pattern") if isinstance(entry, Mapping) else entry
    if holds_unresolved(pattern):
        return pattern, "it is known after a deployment only"
    read = json_object(pattern) if isinstance(pattern, str) else pattern
    return (read, "") if isinstance(read, Mapping) else (show(pattern), "it is no JSON object")


def _shown(filters: Any) -> str:
    return "the whole list" if isinstance(filters, list) else str(filters)
