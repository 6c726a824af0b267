"""Pages of Kinesis: every record is shown, aggregates are taken apart, and what else a page says."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from consumer.aws.kinesis_pages import KinesisShard, decode_page
from consumer.domain.events import batch_event_json, event_json
from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from consumer.domain.shards import ShardInfo
from tests.support import kpl_aggregates as kpl
from tests.support.kinesis_answers import ARN, FIRST, PARTITION_KEY, SHARD_ID, body_of, change, data_of, wire
from tests.support.kinesis_pages import SHARD, one, shown, texts


class TestAnythingElse:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"plain text",
            bytes(range(256)),
            b"null",
            b"[]",
            b"{",
            b"{}",
            b'"aws:dynamodb"',
            b'["aws:dynamodb"]',
            b'{"eventSource":"aws:dynamodb"}',
            b'{"eventSource":"aws:dynamodb","recordFormat":"application/json","dynamodb":5}',
            b'{"eventSource":"aws:dynamodb","recordFormat":"application/json","dynamodb":{"NewImage":{}}}',
            data_of({**change(), "eventSource": "aws:s3"}),
            data_of({**change(), "eventSource": ["aws:dynamodb"]}),
            data_of({name: value for name, value in change().items() if name != "recordFormat"}),
            data_of({name: value for name, value in change().items() if name != "eventSource"}),
            data_of(change({"Keys": None})),
            data_of(change())[:-1],
            data_of(change()) + b"x",
            b"\xef\xbb\xbf" + data_of(change()),
        ],
        ids=lambda data: repr(data[:60]),
    )
    def test_is_shown_as_it_is(self, data: bytes) -> None:
        record = one(data)
        assert type(record) is KinesisRecord
        assert record.data == data
        assert record.as_event() == {
            "kinesis": {
                "sequenceNumber": str(FIRST),
                "data": base64.b64encode(data).decode(),
                "partitionKey": PARTITION_KEY,
                "approximateArrivalTimestamp": 1700000000.987,
                "kinesisSchemaVersion": "1.0",
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{SHARD_ID}:{FIRST}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "",
            "awsRegion": "eu-west-1",
            "eventSourceARN": ARN,
        }

    @pytest.mark.parametrize(("arn", "region"), [(ARN, "eu-west-1"), ("", ""), ("stream", ""), ("a:b:c:d", "")])
    def test_the_region_of_any_arn(self, arn: str, region: str) -> None:
        [record] = shown(b"x", shard=KinesisShard(arn, SHARD_ID))
        assert (record.aws_region, record.event_source_arn) == (region, arn)


class TestAggregates:
    def test_records_of_an_aggregate_are_numbered_by_place(self) -> None:
        packed = kpl.aggregate([("a", None, b"one"), ("b", 7, b"two"), ("a", None, data_of(change()))])
        first, second, third, fourth = shown(packed, b"after")
        assert [record.sequence_number for record in (first, second, third)] == [
            f"{FIRST}:{place}" for place in range(3)
        ]
        assert [record.number for record in (first, second, third)] == [f"{FIRST}000000{place}" for place in range(3)]
        assert [(record.data, record.partition_key) for record in (first, second)] == [(b"one", "a"), (b"two", "b")]
        assert second.event_id == f"{SHARD_ID}:{FIRST}:1"
        assert second.created == 1700000000.987
        assert (type(third), third.new_image) == (KinesisChange, {"id": "a", "n": 2})
        assert (fourth.sequence_number, fourth.partition_key) == (str(FIRST + 1), PARTITION_KEY)
        numbers = [int(record.number) for record in (first, second, third, fourth)]
        assert numbers == sorted(set(numbers))

    def test_an_aggregate_in_an_aggregate_stays_as_it_is(self) -> None:
        inner = kpl.plain([b"x"])
        [record] = shown(kpl.plain([inner]))
        assert record.data == inner

    @pytest.mark.parametrize(
        "data",
        [
            kpl.signed(kpl.record(0, b"lost?")),
            kpl.signed(kpl.table(["k"]) + kpl.record(0, b"a") + kpl.record(5, b"b")),
            kpl.signed(kpl.table(["k"])),
            kpl.signed(b""),
            kpl.plain([b"x"])[:-1] + b"x",
            kpl.MAGIC,
        ],
        ids=["no keys", "bad index", "no records", "empty", "other MD5", "magic"],
    )
    def test_one_that_cannot_be_taken_apart_goes_to_the_handler_whole(self, data: bytes) -> None:
        before, record, after = shown(b"x", data, b"y")
        assert (record.data, record.sequence_number, record.partition_key) == (data, str(FIRST + 1), PARTITION_KEY)
        assert (before.data, after.data) == (b"x", b"y")

    def test_a_bad_one_is_said_and_others_are_not(self) -> None:
        with structlog.testing.capture_logs() as logs:
            shown(kpl.signed(kpl.table(["k"]) + kpl.record(5, b"b")), kpl.signed(b""), kpl.MAGIC, kpl.plain([b"x"]))
        [entry] = logs
        assert (entry["event"], entry["shard_id"], entry["sequence_number"]) == (
            "pages.bad_aggregate",
            SHARD_ID,
            str(FIRST),
        )
        assert "partition key 5 of 1" in entry["reason"]

    def test_foreign_ones_are_kept_and_counted(self) -> None:
        packed = kpl.aggregate([("a", 5, b"mine"), ("a", 99, b"foreign"), ("a", 10, b"mine"), ("a", 0, b"foreign")])
        body = body_of(wire(packed), wire(b"plain", FIRST + 1))
        found = decode_page(body, KinesisShard(ARN, SHARD_ID, (5, 10)))
        assert found.foreign == 2
        assert [record.data for record in found.page.records] == [b"mine", b"foreign", b"mine", b"foreign", b"plain"]
        assert decode_page(body, SHARD).foreign == 0, "without the range nobody can tell"


class TestTheRestOfThePage:
    def test_how_far_it_is_behind(self) -> None:
        for millis, behind in ((0, 0.0), (1500, 1.5), (-1, 0.0), (86_400_000, 86_400.0)):
            page = decode_page(body_of(MillisBehindLatest=millis), SHARD).page
            assert page.behind == behind
            assert page.at_tip is (behind == 0)
        assert decode_page(b'{"Records":[],"NextShardIterator":"n"}', SHARD).page.behind is None

    def test_children_with_their_parents(self) -> None:
        """Of a merge both are named; of a child whose parents are not named, none: the caller decides what that is."""
        children = [
            {"ShardId": "shardId-3", "ParentShards": ["shardId-1", "shardId-2"], "HashKeyRange": {}},
            {"ShardId": "shardId-4", "ParentShards": []},
            {"ShardId": "shardId-5"},
        ]
        found = decode_page(body_of(wire(b"last"), following=None, ChildShards=children), SHARD)
        assert found.page.next_iterator is None
        assert len(found.page.records) == 1
        assert found.children == [
            ShardInfo("shardId-3", ("shardId-1", "shardId-2")),
            ShardInfo("shardId-4"),
            ShardInfo("shardId-5"),
        ]

    @pytest.mark.parametrize("body", [b'{"Records":[]}', b'{"Records":[],"NextShardIterator":null,"ChildShards":null}'])
    def test_an_end_without_children_is_told_from_one_with_an_empty_list(self, body: bytes) -> None:
        found = decode_page(body, SHARD)
        assert (found.page.next_iterator, found.children) == (None, None)
        assert decode_page(b'{"Records":[],"ChildShards":[]}', SHARD).children == []

    def test_what_it_takes(self) -> None:
        """Memory by the bytes of the data, an event by those of the body: small sub-records are many times larger."""
        small = [b""] * 1000
        found = decode_page(body_of(wire(kpl.plain(small)), wire(b"x" * 3000, FIRST + 1)), SHARD).page
        assert (len(found.records), found.count) == (1001, 2)
        assert found.wire_bytes < 20_000
        assert found.held_bytes > 1001 * 700 + 3000
        assert len(batch_event_json(found.records)) <= found.event_bytes < 2 * len(batch_event_json(found.records))


long_arn = f"arn:aws-us-gov:kinesis:us-gov-east-1:123456789012:stream/{'n' * 128}"


@given(
    st.lists(st.tuples(texts, st.binary(max_size=30), st.booleans(), texts), max_size=4),
    st.sampled_from([ARN, long_arn]),
)
def test_the_event_of_a_page_is_never_larger_than_it_says(records: list[Any], arn: str) -> None:
    """By it batches are cut: too small would break the 6 MB of a batch."""
    bodies = []
    for place, (key, data, packed, name) in enumerate(records):
        inside = data_of(change(eventName=name, tableName=key)) if place % 2 else data
        whole = kpl.aggregate([(key, None, inside)] * 3) if packed else inside
        bodies.append(wire(whole, FIRST + place, PartitionKey=key))
    page = decode_page(body_of(*bodies), KinesisShard(arn, SHARD_ID)).page
    assert sum(len(event_json(record)) + 1 for record in page.records) <= page.event_bytes
