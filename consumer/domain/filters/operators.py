"""What may stand in the array of a pattern's field: exact values and operators, each compiled to a predicate.

A predicate takes one JSON scalar of the event (text, number, true, false, null) and says whether it matches. Rules are
those of EventBridge's rule engine; every refusal says what is wrong and what is allowed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address, ip_network
from itertools import pairwise
from operator import eq, ge, gt, le, lt
from typing import Any

Test = Callable[[Any], bool]

_LONGEST_ADDRESS = 64  # an IPv6 address with a zone; longer text is no address and need not be parsed
_VALUES = "text, a number, true, false, null or an operator such as {prefix: ...}"


class PatternError(ValueError):
    """A pattern that cannot be used.

    Attributes:
        path: the place, for example ``filters[1].dynamodb.NewImage.status[0].prefix``.
        problem: one line: what is wrong and what is allowed.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = " ".join(problem.split())
        super().__init__(f"{path}: {self.problem}")


def compile_alternatives(
    values: Sequence[Any], path: str, *, number_text: bool, problems: list[PatternError]
) -> tuple[Test, bool]:
    """The array of one field: the predicate for a value that is there, and whether an absent one matches.

    What is wrong with its elements is added to ``problems``, each with its place; the elements that are right are
    compiled all the same. ``number_text``: the field is a DynamoDB number, whose text ``numeric`` compares too.
    """
    if not values:
        problems.append(PatternError(path, f"must not be empty; list at least one of {_VALUES}"))
    exact: list[Any] = []
    tests: list[Test] = []
    absent = False
    for index, value in enumerate(values):
        place = f"{path}[{index}]"
        try:
            if not isinstance(value, Mapping):
                exact.append(_scalar(value, place))
                continue
            operator, argument = _operator(value, place)
            place = f"{place}.{operator}"
            if operator == "exists" and argument is False:
                absent = True
            elif operator == "numeric" and number_text:
                tests.append(_numeric_text(argument, place))
            else:
                tests.append(_COMPILERS[operator](argument, place))
        except PatternError as error:
            problems.append(error)
    if exact:
        tests.insert(0, _one_of(exact))
    return _any_of(tests), absent


def _operator(value: Mapping[Any, Any], place: str) -> tuple[str, Any]:
    if len(value) != 1:
        found = "none" if not value else ", ".join(show(name) for name in value)
        raise PatternError(place, f"must hold exactly one operator, found {found}; write one mapping for each")
    ((name, argument),) = value.items()
    if name in OPERATORS:
        return name, argument
    hint = _did_you_mean(str(name).lower().replace("_", "-"), OPERATORS)
    raise PatternError(place, f"unknown operator {show(name)}{hint}; allowed are {', '.join(OPERATORS)}")


