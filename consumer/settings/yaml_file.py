"""A YAML file as plain values, each with its line; everything risky or surprising is refused.

PyYAML composes nodes, which know their lines, and constructs nothing, so no tag can make an object. Nesting, values
and aliases are bounded before it composes (it recurses), and once more while aliases are followed, before anything of
the size they could expand to exists. Duplicate keys, of which PyYAML would keep the last silently, are found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from consumer.settings.errors import SECRET_NAME, ConfigError, Location, Problem, write_location
from consumer.settings.expansion import expand

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
MAX_ALIASES = 50
MAX_NODES = 10_000

_TAG = "tag:yaml.org,2002:"
_TEXT = f"{_TAG}str"
_CORE_TAGS = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_DEFAULT_TAGS = {yaml.ScalarNode: _TEXT, yaml.SequenceNode: f"{_TAG}seq", yaml.MappingNode: f"{_TAG}map"}
_UNTAGGED = "unquoted and untagged"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


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
        file: the file as the user named it.
        data: nested dicts and lists.
        places: the place of every value; none for values from code.
        broken: locations whose value could not be determined; their problems are already in `problems`.
        problems: what was wrong without making the rest unreadable.
    """

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, Place] = field(default_factory=dict)
    broken: set[Location] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def key_line(self, location: Location) -> int:
        """The line of a key; of the nearest key around it when it is not in the file; 0 without a file."""
        around = (location[:length] for length in range(len(location), -1, -1))
        return next((self.places[one].key_line for one in around if one in self.places), 0)

    def value_line(self, location: Location) -> int:
        """The line of a value; of the nearest key around it when it is not in the file; 0 without a file."""
        place = self.places.get(location)
        return place.line if place else self.key_line(location)


class _Marking:
    """Keeps apart what has a type by its text (`5`) and what is text (`"5"`, `!!str 5`); PyYAML's types are unused."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: tuple[bool, bool]) -> str:
        return _UNTAGGED if kind is yaml.ScalarNode and implicit[0] else _DEFAULT_TAGS[kind]


def loader_on(base: type) -> Any:
    """A loader for `parse` on one of PyYAML's parsers: `CBaseLoader`, or `BaseLoader` where libyaml is missing."""
    return type("Loader", (_Marking, base), {})


