"""One pattern, compiled: clauses (field and alternatives), the formula over them, and the paths that lead to them.

Every clause owns one bit. Walking an event yields the sets of clauses that can hold *together*: fields in different
elements of one array never do. Because a formula only gains from more clauses, it is enough to keep the largest sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumer.domain.filters.operators import OPERATORS, PatternError, Test, compile_alternatives, show

MAX_DEPTH = 100
"""Levels of nesting; an event has fewer than 70 (DynamoDB nests 32 levels, each with a type tag)."""

_ITEMS = tuple(f"{above}dynamodb.{name}." for above in ("", "data.") for name in ("Keys", "NewImage", "OldImage"))
_RESERVED_IN_OR = frozenset((*OPERATORS, "=", "<", "<=", ">", ">=", "regex"))


@dataclass(frozen=True, slots=True)
class Clause:
    """One field of a pattern.

    Attributes:
        place: where the pattern says so, ``filters[0].dynamodb.NewImage.status.S``.
        field: the field of the event, dotted.
        wanted: the array as it was written.
        test: whether a value of the field is wanted.
        absent: the clause holds when the event has no such field.
        blind: it asks ``numeric`` of a DynamoDB number, which is text that ``numeric`` does not compare.
    """

    place: str
    field: str
    wanted: tuple[Any, ...]
    bit: int
    test: Test
    absent: bool
    blind: bool


@dataclass(frozen=True, slots=True)
class Formula:
    """All of ``required`` (bits of clauses), and of each ``$or`` at least one."""

    required: int
    choices: tuple[tuple[Formula, ...], ...]

    def holds(self, clauses: int) -> bool:
        if clauses & self.required != self.required:
            return False
        return not self.choices or all(any(one.holds(clauses) for one in choice) for choice in self.choices)

    def decided_by(self, clauses: int) -> int:
        """The clauses (as bits) because of which it does not hold: one that is required, or, when all of those hold,
        one of each alternative of the ``$or`` that has none left. 0 when it holds."""
        missing = self.required & ~clauses
        if missing:
            return missing & -missing  # the first one
        for choice in self.choices:
            if not any(one.holds(clauses) for one in choice):
                return sum(one.decided_by(clauses) for one in choice)  # no clause belongs to two of them
        return 0


@dataclass(slots=True)
class Node:
    """A place in the event that leads to clauses. ``children`` holds every spelling: of ``a.b`` both a and "a.b"."""

    tests: list[tuple[int, Test]] = field(default_factory=list)
    bits: int = 0
    bits_below: int = 0
    children: list[tuple[str, Node]] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        return next((node for key, node in self.children if key == name), None)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern."""

    clauses: tuple[Clause, ...]
    formula: Formula
    root: Node


def compile_pattern(pattern: Any, place: str, *, numeric_on_numbers: bool, problems: list[PatternError]) -> Pattern:
    """Compile one pattern. Everything that is wrong is added to ``problems``, with places that start with ``place``;
    then what is returned must not be used."""
    parser = _Parser(numeric_on_numbers, problems)
    formula = Formula(0, ())
    if isinstance(pattern, Mapping):
        formula = parser.formula(pattern, place, ())
    else:
        problems.append(PatternError(place, f"must be a mapping of event fields, found {type(pattern).__name__}"))
    clauses = tuple(parser.clauses)
    return Pattern(clauses, formula, _tree(clauses))


class _Parser:
    """Goes on after a mistake, so that all of them are reported at once."""

    def __init__(self, numeric_on_numbers: bool, problems: list[PatternError]) -> None:
        self.clauses: list[Clause] = []
        self._numeric_on_numbers = numeric_on_numbers
        self._problems = problems

    def formula(self, fields: Mapping[Any, Any], place: str, above: tuple[str, ...]) -> Formula:
        choices: list[tuple[Formula, ...]] = []
        required = self._fields(fields, place, above, choices, set())
        return Formula(required, tuple(choices))

    def _refuse(self, place: str, problem: str) -> int:
        """Note what is wrong; no clause comes of it."""
        self._problems.append(PatternError(place, problem))
        return 0

    def _fields(
        self,
        fields: Mapping[Any, Any],
        place: str,
        above: tuple[str, ...],
        choices: list[tuple[Formula, ...]],
        used: set[str],
    ) -> int:
        """The bits of the fields of one mapping and those below it; each ``$or`` found is added to ``choices``."""
        if not fields:
            return self._refuse(place, "must not be empty; name at least one field")
        required = 0
        for name, value in fields.items():
            if not isinstance(name, str):
                self._refuse(place, f"must have text as field names, found {name!r} (write it in quotes)")
                continue
            here = f"{place}.{name}"
            path = (*above, name)
            if len(path) > MAX_DEPTH or name.count(".") > MAX_DEPTH or here.count("$or") > MAX_DEPTH:
                self._refuse(place, f"must not be nested deeper than {MAX_DEPTH} levels")
            elif name == "$or" and _is_or(value):
                choices.append(self._choice(value, here, above))
            elif isinstance(value, Mapping):
                required |= self._fields(value, here, path, choices, used)
            elif isinstance(value, list | tuple):
                required |= self._clause(value, here, ".".join(path), used)
            else:
                self._refuse(here, _not_an_array(name, value))
        return required

    def _choice(self, alternatives: Sequence[Any], place: str, above: tuple[str, ...]) -> tuple[Formula, ...]:
        """The formulas of the alternatives of an ``$or``."""
        if len(alternatives) < 2:
            self._refuse(place, f"must list two or more alternatives, found {len(alternatives)}")
        formulas = []
        for index, one in enumerate(alternatives):
            here = f"{place}[{index}]"
            if not isinstance(one, Mapping):
                self._refuse(here, f"must be a mapping of event fields, found {type(one).__name__}")
            elif reserved := _reserved_in(one):
                self._refuse(here, f"must not name the field {reserved[0]!r}, which is an operator")
            else:
                formulas.append(self.formula(one, here, above))
        return tuple(formulas)

    def _clause(self, values: Sequence[Any], place: str, path: str, used: set[str]) -> int:
        if path in used:
            return self._refuse(place, f"is the field {path} once more; put all its values into one array")
        used.add(path)
        bit = 1 << len(self.clauses)
        number = path.startswith(_ITEMS) and path.endswith((".N", ".NS"))
        number_text = number and self._numeric_on_numbers
        test, absent = compile_alternatives(values, place, number_text=number_text, problems=self._problems)
        asks_numeric = any("numeric" in one for one in values if isinstance(one, Mapping))
        blind = number and not number_text and asks_numeric
        self.clauses.append(Clause(place, path, tuple(values), bit, test, absent, blind))
        return bit


