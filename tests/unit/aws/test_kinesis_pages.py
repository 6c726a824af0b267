"""Pages of Kinesis: every record is shown, as a change or as it is, and nothing is made of a damaged answer."""

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
from typing import Any

import botocore.session
import pytest
import structlog
from aiobotocore.parsers import AioJSONParser
from hypothesis import given
from hypothesis import strategies as st

from consumer.aws.kinesis_page_reader import SAMPLE
from consumer.aws.kinesis_pages import KinesisPage, KinesisShard, convert_page, decode_page
from consumer.domain.errors import DependencyError
from consumer.domain.events import batch_event_json, event_json, records_from_event
from consumer.domain.filters.filters import compile_filters
from consumer.domain.kinesis_format import ordering_key
from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from consumer.domain.shards import ShardInfo
from tests.support import kpl_aggregates as kpl
from tests.support.kinesis_answers import ARN, FIRST, MICROS, PARTITION_KEY, SHARD_ID, body_of, change, data_of, wire

MODEL = botocore.session.get_session().get_service_model("kinesis").operation_model("GetRecords")
SHARD = KinesisShard(ARN, SHARD_ID)


def shown(*datas: bytes, shard: KinesisShard = SHARD) -> list[Any]:
    """The records of a page with these data."""
    body = body_of(*[wire(data, FIRST + place) for place, data in enumerate(datas)])
    return list(decode_page(body, shard).page.records)


def one(data: bytes | dict[str, Any]) -> Any:
    [record] = shown(data if isinstance(data, bytes) else data_of(data))
    return record


async def through_botocore(body: bytes) -> KinesisPage:
    answer = {"headers": {"content-length": str(len(body))}, "status_code": 200, "body": body, "context": {}}
    return convert_page(await AioJSONParser().parse(answer, MODEL.output_shape), SHARD)


def everything(found: KinesisPage) -> list[Any]:
    page = found.page
    records = [(type(record), record.as_event(), record.number, record.created) for record in page.records]
    sizes = [page.wire_bytes, page.held_bytes, page.event_bytes, page.count]
    return [page.next_iterator, page.behind, found.children, found.foreign, sizes, records]


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


def among_others(odd: bytes) -> Any:
    """The record of this data, between two good changes that must not suffer."""
    good = data_of(change())
    before, record, after = shown(good, odd, good)
    for place, neighbour in ((0, before), (2, after)):
        assert (neighbour.sequence_number, neighbour.new_image) == (str(FIRST + place), {"id": "a", "n": 2})
    assert record.sequence_number == str(FIRST + 1)
    assert len(records_from_event(batch_event_json([before, record, after]))) == 3
    return record


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


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
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


class TestSameAsBotocore:
    @pytest.mark.parametrize(
        "body",
        [
            SAMPLE,
            body_of(),
            body_of(following=None),
            body_of(wire(b""), MillisBehindLatest=None),
            body_of(wire(data_of(change())), wire(kpl.plain([b"a", b"b"]), FIRST + 1), wire(b"\xff", FIRST + 2)),
            body_of(wire(b"x", EncryptionType="KMS", More=1), more={"a": 1}),
            body_of(wire(b"x", PartitionKey="\0\N{GRINNING FACE}\u2028")),
            body_of(wire(b"x", ApproximateArrivalTimestamp=1700000000)),
            body_of(following=None, ChildShards=[{"ShardId": "s", "ParentShards": ["a", "b"]}]),
            body_of(following=None, ChildShards=[]),
        ],
        ids=lambda body: repr(body[:50]),
    )
    async def test_pages(self, body: bytes) -> None:
        assert everything(decode_page(body, SHARD)) == everything(await through_botocore(body))

    async def test_without_a_length_the_size_is_estimated(self) -> None:
        body = body_of(*[wire(b"x" * 1000, FIRST + place) for place in range(5)])
        answer = {"headers": {}, "status_code": 200, "body": body, "context": {}}
        parsed = await AioJSONParser().parse(answer, MODEL.output_shape)
        assert 0.9 * len(body) < convert_page(parsed, SHARD).page.wire_bytes < 1.3 * len(body)

    @given(st.lists(st.tuples(st.binary(max_size=20), texts), max_size=4), st.booleans())
    async def test_any_page(self, records: list[tuple[bytes, str]], ascii_only: bool) -> None:
        wires = [wire(data, FIRST + place, PartitionKey=key) for place, (data, key) in enumerate(records)]
        body = json.dumps({"Records": wires, "NextShardIterator": "n"}, ensure_ascii=ascii_only).encode()
        assert everything(decode_page(body, SHARD)) == everything(await through_botocore(body))


