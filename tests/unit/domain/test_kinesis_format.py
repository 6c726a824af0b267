"""What the daemon knows of a Kinesis stream: ordering keys, times, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.kinesis_format import KINESIS_FORMAT, RUNS_BYTES, ordering_key
from consumer.domain.source_format import dynamodb_format
from tests.support.kinesis_records import change_record, data_record
from tests.unit.domain.support import record


def key_of(keys: Any, table: str = "orders") -> bytes:
    return ordering_key(change_record(inner={"Keys": keys}, tableName=table))


class TestOrderingKeys:
    def test_items_of_two_tables_are_not_one(self) -> None:
        keys = {"id": {"S": "a"}}
        assert key_of(keys) == key_of(keys)
        assert key_of(keys, "orders") != key_of(keys, "customers")

    def test_the_whole_primary_key_counts(self) -> None:
        """Order is kept for each item; DynamoDB does not promise more through Kinesis."""
        assert key_of({"id": {"S": "a"}, "sk": {"S": "1"}}) != key_of({"id": {"S": "a"}, "sk": {"S": "2"}})

    def test_the_order_of_attributes_does_not_matter(self) -> None:
        one = {"id": {"S": "a"}, "sk": {"N": "1"}}
        assert key_of(one) == key_of(dict(reversed(one.items())))

    @pytest.mark.parametrize("other", ["1.0", "1E0", "+1", "10E-1", "01"])
    def test_spellings_of_a_number_are_one_item(self, other: str) -> None:
        assert key_of({"id": {"N": "1"}}) == key_of({"id": {"N": other}})
        assert key_of({"id": {"S": "1"}}) != key_of({"id": {"S": other}}), "as texts they are not"

    def test_spellings_of_json_are_one_item(self) -> None:
        texts = [b'{"id":{"S":"\xc3\xa9/"}}', rb'{ "id" : { "S" : "\u00e9\/" } }', rb'{"\u0069d":{"S":"\u00E9/"}}']
        found = set()
        for text in texts:
            one = change_record()
            one.dynamodb.Keys = Raw(text)
            found.add(ordering_key(one))
        assert len(found) == 1

    @given(
        st.lists(
            st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3),
                st.tuples(st.sampled_from("SB"), st.text(st.characters(exclude_categories=["Cs"]), max_size=3)),
                min_size=1,
                max_size=2,
            ),
            min_size=2,
            max_size=2,
        )
    )
    def test_equal_exactly_when_the_items_are(self, pair: list[dict[str, tuple[str, str]]]) -> None:
        """Whatever stands in names and values: no separator of ours can be smuggled in."""
        left, right = ({name: {kind: text} for name, (kind, text) in item.items()} for item in pair)
        assert (key_of(left) == key_of(right)) is (left == right)

    @pytest.mark.parametrize(
        "keys",
        [
            b"null",
            b"{}",
            b"[]",
            b"5",
            b"{",
            b'{"id":null}',
            b'{"id":{}}',
            b'{"id":{"S":1}}',
            b'{"id":{"M":{}}}',
            b'{"id":{"BOOL":"true"}}',
            b'{"id":{"S":"a","N":"1"}}',
            b'{"id":{"S":"a"},"sk":{}}',
            rb'{"id":{"S":"\ud800"}}',
            b'{"unreadable":{"unreadable":true}}',
            b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
        ids=lambda keys: repr(keys[:30]),
    )
    def test_records_without_a_usable_key_share_one(self, keys: bytes) -> None:
        """They are handled in the order of the shard among themselves."""
        one = change_record()
        one.dynamodb.Keys = Raw(keys)
        assert ordering_key(one) == b""

    def test_anything_else_goes_by_its_partition_key(self) -> None:
        assert ordering_key(data_record(b"1", key="a")) == ordering_key(data_record(b"2", key="a"))
        assert ordering_key(data_record(key="a")) != ordering_key(data_record(key="b"))

    def test_a_partition_key_is_never_taken_for_an_item(self) -> None:
        for key in ("orders", "orders\0", 'orders\0[["id","S","a"]]'):
            assert ordering_key(data_record(key=key)) not in (key_of({"id": {"S": "a"}}), b"")

    def test_a_record_of_another_source_is_a_mistake(self) -> None:
        with pytest.raises(TypeError, match="Record is no record of a Kinesis stream"):
            ordering_key(record(1))


class TestTimes:
    @pytest.mark.parametrize(
        ("moment", "text"),
        [
            (1794616686.021, "2026-11-14T00:38:06.021Z"),
            (1794616686.0, "2026-11-14T00:38:06.000Z"),
            (0.0, "1970-01-01T00:00:00.000Z"),
            (-5.0, "1970-01-01T00:00:00.000Z"),
            (1e300, "9999-12-31T23:59:59.000Z"),
            (float("inf"), "9999-12-31T23:59:59.000Z"),
        ],
    )
    def test_as_the_failure_documents_have_them(self, moment: float, text: str) -> None:
        """Whatever a record claims: a document must be written."""
        assert KINESIS_FORMAT.arrival_text(moment) == text

    def test_shards_are_counted(self) -> None:
        assert KINESIS_FORMAT.created("shardId-000000000042") is None
        assert dynamodb_format("id").created("shardId-00000001789651619772-2a9e5aad") == 1789651619.772


def test_what_is_different_from_dynamodb_streams() -> None:
    usual = dynamodb_format("id")
    assert (usual.batch_info, KINESIS_FORMAT.batch_info) == ("DDBStreamBatchInfo", "KinesisBatchInfo")
    assert (usual.names_trims, usual.repeats) == (True, False)
    assert (KINESIS_FORMAT.names_trims, KINESIS_FORMAT.repeats) == (False, True)
    assert KINESIS_FORMAT.runs_bytes == RUNS_BYTES > usual.runs_bytes


def test_as_many_stretches_fit_as_for_dynamodb() -> None:
    """Each is two numbers; these have 63 digits instead of 25 at most."""
    stretch = len(json.dumps(["9" * 63, "9" * 63]))
    usual = len(json.dumps(["9" * 25, "9" * 25]))
    assert RUNS_BYTES // stretch >= dynamodb_format("id").runs_bytes // usual
