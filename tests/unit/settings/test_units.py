"""Durations and sizes: what is accepted, and that what is printed reads back as the same value."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.settings.errors import Refused
from consumer.settings.units import format_duration, format_size, parse_duration, parse_size


@given(
    st.floats(min_value=0, max_value=1e9, allow_nan=False, allow_subnormal=False).filter(lambda s: s == 0 or s > 1e-9)
)
def test_any_duration_survives_a_round_trip(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=2**50))
def test_any_size_survives_a_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=60))
def test_no_text_gives_anything_but_a_duration_or_the_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(Refused):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("250ms", 0.25), ("1.5s", 1.5), ("10s", 10), ("5m", 300), ("24h", 86400), ("7d", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.2, "200ms"), (1.5, "1500ms"), (90, "90s"), (60, "1m"), (86400, "24h")]
)
def test_durations_are_printed_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text", ["", "s", "10", "10 parsecs", "1m30s", "-1s", "1e3s", "nan", "٣s", "1" * 50 + "s"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(Refused):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "KiB", "10", "64KB", "64mb", "1.0001KiB", "-1KiB", "1B"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(Refused):
        parse_size(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_what_cannot_be_printed(value: float) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        format_duration(value)
