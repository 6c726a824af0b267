"""``record.decode`` on items and types that nobody thought of: equal values of the very types, or a ValueError."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Any, TypedDict

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.record import Change, Record
from tests.unit.domain.test_attribute_values import BYTES, NUMBERS, TEXT, values, wire
from tests.unit.domain.test_typed_items import ORDER, Line, Order, record


def typed_values() -> st.SearchStrategy[tuple[Any, dict[str, Any], Any]]:
    """Annotation, attribute value, and the value that it must become."""
    whole = st.integers(-(10**38) + 1, 10**38 - 1)
    leaves = st.one_of(
        TEXT.map(lambda value: (str, {"S": value}, value)),
        whole.map(lambda value: (int, {"N": str(value)}, value)),
        NUMBERS.map(lambda value: (Decimal, {"N": value}, Decimal(value))),
        NUMBERS.map(lambda value: (float, {"N": value}, float(value))),
        st.booleans().map(lambda value: (bool, {"BOOL": value}, value)),
        BYTES.map(lambda value: (bytes, {"B": value}, value)),
        st.sets(TEXT, max_size=3).map(lambda value: (set[str], {"SS": list(value)}, value)),
        st.sets(whole, max_size=3).map(lambda value: (set[int], {"NS": list(map(str, value))}, value)),
        st.frozensets(BYTES, max_size=3).map(lambda value: (frozenset[bytes], {"BS": list(value)}, value)),
    )

    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            inner.map(lambda one: (list[one[0]], {"L": [one[1], one[1]]}, [one[2], one[2]])),  # type: ignore[valid-type]  # made by the test
            inner.map(lambda one: (one[0] | None, one[1], one[2])),
            inner.map(lambda one: (one[0] | None, {"NULL": True}, None)),
            st.builds(lambda name, one: (dict[str, one[0]], {"M": {name: one[1]}}, {name: one[2]}), TEXT, inner),  # type: ignore[valid-type]  # made by the test
            st.builds(of_class, st.lists(inner, min_size=1, max_size=4), st.sampled_from(["struct", "data", "dict"])),
        )

    return st.recursive(leaves, containers, max_leaves=8)


def of_class(members: list[tuple[Any, Any, Any]], kind: str) -> tuple[Any, dict[str, Any], Any]:
    fields = [(f"a{place}", annotation) for place, (annotation, _, _) in enumerate(members)]
    expected = {f"a{place}": value for place, (_, _, value) in enumerate(members)}
    attributes = {f"a{place}": value for place, (_, value, _) in enumerate(members)} | {"other": {"N": "1"}}
    if kind == "dict":
        return TypedDict("Item", dict(fields)), {"M": attributes}, expected  # type: ignore[operator]  # mypy knows no such form
    type_: Any = msgspec.defstruct("Item", fields) if kind == "struct" else dataclasses.make_dataclass("Item", fields)
    return type_, {"M": attributes}, type_(**expected)


def kinds(value: Any) -> Any:
    """Types alone, of everything inside: 1, True and Decimal(1) are equal."""
    if isinstance(value, msgspec.Struct):
        return type(value), kinds(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value):
        return type(value), kinds(vars(value))
    if isinstance(value, dict):
        return {name: kinds(one) for name, one in value.items()}
    if isinstance(value, list):
        return [kinds(one) for one in value]
    return (type(value), {type(one) for one in value}) if isinstance(value, set | frozenset) else type(value)


@given(st.lists(typed_values(), min_size=1, max_size=5), st.sampled_from(["struct", "data", "dict"]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_values_of_every_annotated_type(members: list[Any], kind: str, ascii_only: bool) -> None:
    """Whatever is nested in what: the values are those that were written, and exact."""
    type_, value, expected = of_class(members, kind)
    text = json.dumps(wire(value["M"]), ensure_ascii=ascii_only).encode()
    found: Any = Record(Change("1", NewImage=Raw(text))).decode(type_)
    assert found == expected
    assert kinds(found) == kinds(expected)


@given(st.dictionaries(st.sampled_from(list(ORDER)), values(NUMBERS)))
@settings(max_examples=200, deadline=None)
def test_an_item_of_any_shape_decodes_or_is_an_error(changed: dict[str, Any]) -> None:
    """Other types than annotated are never passed on, and nothing but ValueError comes of them."""
    item = ORDER | json.loads(json.dumps(wire(changed)))
    found: Order | ValueError
    try:
        found = record(item).decode(Order)
    except ValueError as error:
        found = error
    if isinstance(found, ValueError):
        assert "attribute " in str(found)
        return
    assert type(found.key) is str
    assert type(found.version) is int
    assert all(type(line) is Line and type(line.price) is Decimal for line in found.lines)
    assert found.coupon is None or type(found.coupon) is str
    assert type(found.digest) is bytes


@given(st.dictionaries(TEXT, values(NUMBERS), max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_attributes_are_what_new_image_shows(item: dict[str, Any], ascii_only: bool) -> None:
    one = Record(Change("1", NewImage=Raw(json.dumps(wire(item), ensure_ascii=ascii_only).encode())))
    found = one.decode(dict[str, Any])
    assert found == one.new_image
    assert kinds(found) == kinds(one.new_image)
