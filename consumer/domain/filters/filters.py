"""Filters: EventBridge patterns over the whole Lambda event of a record, compiled once.

A record is looked at in stages, cheapest first: the fields of the envelope, the keys, the images. A filter stops as
soon as its outcome is certain, so a pattern on ``eventName`` or on keys decodes no image, and one that asks for
``eventName: [INSERT]`` and an attribute decodes the images of inserts only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.domain.filters.compiler import Clause, Node, Pattern, Walk, combined, compile_pattern
from consumer.domain.filters.fields import CHANGE_FIELDS, DATA, FIELDS, NULL, Get, Items, Undecodable
from consumer.domain.filters.operators import PatternError
from consumer.domain.kinesis_records import KinesisChange
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord

_NONE = (0,)


@dataclass(frozen=True, slots=True)
class _Stage:
    """One field of the event that the pattern looks into."""

    get: Get
    node: Node
    absent: int
    """The clauses that hold when their field is missing."""
    later: int
    """The clauses of the stages after this one."""


class _Filter:
    """One pattern, ready to run on records with these fields."""

    def __init__(self, pattern: Pattern, fields: Mapping[str, Get]) -> None:
        self.clauses = pattern.clauses
        self._formula = pattern.formula
        stages = [(get, node) for name, get in fields.items() if (node := pattern.root.child(name)) is not None]
        reachable = 0
        for _, node in stages:
            reachable |= node.bits_below
        absent = sum(clause.bit for clause in pattern.clauses if clause.absent)
        self._start: tuple[int, ...] = (absent & ~reachable,)  # clauses that hold because their field is never there
        self._stages: list[_Stage] = []
        later = 0
        for get, node in reversed(stages):
            self._stages.insert(0, _Stage(get, node, absent & node.bits_below, later))
            later |= node.bits_below

    def matches(self, record: StreamRecord, items: Items) -> bool:
        """Whether the pattern holds. Raises Undecodable when that depends on an item that does not decode."""
        formula = self._formula
        walk = Walk()
        together = self._start
        for stage in self._stages:
            together = combined(together, _run(stage, walk, record, items))
            if len(together) == 1:  # no arrays, or none that matters
                if not formula.holds(together[0] | stage.later):
                    return False
                if formula.choices and formula.holds(together[0]):
                    return True
            elif not any(formula.holds(clauses | stage.later) for clauses in together):
                return False
            elif formula.choices and any(map(formula.holds, together)):
                return True
        return formula.holds(together[0]) if len(together) == 1 else any(map(formula.holds, together))

    def obstacle(self, can_be_there: Callable[[str], bool]) -> Clause | None:
        """The first clause that keeps the pattern from ever matching; None when it may match."""
        possible = 0
        for clause in self.clauses:
            if clause.absent or can_be_there(clause.field):
                possible |= clause.bit
        bits = self._formula.decided_by(possible)
        return next((clause for clause in self.clauses if clause.bit & bits), None)

    def explain(self, index: int, record: StreamRecord, items: Items) -> FilterResult:
        found: dict[int, list[Any]] = {}
        walk = Walk(found=found)
        together = self._start
        ever = together[0]
        for stage in self._stages:
            results = _run(stage, walk, record, items)
            together = combined(together, results)
            for holding in results:
                ever |= holding
        matched = any(self._formula.holds(clauses) for clauses in together)
        clauses = tuple(
            ClauseResult(
                place=clause.place,
                field=clause.field,
                wanted=clause.wanted,
                matched=bool(ever & clause.bit),
                found=tuple(found.get(clause.bit, ())),
                note=_note(type(record), clause, found, ever, items),
            )
            for clause in self.clauses
        )
        bits = self._formula.decided_by(ever)
        below_data = isinstance(record, KinesisChange) and any(_is_in(clause.field, DATA) for clause in self.clauses)
        decided = tuple(
            result for clause, result in zip(self.clauses, clauses, strict=True) if not matched and clause.bit & bits
        )
        return FilterResult(index, matched, clauses, decided, below_data)


def _run(stage: _Stage, walk: Walk, record: StreamRecord, items: Items) -> tuple[int, ...]:
    value = stage.get(record, items)
    together = _NONE if value is None else walk.visit(stage.node, None if value is NULL else value)
    if stage.absent:
        return combined(together, (stage.absent & ~walk.seen,))
    return together


class Filters:
    """Compiled filters; a record passes when one of them matches it, or when there are none. False when every record
    passes.

    ``table``: nothing passes but changes of this one, which have its name with them: those that came through Kinesis.
    None: changes of any table, and whatever else the stream holds.
    """

    def __init__(self, patterns: Sequence[Pattern], table: str | None = None) -> None:
        self.table = table
        self._by_kind = {
            kind: tuple(_Filter(pattern, fields) for pattern in patterns) for kind, fields in FIELDS.items()
        }

    def __len__(self) -> int:
        return len(self._by_kind[Record])

    def __bool__(self) -> bool:
        return self.table is not None or len(self) > 0

    def matches(self, record: StreamRecord) -> bool:
        """Whether a filter matches the record; the record is not changed and nothing is decoded into it.

        A record whose outcome depends on keys or an image that do not decode *matches*: the handler then sees it and
        it can become a dead letter. Skipping it would lose it without a trace.
        """
        if self.table is not None and _table_of(record) != self.table:
            return False
        filters = self._by_kind[type(record)]
        if not filters:
            return True
        items: Items = {}
        try:
            return any(one.matches(record, items) for one in filters)
        except (Undecodable, RecursionError):
            return True

    def never_match(self, view_type: str, keys: Collection[str]) -> list[str]:
        """Why filters can match no record of a stream, a line each: they ask for what its records never have.

        Args:
            view_type: the stream's, such as ``KEYS_ONLY``; "" when it is not known.
            keys: the names of the table's key attributes; none when they are not known.
        """

        def can_be_there(field: str) -> bool:
            return not _why_never(field, view_type, keys)

        obstacles = filter(None, (one.obstacle(can_be_there) for one in self._by_kind[Record]))
        return [f"{clause.place} can never match: {_why_never(clause.field, view_type, keys)}" for clause in obstacles]

    def explain(self, record: StreamRecord) -> Explanation:
        """What every clause found. Decodes whatever a pattern mentions, so it is not for the hot path."""
        if self.table is not None and (found := _table_of(record)) != self.table:
            what = f"a change of table {found}" if found else "no change of a table"
            return Explanation(False, (), f"source.table: it is {what}, and only those of {self.table} are read")
        items: Items = {}
        try:
            results = tuple(one.explain(index, record, items) for index, one in enumerate(self._by_kind[type(record)]))
        except (Undecodable, RecursionError) as error:
            reason = str(error) or type(error).__name__
            if self.matches(record):
                return Explanation(True, (), f"{reason}, so the handler has to see the record")
            return Explanation(False, (), f"no filter matches; {reason}, but the outcome does not depend on it")
        if not results:
            return Explanation(True, (), "there are no filters")
        matched = next((result for result in results if result.matched), None)
        if matched is not None:
            return Explanation(True, results, matched.reason)
        return Explanation(False, results, "; ".join(result.reason for result in results))


_IMAGES = {"KEYS_ONLY": (), "NEW_IMAGE": ("NewImage",), "OLD_IMAGE": ("OldImage",)}


def _why_never(field: str, view_type: str, keys: Collection[str]) -> str:
    """Why no record of a stream has a field; empty when one may."""
    first, _, rest = field.removeprefix(f"{DATA}.").partition(".")
    if first != "dynamodb":
        return ""
    for image in ("NewImage", "OldImage"):
        if _is_in(rest, image) and image not in _IMAGES.get(view_type, (image,)):
            return f"the stream is {view_type}, its records have no {image}"
    if keys and rest.startswith("Keys.") and not any(_is_in(rest, f"Keys.{name}") for name in keys):
        return f"the table's keys are {', '.join(keys)}"
    return ""


def _is_in(field: str, whole: str) -> bool:
    return field == whole or field.startswith(f"{whole}.")


def _table_of(record: StreamRecord) -> str:
    """Of a change of a table its name; empty when it is none, or does not tell."""
    return record.table_name if isinstance(record, Record) else ""


def compile_filters(
    patterns: Sequence[Mapping[str, Any]], *, numeric_on_numbers: bool = False, table: str | None = None
) -> Filters:
    """Compile EventBridge patterns, of any number; they are alternatives.

    Args:
        patterns: what stands under ``filters`` in the configuration.
        numeric_on_numbers: ``numeric`` also compares the text of DynamoDB numbers (``N``, ``NS``), exactly; AWS
            does not. In the configuration it is ``filter_options.numeric_on_n``.
        table: as in ``Filters``.

    Raises:
        PatternError: the first problem, with its path; ``filter_problems`` has all of them.
    """
    compiled, problems = _compile(patterns, numeric_on_numbers)
    if problems:
        raise problems[0]
    return Filters(compiled, table)


def filter_problems(patterns: Sequence[Mapping[str, Any]]) -> list[PatternError]:
    """Everything that is wrong with patterns, in their order; the options of ``compile_filters`` make no difference."""
    return _compile(patterns, numeric_on_numbers=False)[1]


def _compile(
    patterns: Sequence[Mapping[str, Any]], numeric_on_numbers: bool
) -> tuple[list[Pattern], list[PatternError]]:
    problems: list[PatternError] = []
    if isinstance(patterns, str | bytes | Mapping) or not isinstance(patterns, Sequence):
        problems.append(PatternError("filters", f"must be a list of patterns, found {type(patterns).__name__}"))
        return [], problems
    compiled = [
        compile_pattern(pattern, f"filters[{index}]", numeric_on_numbers=numeric_on_numbers, problems=problems)
        for index, pattern in enumerate(patterns)
    ]
    return compiled, problems


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """One clause against one record.

    Attributes:
        place: where the clause stands in the configuration, ``filters[0].eventName``.
        field: the field of the event, ``eventName``.
        wanted: the array as it was written.
        matched: whether some value of the field (or its absence) is wanted.
        found: every value of the field in the event; more than one in arrays.
        note: when there is none, why; when there is one, why it could not match, if that is not obvious.
    """

    place: str
    field: str
    wanted: tuple[Any, ...]
    matched: bool
    found: tuple[Any, ...]
    note: str

    @property
    def reason(self) -> str:
        """One line: what was found where."""
        found = f"found {', '.join(map(repr, self.found[:5]))}" if self.found else ""
        return f"{self.place}: {'; '.join(part for part in (found, self.note) if part)}"


@dataclass(frozen=True, slots=True)
class FilterResult:
    """One filter against one record.

    Attributes:
        index: its place under ``filters``.
        matched: whether it matches.
        clauses: all of its clauses.
        decided: those because of which it does not match; several when no alternative of an ``$or`` holds.
        below_data: it names a change of a table as Lambda's filters for Kinesis do, below ``data``.
    """

    index: int
    matched: bool
    clauses: tuple[ClauseResult, ...]
    decided: tuple[ClauseResult, ...]
    below_data: bool = False

    @property
    def across_elements(self) -> bool:
        """Only different elements of an array would match."""
        return not self.matched and not self.decided

    @property
    def reason(self) -> str:
        """One line: what decided."""
        if self.matched:
            spelling = ", below data, where the change is as DynamoDB put it into the stream" * self.below_data
            return f"filters[{self.index}] matches{spelling}"
        if self.across_elements:
            return f"filters[{self.index}]: its clauses hold, but only in different elements of an array"
        return " and ".join(clause.reason for clause in self.decided)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a record passes the filters or does not; ``filters`` is empty when an item does not decode."""

    matched: bool
    filters: tuple[FilterResult, ...]
    reason: str


