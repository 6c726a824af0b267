"""Records that the KPL has packed into one: taken apart exactly, and nothing made of what is none."""

from __future__ import annotations

import contextlib
import hashlib
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.domain.kpl import MAGIC, BadAggregate, SubRecord, sub_records
from tests.support.kpl_aggregates import aggregate, counted, number, plain, record, signed, table, varint

ALL = (0, 2**128 - 1)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
HASH_KEYS = st.none() | st.integers(*ALL)


@given(st.lists(st.tuples(KEYS, HASH_KEYS, st.binary(max_size=40)), max_size=12))
def test_what_was_packed_comes_out(packed: list[tuple[str, int | None, bytes]]) -> None:
    """Any keys, shared or not, any data, in their order; also data that is an aggregate itself stays as it is."""
    assert sub_records(aggregate(packed)) == [SubRecord(*one) for one in packed]
    nested = plain([aggregate(packed)])
    assert [one.data for one in sub_records(nested) or ()] == [aggregate(packed)]


def test_the_example_of_the_format() -> None:
    """Byte by byte, so that encoder and decoder cannot be wrong together."""
    message = bytes.fromhex(
        "0a026b31"  # partition_key_table: "k1"
        "0a026b32"  # partition_key_table: "k2"
        "12023432"  # explicit_hash_key_table: "42"
        "1a090800" + "1a05" + b"first".hex()  # records: key 0, data
        + "1a0c" + "0801" + "1000" + "1a06" + b"second".hex()  # records: key 1, explicit hash key 0, data
    )  # fmt: skip
    data = MAGIC + message + hashlib.md5(message).digest()
    assert sub_records(data) == [SubRecord("k1", None, b"first"), SubRecord("k2", 42, b"second")]


def test_tables_may_come_behind_the_records() -> None:
    message = record(1, b"a", 0) + table(["x", "y"], [7])
    assert sub_records(signed(message)) == [SubRecord("y", 7, b"a")]


def test_the_last_of_a_field_that_comes_twice_counts() -> None:
    """As protobuf has it."""
    twice = counted(3, number(1, 9) + number(1, 0) + counted(3, b"old") + counted(3, b"new"))
    assert sub_records(signed(table(["k"]) + twice)) == [SubRecord("k", None, b"new")]


@pytest.mark.parametrize(
    "unknown",
    [
        number(9, 2**64 - 1),
        counted(15, b"x" * 300),
        varint(4 << 3 | 5) + b"1234",
        varint(4 << 3 | 1) + b"12345678",
        counted(4, counted(1, b"tag") + counted(2, b"value")),
        varint(2**29 - 1 << 3) + varint(0),
        number(3, 5),  # a known field with a wire type that it does not have
        varint(1 << 3 | 5) + b"1234",
    ],
)
def test_what_nobody_asks_for_is_skipped(unknown: bytes) -> None:
    """Tags, fields of a later version, known fields in another wire type; in the message and in its records."""
    inside = counted(3, unknown + number(1, 0) + counted(3, b"a"))
    message = unknown + table(["k"]) + unknown + inside + record(0, b"b") + unknown
    assert sub_records(signed(message)) == [SubRecord("k", None, b"a"), SubRecord("k", None, b"b")]


GOOD = plain([b"one", b"two"])
BODY = GOOD[4:-16]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"x" * 15,
        b"plain text that is long enough to hold an MD5",
        b"\xf3\x89\x9a\xc3" + GOOD[4:],
        GOOD[:-1],
        GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
        GOOD + b"x",
        MAGIC + BODY + hashlib.md5(MAGIC + BODY).digest(),
        signed(BODY[:-1]),
        signed(BODY + b"\x1a"),
        signed(BODY + b"\x1a\x80"),
        signed(BODY + b"\x1a" + b"\x80" * 9 + b"\x02"),
        signed(BODY + b"\xff" * 11),
        signed(BODY + b"\x1a" + varint(2**63) + b"x"),
        signed(BODY + b"\x1a" + varint(2**64 - 1)),
        signed(BODY + b"\x00\x00"),
        signed(BODY + b"\x0b\x0c"),
        signed(BODY + b"\x0d123"),
        signed(BODY + b"\x09" + b"1234567"),
        signed(BODY + counted(3, number(1, 0))),
        signed(BODY + counted(3, counted(3, b"no key"))),
        signed(BODY + counted(3, b"\x08")),
        signed(BODY + counted(3, b"\x1a\x05abc") + b"de"),
        signed(b"\xff"),
    ],
    ids=lambda data: repr(data[-24:]),
)
def test_what_is_no_aggregate_is_none(data: bytes) -> None:
    """Shorter, other magic, another MD5, no such message, no required field: the KCL shows these as they are, too."""
    assert sub_records(data) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (record(0, b"a"), "partition key 0 of 0"),
        (table(["k"]) + record(1, b"a"), "sub-record 0 has the partition key 1 of 1"),
        (table(["k"]) + record(0, b"a") + record(2**64 - 1, b"b"), "sub-record 1 has the partition key 18446744"),
        (table(["k"]) + record(0, b"a", 0), "explicit hash key 0 of 0"),
        (table(["k"], [1]) + record(0, b"a", 1), "explicit hash key 1 of 1"),
        (table(["k"], [2**128]) + record(0, b"a", 0), "no number of 128 bits"),
        (table(["k"], [-1]) + record(0, b"a", 0), "no number of 128 bits"),
        (table(["k"]) + counted(2, b"") + record(0, b"a", 0), "no number of 128 bits"),
        (table(["k"]) + counted(2, "\u0661".encode()) + record(0, b"a", 0), "no number of 128 bits"),
        (table(["k"]) + counted(2, b"9" * 1_000_000) + record(0, b"a", 0), "no number of 128 bits"),
    ],
)
def test_a_key_that_is_not_there_makes_the_whole_record_bad(message: bytes, reason: str) -> None:
    """Dropped would be lost, and half of it would look like all of it."""
    with pytest.raises(BadAggregate, match=reason):
        sub_records(signed(message))


