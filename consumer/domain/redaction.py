"""Attributes that never leave the daemon (``on_failure.redact``): taken out of the images of dead letters, and their
values out of texts.

A path has steps with dots between them. A step is the whole name of an attribute, exactly as written, or ``*`` for any
one. The first step is a top-level attribute of the image, each further one goes into a map; lists are passed through,
so ``orders.card`` is also the ``card`` of every element of the list ``orders``. A name with dots in it counts as one
step and as several: rather too much is taken out than too little.

Keys are identity: they say which item a record is about, in ``Keys`` and in the images, and stay.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from .errors import MisconfiguredResource
from .hidden_values import MARK, HiddenValues
from .json_spans import Malformed, elements, members
from .record import Record
from .stream_record import StreamRecord

REDACTED: Final = f'{{"S":"{MARK}"}}'.encode()  # in the place of any attribute value: every parser of DynamoDB takes it

_ABSENT: Final = Raw(b"")
_DESCRIPTORS: Final = frozenset({"S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"})
_LEVELS: Final = 32  # of maps and lists in each other, which is what DynamoDB takes
_LEAF: Final = re.compile(rb'\{"(?:S|N|B)":"[^"\\]*+(?:\\.[^"\\]*+)*+"\}', re.DOTALL)  # nearly all values are
_Steps = tuple[str, ...]
_Way = tuple[_Steps, _Steps]  # a path, and what is left of it
_Found = tuple[list[tuple[int, int]], set[_Steps]]


def path_problem(path: str) -> tuple[str, str] | None:
    """What is wrong with a path, and what to do; None when nothing is."""
    steps = path.split(".")
    if not all(steps) or path != path.strip():
        return "must be names of attributes with dots between them", "such as ssn, address.street or *.email"
    for step in steps:
        if "*" in step and step != "*":
            return "has a step that is neither a whole name nor *", "a step is one name; * alone is any one"
        if step.endswith("]") and "[" in step:
            return "has an index", "lists are passed through: write items.ssn for every element of items"
    return None


def is_redacted(document: Mapping[str, Any]) -> bool:
    """Whether something is missing from the records of a dead letter (its document, decoded): they must not be handled
    as they are. The item itself has to be read again."""
    return document.get("redacted") is True


class RedactedRecords(NamedTuple):
    """Records without what must not leave, and the paths (as configured) that had something to take away."""

    records: Sequence[StreamRecord]
    paths: tuple[str, ...] = ()


class Redaction:
    """The paths of one configuration. ``paths`` are as ``path_problem`` wants them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self._by_steps = {tuple(path.split(".")): path for path in self.paths}
        self._ways: tuple[_Way, ...] = tuple((steps, steps) for steps in self._by_steps)

    def of_keys(self, keys: Collection[str]) -> list[str]:
        """The paths that name a key of the table (``keys``: all of them), and so have no effect."""
        return [path for path in self.paths if path in keys]

    def require_no_keys(self, keys: Collection[str], table: str) -> None:
        """MisconfiguredResource when a path names one of the table's ``keys``. None are known of a Kinesis stream."""
        named = self.of_keys(keys)
        if named:
            raise MisconfiguredResource(
                f"on_failure.redact names {', '.join(named)}, of the key of {table}: a key says which item a record is"
                " about, and is in every dead letter (take it off the list)"
            )

    def records(self, records: Sequence[StreamRecord]) -> RedactedRecords:
        """Copies of changes whose images lack what the paths name: each value is replaced by ``REDACTED``, every other
        byte stays. An image that cannot be read is left out. Other records have no attributes, and stay as they are."""
        hit: set[_Steps] = set()
        copies = [self._redacted(record, hit) if isinstance(record, Record) else record for record in records]
        return RedactedRecords(copies, tuple(path for steps, path in self._by_steps.items() if steps in hit))

    def leaves(self, image: Raw, keys: Raw) -> bool:
        """Whether an image of an item with these keys is whole: no path names anything in it, now or before its value
        was replaced."""
        return self._without(image, _names(keys), set()) is image

    def hidden_values(self, records: Sequence[StreamRecord]) -> HiddenValues:
        """The values in these records that no text may show. They are looked for when the first text comes."""
        return HiddenValues(lambda: self._values(records))

    # --- images --------------------------------------------------------------------------------------------

    def _redacted(self, record: Record, hit: set[_Steps]) -> Record:
        change = record.dynamodb
        keys = _names(change.Keys)
        new, old = (self._without(image, keys, hit) for image in (change.NewImage, change.OldImage))
        if new is change.NewImage and old is change.OldImage:
            return record
        images = msgspec.structs.replace(change, NewImage=new, OldImage=old)
        return msgspec.structs.replace(record, dynamodb=images, cached=None)

    def _without(self, image: Raw, keys: Collection[str], hit: set[_Steps]) -> Raw:
        text = bytes(image)
        try:
            spans, matched = self._find(text, keys)
        except Malformed:
            hit.update(self._by_steps)
            return _ABSENT
        if not spans:
            return image
        hit |= matched
        parts, at = [], 0
        for start, end in sorted(spans):
            parts += [text[at:start], REDACTED]
            at = end
        return Raw(b"".join([*parts, text[at:]]))

    def _values(self, records: Sequence[StreamRecord]) -> Iterator[bytes | None]:
        """The JSON of every value that the paths name; None for an image that cannot be read, which may hold any."""
        for record in records:
            if isinstance(record, Record):
                keys = _names(record.dynamodb.Keys)
                for image in (record.dynamodb.NewImage, record.dynamodb.OldImage):
                    text = bytes(image)
                    try:
                        yield from (text[start:end] for start, end in self._find(text, keys)[0])
                    except Malformed:
                        yield None

    def _find(self, image: bytes, keys: Collection[str]) -> _Found:
        """Where the values are that the paths name, and which paths found any. Malformed."""
        spans: list[tuple[int, int]] = []
        hit: set[_Steps] = set()
        if image in (b"", b"null"):
            return spans, hit
        todo: list[tuple[int, int, tuple[_Way, ...]]] = [(0, len(image), self._ways)]
        while todo:
            start, end, paths = todo.pop()
            for name, begins, ends in members(image, start, end):
                if start == 0 and name in keys:
                    continue
                here, below = _step(paths, name)
                if here:
                    spans.append((begins, ends))
                    hit |= here
                elif below:
                    todo += [(*inner, below) for inner in _maps(image, begins, ends)]
        return spans, hit