def _scalar(value: Any, place: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _number(value, place)
    if isinstance(value, list | tuple):
        raise PatternError(place, f"must not be an array; allowed is {_VALUES}")
    raise PatternError(place, f"must be {_VALUES}, found {show(value)} (write it in quotes)")


def _number(value: Any, place: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PatternError(place, f"must be a number, found {show(value)}")
    if not math.isfinite(value):
        raise PatternError(place, f"must be a finite number, found {value}")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise PatternError(place, f"must be text, found {show(value)}")
    return value


def show(value: Any) -> str:
    """A value for a message, cut when it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


# Predicates. A bool is an int in Python, but not in JSON: true is not 1.


def _any_of(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    several = tuple(tests)
    return lambda value: any(test(value) for test in several)


def _exists(value: Any, place: str) -> Test:
    if value is not True:
        raise PatternError(place, f"must be true or false, found {show(value)}")
    return lambda found: True


def _one_of(values: Iterable[Any]) -> Test:
    plain = frozenset((type(value) is bool, value) for value in values)
    if all(isinstance(value, str) for _, value in plain):
        texts = frozenset(value for _, value in plain)
        return lambda value: value in texts
    return lambda value: (type(value) is bool, value) in plain


def _not(test: Test) -> Test:
    return lambda value: not test(value)


def _affix(holds: Callable[[str, str], bool]) -> Callable[[Any, str], Test]:
    """The compiler of ``prefix`` or ``suffix``, which compare as ``holds`` does."""

    def compile_affix(value: Any, place: str) -> Test:
        if isinstance(value, Mapping):
            folded = _ignoring_case(value, place)
            return lambda found: isinstance(found, str) and holds(found.casefold(), folded)
        text = _text(value, place)
        return lambda found: isinstance(found, str) and holds(found, text)

    return compile_affix


def _ignoring_case(value: Mapping[Any, Any], place: str) -> str:
    if set(value) != {"equals-ignore-case"}:
        found = ", ".join(show(name) for name in value) or "nothing"
        raise PatternError(place, f"must be text or {{equals-ignore-case: text}}, found a mapping with {found}")
    return _text(value["equals-ignore-case"], f"{place}.equals-ignore-case").casefold()


def _equals_ignore_case(value: Any, place: str) -> Test:
    folded = _text(value, place).casefold()
    return lambda found: isinstance(found, str) and found.casefold() == folded


def _exactly(value: Any, place: str) -> Test:
    return _one_of([_text(value, place)])


def _cidr(value: Any, place: str) -> Test:
    problem = f"must be an address range such as 10.0.0.0/24 or 2001:db8::/32, found {show(value)}"
    if not isinstance(value, str) or "/" not in value:
        raise PatternError(place, problem)
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise PatternError(place, problem) from None

    def test(found: Any) -> bool:
        if not isinstance(found, str) or len(found) > _LONGEST_ADDRESS:
            return False
        try:
            return ip_address(found) in network
        except ValueError:
            return False

    return test


def _anything_but(value: Any, place: str) -> Test:
    """Not: for a field that is there. So a number is anything but ``paid``, and has not the prefix ``init``."""
    if isinstance(value, Mapping):
        return _not(_any_of(_nested_tests(value, place)))
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise PatternError(place, "must not be empty; list texts or numbers")
    for index, one in enumerate(values):
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            where = place if values is not value else f"{place}[{index}]"
            allowed = "text, a number, a list of them or one of {" + ", ".join(_NESTED) + "}"
            raise PatternError(where, f"must be {allowed}, found {show(one)}")
        if not isinstance(one, str):
            _number(one, place)
    if len({isinstance(one, str) for one in values}) > 1:
        raise PatternError(place, "must be all texts or all numbers, found both")
    return _not(_one_of(values))


def _nested_tests(value: Mapping[Any, Any], place: str) -> list[Test]:
    name = next(iter(value)) if len(value) == 1 else None
    if name not in _NESTED:
        hint = _did_you_mean(str(name), _NESTED) if name is not None else ""
        found = ", ".join(show(one) for one in value) or "none"
        raise PatternError(place, f"must hold exactly one of {', '.join(_NESTED)}, found {found}{hint}")
    place = f"{place}.{name}"
    argument = value[name]
    listed = isinstance(argument, list | tuple)
    arguments = argument if listed else [argument]
    if not arguments:
        raise PatternError(place, "must not be empty; list texts")
    tests = []
    for index, one in enumerate(arguments):
        where = f"{place}[{index}]" if listed else place
        if one == "" and name in {"prefix", "suffix"}:
            raise PatternError(where, "must not be empty text; every text begins and ends with it")
        tests.append(_COMPILERS[name](one, where))
    return tests


# Numbers.

_Compare = Callable[[Any, Any], bool]
_LOWER: dict[str, _Compare] = {">": gt, ">=": ge}
_UPPER: dict[str, _Compare] = {"<": lt, "<=": le}
_COMPARE: dict[str, _Compare] = {"=": eq, **_LOWER, **_UPPER}
_NUMERIC_SHAPE = 'must be a comparison such as [">", 0] or a range such as [">", 0, "<=", 5]'


def _numeric(value: Any, place: str) -> Test:
    bounds = _bounds(value, place)
    return lambda found: isinstance(found, int | float) and not isinstance(found, bool) and _within(found, bounds)


def _numeric_text(value: Any, place: str) -> Test:
    """The same for a DynamoDB number, which is text."""
    of_json = _numeric(value, place)
    exact = [(compare, Decimal(str(bound))) for compare, bound in _bounds(value, place)]

    def test(found: Any) -> bool:
        if not isinstance(found, str):
            return of_json(found)
        number = _decimal(found)
        return number is not None and _within(number, exact)

    return test


def _within(found: Any, bounds: Sequence[tuple[_Compare, Any]]) -> bool:
    return all(compare(found, bound) for compare, bound in bounds)


def _decimal(text: str) -> Decimal | None:
    """The exact number; comparing Decimals never rounds."""
    try:
        number = Decimal(text)
    except (InvalidOperation, ValueError):
        return None
    return number if number.is_finite() and "_" not in text else None


def _bounds(value: Any, place: str) -> list[tuple[_Compare, int | float]]:
    if not isinstance(value, list | tuple) or len(value) not in {2, 4}:
        raise PatternError(place, f"{_NUMERIC_SHAPE}, found {show(value)}")
    pairs = [(value[at], _number(value[at + 1], f"{place}[{at + 1}]")) for at in range(0, len(value), 2)]
    for at, (operator, _) in enumerate(pairs):
        if not isinstance(operator, str) or operator not in _COMPARE:
            raise PatternError(f"{place}[{at * 2}]", f"must be one of = < <= > >=, found {show(operator)}")
    if len(pairs) == 2:
        (first, low), (second, high) = pairs
        if first not in _LOWER or second not in _UPPER:
            problem = f"must be a lower bound (> or >=), then an upper bound (< or <=), found {first} then {second}"
            raise PatternError(place, problem)
        if low >= high:
            raise PatternError(place, f"must have a lower bound below the upper one, found {low} and {high}")
    return [(_COMPARE[operator], bound) for operator, bound in pairs]


# Wildcards.


def _wildcard(value: Any, place: str) -> Test:
    parts = _wildcard_parts(_text(value, place), place)
    if len(parts) == 1:
        return _one_of(parts)
    return lambda found: isinstance(found, str) and wildcard_matches(parts, found)


def _wildcard_parts(text: str, place: str) -> list[str]:
    r"""The literal texts between the stars; ``\*`` is a star and ``\\`` a backslash."""
    parts = [""]
    characters = re.findall(r"\\?.", text, re.DOTALL)  # a backslash and what it escapes count as one
    for before, character in pairwise(["", *characters]):
        if before == character == "*":
            raise PatternError(place, r"must not hold two stars in a row; write one (or \* for a star)")
        if character == "*":
            parts.append("")
        elif character.startswith("\\") and character not in {r"\*", r"\\"}:
            raise PatternError(place, r"must escape only stars and backslashes: \* and \\")
        else:
            parts[-1] += character[-1]
    return parts


def wildcard_matches(parts: Sequence[str], text: str) -> bool:
    """Whether ``text`` is the parts in this order with anything between them: one pass, no backtracking.

    Taking the leftmost place of each part leaves the most room for the rest, so no other choice need be tried.
    """
    first, last = parts[0], parts[-1]
    end = len(text) - len(last)
    if len(first) > end or not text.startswith(first) or not text.endswith(last):
        return False
    at = len(first)
    for part in parts[1:-1]:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


_NESTED = ("prefix", "suffix", "equals-ignore-case", "wildcard")
_COMPILERS: dict[str, Callable[[Any, str], Test]] = {
    "prefix": _affix(str.startswith),
    "suffix": _affix(str.endswith),
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
    "cidr": _cidr,
    "exactly": _exactly,
}
OPERATORS = tuple(_COMPILERS)
