"""Attribute values: equality with boto3's deserializer, every number DynamoDB has, and odd values as ValueError; each
made by Python, and by the compiled code."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import DYNAMODB_CONTEXT, Binary, TypeDeserializer, TypeSerializer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.domain.compiled_values import item_from_json

pytestmark = pytest.mark.usefixtures("made_by")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.builds(lambda digits, exponent: f"{digits}E{exponent}", st.integers(-(10**37), 10**37), st.integers(-120, 88)),
    st.sampled_from(["-0", "0.0", "1E+2", "9.9999999999999999999999999999999999999E+125", "1E-128", "00012"]),
)
BYTES = st.binary(max_size=12)


def one(descriptor: str, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return strategy.map(lambda value: {descriptor: value})


def values(numbers: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    leaves = st.one_of(
        one("S", TEXT),
        one("N", numbers),
        one("B", BYTES),
        one("BOOL", st.booleans()),
        one("NULL", st.booleans()),
        one("SS", st.lists(TEXT, max_size=4)),
        one("NS", st.lists(numbers, max_size=4)),
        one("BS", st.lists(BYTES, max_size=4)),
    )

    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(one("L", st.lists(inner, max_size=4)), one("M", st.dictionaries(TEXT, inner, max_size=4)))

    return st.recursive(leaves, containers, max_leaves=12)


SMALLEST = ("1E-130", f"0.{'0' * 129}1{'0' * 35}1", f"{'9' * 38}E-167")


@st.composite
def every_number(draw: st.DrawFn) -> str:
    """Any number of DynamoDB (up to 38 significant digits, 1E-130 to 9.99...E+125, or zero), spelled in any way:
    written out or with an exponent, with zeros before and after it."""
    digits = draw(st.integers(0, 10 ** draw(st.integers(1, 38)) - 1))
    most = 126 - len(str(digits))
    number = Decimal(draw(st.sampled_from(["", "-"])) + f"{digits}E{draw(st.integers(most - 255, most))}")
    sign, text = ("-", f"{number:f}"[1:]) if number.is_signed() else ("", f"{number:f}")
    before, after = "0" * draw(st.integers(0, 3)), "0" * draw(st.integers(0, 40))
    written_out = sign + before + text + (after if "." in text else draw(st.sampled_from(["", "." + after])))
    return draw(st.sampled_from([written_out, f"{number:E}", f"{number:e}", str(number)])).removesuffix(".")


def wire(value: Any) -> Any:
    """botocore's shape to the service's JSON: binary becomes base64 text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: wire(inner) for name, inner in value.items()}
    return [wire(inner) for inner in value] if isinstance(value, list) else value


def shape(value: Any) -> Any:
    """Types included: 1, True and Decimal(1) are equal in Python."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    if isinstance(value, set):
        return (set, {shape(inner) for inner in value})
    if isinstance(value, Binary):
        return (Binary, value.value)
    return (type(value), str(value))


@given(st.dictionaries(TEXT, values(NUMBERS), max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_items_decode_as_boto3_decodes_them(item: dict[str, Any], ascii_only: bool) -> None:
    """Same values and same types, for any item, escaped or not."""
    expected = {name: TypeDeserializer().deserialize(value) for name, value in item.items()}
    text = json.dumps(wire(item), ensure_ascii=ascii_only).encode()
    assert shape(item_from_json(memoryview(text))) == shape(expected)


class Exactly(TypeDeserializer):  # type: ignore[misc]  # boto3 has no types
    """boto3's, with numbers as they are."""

    def _deserialize_n(self, value: str) -> Decimal:
        return Decimal(value)