def _note(kind: type[StreamRecord], clause: Clause, found: dict[int, list[Any]], holding: int, items: Items) -> str:
    if clause.bit not in found:
        return _why_nothing(kind, clause, items)
    if clause.blind and not holding & clause.bit:
        return "numeric compares N and NS, which are text, only with filter_options.numeric_on_n: true"
    return ""


def _why_nothing(kind: type[StreamRecord], clause: Clause, items: Items) -> str:
    """The usual mistakes: a misspelt field of the envelope, and a forgotten type tag."""
    if not issubclass(kind, Record):
        return "the event has no such field, or its data is no JSON with it"
    inner = clause.field.removeprefix(f"{DATA}.") if f"{DATA}.eventName" in FIELDS[kind] else clause.field
    first, _, rest = inner.partition(".")
    name, _, attribute = rest.partition(".")
    field = f"dynamodb.{name}" if first == "dynamodb" else first
    if field not in CHANGE_FIELDS and field not in FIELDS[kind]:
        return f"a DynamoDB event has no field {field}"
    if first == "dynamodb" and name in items:
        item = items[name]
        if item is None:
            return f"the event has no {field}"
        value = item.get(attribute)
        if isinstance(value, dict) and len(value) == 1:
            tag = next(iter(value))
            return f"the field is an object, only its leaves match; the type tag is missing, write {{{tag}: [...]}}"
    return "the event has no such field"
