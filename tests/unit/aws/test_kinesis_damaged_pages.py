"""Pages of Kinesis: read as botocore reads them, and nothing is made of a damaged answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import structlog
from aiobotocore.parsers import AioJSONParser
from hypothesis import given
from hypothesis import strategies as st

from consumer.aws.kinesis_page_reader import SAMPLE
from consumer.aws.kinesis_pages import convert_page, decode_page
from consumer.domain.errors import DependencyError
from consumer.domain.events import batch_event_json, event_json, records_from_event
from consumer.domain.kinesis_format import ordering_key
from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from tests.support import kpl_aggregates as kpl
from tests.support.kinesis_answers import FIRST, MICROS, PARTITION_KEY, body_of, change, data_of, wire
from tests.support.kinesis_pages import MODEL, SHARD, among_others, everything, texts, through_botocore


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
