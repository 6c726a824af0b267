"""What the application of each mapping is called. The name is the namespace of its leases, so no two may share one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from consumer.cli.lambda_import.found import Found
from consumer.cli.lambda_import.intrinsics import Unresolved
from consumer.cli.lambda_import.sources.cloudformation_functions import function_name_text

_MAX_LENGTH = 128
_FALLBACK = "imported"


def application_names(mappings: Sequence[Found]) -> list[str]:
    """A name for each: that of its function, and more where several mappings belong to one function."""
    plain = [_of_function(one) for one in mappings]
    often = Counter(name.lower() for name in plain)
    names: list[str] = []
    taken: set[str] = set()
    for name, mapping in zip(plain, mappings, strict=True):
        wanted = _usable(f"{name}-{mapping.label}") if often[name.lower()] > 1 else name
        unique, number = wanted, 2
        while unique.lower() in taken:  # also the names of files, on systems where case does not count
            unique, number = f"{wanted[: _MAX_LENGTH - 4]}-{number}", number + 1
        taken.add(unique.lower())
        names.append(unique)
    return names


def _of_function(mapping: Found) -> str:
    """The name that the function has on Lambda, else the one inside of the file, else what it refers to."""
    properties, function = mapping.properties, mapping.function
    own = function.properties.get("FunctionName") if function else None
    called = properties.get("FunctionArn") or properties.get("FunctionName")
    choices = [own if isinstance(own, str) else "", function_name_text(called) if isinstance(called, str) else ""]
    if function:
        choices.append(function.name)
    if isinstance(called, Unresolved):
        literal = function_name_text(called)
        choices += ["" if "$" in literal else literal, *called.resources]
    return next((usable for usable in map(_usable, choices) if usable), _FALLBACK)


def _usable(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("-._")[:_MAX_LENGTH]
