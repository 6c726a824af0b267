"""Records of a Kinesis stream as handlers and Lambda events have them."""

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.events import batch_event_json, event_json
from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from consumer.domain.record import Change, Record
from consumer.domain.stream_record import StreamRecord
from tests.support.kinesis_answers import ARN, FIRST, SHARD_ID
from tests.support.kinesis_records import change_record, data_record, records_of
from tests.unit.domain.support import ABSENT, Raw

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class TestLambdasEvent:
    def test_byte_for_byte(self) -> None:
        """The fields of the developer guide's example; no function was invoked, so there is no role."""
        one = data_record(b"Hello, this is a test.", key="1")
        assert event_json(one) == (
            b'{"kinesis":{"sequenceNumber":"' + str(FIRST).encode() + b'","data":"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",'
            b'"partitionKey":"1","approximateArrivalTimestamp":1700000000.987,"kinesisSchemaVersion":"1.0"},'
            b'"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-000000000007:'
            + str(FIRST).encode()
            + b'","eventName":"aws:kinesis:record","invokeIdentityArn":"","awsRegion":"eu-west-1","eventSourceARN":"'
            + ARN.encode()
            + b'"}'
        )

    def test_a_change_is_the_same_event_through_both_sources(self) -> None:
        """One change in both forms; what differs is documented: number, ARN, the table's name, and the exact time."""
        images = {
            "Keys": {"id": {"S": "é"}},
            "NewImage": {"id": {"S": "é"}, "n": {"N": "1.50"}, "b": {"B": "AP8="}, "l": {"L": [{"NULL": True}]}},
            "OldImage": {"id": {"S": "é"}, "ss": {"SS": ["x", "y"]}},
        }
        through_kinesis = change_record(inner={**images, "SizeBytes": 81}, eventID="e1", eventName="MODIFY")
        directly = Record(
            Change(
                "3100000105893955554117",
                1_700_000_000.0,
                **{name: Raw(json.dumps(value).encode()) for name, value in images.items()},
                SizeBytes=81,
                StreamViewType="NEW_AND_OLD_IMAGES",
            ),
            event_id="e1",
            event_name="MODIFY",
            aws_region="eu-west-1",
            event_source_arn="arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000",
        )
        ours, usual = through_kinesis.as_event(), directly.as_event()
        assert ours.pop("tableName") == "orders"
        assert (ours.pop("eventSourceARN"), usual.pop("eventSourceARN")) == (ARN, directly.event_source_arn)
        assert ours["dynamodb"].pop("SequenceNumber") == str(FIRST)
        assert usual["dynamodb"].pop("SequenceNumber") == "3100000105893955554117"
        assert ours["dynamodb"].pop("ApproximateCreationDateTime") == 1_700_000_000.123456
        assert usual["dynamodb"].pop("ApproximateCreationDateTime") == 1_700_000_000.0
        assert ours == usual
        for name in ("keys", "new_image", "old_image", "user_identity", "event_name", "size_bytes", "stream_view_type"):
            assert getattr(through_kinesis, name) == getattr(directly, name)

    def test_a_ttl_deletion_through_both_sources(self) -> None:
        identity = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
        through_kinesis = change_record(inner={"NewImage": None}, eventName="REMOVE", userIdentity=identity)
        directly = Record(Change("1"), user_identity_wire=identity)
        assert through_kinesis.as_event()["userIdentity"] == directly.as_event()["userIdentity"]


class TestForHandlers:
    def test_attributes(self) -> None:
        one = data_record(b"\x00\xff", key="customer-7", place=3)
        assert (one.data, one.partition_key, one.sequence_number) == (b"\x00\xff", "customer-7", f"{FIRST}:3")
        assert (one.event_id, one.event_name) == (f"{SHARD_ID}:{FIRST}:3", "aws:kinesis:record")
        assert (one.event_source_arn, one.aws_region) == (ARN, "eu-west-1")
        assert one.approximate_arrival_time == dt.datetime(2023, 11, 14, 22, 13, 20, 987000, tzinfo=dt.UTC)
        assert one.created == 1700000000.987
        assert one.as_event()["kinesis"]["data"] == base64.b64encode(b"\x00\xff").decode()

    def test_of_a_change(self) -> None:
        one = change_record()
        assert isinstance(one, Record)
        assert (one.table_name, one.in_micros) == ("orders", True)
        assert one.approximate_creation_time == dt.datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=dt.UTC)
        image = one.new_image
        assert image is not None
        image["n"] = "changed"
        one.forget()
        assert one.new_image == {"id": "a", "n": 2}

    def test_a_record_of_dynamodb_streams_names_no_table(self) -> None:
        assert "tableName" not in Record(Change("1")).as_event()


