"""Events and back: of changes, of other records, and of batches that hold both."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.events import batch_event_json, event_json, records_from_event
from consumer.domain.kinesis_records import KinesisRecord
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord
from tests.support.kinesis_answers import FIRST, change, data_of
from tests.support.kinesis_records import change_record, data_record, records_of
from tests.unit.domain.support import record


def both() -> list[StreamRecord]:
    return [change_record(), data_record(b"\x00\xff", FIRST + 1, place=4), change_record(FIRST + 2)]


@pytest.mark.parametrize(
    "records",
    [[], [change_record()], [data_record()], [data_record(), data_record(b"", FIRST + 1)], both(), both()[1:]],
    ids=["none", "change", "other", "others", "both", "other first"],
)
def test_there_and_back(records: list[StreamRecord]) -> None:
    """What a worker process decodes makes the same event again, byte by byte."""
    event = batch_event_json(records)
    found = records_from_event(event)
    assert batch_event_json(found) == event
    assert [one.as_event() for one in found] == [one.as_event() for one in records]
    assert [one.number for one in found] == [one.number for one in records] or any(
        isinstance(one, Record) for one in records
    )


def test_kinds_and_values_are_kept() -> None:
    """A change is a Record with its table; anything else has the bytes that were put."""
    first, second, third = records_from_event(batch_event_json(both()))
    assert isinstance(first, Record)
    assert (first.table_name, first.keys, first.new_image) == ("orders", {"id": "a"}, {"id": "a", "n": 2})
    assert isinstance(second, KinesisRecord)
    assert (second.data, second.partition_key, second.sequence_number) == (b"\x00\xff", "k", f"{FIRST + 1}:4")
    assert third.sequence_number == str(FIRST + 2)


def test_lambdas_own_example() -> None:
    """Of the developer guide: fields in another order, a role, and more than one record."""
    event = {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "1",
                    "sequenceNumber": "49590338271490256608559692538361571095921575989136588898",
                    "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                    "approximateArrivalTimestamp": 1545084650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": "shardId-000000000006:49590338271490256608559692538361571095921575989136588898",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
                "awsRegion": "us-east-2",
                "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
            }
        ]
        * 2
    }
    found = records_from_event(json.dumps(event).encode())
    assert [one.data for one in found if isinstance(one, KinesisRecord)] == [b"Hello, this is a test."] * 2
    assert found[0].as_event() == {**event["Records"][0], "invokeIdentityArn": ""}


def test_further_members_of_the_event() -> None:
    event = json.loads(batch_event_json(both(), b'"state":{}'))
    assert list(event) == ["Records", "state"]
    assert event["Records"] == [one.as_event() for one in both()]


@pytest.mark.parametrize("value", [b"NaN", rb'{"S":"\ud800"}', b'{"S":"\xff"}'])
def test_one_odd_change_fails_neither_its_batch_nor_another_record(value: bytes) -> None:
    """The worker process gets all of them, and the odd one raises for who looks."""
    odd = data_of(change()).replace(b'{"N":"2"}', value)
    first, second, third = records_from_event(batch_event_json(records_of(b"plain", odd, data_of(change()))))
    assert isinstance(first, KinesisRecord)
    assert first.data == b"plain"
    assert isinstance(second, Record)
    assert isinstance(third, Record)
    assert (second.keys, third.new_image) == ({"id": "a"}, {"id": "a", "n": 2})
    with pytest.raises(ValueError, match=r"."):
        _ = second.new_image


def test_what_msgspec_refuses_is_read_leniently() -> None:
    """Keys with a lone surrogate, beside data: neither fails the batch."""
    event = batch_event_json([data_record(b"x"), record(7, keys=rb'{"pk":{"S":"\ud800"}}')])
    first, second = records_from_event(event)
    assert isinstance(first, KinesisRecord)
    assert (first.data, second.sequence_number) == (b"x", "7")


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"{}",
        b"[]",
        b'{"Records":[{"kinesis":{}}]}',
        b'{"Records":[{"kinesis":{"sequenceNumber":"1","data":"no base64"}}]}',
        b'{"Records":[{"kinesis":5,"dynamodb":5}]}',
        b'{"Records":[{"Sns":{}}]}',
        b'{"Records":[5]}',
        b'{"Records":[{"kinesis":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    ],
    ids=lambda event: repr(event[:50]),
)
def test_what_is_no_event(event: bytes) -> None:
    with pytest.raises(ValueError, match="not an event of DynamoDB or Kinesis"):
        records_from_event(event)


@given(
    st.lists(
        st.builds(
            data_record,
            st.binary(max_size=50),
            st.integers(1, 10**60),
            key=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
            place=st.integers(-1, 10**7 - 1),
        ),
        max_size=4,
    )
)
def test_any_data_survives(records: list[KinesisRecord]) -> None:
    event = batch_event_json(records)
    found = records_from_event(event)
    assert found == records
    assert [event_json(one) for one in found] == [event_json(one) for one in records]