def by_value(value: Any) -> Any:
    """Types included, but ``1E+2`` and ``100`` are one number."""
    if isinstance(value, dict):
        return {name: by_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [by_value(inner) for inner in value]
    if isinstance(value, set):
        return (set, {by_value(inner) for inner in value})
    return (Decimal, value) if isinstance(value, Decimal) else shape(value)


@given(st.dictionaries(TEXT, values(every_number()), max_size=4))
@example({text: {"N": text} for text in SMALLEST})
@settings(max_examples=300, deadline=None)
def test_every_number_is_exactly_what_was_written(item: dict[str, Any]) -> None:
    """Wherever it stands: boto3's deserializer fails for those with trailing zeros beyond 38 digits."""
    expected = {name: Exactly().deserialize(value) for name, value in item.items()}
    assert by_value(item_from_json(json.dumps(wire(item)).encode())) == by_value(expected)


@given(every_number())
@example(SMALLEST[1])
@example(SMALLEST[2])
@settings(max_examples=300, deadline=None)
def test_every_number_can_be_written_back(text: str) -> None:
    """boto3 refuses to serialize a number of more than 38 digits, zeros included, and those below its own range."""
    number = item_from_json(json.dumps({"n": {"N": text}}).encode())["n"]
    assert number == Decimal(text)
    if number.as_tuple().exponent < DYNAMODB_CONTEXT.Etiny():
        return
    assert Decimal(TypeSerializer().serialize(number)["N"]) == Decimal(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"S": ""}, ""),
        ({"B": ""}, Binary(b"")),
        ({"L": []}, []),
        ({"M": {}}, {}),
        ({"SS": []}, set()),
        ({"NULL": False}, None),
        ({"N": "-0"}, Decimal(0)),
        ({"N": "9.99E+125"}, Decimal("9.99E+125")),
        ({"N": "-9" + "9" * 37}, Decimal("-9" + "9" * 37)),
        ({"N": "1" + "0" * 125}, Decimal("1E+125")),
        ({"N": "-1" + "0" * 125}, Decimal("-1E+125")),
        ({"N": "9" * 38 + "0" * 88}, Decimal("9" * 38 + "E+88")),
        ({"N": "0." + "0" * 129 + "1"}, Decimal("1E-130")),
        ({"N": "0." + "0" * 200}, Decimal(0)),
        ({"N": "0E+300"}, Decimal(0)),
        ({"NS": ["1" + "0" * 125, "1E+124"]}, {Decimal("1E+125"), Decimal("1E+124")}),
    ],
)
def test_edges_that_are_values(value: Any, expected: Any) -> None:
    """Empty and extreme values that DynamoDB does write."""
    assert item_from_json(json.dumps({"v": value}).encode()) == {"v": expected}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"X": "a"},
        {"S": "a", "N": "1"},
        {"s": "a"},
        {"N": "1" * 39},
        {"N": "1" * 39 + "0" * 80},
        {"N": "1E+127"},
        {"N": "1E-200"},
        {"N": "NaN"},
        {"N": "sNaN"},
        {"N": "Infinity"},
        {"N": "-Infinity"},
        {"N": ""},
        {"N": "12a"},
        {"N": 5},
        {"N": True},
        {"N": None},
        {"N": [0, [1], 0]},
        {"NS": ["1", "NaN"]},
        {"NS": "12"},
        {"S": 5},
        {"S": None},
        {"SS": "abc"},
        {"SS": [1]},
        {"SS": {"a": 1}},
        {"B": "not base64!"},
        {"B": "YQ"},
        {"B": "é"},
        {"B": 5},
        {"BS": [5]},
        {"BOOL": "true"},
        {"BOOL": 1},
        {"L": "abc"},
        {"L": {"a": 1}},
        {"L": None},
        {"L": [{"X": 1}]},
        {"M": []},
        {"M": {"a": "b"}},
        {"M": None},
        {"unreadable": {}},
        [],
        "S",
        5,
        None,
        True,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_odd_values_raise_value_error(value: Any) -> None:
    """What DynamoDB cannot have written is poison for its own record, and for nothing else."""
    with pytest.raises(ValueError, match=r"."):
        item_from_json(json.dumps({"ok": {"S": "a"}, "odd": value}).encode())


@pytest.mark.parametrize("opening", ['{"L":[', '{"M":{"a":'], ids=["L", "M"])
@pytest.mark.parametrize("levels", [1200, 2000, 50_000])
def test_thousands_of_levels_are_poison_and_no_crash(opening: str, levels: int) -> None:
    """Deep nesting raises ValueError, whichever layer notices it first."""
    closing = {"[": "]}", ":": "}}"}[opening[-1]]
    text = '{"a":' + opening * levels + '{"S":"x"}'[: 9 * opening.endswith(":")] + closing * levels + "}"
    with pytest.raises(ValueError, match="does not decode"):
        item_from_json(text.encode())


def test_32_levels_are_fine() -> None:
    """DynamoDB's own limit."""
    value: Any = {"S": "deep"}
    for _ in range(32):
        value = {"M": {"a": value}}
    found: Any = item_from_json(json.dumps({"a": value}).encode())["a"]
    for _ in range(32):
        found = found["a"]
    assert found == "deep"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"5", b"null", b'"a"', b'{"a":{"S":"\xff"}}', b'{"a":{"S":"\\ud800"}}']
)
def test_what_is_not_an_image_raises_value_error(text: bytes) -> None:
    """Truncated, of another type, or not Unicode."""
    with pytest.raises(ValueError, match=r"."):
        item_from_json(text)


def test_wide_items_and_long_names() -> None:
    """100,000 attributes, and one name of 64 KB."""
    item = {f"a{n}": {"N": str(n)} for n in range(100_000)} | {"n" * 65_536: {"S": "x"}}
    found = item_from_json(json.dumps(item).encode())
    assert len(found) == 100_001
    assert found["a99999"] == 99_999
