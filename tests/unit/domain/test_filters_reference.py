"""The compiled filters against a naive interpreter that follows the written rules word for word.

The interpreter flattens the event into fields with the elements of arrays they are in, expands ``$or`` into all its
combinations, and tries every choice of fields; two fields in different elements of one array never go together.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.events import event_json
from consumer.domain.filters.filters import compile_filters
from consumer.domain.record import Change, Record

Where = dict[int, int]
Field = tuple[str, Any, Where]


def flatten(value: Any) -> list[Field]:
    fields: list[Field] = []
    arrays = itertools.count()

    def visit(value: Any, path: tuple[str, ...], where: Where) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                visit(inner, (*path, name), where)
        elif isinstance(value, list):
            array = next(arrays)
            for index, element in enumerate(value):
                nested = isinstance(element, dict | list)
                visit(element, path, {**where, array: index} if nested else where)
        else:
            fields.append((".".join(path), value, where))

    visit(value, (), {})
    return fields


Rule = list[tuple[str, list[Any]]]


def branches(pattern: dict[str, Any], path: tuple[str, ...] = ()) -> list[Rule]:
    rules: list[Rule] = [[]]
    for name, value in pattern.items():
        if name == "$or":
            more = [rule for one in value for rule in branches(one, path)]
        elif isinstance(value, dict):
            more = branches(value, (*path, name))
        else:
            more = [[(".".join((*path, name)), value)]]
        rules = [rule + another for rule in rules for another in more]
    return rules


def holds(wanted: Any, found: Any) -> bool:
    if not isinstance(wanted, dict):
        return type(wanted) is type(found) and wanted == found
    ((operator, argument),) = wanted.items()
    if operator == "exists":
        return bool(argument)
    if operator == "anything-but":
        if isinstance(argument, dict):
            return not holds(argument, found)
        return not any(holds(one, found) for one in (argument if isinstance(argument, list) else [argument]))
    if operator == "numeric":
        relations = {"<": found.__lt__, ">": found.__gt__, "=": found.__eq__} if type(found) is int else {}
        pairs = zip(argument[::2], argument[1::2], strict=True)
        return bool(relations) and all(relations[sign](bound) for sign, bound in pairs)
    if not isinstance(found, str):
        return False
    return {
        "prefix": lambda: found.startswith(argument),
        "suffix": lambda: found.endswith(argument),
        "equals-ignore-case": lambda: found.lower() == argument.lower(),
        "wildcard": lambda: fnmatch.fnmatchcase(found, argument),
    }[operator]()


def rule_matches(rule: Rule, fields: list[Field]) -> bool:
    candidates: list[list[Where]] = []
    for path, wanted in rule:
        here = [(value, where) for name, value, where in fields if name == path]
        fitting = [where for value, where in here if any(holds(one, value) for one in wanted)]
        if not here and {"exists": False} in wanted:
            fitting.append({})
        candidates.append(fitting)
    return any(consistent(choice) for choice in itertools.product(*candidates))


def consistent(choice: tuple[Where, ...]) -> bool:
    merged: Where = {}
    for where in choice:
        for array, index in where.items():
            if merged.setdefault(array, index) != index:
                return False
    return True


def reference(patterns: list[dict[str, Any]], record: Record) -> bool:
    fields = flatten(json.loads(event_json(record)))
    return not patterns or any(rule_matches(rule, fields) for pattern in patterns for rule in branches(pattern))


# Few names and few values, so that patterns and events meet.
names = st.sampled_from(["a", "b", "a.b", "b.a"])
texts = st.text("abA", max_size=3)
scalars = texts | st.integers(0, 3) | st.booleans() | st.none()
bounds = st.integers(-1, 4)
wildcards = (
    st.lists(st.text("abA", max_size=2), min_size=1, max_size=4).map("*".join).filter(lambda text: "**" not in text)
)
nested = st.one_of(
    st.fixed_dictionaries({"prefix": texts.filter(bool)}),
    st.fixed_dictionaries({"suffix": texts.filter(bool)}),
    st.fixed_dictionaries({"equals-ignore-case": texts}),
    st.fixed_dictionaries({"wildcard": wildcards}),
)
alternatives = st.lists(
    scalars
    | nested
    | st.booleans().map(lambda yes: {"exists": yes})
    | st.fixed_dictionaries({"anything-but": texts | st.integers(0, 3) | st.lists(texts, min_size=1) | nested})
    | st.tuples(st.sampled_from("<=>"), bounds).map(lambda one: {"numeric": list(one)})
    | st.tuples(bounds, st.integers(1, 3)).map(lambda one: {"numeric": [">", one[0], "<", one[0] + one[1]]}),
    min_size=1,
    max_size=3,
)


def unique_paths(pattern: dict[str, Any]) -> bool:
    """A field given twice is refused; here that is enough to leave such patterns out."""
    return all(len({path for path, _ in rule}) == len(rule) for rule in branches(pattern))


def with_or(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(names, alternatives | inner, min_size=1, max_size=3)
    either = st.lists(fields, min_size=2, max_size=3)
    return fields | st.builds(lambda more, one: {**more, "$or": one}, fields, either)


trees = st.recursive(st.dictionaries(names, alternatives, min_size=1, max_size=3), with_or, max_leaves=6)
items = st.recursive(
    scalars,
    lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(names, items, max_size=3)
event_names = st.lists(st.sampled_from(["INSERT", "MODIFY", "REMOVE"]), min_size=1, max_size=2)


@st.composite
def patterns(draw: st.DrawFn) -> dict[str, Any]:
    sections = st.sampled_from(["Keys", "NewImage", "OldImage"])
    pattern: dict[str, Any] = {"dynamodb": draw(st.dictionaries(sections, trees, min_size=1, max_size=2))}
    if draw(st.booleans()):
        pattern["eventName"] = draw(event_names)
    if draw(st.booleans()):
        pattern["$or"] = [{"eventName": draw(event_names)}, {"dynamodb": {"NewImage": draw(trees)}}]
    return pattern


@st.composite
def records(draw: st.DrawFn) -> Record:
    def raw(item: Any) -> Raw:
        return Raw(b"" if item is None else json.dumps(item).encode())

    change = Change("1", Keys=raw(draw(objects)), NewImage=raw(draw(st.none() | objects)), OldImage=raw(draw(objects)))
    return Record(change, event_name=draw(st.sampled_from(["INSERT", "MODIFY", "REMOVE"])))


@settings(max_examples=150, deadline=None)
@given(st.lists(patterns().filter(unique_paths), max_size=3), records())
def test_compiled_filters_do_what_the_rules_say(chosen: list[dict[str, Any]], record: Record) -> None:
    filters = compile_filters(chosen)
    expected = reference(chosen, record)
    assert filters.matches(record) is expected
    assert filters.explain(record).matched is expected


elements = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2), max_size=3),
    max_size=4,
)
wanted = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2).map(lambda one: [one]), min_size=2)


@settings(max_examples=150, deadline=None)
@given(elements, elements, wanted, wanted)
def test_elements_of_arrays_are_never_mixed(
    l1: list[Any], l2: list[Any], p1: dict[str, Any], p2: dict[str, Any]
) -> None:
    image = {"l": [l1, l2], "m": [{"n": l1, "a": 1}, {"n": l2, "a": 2}]}
    record = Record(Change("1", NewImage=Raw(json.dumps(image).encode())))
    for tree in ({"l": p1}, {"l": p1, "m": {"n": p2}}, {"m": {"n": p2, "a": [2]}}, {"$or": [{"l": p1}, {"m.n": p2}]}):
        chosen = [{"dynamodb": {"NewImage": tree}}]
        assert compile_filters(chosen).matches(record) is reference(chosen, record)


@settings(max_examples=150, deadline=None)
@given(st.data(), records())
def test_patterns_aimed_at_the_fields_of_the_record(data: st.DataObject, record: Record) -> None:
    """Fields and values of the record itself, so that about half of the patterns match."""
    fields = [(path, value) for path, value, _ in flatten(json.loads(event_json(record)))]
    chosen = data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=4))
    pattern = {path: [value, *data.draw(st.lists(scalars, max_size=1))] for path, value in chosen}
    assert compile_filters([pattern]).matches(record) is reference([pattern], record)
