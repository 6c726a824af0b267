"""Changes of a table in pages of Kinesis: shown as records of DynamoDB Streams, also the odd ones."""

from __future__ import annotations

import datetime as dt
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.aws.kinesis_pages import decode_page
from consumer.domain.events import event_json
from consumer.domain.filters.filters import compile_filters
from consumer.domain.kinesis_format import ordering_key
from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from tests.support.kinesis_answers import ARN, FIRST, body_of, change, data_of, wire
from tests.support.kinesis_pages import SHARD, among_others, one


class TestChanges:
    def test_shown_as_a_record_of_dynamodb_streams(self) -> None:
        record = one(change(userIdentity={"type": "Service", "principalId": "dynamodb.amazonaws.com"}))
        assert type(record) is KinesisChange
        assert record.as_event() == {
            "eventID": "0a4c9f63-8e1c-4c77-9f0b-3b1f1b9b2d5e",
            "eventName": "MODIFY",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "eu-west-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1700000000.123456,
                "Keys": {"id": {"S": "a"}},
                "NewImage": {"id": {"S": "a"}, "n": {"N": "2"}},
                "OldImage": {"id": {"S": "a"}, "n": {"N": "1"}},
                "SequenceNumber": str(FIRST),
                "SizeBytes": 26,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
            "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
            "eventSourceARN": ARN,
            "tableName": "orders",
        }
        assert (record.keys, record.new_image, record.old_image) == (
            {"id": "a"},
            {"id": "a", "n": 2},
            {"id": "a", "n": 1},
        )
        assert (record.sequence_number, record.number, record.table_name) == (str(FIRST), f"{FIRST}0000000", "orders")

    @pytest.mark.parametrize(
        "identity",
        [{"Type": "Service", "PrincipalId": "x"}, {"type": "Service", "principalId": "x"}],
        ids=["upper", "lower"],
    )
    def test_the_identity_of_a_ttl_deletion_in_either_case(self, identity: dict[str, str]) -> None:
        record = one(change({"NewImage": None}, eventName="REMOVE", userIdentity=identity))
        assert record.user_identity == record.as_event()["userIdentity"] == {"type": "Service", "principalId": "x"}
        assert "NewImage" not in record.as_event()["dynamodb"]
        assert record.new_image is None

    def test_the_example_of_2022(self) -> None:
        """As people have published it: milliseconds that are not named, and ``userIdentity`` null."""
        data = (
            b'{"awsRegion":"ap-northeast-2","eventID":"d3bb6de0-b6ac-45e1-9ae7-0f0ee4b5a0d2","eventName":"INSERT",'
            b'"userIdentity":null,"recordFormat":"application/json","tableName":"orders","dynamodb":'
            b'{"ApproximateCreationDateTime":1662104377573,"Keys":{"id":{"S":"a"}},"NewImage":{"id":{"S":"a"}},'
            b'"SizeBytes":6},"eventSource":"aws:dynamodb"}'
        )
        record = one(data)
        assert (record.created, record.in_micros) == (1662104377.573, False)
        assert record.approximate_creation_time == dt.datetime(2022, 9, 2, 7, 39, 37, 573000, tzinfo=dt.UTC)
        assert (record.event_name, record.old_image) == ("INSERT", None)
        assert "userIdentity" not in record.as_event()

    @pytest.mark.parametrize(
        ("value", "precision", "seconds", "in_micros"),
        [
            (1_700_000_000_123_456, "MICROSECOND", 1700000000.123456, True),
            (1_700_000_000_123_456, None, 1700000000.123456, True),
            (1_700_000_000_123, "MILLISECOND", 1700000000.123, False),
            (1_700_000_000_123, None, 1700000000.123, False),
            (1_700_000_000_123, "NANOSECOND", 1700000000.123, False),
            (99_999_999_999_999, None, 99_999_999_999.999, False),
            (100_000_000_000_000, None, 100_000_000.0, True),
            (99_999_999_999_999, "MICROSECOND", 99_999_999.999999, True),
            (100_000_000_000_000, "MILLISECOND", 100_000_000_000.0, False),
            (1_700_000_000_123.0, None, 1700000000.123, False),
            (1_700_000_000, None, 1_700_000_000.0, False),
            (1_700_000_000.5, None, 1_700_000_000.5, False),
            (0, None, 0.0, False),
            (-1_700_000_000_123, None, 0.0, False),
            (10**30, None, 0.0, False),
            (10**17, "MICROSECOND", 100_000_000_000.0, True),
            (10**18, "MICROSECOND", 0.0, False),
            (10**15, "MILLISECOND", 0.0, False),
            ("yesterday", None, 0.0, False),
            (True, None, 0.0, False),
            ([1], "MICROSECOND", 0.0, False),
        ],
    )
    def test_times(self, value: object, precision: str | None, seconds: float, in_micros: bool) -> None:
        """In the unit that is named, else by magnitude: three digits off would be a change of 1970, or of 55,000."""
        inner = {"ApproximateCreationDateTime": value, "ApproximateCreationDateTimePrecision": precision}
        record = one(change(inner))
        assert (record.created, record.in_micros) == (seconds, in_micros)
        _ = record.approximate_creation_time  # a handler may look at any of them

    @given(st.integers(10**14, 4 * 10**15), st.integers(10**11, 4 * 10**12))
    def test_times_are_exact(self, micros: int, millis: int) -> None:
        for value, precision, unit in ((micros, "MICROSECOND", 1e6), (micros, None, 1e6), (millis, None, 1e3)):
            inner = {"ApproximateCreationDateTime": value, "ApproximateCreationDateTimePrecision": precision}
            assert round(one(change(inner)).created * unit) == value

    def test_without_a_time(self) -> None:
        record = one(change({"ApproximateCreationDateTime": None}))
        assert (type(record), record.created) == (KinesisChange, 0.0)

    def test_white_space_and_escapes_are_json(self) -> None:
        spaced = json.dumps(change(), indent=2).encode()
        for data in (b"\n\t " + spaced + b" \n", b" " * 100 + spaced, spaced.replace(b"orders", rb"\u006frders")):
            record = one(data)
            assert (type(record), record.table_name, record.new_image) == (KinesisChange, "orders", {"id": "a", "n": 2})

    def test_slices_pin_the_records_own_data_and_never_the_body(self) -> None:
        body = bytes(bytearray(body_of(wire(data_of(change())))))
        before = sys.getrefcount(body)
        [record] = decode_page(body, SHARD).page.records
        assert sys.getrefcount(body) == before
        assert record.new_image == {"id": "a", "n": 2}


