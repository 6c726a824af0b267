"""A configuration file to `Settings`, or every problem it has at once.

The stages are: YAML to plain values with lines, the environment expanded; pydantic's check of every key; then the
rules between keys and the list of what is not built yet. A stage that finds problems does not stop the next ones: bad
values are set aside (their defaults stand in) and whatever does not depend on them is still checked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consumer.settings.errors import ConfigError, Location, Problem, read_location, write_location
from consumer.settings.messages import explain, is_unknown_key
from consumer.settings.model import Settings
from consumer.settings.rule import Rule
from consumer.settings.rules import RULES, UNSUPPORTED, WARNINGS
from consumer.settings.write_access import Finding, WriteAccess
from consumer.settings.yaml_file import Values, parse, read_text

INSECURE_OK = "STREAM_CONSUMER_INSECURE_OK"
"""Set to 1 to accept files that others may write, as some desktop file sharing shows them."""

_STAND_INS: dict[Location, Any] = {
    ("application",): "stand-in",
    ("source",): {"table": "stand-in"},
    ("handler",): {"target": "stand.in:stand_in"},
    ("handler", "target"): "stand.in:stand_in",
}
"""For required keys that are missing or wrong, so that the rest can still be checked."""

_ANY_FILTER = {"eventName": [{"exists": True}]}
"""For a filter that is no mapping, so that the others can still be checked."""


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read, expand and validate a configuration file.

    Args:
        path: the YAML file; `handler.path` is relative to its directory.
        environ: the variables for `${VAR}`; normally `os.environ`.

    Raises:
        ConfigError: with every problem found, sorted by line.
    """
    return load_with_warnings(path, environ)[0]


def load_with_warnings(path: Path, environ: Mapping[str, str]) -> tuple[Settings, list[Problem]]:
    """As `load_settings`, with what can be used as it is and may surprise.

    Raises:
        ConfigError: with every problem found, sorted by line; a warning is none.
    """
    values = parse(read_text(path), str(path), environ)
    settings, problems = _checked(values, path.absolute().parent)
    if settings is not None and environ.get(INSECURE_OK) != "1":
        problems += _foreign_code(path, settings, values)
    if settings is None or problems:
        raise ConfigError(problems)
    return settings, list(_broken_rules(WARNINGS, settings, values, set()))


def line_of(path: Path, environ: Mapping[str, str], key: str) -> int:
    """The line of a dotted key in a file that can be used, or of what is around it."""
    return parse(read_text(path), str(path), environ).value_line(read_location(key))


def settings_from(data: Mapping[str, Any]) -> Settings:
    """Validate the mapping a file would hold, from code; `handler.path` is relative to the working directory.

    Raises:
        ConfigError: with every problem found, as for a file but without lines.
    """
    settings, problems = _checked(Values("settings", dict(data)), Path.cwd())
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def _checked(values: Values, base_dir: Path) -> tuple[Settings | None, list[Problem]]:
    """Settings and every problem. With problems they only serve further checks; None when not even that."""
    settings, errors = _validate(values.data, base_dir)
    errors = [error for error in errors if is_unknown_key(error) or not _touches(error["loc"], values.broken)]
    bad = values.broken | {error["loc"] for error in errors}
    if settings is None:
        settings, _ = _validate(_without(values.data, bad), base_dir)
    problems = [*values.problems, *(_problem(error, values) for error in errors)]
    if settings is not None:
        problems += _broken_rules(RULES + UNSUPPORTED, settings, values, bad)
    return settings, problems


def _validate(data: dict[str, Any], base_dir: Path) -> tuple[Settings | None, list[ErrorDetails]]:
    try:
        return Settings.model_validate(data, context={"base_dir": base_dir}), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _without(data: dict[str, Any], bad: set[Location]) -> dict[str, Any]:
    """The data minus its bad values; required ones are replaced by something harmless."""
    data = copy.deepcopy(data)
    for location in sorted(bad, key=len, reverse=True):
        _remove(data, location)
    return data


def _remove(data: dict[str, Any], location: Location) -> None:
    """Take one value out. An element of a list is replaced, or the list goes as a whole: no index may move."""
    if len(location) == 2 and location[0] == "filters" and isinstance(data["filters"], list):
        data["filters"][int(location[1])] = copy.deepcopy(_ANY_FILTER)
        return
    section = data
    for depth, part in enumerate(location[:-1]):
        inner = section.get(str(part))
        if inner is None:
            inner = section[str(part)] = {}
        if not isinstance(inner, dict):
            location = location[: depth + 1]
            break
        section = inner
    section.pop(str(location[-1]), None)
    if location in _STAND_INS:
        section[str(location[-1])] = copy.deepcopy(_STAND_INS[location])


def _touches(location: Location, bad: set[Location]) -> bool:
    """The location, or something around it, is already known to be bad."""
    return any(location[:length] in bad for length in range(1, len(location) + 1))


def _problem(error: ErrorDetails, values: Values) -> Problem:
    location = error["loc"]
    line = values.key_line(location) if is_unknown_key(error) else values.value_line(location)
    return Problem(values.file, line, write_location(location), *explain(error, values))


def _broken_rules(rules: tuple[Rule, ...], settings: Settings, values: Values, bad: set[Location]) -> Iterator[Problem]:
    for rule in rules:
        if any(_touches(read_location(path), bad) for path in rule.reads):
            continue
        for found in rule.check(settings):
            line = values.value_line(read_location(found.path))
            yield Problem(values.file, line, found.path, found.message, found.hint)


def _foreign_code(path: Path, settings: Settings, values: Values) -> Iterator[Problem]:
    """What others may write is code that they can run as the daemon."""
    access = WriteAccess(path.stat().st_uid)
    yield from _reported(access.of_file(path), Problem(values.file, 1, "file", ""), path)
    handler = settings.handler
    if handler.kind != "http":
        where = Problem(values.file, values.value_line(("handler", "path")), "handler.path", "")
        yield from _reported(access.of_folder(handler.path), where, handler.path)
    for key, program in (("command", handler.program), ("python", handler.python)):
        if program is not None:
            where = Problem(values.file, values.value_line(("handler", key)), f"handler.{key}", "")
            yield from _reported(access.of_file(program), where, program)


def _reported(findings: Iterator[Finding], where: Problem, named: Path) -> Iterator[Problem]:
    """One problem for all that was found: the first finding, and how many there are."""
    found = list(findings)
    if found:
        message = f"must not be writable by {found[0].who}"
        message += "" if found[0].path == named.resolve() else f": {found[0].path}"
        message += f", and {len(found) - 1} more" if len(found) > 1 else ""
        hint = f"it decides what code runs: chmod go-w, or chown, or set {INSECURE_OK}=1"
        yield replace(where, message=message, hint=hint)