LOADER = loader_on(getattr(yaml, "CBaseLoader", yaml.BaseLoader))


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        ConfigError: it cannot be read, is larger than 1 MiB, or is not UTF-8 (a UTF-8 BOM is fine).
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(file, 0, "", f"cannot be read: {error.strerror or error}")]) from None
    except ValueError:
        raise ConfigError([Problem(file, 0, "", "cannot be read: not a file name")]) from None
    if len(raw) > MAX_BYTES:
        raise _fatal(file, 1, "must not be larger than 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _fatal(file, line, "must be UTF-8 text", "save the file as UTF-8") from None


def parse(text: str, file: str, environ: Mapping[str, str], loader: Any = LOADER) -> Values:
    """The values of one YAML document whose root is a mapping, with every `${VAR}` expanded.

    Raises:
        ConfigError: malformed, empty, not a mapping, too deep, or too many values: nothing to go on with.
    """
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise _fatal(file, line, f"must not contain the control character U+{ord(control[0]):04X}")
    values = Values(file)
    try:
        _check_bounds(yaml.parse(text, Loader=loader), values)
        root = next(iter(yaml.compose_all(text, Loader=loader)), None)
    except yaml.MarkedYAMLError as error:
        raise _malformed(file, text, error) from None
    except yaml.YAMLError as error:
        raise _fatal(file, 1, f"malformed YAML: {str(error).splitlines()[0]}") from None
    if root is None or (root.tag == _UNTAGGED and not root.value):
        raise _fatal(file, 1, "the file is empty", "application, source and handler are required")
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "text"
        raise _fatal(file, _line(root), f"must be a mapping of keys to values, found {kind}")
    values.data = _Reader(values, environ).value(root, (), 1)
    return values


def _check_bounds(events: Iterator[yaml.Event], values: Values) -> None:
    """Refuse what must not be composed; a second document is a problem and is not looked into."""
    depth = nodes = aliases = documents = 0
    anchors: set[str] = set()
    for event in events:
        line = _line(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                problem = "must be a single YAML document"
                values.problems.append(Problem(values.file, line, "yaml", problem, "remove the second ---"))
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            _require(depth, nodes, aliases, values.file, line)
            if isinstance(event, yaml.AliasEvent) and event.anchor not in anchors:
                raise _fatal(values.file, line, f"malformed YAML: no anchor &{event.anchor} before this alias")
            if not isinstance(event, yaml.AliasEvent) and event.anchor in anchors:
                raise _fatal(values.file, line, f"malformed YAML: a second anchor &{event.anchor}")
            if event.anchor is not None:
                anchors.add(event.anchor)


def _require(depth: int, nodes: int, aliases: int, file: str, line: int) -> None:
    if depth > MAX_DEPTH:
        raise _fatal(file, line, f"must not be nested deeper than {MAX_DEPTH} levels")
    if nodes > MAX_NODES:
        raise _fatal(file, line, f"must not hold more than {MAX_NODES} values, aliases expanded")
    if aliases > MAX_ALIASES:
        raise _fatal(file, line, f"must not use more than {MAX_ALIASES} aliases")


class _Reader:
    """Nodes to values; goes on after a problem."""

    def __init__(self, values: Values, environ: Mapping[str, str]) -> None:
        self._values = values
        self._environ = environ
        self._nodes = 0

    def value(self, node: yaml.Node, location: Location, key_line: int) -> Any:
        """The plain value of a node, whose key is on line ``key_line``."""
        self._nodes += 1
        nested = not isinstance(node, yaml.ScalarNode)
        _require(len(location) + nested, self._nodes, 0, self._values.file, _line(node))
        known = self._check_tag(node, location)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location, key_line, known)
        self._values.places[location] = Place(key_line, key_line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        return [self.value(item, (*location, index), _line(item)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        """Keys are text as written, so that `on:` or `1:` is an unknown key and not a boolean or number."""
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(line, location, "a key must be text, found a list or mapping")
                continue
            key = key_node.value
            self._check_tag(key_node, location)
            here = (*location, key)
            if key in data:
                self._report(line, here, f"duplicate key, first given on line {lines[key]}", "keep one of them")
                continue
            lines[key] = line
            data[key] = self.value(value, here, line)
        return data

    def _scalar(self, node: yaml.ScalarNode, location: Location, key_line: int, known: bool) -> Any:
        plain = node.style in {None, ""} and node.tag != _TEXT
        expansion = expand(node.value, plain, self._environ)
        secret = any(SECRET_NAME.search(name) for name in (*map(str, location), *expansion.variables))
        text = None if expansion.variables else node.value
        self._values.places[location] = Place(key_line, _line(node), text, secret)
        if expansion.problems or not known:
            self._values.broken.add(location)
        for problem in expansion.problems:
            self._report(_line(node), location, problem.message, problem.hint)
        return expansion.value

    def _check_tag(self, node: yaml.Node, location: Location) -> bool:
        if node.tag in _CORE_TAGS or node.tag == _UNTAGGED:
            return True
        written = node.tag.replace(_TAG, "!!")
        self._report(_line(node), location, f"the YAML tag {written} is not allowed", "write a plain value")
        return False

    def _report(self, line: int, location: Location, message: str, hint: str = "") -> None:
        where = write_location(location) or "yaml"
        self._values.problems.append(Problem(self._values.file, line, where, message, hint))


def _line(marked: Any) -> int:
    return int(marked.start_mark.line) + 1


def _malformed(file: str, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = " ".join(str(part) for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    hint = ""
    if "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in reason:
        hint = "indent with spaces, not tabs"
    elif "${" in written:
        hint = 'inside [ ] or { } put "${...}" in quotes'
    return _fatal(file, line, f"malformed YAML at line {line}, column {column}: {reason}", hint)


def _fatal(file: str, line: int, message: str, hint: str = "") -> ConfigError:
    return ConfigError([Problem(file, line, "yaml", message, hint)])