class TestOddChanges:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"SizeBytes":26', b'"SizeBytes":"ten"'),
            (b'"SizeBytes":26', b'"SizeBytes":null'),
            (b'"SizeBytes":26', b'"SizeBytes":NaN'),
            (b'"SizeBytes":26', b'"SizeBytes":2.5'),
            (b"1700000000123456", b'"now"'),
            (b"1700000000123456", b"NaN"),
            (b"1700000000123456", b"1e400"),
            (b"1700000000123456", b"9" * 400),
            (b'"MICROSECOND"', b"7"),
            (b'"MODIFY"', b"null"),
            (b'"MODIFY"', b"NaN"),
            (b'"MODIFY"', rb'"\ud800"'),
            (b'"MODIFY"', b'"\xff"'),
            (b'"orders"', b"null"),
            (b'"orders"', rb'"\udfff"'),
            (b'"eu-west-1"', b"{}"),
            (b'"application/json"', b"null"),
            (b'"userIdentity":null', b'"userIdentity":"odd"'),
            (b'"userIdentity":null', b'"userIdentity":{"Type":1}'),
            (b'"0a4c9f63-8e1c-4c77-9f0b-3b1f1b9b2d5e"', b"12"),
        ],
        ids=lambda part: repr(part[:40]),
    )
    def test_fields_of_the_wrong_type_get_their_defaults(self, old: bytes, new: bytes) -> None:
        data = data_of(change())
        assert old in data
        record = among_others(data.replace(old, new))
        assert type(record) is KinesisChange
        assert (record.keys, record.new_image, record.old_image) == (
            {"id": "a"},
            {"id": "a", "n": 2},
            {"id": "a", "n": 1},
        )
        assert (record.event_source, record.event_version, record.event_source_arn) == ("aws:dynamodb", "1.1", ARN)
        assert record.created == (1700000000.123456 if b"1700000000123456" in data.replace(old, new) else 0.0)

    @pytest.mark.parametrize(
        "value",
        [b"NaN", rb'{"S":"\ud800"}', b'{"S":"\xff\xfe"}', b"[-Infinity]", b"[" * 700 + b"]" * 700, b'{"N":"x"}', b"5"],
        ids=lambda value: repr(value[:20]),
    )
    def test_an_image_that_cannot_be_read_is_poison_and_not_absent(self, value: bytes) -> None:
        record = among_others(data_of(change()).replace(b'{"N":"2"}', value))
        assert (type(record), record.keys, record.old_image) == (KinesisChange, {"id": "a"}, {"id": "a", "n": 1})
        for _ in range(2):
            with pytest.raises(ValueError, match=r"."):
                _ = record.new_image
        assert ordering_key(record) == ordering_key(one(change())), "behind the other changes of its item"
        assert json.loads(event_json(record)), "one such record must not spoil the event of its batch"

    def test_a_filter_that_needs_what_cannot_be_read_lets_it_pass(self) -> None:
        filters = compile_filters([{"dynamodb": {"NewImage": {"n": {"N": ["9"]}}}}])
        record = among_others(data_of(change()).replace(b'{"N":"2"}', b"NaN"))
        assert filters.matches(record)
        assert not filters.matches(one(change()))

    @pytest.mark.parametrize("value", [b"NaN", b"null", b"5", b"[]", b'"x"'])
    def test_keys_that_cannot_be_read(self, value: bytes) -> None:
        record = among_others(data_of(change()).replace(b'"Keys":{"id":{"S":"a"}}', b'"Keys":' + value))
        assert type(record) is KinesisChange
        with pytest.raises(ValueError, match=r"."):
            _ = record.keys
        assert record.new_image == {"id": "a", "n": 2}
        assert ordering_key(record) == b""

    @pytest.mark.parametrize("levels", [2000, 100_000])
    def test_what_no_parser_can_read_is_no_change_and_keeps_every_byte(self, levels: int) -> None:
        """DynamoDB nests 32 levels. A letter with the data is worth more than one with a change that has none."""
        deep = b'{"L":[' * levels + b"]}" * levels
        data = data_of(change()).replace(b'{"N":"2"}', deep)
        record = among_others(data)
        assert (type(record), record.data) == (KinesisRecord, data)

    def test_an_integer_that_python_refuses(self) -> None:
        data = data_of(change()).replace(b'{"N":"2"}', b"1" * 5000).replace(b'"MODIFY"', b"null")
        assert among_others(data).data == data
