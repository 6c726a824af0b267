"""Where the parts of a JSON text are, against the standard library's decoder."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.json_spans import Malformed, elements, members, text_of

TEXTS = st.text(st.characters(codec=None), max_size=8)  # lone surrogates, quotes, backslashes and all
LEAVES = TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
WRITTEN = st.sampled_from(
    [{"separators": (",", ":")}, {"indent": 2}, {"indent": "\t", "separators": (" ,", " : ")}, {"ensure_ascii": False}]
)


def written(value: Any, style: dict[str, Any]) -> bytes:
    return json.dumps(value, **style).encode(
        "utf-8", "surrogatepass" if not style.get("ensure_ascii", True) else "strict"
    )


def decoded(text: bytes) -> Any:
    return json.loads(text.decode("utf-8", "surrogatepass"))


@given(st.dictionaries(TEXTS, VALUES, max_size=5), WRITTEN)
def test_members_are_those_of_the_decoder(value: dict[str, Any], style: dict[str, Any]) -> None:
    value = decoded(written(value, {}))
    text = written(value, {"ensure_ascii": True, **{key: one for key, one in style.items() if key != "ensure_ascii"}})
    around = b" " + text
    found = {name: decoded(around[start:end]) for name, start, end in members(around, 1, len(around))}
    assert found == value


@given(st.lists(VALUES, max_size=5), WRITTEN)
def test_elements_are_those_of_the_decoder(value: list[Any], style: dict[str, Any]) -> None:
    text = written(value, {key: one for key, one in style.items() if key != "ensure_ascii"})
    assert [decoded(text[start:end]) for start, end in elements(text, 0)] == value


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_between_the_values_is_left_to_the_caller(value: dict[str, Any]) -> None:
    """Values cut out and put back make the same text."""
    text = json.dumps(value, indent=1).encode()
    at, parts = 0, []
    for _, start, end in members(text, 0, len(text)):
        parts += [text[at:start], text[start:end]]
        at = end
    assert b"".join([*parts, text[at:]]) == text


def test_depth_does_not_matter() -> None:
    deep = b'{"a":' + b'{"L":[' * 20000 + b'{"S":"x"}' + b"]}" * 20000 + b',"b":1}'
    assert [name for name, _, _ in members(deep, 0, len(deep))] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'"a"', b"{", b'{"a"', b'{"a":', b'{"a":}', b'{"a":{"b":1}', b'{"a":1', b'{"a":1]', b"{a:1}",
     b'{"a":1;}', b'{"a":"x}', b'{"\\q":1}', b'{"a":[1,2}'],
)  # fmt: skip
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        list(members(text, 0, len(text)))


@pytest.mark.parametrize("text", [b"", b"{}", b"[1", b"[1;2]", b"[,]"])
def test_what_is_no_array_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        list(elements(text, 0))


def test_a_name_that_comes_twice_hides_nothing() -> None:
    """The fast decoder knows the size of the last one only: it shows, and nothing is taken for something else."""
    text = b'{"a":{"S":"first"},"a":{"S":"2"}}'
    with pytest.raises(Malformed):
        list(members(text, 0, len(text)))


def test_texts_that_are_no_utf8() -> None:
    assert text_of(b'"a\xff\\u0041\\ud800"') == "a\udcffA\ud800"
