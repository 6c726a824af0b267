"""The event a Lambda function gets in its worker process is what ``json.loads`` makes of it, odd documents included."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.handlers.runtime.lambda_runner import event_decoder

_event_of = event_decoder()

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """Types included: 1, 1.0 and True are equal in Python, NaN equals nothing, and -0.0 equals 0.0."""
    if isinstance(value, dict):
        return [(name, shape(inner)) for name, inner in value.items()]
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    return (type(value), value)


@given(VALUES, st.booleans())
def test_any_document_decodes_as_json_decodes_it(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(text)
    except ValueError:  # a lone surrogate as raw bytes is no UTF-8
        with pytest.raises(ValueError, match=r"."):
            _event_of(text)
    else:
        assert shape(_event_of(text)) == shape(expected)


@pytest.mark.parametrize(
    "text",
    [
        b'{"t":1.0,"u":1.7E9,"i":1,"n":-0,"m":-0.0}',
        b'{"big":123456789012345678901234567890,"small":-9223372036854775809}',
        b'{"a":1,"b":2,"a":3}',
        b'{"s":"\\ud800"}',
        b'{"n":[NaN,Infinity,-Infinity,1e400]}',
        b'{"digits":0.1000000000000000055511151231257827,"tiny":5e-324}',
    ],
)
def test_odd_numbers_and_texts(text: bytes) -> None:
    assert shape(_event_of(text)) == shape(json.loads(text))


def test_what_is_no_json_is_the_same_error() -> None:
    with pytest.raises(json.JSONDecodeError):
        _event_of(b'{"a":')