class TestDamagedPages:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"null",
            b"[]",
            b'{"NextShardIterator":"n"}',
            b'{"Records":null,"NextShardIterator":"n"}',
            b'{"Records":{},"NextShardIterator":"n"}',
            body_of(following=""),
            body_of(following=7),
            body_of() + b"trailing",
            b"<html>Bad Gateway</html>",
            b"\xff\xfe",
            b"[" * 100_000,
            body_of(None),
            body_of({}),
            body_of(wire(b"x", "")),
            body_of(wire(b"x", "abc")),
            body_of(wire(b"x", "-1")),
            body_of(wire(b"x", "1:2")),
            body_of(wire(b"x", "\u0661\u0662")),
            body_of(wire(b"x", SequenceNumber=None)),
            body_of(wire(b"x", SequenceNumber=1.5)),
            body_of(wire(b"x", SequenceNumber=True)),
            body_of(wire(b"x", Data=None)),
            body_of(wire(b"x", Data=5)),
            body_of(wire(b"x", Data="YQ=")),
            body_of(wire(b"x", Data="Y Q==")),
            body_of(wire(b"x", Data="\u00e9")),
            body_of({"SequenceNumber": "1", "PartitionKey": "k"}),
            body_of(following=None, ChildShards={}),
            body_of(following=None, ChildShards=[None]),
            body_of(following=None, ChildShards=[{"ParentShards": ["a"]}]),
            body_of(following=None, ChildShards=[{"ShardId": "s", "ParentShards": [1]}]),
            body_of(MillisBehindLatest="late"),
        ],
        ids=lambda body: repr(body[:70]),
    )
    def test_is_an_error_to_retry(self, body: bytes) -> None:
        with pytest.raises(DependencyError) as caught:
            decode_page(body, SHARD)
        assert (caught.value.operation, caught.value.code) == ("GetRecords", "Malformed")

    def test_every_cut_of_a_page_is_an_error(self) -> None:
        for length in range(len(SAMPLE)):
            with pytest.raises(DependencyError):
                decode_page(SAMPLE[:length], SHARD)

    async def test_every_cut_is_an_error_after_botocore_too(self) -> None:
        for length in range(0, len(SAMPLE), 7):
            with pytest.raises(DependencyError):
                await through_botocore(SAMPLE[:length])

    def test_the_record_is_named(self) -> None:
        with pytest.raises(DependencyError, match="SequenceNumber: number 1, SequenceNumber 'x'"):
            decode_page(body_of(wire(b"a"), wire(b"b", "x")), SHARD)
        with pytest.raises(DependencyError, match="Data: number 0, SequenceNumber '5'"):
            decode_page(body_of(wire(b"a", 5, Data="?")), SHARD)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"1700000000.987", b"NaN"),
            (b"1700000000.987", b'"now"'),
            (b"1700000000.987", b"1e300"),
            (b"1700000000.987", b"-5"),
            (b"1700000000.987", b"true"),
            (b'"' + PARTITION_KEY.encode() + b'"', rb'"\ud800"'),
            (b'"' + PARTITION_KEY.encode() + b'"', b'"\xff"'),
            (b'"' + PARTITION_KEY.encode() + b'"', b"null"),
            (str(FIRST).encode(), str(FIRST).encode()),
            (b'"' + str(FIRST).encode() + b'"', str(FIRST).encode()),
        ],
    )
    def test_what_kinesis_adds_may_be_odd(self, old: bytes, new: bytes) -> None:
        """One such record neither fails its page nor loses what its producer has put."""
        body = body_of(wire(b"before", FIRST - 1, ApproximateArrivalTimestamp=1.0, PartitionKey="k"), wire(b"odd"))
        assert old in body
        before, record = decode_page(body.replace(old, new), SHARD).page.records
        assert (before.data, before.created, record.data, record.sequence_number) == (
            b"before",
            1.0,
            b"odd",
            str(FIRST),
        )
        assert record.created in (0.0, 1700000000.987)
        _ = record.approximate_arrival_time
        assert len(records_from_event(batch_event_json([before, record]))) == 2

    def test_an_odd_page_is_logged_and_a_good_one_is_not(self) -> None:
        with structlog.testing.capture_logs() as logs:
            decode_page(body_of(wire(b"a", PartitionKey=None), wire(b"b", FIRST + 1)), SHARD)
            decode_page(SAMPLE, SHARD)
        assert [(entry["event"], entry["records"]) for entry in logs] == [("pages.odd_page", 2)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OUTER = ["eventID", "eventName", "awsRegion", "userIdentity", "eventSource", "tableName", "recordFormat"]
INNER = [
    "Keys",
    "NewImage",
    "OldImage",
    "SizeBytes",
    "ApproximateCreationDateTime",
    "ApproximateCreationDateTimePrecision",
]


@given(
    st.dictionaries(st.sampled_from(OUTER), json_values),
    st.dictionaries(st.sampled_from(INNER), json_values),
)
def test_no_record_is_ever_lost(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    """Whatever stands in the fields of a change: its page has it, in its place, and an event can be made of it."""
    odd = change()
    odd["dynamodb"].update(inner)
    odd.update(outer)
    record = among_others(json.dumps(odd).encode())
    assert isinstance(record, KinesisChange | KinesisRecord)
    if isinstance(record, KinesisRecord):
        assert outer.get("eventSource", "aws:dynamodb") != "aws:dynamodb"
    json.loads(event_json(record))
    assert len(event_json(record)) + 1 <= record.event_size
    ordering_key(record)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda data: b'{"eventSource":"aws:dynamodb",' + data))
def test_any_data_is_shown(data: bytes) -> None:
    assert among_others(data).data == data


def test_the_sample_has_what_the_times_are_about() -> None:
    assert str(MICROS).encode() in base64.b64decode(json.loads(SAMPLE)["Records"][0]["Data"])
