"""YAML text to a tree that remembers lines, with everything risky or surprising refused.

The tree is built from PyYAML's event stream rather than its loader. That gives the line of every key and
value, finds duplicate keys (PyYAML keeps the last one silently), and bounds depth and aliases while
reading, before anything of the size they could expand to exists. No tag can construct an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from consumer.settings.errors import ConfigError, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
MAX_ALIASES = 50
MAX_NODES = 10_000

_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_STRING_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """Text as written; `plain` when unquoted and untagged, so that its type follows from the text."""

    text: str
    plain: bool
    line: int
    broken: bool = False


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list; `size` and `height` count it with everything inside, aliases expanded."""

    items: tuple[Node, ...]
    line: int
    size: int
    height: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key: value` of a mapping, and the line of the key."""

    key: str
    key_line: int
    value: Node


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping without duplicate keys; of two equal keys the first is kept, the second reported."""

    entries: tuple[Entry, ...]
    line: int
    size: int
    height: int


Node = ScalarNode | SequenceNode | MappingNode


@dataclass(slots=True)
class Document:
    """A parsed file: its root mapping, and what was wrong without making the rest unreadable."""

    file: str
    root: MappingNode
    problems: list[Problem] = field(default_factory=list)


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        ConfigError: it cannot be read, is larger than 1 MiB, or is not UTF-8 (a UTF-8 BOM is fine).
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _fatal(path, 0, f"cannot be read: {error.strerror or error}", subject="") from None
    except ValueError:
        raise _fatal(path, 0, "cannot be read: not a file name", subject="") from None
    if len(raw) > MAX_BYTES:
        raise _fatal(path, 1, "must not be larger than 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _fatal(path, line, "must be UTF-8 text", "save the file as UTF-8") from None


def parse_document(text: str, path: Path) -> Document:
    """The tree of one YAML document whose root is a mapping.

    Raises:
        ConfigError: malformed, empty, not a mapping, too deep, or too many aliases: nothing to go on with.
    """
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise _fatal(path, line, f"must not contain the control character U+{ord(control[0]):04X}")
    builder = _Builder(path, yaml.parse(text, Loader=_Loader))
    try:
        root = builder.document()
    except yaml.MarkedYAMLError as error:
        raise _malformed(path, text, error) from None
    except yaml.YAMLError as error:
        raise _fatal(path, 1, f"malformed YAML: {str(error).splitlines()[0]}") from None
    return Document(str(path), root, builder.problems)


class _Builder:
    """Builds the tree from events; recursion is bounded by MAX_DEPTH."""

    def __init__(self, path: Path, events: Iterator[Any]) -> None:
        self._path = path
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._nodes = 0
        self.problems: list[Problem] = []

    def document(self) -> MappingNode:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    line = _line(event)
                    self._report(line, "yaml", "must be a single YAML document", "remove the second ---")
                    break
                root = self._node(next(self._events), 1, "")
        if root is None or (isinstance(root, ScalarNode) and root.plain and not root.text):
            raise _fatal(self._path, 1, "the file is empty", "application, source and handler are required")
        if not isinstance(root, MappingNode):
            kind = "a list" if isinstance(root, SequenceNode) else "text"
            raise _fatal(self._path, root.line, f"must be a mapping of keys to values, found {kind}")
        return root

    def _node(self, event: Any, depth: int, where: str) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if depth > MAX_DEPTH and not isinstance(event, yaml.ScalarEvent):
            raise _fatal(self._path, line, f"must not be nested deeper than {MAX_DEPTH} levels")
        self._count(1, line)
        known = self._known_tag(event, where)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            plain = event.style in {None, ""} and event.tag not in _STRING_TAGS
            node = ScalarNode(event.value, plain, line, broken=not known)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(line, depth, where)
        else:
            node = self._mapping(line, depth, where)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, depth: int) -> Node:
        line = _line(event)
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _fatal(self._path, line, f"must not use more than {MAX_ALIASES} aliases")
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _fatal(self._path, line, f"malformed YAML: no anchor &{event.anchor} before this alias")
        self._count(_size(node), line)
        if depth + _height(node) > MAX_DEPTH + 1:
            raise _fatal(self._path, line, f"must not be nested deeper than {MAX_DEPTH} levels")
        return node

    def _sequence(self, line: int, depth: int, where: str) -> SequenceNode:
        items: list[Node] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, depth + 1, f"{where}[{len(items)}]"))
        return SequenceNode(tuple(items), line, *_extent(items))

    def _mapping(self, line: int, depth: int, where: str) -> MappingNode:
        entries: dict[str, Entry] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key, key_line = self._key(event, depth, where)
            path = join_path(where, key) if key is not None else where
            value = self._node(next(self._events), depth + 1, path)
            if key is None:
                continue
            if key in entries:
                self._report(
                    key_line, path, f"duplicate key, first given on line {entries[key].key_line}", "keep one of them"
                )
            else:
                entries[key] = Entry(key, key_line, value)
        return MappingNode(tuple(entries.values()), line, *_extent([entry.value for entry in entries.values()]))

    def _key(self, event: Any, depth: int, where: str) -> tuple[str | None, int]:
        """Keys are text as written, so that `on:` or `1:` is an unknown key and not a boolean or number."""
        node = self._node(event, depth + 1, where)
        if isinstance(node, ScalarNode):
            return node.text, _line(event)
        self._report(_line(event), where or "yaml", "a key must be text, found a list or mapping", "")
        return None, _line(event)

    def _known_tag(self, event: Any, where: str) -> bool:
        tag = event.tag
        if tag is None or tag == "!" or tag in _CORE_TAGS:
            return True
        written = tag.replace("tag:yaml.org,2002:", "!!")
        self._report(_line(event), where or "yaml", f"the YAML tag {written} is not allowed", "write a plain value")
        return False

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise _fatal(self._path, line, f"must not hold more than {MAX_NODES} values, aliases expanded")

    def _report(self, line: int, where: str, message: str, hint: str) -> None:
        self.problems.append(Problem(str(self._path), line, where, message, hint))


def join_path(parent: str, key: str) -> str:
    """`parent.key`; a key that is not a plain word is quoted, and a very long one cut."""
    shown = key if len(key) <= 60 else f"{key[:57]}..."
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", shown):
        shown = repr(shown)
    return f"{parent}.{shown}" if parent else shown


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _size(node: Node) -> int:
    return 1 if isinstance(node, ScalarNode) else node.size


def _height(node: Node) -> int:
    return 1 if isinstance(node, ScalarNode) else node.height


def _extent(children: list[Node]) -> tuple[int, int]:
    return 1 + sum(map(_size, children)), 1 + max(map(_height, children), default=0)


def _malformed(path: Path, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
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
    return _fatal(path, line, f"malformed YAML at line {line}, column {column}: {reason}", hint)


def _fatal(path: Path, line: int, message: str, hint: str = "", subject: str = "yaml") -> ConfigError:
    return ConfigError([Problem(str(path), line, subject, message, hint)])
