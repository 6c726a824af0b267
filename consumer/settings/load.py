"""A configuration file to `Settings`, or every problem it has at once.

The stages are: text, tree with lines, plain values with the environment expanded, pydantic's check of
every key, then the rules between keys and the list of what is not built yet. A stage that finds problems
does not stop the next ones: bad values are set aside (their defaults stand in) and whatever does not
depend on them is still checked.
"""

from __future__ import annotations

import copy
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consumer.settings.cross_field import RULES
from consumer.settings.errors import ConfigError, Problem
from consumer.settings.messages import explain, is_unknown_key
from consumer.settings.model import Settings
from consumer.settings.unsupported import unsupported_in
from consumer.settings.values import Location, Values, resolve, write_location
from consumer.settings.yaml_source import parse_document, read_text

INSECURE_OK = "STREAM_CONSUMER_INSECURE_OK"
"""Set to 1 to accept files that everybody may write, as some desktop file sharing shows them."""

_STAND_INS: dict[Location, Any] = {
    ("application",): "stand-in",
    ("source",): {"table": "stand-in"},
    ("handler",): {"target": "stand.in:stand_in"},
    ("handler", "target"): "stand.in:stand_in",
}
"""For required keys that are missing or wrong, so that the rest can still be checked."""


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read, expand and validate a configuration file.

    Args:
        path: the YAML file; `handler.path` is relative to its directory.
        environ: the variables for `${VAR}`; normally `os.environ`.

    Raises:
        ConfigError: with every problem found, sorted by line.
    """
    document = parse_document(read_text(path), path)
    values = resolve(document, environ)
    problems = [*document.problems, *values.problems]
    context = {"base_dir": path.absolute().parent, "collect": True}

    settings, errors = _validate(values.data, context)
    errors = [error for error in errors if is_unknown_key(error) or not _touches(error["loc"], values.broken)]
    problems += [_problem(error, values, document.file) for error in errors]
    bad = values.broken | {error["loc"] for error in errors}
    if settings is None:
        settings, _ = _validate(_without(values.data, bad), context)
    if settings is not None:
        problems += _rules(settings, values, bad, document.file)
        problems += _unsupported(settings, values, bad, document.file)
        if environ.get(INSECURE_OK) != "1":
            problems += _writable_by_all(path, settings, values, document.file)
    if problems or settings is None:
        raise ConfigError(problems)
    return settings


def _validate(data: dict[str, Any], context: dict[str, Any]) -> tuple[Settings | None, list[ErrorDetails]]:
    try:
        return Settings.model_validate(data, context=context), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _without(data: dict[str, Any], bad: set[Location]) -> dict[str, Any]:
    """The data minus its bad values; required ones are replaced by something harmless."""
    data = copy.deepcopy(data)
    for location in sorted(bad, key=len, reverse=True):
        _remove(data, location)
    return data


def _remove(data: dict[str, Any], location: Location) -> None:
    """Take one value out. A list goes as a whole, so that nothing depends on indexes that have moved."""
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


def _problem(error: ErrorDetails, values: Values, file: str) -> Problem:
    location = error["loc"]
    line = values.key_line(location) if is_unknown_key(error) else values.value_line(location)
    return Problem(file, line, write_location(location), *explain(error, values))


def _rules(settings: Settings, values: Values, bad: set[Location], file: str) -> list[Problem]:
    problems = []
    for rule in RULES:
        if any(_touches(_location(path), bad) for path in rule.reads):
            continue
        found = rule.check(settings)
        if found is not None:
            line = values.value_line(_location(found.path))
            problems.append(Problem(file, line, found.path, found.message, found.hint))
    return problems


def _unsupported(settings: Settings, values: Values, bad: set[Location], file: str) -> list[Problem]:
    return [
        Problem(file, values.value_line(_location(row.path)), row.path, row.message, row.instead)
        for row in unsupported_in(settings)
        if not _touches(_location(row.path), bad)
    ]


def _writable_by_all(path: Path, settings: Settings, values: Values, file: str) -> list[Problem]:
    """Whoever can write these runs code as the daemon.

    A directory with the sticky bit (`/tmp`) passes: others cannot replace what is in it.
    """
    problems = []
    hint = f"chmod o-w, or set {INSECURE_OK}=1"
    if path.is_file() and path.stat().st_mode & stat.S_IWOTH:
        problems.append(Problem(file, 1, "file", "must not be writable by everybody", hint))
    mode = settings.handler.path.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        line = values.value_line(("handler", "path"))
        problems.append(Problem(file, line, "handler.path", "must not be writable by everybody", hint))
    return problems


def _location(path: str) -> Location:
    """``filters[0].eventName`` as a location: ("filters", 0, "eventName")."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path))
