"""Bad patterns: the exact place, and a problem that says what is allowed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from consumer.domain.filters.filters import compile_filters
from consumer.domain.filters.operators import PatternError


def refused(patterns: Any) -> PatternError:
    with pytest.raises(PatternError) as caught:
        compile_filters(patterns)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    assert str(caught.value) == f"{caught.value.path}: {caught.value.problem}"
    return caught.value


def deep(levels: int) -> Any:
    pattern: Any = ["x"]
    for _ in range(levels):
        pattern = {"a": pattern}
    return pattern


def deep_or(levels: int) -> Any:
    pattern: Any = {"a": ["x"]}
    for _ in range(levels):
        pattern = {"$or": [pattern, {"b": ["x"]}]}
    return pattern


@pytest.mark.parametrize(
    ("pattern", "path", "problem"),
    [
        ("single-string", "", "must be a mapping of event fields, found str"),
        ({}, "", "must not be empty; name at least one field"),
        ({1: ["x"]}, "", "must have text as field names, found 1"),
        ({"dynamodb": {"NewImage": {}}}, ".dynamodb.NewImage", "must not be empty"),
        ({"eventName": "INSERT"}, ".eventName", "must be an array of values or a mapping of fields, found 'INSERT'"),
        ({"eventName": None}, ".eventName", "must be an array"),
        ({"s": {"prefix": "x"}}, ".s.prefix", "operators go into an array: [{prefix: ...}]"),
        ({"eventName": []}, ".eventName", "must not be empty; list at least one of"),
        ({"a": [["x"]]}, ".a[0]", "must not be an array"),
        ({"a": ["x", dt.date(2026, 1, 1)]}, ".a[1]", "write it in quotes"),
        ({"a": [float("nan")]}, ".a[0]", "must be a finite number, found nan"),
        ({"a": [{}]}, ".a[0]", "must hold exactly one operator, found none"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, ".a[0]", "exactly one operator, found 'prefix', 'suffix'"),
        ({"a": ["x", {"prefx": "y"}]}, ".a[1]", "unknown operator 'prefx' (did you mean prefix?); allowed are prefix,"),
        ({"a": [{"anything_but": "y"}]}, ".a[0]", "(did you mean anything-but?)"),
        ({"a": [{1: "y"}]}, ".a[0]", "unknown operator 1"),
        ({"a": [{"prefix": 1}]}, ".a[0].prefix", "must be text, found 1"),
        ({"a": [{"prefix": {"suffix": "x"}}]}, ".a[0].prefix", "must be text or {equals-ignore-case: text}"),
        ({"a": [{"suffix": {"equals-ignore-case": 1}}]}, ".a[0].suffix.equals-ignore-case", "must be text, found 1"),
        ({"a": [{"suffix": None}]}, ".a[0].suffix", "must be text, found None"),
        ({"a": [{"equals-ignore-case": ["x"]}]}, ".a[0].equals-ignore-case", "must be text"),
        ({"a": [{"exactly": 1}]}, ".a[0].exactly", "must be text"),
        ({"a": [{"exists": "yes"}]}, ".a[0].exists", "must be true or false, found 'yes'"),
        ({"a": [{"exists": 1}]}, ".a[0].exists", "must be true or false, found 1"),
        ({"a": [{"numeric": 5}]}, ".a[0].numeric", 'must be a comparison such as [">", 0] or a range'),
        ({"a": [{"numeric": []}]}, ".a[0].numeric", "must be a comparison"),
        ({"a": [{"numeric": [">", 0, "<"]}]}, ".a[0].numeric", "must be a comparison"),
        ({"a": [{"numeric": ["=>", 0]}]}, ".a[0].numeric[0]", "must be one of = < <= > >=, found '=>'"),
        ({"a": [{"numeric": [">", "0"]}]}, ".a[0].numeric[1]", "must be a number, found '0'"),
        ({"a": [{"numeric": [">", True]}]}, ".a[0].numeric[1]", "must be a number, found True"),
        ({"a": [{"numeric": [">", 0, "<=", float("inf")]}]}, ".a[0].numeric[3]", "must be a finite number"),
        ({"a": [{"numeric": ["<", 0, ">", 5]}]}, ".a[0].numeric", "must be a lower bound (> or >=), then an upper"),
        ({"a": [{"numeric": ["=", 0, "<", 5]}]}, ".a[0].numeric", "must be a lower bound"),
        ({"a": [{"numeric": [">", 5, "<", 5]}]}, ".a[0].numeric", "lower bound below the upper one, found 5 and 5"),
        ({"a": [{"anything-but": []}]}, ".a[0].anything-but", "must not be empty"),
        ({"a": [{"anything-but": None}]}, ".a[0].anything-but", "must be text, a number, a list of them or one of"),
        ({"a": [{"anything-but": ["x", True]}]}, ".a[0].anything-but[1]", "found True"),
        ({"a": [{"anything-but": ["x", 1]}]}, ".a[0].anything-but", "must be all texts or all numbers, found both"),
        ({"a": [{"anything-but": {}}]}, ".a[0].anything-but", "must hold exactly one of prefix, suffix,"),
        ({"a": [{"anything-but": {"prefixx": "x"}}]}, ".a[0].anything-but", "(did you mean prefix?)"),
        ({"a": [{"anything-but": {"prefix": ["x", 1]}}]}, ".a[0].anything-but.prefix[1]", "must be text"),
        ({"a": [{"anything-but": {"suffix": ""}}]}, ".a[0].anything-but.suffix", "must not be empty text"),
        ({"a": [{"anything-but": {"wildcard": []}}]}, ".a[0].anything-but.wildcard", "must not be empty"),
        ({"a": [{"anything-but": {"wildcard": "a**"}}]}, ".a[0].anything-but.wildcard", "two stars in a row"),
        ({"a": [{"wildcard": "a**b"}]}, ".a[0].wildcard", "must not hold two stars in a row"),
        ({"a": [{"wildcard": r"a\b"}]}, ".a[0].wildcard", "must escape only stars and backslashes"),
        ({"a": [{"wildcard": "a\\"}]}, ".a[0].wildcard", "must escape only stars and backslashes"),
        ({"a": [{"wildcard": 1}]}, ".a[0].wildcard", "must be text"),
        ({"a": [{"cidr": "10.0.0.0"}]}, ".a[0].cidr", "must be an address range such as 10.0.0.0/24"),
        ({"a": [{"cidr": "10.0.0.0/33"}]}, ".a[0].cidr", "must be an address range"),
        ({"a": [{"cidr": 5}]}, ".a[0].cidr", "must be an address range"),
        ({"a": {"b": ["x"]}, "a.b": ["y"]}, ".a.b", "is the field a.b once more; put all its values into one array"),
        ({"$or": [{"a": ["x"]}, {"b": "y"}]}, ".$or[1].b", "must be an array"),
        ({"$or": [{"a": ["x"]}, {}]}, ".$or[1]", "must not be empty"),
        ({"$or": [{"a": ["x"]}]}, ".$or", "must list two or more alternatives, found 1"),
        ({"$or": [{"a": ["x"]}, {"prefix": ["x"]}]}, ".$or[1]", "must not name the field 'prefix'"),
        ({"$or": "x"}, ".$or", "must be an array"),
        (deep(150), ".a" * 100, "must not be nested deeper than 100 levels"),
    ],
)
def test_refused(pattern: Any, path: str, problem: str) -> None:
    error = refused([{"eventName": ["INSERT"]}, pattern])
    assert error.path == f"filters[1]{path}"
    assert problem in error.problem


def test_the_path_of_the_contract() -> None:
    error = refused([{"a": ["x"]}, {"dynamodb": {"NewImage": {"status": [{"prefix": 1}]}}}])
    assert error.path == "filters[1].dynamodb.NewImage.status[0].prefix"


@pytest.mark.parametrize("patterns", ["x", {"eventName": ["INSERT"]}, None, 5])
def test_the_whole_must_be_a_list(patterns: Any) -> None:
    assert refused(patterns).path == "filters"


@pytest.mark.parametrize("pattern", [deep(5000), deep_or(300), {"a" + ".a" * 5000: ["x"]}])
def test_deep_patterns_are_refused_without_a_crash(pattern: Any) -> None:
    assert "nested deeper" in refused([pattern]).problem


def test_long_values_are_cut_in_the_problem() -> None:
    assert len(str(refused([{"a": "x" * 10_000}]))) < 300
