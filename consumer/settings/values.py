"""The tree of a file to plain values, with the place of each one kept beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from consumer.settings.errors import Problem
from consumer.settings.interpolate import expand
from consumer.settings.yaml_source import Document, MappingNode, Node, ScalarNode, SequenceNode, join_path

Location = tuple[str | int, ...]
"""Keys and list indexes from the root, as pydantic reports them."""

SECRET_NAME = re.compile(
    r"secret|access_?key|session_?token|token$|passw|credential|api_?key|private_?key", re.IGNORECASE
)
"""Names (of keys and of variables) whose values must not be shown."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is, and how a message may show it.

    Attributes:
        key_line: 1-based line of its key (of itself, in a list).
        line: 1-based line of the value; for lists and mappings that of the key.
        text: the scalar as written; None for lists, mappings, and values from the environment.
        secret: its key or a variable in it is named like a secret, so it must not be shown.
    """

    key_line: int
    line: int
    text: str | None = None
    secret: bool = False


@dataclass(slots=True)
class Values:
    """Plain values, ready for validation.

    Attributes:
        data: nested dicts and lists.
        places: the place of every value.
        broken: locations whose value could not be determined; their problems are already in `problems`.
        problems: missing variables and malformed references.
    """

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, Place] = field(default_factory=dict)
    broken: set[Location] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def key_line(self, location: Location) -> int:
        """The line of a key; of the nearest key around it when it is not in the file."""
        place = self._nearest(location)
        return place.key_line if place else 1

    def value_line(self, location: Location) -> int:
        """The line of a value; of the nearest key around it when it is not in the file."""
        place = self.places.get(location)
        return place.line if place else self.key_line(location)

    def _nearest(self, location: Location) -> Place | None:
        while location:
            if location in self.places:
                return self.places[location]
            location = location[:-1]
        return None


def write_location(location: Location) -> str:
    """`batch.batch_size`, `filters[0].eventName`."""
    text = ""
    for part in location:
        text = f"{text}[{part}]" if isinstance(part, int) else join_path(text, part)
    return text


def resolve(document: Document, environ: Mapping[str, str]) -> Values:
    """Expand every reference and type every scalar of a document."""
    values = Values()
    reader = _Resolver(document.file, environ, values)
    values.data = reader.mapping(document.root, ())
    return values


class _Resolver:
    def __init__(self, file: str, environ: Mapping[str, str], values: Values) -> None:
        self._file = file
        self._environ = environ
        self._values = values

    def mapping(self, node: MappingNode, location: Location) -> dict[str, Any]:
        return {entry.key: self._value(entry.value, (*location, entry.key), entry.key_line) for entry in node.entries}

    def _value(self, node: Node, location: Location, key_line: int) -> Any:
        if isinstance(node, ScalarNode):
            return self._scalar(node, location, key_line)
        self._values.places[location] = Place(key_line, key_line)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*location, index), item.line) for index, item in enumerate(node.items)]
        return self.mapping(node, location)

    def _scalar(self, node: ScalarNode, location: Location, key_line: int) -> Any:
        expansion = expand(node.text, node.plain, self._environ)
        secret = any(SECRET_NAME.search(name) for name in (*map(str, location), *expansion.variables))
        text = None if expansion.variables else node.text
        self._values.places[location] = Place(key_line, node.line, text, secret)
        if node.broken or expansion.problems:
            self._values.broken.add(location)
        for message, hint in expansion.problems:
            self._values.problems.append(Problem(self._file, node.line, write_location(location), message, hint))
        return expansion.value