def _is_or(value: Any) -> bool:
    """Two or more mappings, none of which is an operator; anything else makes ``$or`` an ordinary field name. So would
    a list with a mistake in one alternative, but then the mistake is what has to be reported."""
    if not isinstance(value, list | tuple):
        return False
    return any(map(_has_fields, value)) or (
        len(value) >= 2 and all(isinstance(one, Mapping) and not _reserved_in(one) for one in value)
    )


def _reserved_in(fields: Mapping[Any, Any]) -> list[str]:
    return [name for name in fields if isinstance(name, str) and name in _RESERVED_IN_OR]


def _has_fields(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        name not in _RESERVED_IN_OR and isinstance(inner, list | tuple | Mapping) for name, inner in value.items()
    )


def _not_an_array(name: str, value: Any) -> str:
    found = show(value)
    if name in OPERATORS:
        return f"must be an array or a mapping of fields, found {found} (operators go into an array: [{{{name}: ...}}])"
    return f"must be an array of values or a mapping of fields, found {found} (write [{found}])"


def _tree(clauses: Iterable[Clause]) -> Node:
    """One node for each prefix of a path, reachable from every shorter prefix: event names may hold dots too."""
    root = Node()
    nodes: dict[str, Node] = {}
    for clause in clauses:
        parts = clause.field.split(".")
        chain: list[tuple[int, Node]] = [(0, root)]
        root.bits_below |= clause.bit
        for length in range(1, len(parts) + 1):
            prefix = ".".join(parts[:length])
            if prefix not in nodes:
                nodes[prefix] = Node()
                for start, parent in chain:
                    parent.children.append((".".join(parts[start:length]), nodes[prefix]))
            node = nodes[prefix]
            node.bits_below |= clause.bit
            chain.append((length, node))
        node.bits |= clause.bit
        node.tests.append((clause.bit, clause.test))
    return root


@dataclass(slots=True)
class Walk:
    """What one walk has come across: the clauses whose field is there, and (to explain) the values found."""

    seen: int = 0
    found: dict[int, list[Any]] | None = None

    def visit(self, node: Node, value: Any) -> tuple[int, ...]:
        """The largest sets of clauses (as bits) that hold together at ``value``; never empty."""
        if isinstance(value, dict):
            return self._object(node, value)
        if isinstance(value, list):
            return self._array(node, value)
        return (self._scalar(node, value),)

    def _scalar(self, node: Node, value: Any) -> int:
        holding = 0
        if node.tests:
            self.seen |= node.bits
            for bit, test in node.tests:
                if self.found is not None:
                    self.found.setdefault(bit, []).append(value)
                if test(value):
                    holding |= bit
        return holding

    def _object(self, node: Node, value: dict[str, Any]) -> tuple[int, ...]:
        together: tuple[int, ...] = (0,)
        for name, child in node.children:
            if name in value:
                together = combined(together, self.visit(child, value[name]))
        return together

    def _array(self, node: Node, value: list[Any]) -> tuple[int, ...]:
        """Plain elements belong to the array's own field, so any of them may match; of the others one is chosen."""
        plain = 0
        choices: set[int] = set()
        for element in value:
            if isinstance(element, dict | list):
                choices.update(self.visit(node, element))
            else:
                plain |= self._scalar(node, element)
        return combined((plain,), _largest(choices)) if choices else (plain,)


def combined(some: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    """Every set of ``some`` joined with every set of ``others``."""
    if len(some) == len(others) == 1:
        return (some[0] | others[0],)
    return _largest({one | other for one in some for other in others})


def _largest(sets: set[int]) -> tuple[int, ...]:
    if len(sets) == 1:
        return tuple(sets)
    kept: list[int] = []
    for one in sorted(sets, key=int.bit_count, reverse=True):
        if not any(one & other == one for other in kept):
            kept.append(one)
    return tuple(kept)