class TestMemory:
    def test_detaching_a_record_takes_nothing_from_it(self) -> None:
        change, other = records_of(b"".join(bytes(part) for part in [b'{"a":1}']), b"x" * 5000)
        for record in (change, other):
            before = event_json(record)
            assert record.detach() == record.wire_size
            record.forget()
            assert event_json(record) == before
        assert 5000 < other.wire_size < 6000

    def test_a_change_lets_go_of_its_data(self) -> None:
        one = change_record()
        whole = memoryview(one.dynamodb.Keys).obj
        held = sys.getrefcount(whole)
        size = one.detach()
        assert sys.getrefcount(whole) < held
        images = (one.dynamodb.Keys, one.dynamodb.NewImage, one.dynamodb.OldImage)
        assert size == one.wire_size == sum(map(len, map(bytes, images))) + 400


def within(record: StreamRecord) -> None:
    with_comma = len(event_json(record)) + 1
    assert with_comma <= record.event_size <= with_comma + 100


class TestTheSizeOfAnEvent:
    """Batches are cut by it: too small would break the bound, too large would make small records fill 6 MB early."""

    @given(
        data=st.binary(max_size=100) | st.sampled_from([b"", b"x" * 5000]),
        key=TEXTS | st.just("\0" * 256),
        place=st.sampled_from([-1, 0, 1_999_999]),
        arrival=st.sampled_from([0.0, 1700000000.0, 1700000000.987, 253402300799.0]),
        arn=st.sampled_from(["", ARN, ARN + "x" * 128]),
    )
    def test_of_any_data(self, data: bytes, key: str, place: int, arrival: float, arn: str) -> None:
        one = data_record(data, key=key, place=place)
        one.kinesis.approximateArrivalTimestamp = arrival
        one.event_source_arn = arn
        within(one)

    @given(
        texts=st.lists(TEXTS, min_size=4, max_size=4),
        images=st.tuples(*[st.sampled_from([b"", b"null", b"{}", b'{"id":{"S":"' + b"x" * 300 + b'"}}'])] * 3),
        created=st.sampled_from([0.0, 1700000000.123456, -1.2345678901234567e-300]),
        identity=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
        place=st.sampled_from(["", ":0", ":1999999"]),
        size=st.sampled_from([0, 26, 400_000]),
    )
    def test_of_any_change(
        self, texts: list[str], images: Any, created: float, identity: Any, place: str, size: int
    ) -> None:
        """Anybody may have put it there, so any text is possible, also one that grows when it is escaped."""
        one = KinesisChange(
            Change(f"{FIRST}{place}", created, *map(Raw, images), size, "NEW_AND_OLD_IMAGES"),
            event_id=texts[0],
            event_name=texts[1],
            aws_region=texts[2],
            table_name=texts[3],
            user_identity_wire=identity,
            event_source_arn=ARN,
        )
        lowered = {name[:1].lower() + name[1:] for name in identity or {}}
        if len(lowered) == len(identity or {}):  # two names that become one make it smaller
            within(one)
        assert len(event_json(one)) + 1 <= one.event_size

    def test_of_a_batch(self) -> None:
        records: list[StreamRecord] = [change_record(), data_record(), KinesisChange(Change("1", Keys=ABSENT))]
        assert len(batch_event_json(records)) <= sum(one.event_size for one in records) + len('{"Records":[]}')


def test_records_are_values_and_of_two_kinds() -> None:
    assert change_record() == change_record()
    assert data_record(b"a") != data_record(b"b")
    assert not issubclass(KinesisRecord, Record)
    for kind in (KinesisChange, KinesisRecord):
        assert issubclass(kind, StreamRecord)


@pytest.mark.parametrize("odd", ["", "x", "1:x", ":1", "1:-1", "1:10000000"])
def test_a_number_that_is_none_is_an_error(odd: str) -> None:
    """It cannot be in the books; pages with such a record are refused before."""
    one = data_record()
    one.kinesis.sequenceNumber = odd
    if odd in ("", "x", ":1"):
        assert not one.number[:-7].isdecimal()
    else:
        with pytest.raises(ValueError, match=r"."):
            _ = one.number
