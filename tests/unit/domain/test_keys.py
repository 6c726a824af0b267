"""Ordering keys: equal exactly when the items' partition keys are equal."""

from __future__ import annotations

import json
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.keys import partition_key_reader
from tests.unit.domain.support import ABSENT, record

read = partition_key_reader("pk")


def key_of(value: Any, **others: Any) -> bytes:
    return read(record(1, keys=json.dumps({"sk": {"S": "x"}, "pk": value, **others}, separators=(",", ":")).encode()))


@pytest.mark.parametrize(
    "same",
    [
        ["1", "1.0", "1E0", "1e0", "+1", "0.1E1", "10E-1", "01"],
        ["100", "1E2", "1E+2", "100.00"],
        ["0", "-0", "0.0", "-0.00", "0E10", "0E-10"],
        ["-12.50", "-12.5", "-125E-1"],
        ["1234567890" * 3 + "12345678", "1234567890" * 3 + "12345678.0"],
        ["1E-130", "0.1E-129"],
        ["9.99E125", "99.9E124", "999" + "0" * 123, "999" + "0" * 123 + ".00"],
        ["-1E+125", "-1" + "0" * 125],
    ],
    ids=lambda same: same[0],
)
def test_spellings_of_a_number_are_one_key(same: list[str]) -> None:
    """They are the same item, so they must never be in two batches at a time."""
    assert len({key_of({"N": text}) for text in same}) == 1


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=3), min_size=2, max_size=2))
def test_numbers_are_one_key_exactly_when_they_are_equal(pair: list[Decimal]) -> None:
    """No two different numbers of up to 38 digits share a key."""
    left, right = pair
    assert (key_of({"N": str(left)}) == key_of({"N": str(right)})) is (left == right)


def test_all_38_digits_count() -> None:
    """Neighbours in the last of 38 digits are different items."""
    assert key_of({"N": "1" * 37 + "1"}) != key_of({"N": "1" * 37 + "2"})


@pytest.mark.parametrize(
    "odd",
    ["NaN", "sNaN", "Infinity", "", "x", "1E999999999", "1E-999999999", "7" * 500, None, True, 5, [1], [0, [1], 0], {}],
    ids=lambda odd: repr(odd)[:20],
)
def test_odd_numbers_are_keys_of_their_own_and_never_raise(odd: Any) -> None:
    """What DynamoDB could not have written still gets a key that is the same every time."""
    assert key_of({"N": odd}) == key_of({"N": odd})
    assert key_of({"N": odd}) != key_of({"N": "1"})


def test_types_do_not_mix() -> None:
    """The text 1, the number 1 and the bytes of 1 are three items."""
    assert len({key_of({"S": "1"}), key_of({"N": "1"}), key_of({"B": "MQ=="})}) == 3


def test_unicode_is_compared_as_written() -> None:
    """Composed and decomposed letters are different items, as they are for DynamoDB."""
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert key_of({"S": composed}) != key_of({"S": decomposed})


@pytest.mark.parametrize("text", ["", "\0", "\u202e", "\ufeff", "😀", '"', "\\", "x" * 2048], ids=ascii)
def test_any_text_is_a_key(text: str) -> None:
    """Control characters, emoji, quotes and 2 KB keys: stable, and different from others."""
    assert key_of({"S": text}) == key_of({"S": text}, other={"N": "1"})
    assert key_of({"S": text}) != key_of({"S": text + "x"})


def test_the_sort_key_does_not_matter() -> None:
    """Order is kept for all items of a partition key."""
    assert key_of({"S": "a"}, sk={"S": "1"}) == key_of({"S": "a"}, sk={"S": "2"})


@pytest.mark.parametrize(
    "keys",
    [
        bytes(ABSENT),
        b"null",
        b"{}",
        b"[]",
        b"5",
        b"{",
        b'{"sk":{"S":"a"}}',
        b'{"pk":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda keys: repr(keys[:12]),
)
@pytest.mark.parametrize("attribute", ["pk", 'p"k'])
def test_records_without_a_usable_key_share_one(keys: bytes, attribute: str) -> None:
    """They are handled in order among themselves and end as poison if the handler needs their keys."""
    assert partition_key_reader(attribute)(record(1, keys=keys)) == b""


@pytest.mark.parametrize(
    "name", ["pk", "ü", "a b", "a.b", "😀", 'a"b', "a\\b", "a\nb", "\x00", "x" * 255, "partition"], ids=ascii
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_attribute_name_that_dynamodb_allows(name: str, ascii_only: bool) -> None:
    """Also names with quotes, backslashes and control characters, escaped or not."""
    keys = {"other": {"S": "v"}, name: {"N": "1.0"}}
    text = json.dumps(keys, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    assert partition_key_reader(name)(record(1, keys=text)) == b"N1"


@given(st.integers(-(10**38) + 1, 10**38 - 1))
def test_plain_numbers_need_no_arithmetic_and_are_the_same_key(number: int) -> None:
    """A space keeps a number from the short way."""
    short, long = (record(1, keys=b'{"pk":{"N":%s"%d"}}' % (space, number)) for space in (b"", b" "))
    exponent = record(1, keys=b'{"pk":{"N":"%d0E-1"}}' % number)
    assert read(short) == read(long) == read(exponent)