@functools.lru_cache(4096)
def _step(ways: tuple[_Way, ...], name: str) -> tuple[frozenset[_Steps], tuple[_Way, ...]]:
    """Which paths end at an attribute of this name, and the ways that go on below it."""
    parts = tuple(name.split("."))
    ends: set[_Steps] = set()
    below: dict[_Way, None] = {}
    for path, left in ways:
        taken = {1} if left[0] in ("*", name) else set()
        if len(parts) <= len(left) and all(step in ("*", part) for step, part in zip(left, parts, strict=False)):
            taken.add(len(parts))
        for count in taken:
            if count == len(left):
                ends.add(path)
            else:
                below[path, left[count:]] = None
    return frozenset(ends), tuple(below)


def _maps(image: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The maps that an attribute value is, or holds in lists. Malformed for what is no attribute value."""
    if _LEAF.fullmatch(image, start, end):
        return
    todo = [(start, end, 0)]
    while todo:
        start, end, depth = todo.pop()
        typed = list(members(image, start, end))
        if len(typed) != 1 or typed[0][0] not in _DESCRIPTORS or depth > _LEVELS:
            raise Malformed(f"no attribute value at byte {start}")
        descriptor, begins, ends = typed[0]
        if descriptor == "M":
            yield begins, ends
        elif descriptor == "L":
            todo += [(*element, depth + 1) for element in elements(image, begins)]


def _names(keys: Raw) -> frozenset[str]:
    text = bytes(keys)
    try:
        return frozenset(name for name, _, _ in members(text, 0, len(text)))
    except Malformed:
        return frozenset()