def test_a_hash_key_that_nobody_uses_does_no_harm() -> None:
    message = table(["k"]) + counted(2, b"none") + record(0, b"a")
    assert sub_records(signed(message)) == [SubRecord("k", None, b"a")]


@pytest.mark.parametrize("message", [b"", table(["k"]), table([], [1])])
def test_nothing_in_it(message: bytes) -> None:
    assert sub_records(signed(message)) == []


def test_a_key_that_is_no_utf_8_is_still_a_text() -> None:
    """Protobuf's text of Java has the same replacement character; as JSON a lone surrogate could not be sent."""
    message = counted(1, b"k\xff") + record(0, b"a")
    [found] = sub_records(signed(message)) or ()
    assert found.partition_key == "k\ufffd"


class TestForeign:
    def test_by_the_md5_of_the_key(self) -> None:
        """PutRecord: the MD5 of the partition key as a number of 128 bits."""
        hashed = int(hashlib.md5("ключ".encode()).hexdigest(), 16)
        one = SubRecord("ключ", None, b"")
        assert one.hash_key == hashed
        assert [
            one.is_foreign(hash_range)
            for hash_range in (ALL, (hashed, hashed), (0, hashed - 1), (hashed + 1, ALL[1]), (0, hashed))
        ] == [False, False, True, True, False]

    @pytest.mark.parametrize(("key", "foreign"), [(9, True), (10, False), (20, False), (21, True)])
    def test_the_explicit_hash_key_wins(self, key: int, foreign: bool) -> None:
        assert SubRecord("k", key, b"").is_foreign((10, 20)) is foreign


@settings(max_examples=400)
@example(b"\x1a\x00")
@given(st.binary(max_size=60))
def test_garbage_with_a_right_md5_never_raises_anything_else(message: bytes) -> None:
    try:
        found = sub_records(signed(message))
    except BadAggregate:
        return
    assert found is None or sum(len(one.data) for one in found) <= len(message)


@settings(max_examples=400)
@given(
    st.lists(
        st.one_of(
            st.builds(number, st.integers(0, 5), st.integers(0, 2**64 - 1)),
            st.builds(counted, st.integers(0, 5), st.binary(max_size=8)),
            st.builds(record, st.integers(0, 3), st.binary(max_size=4), st.none() | st.integers(0, 3)),
            st.binary(max_size=3),
        ),
        max_size=8,
    )
)
def test_nearly_right_messages_neither(parts: list[bytes]) -> None:
    with contextlib.suppress(BadAggregate):
        sub_records(signed(b"".join(parts)))


@pytest.mark.parametrize(
    "unit",
    [record(0, b""), counted(1, b"k"), counted(2, b"1"), number(9, 1), b"\x1a\x04\x08\x00\x1a\x00", counted(1, b"")],
    ids=["records", "keys", "hash keys", "unknown", "least", "empty keys"],
)
def test_time_grows_with_the_size_only(unit: bytes) -> None:
    """Eight times the bytes: far from the 64 times of something quadratic, whatever else the machine does."""

    def seconds(size: int) -> float:
        data = signed(table(["k"]) + unit * (size // len(unit)))
        found = []
        for _ in range(3):
            before = time.process_time()
            assert sub_records(data) is not None
            found.append(time.process_time() - before)
        return min(found)

    assert seconds(400_000) < 30 * max(seconds(50_000), 0.001)


def test_deep_garbage_is_not_followed() -> None:
    """A record in a record in a record: only the first level is looked at."""
    message = b""
    for _ in range(2000):
        message = counted(3, message)
    assert sub_records(signed(message)) is None
