"""Filters on what came through Kinesis: one table of several, two spellings, and what is no change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from msgspec import Raw

from consumer.domain.filters.filters import compile_filters
from consumer.domain.kinesis_records import Data, KinesisChange, KinesisRecord
from consumer.domain.record import Change
from consumer.domain.stream_record import StreamRecord
from tests.unit.domain.support import record

NUMBER = "49590338271490256608559692538361571095921575989136588898"
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/changes"
TTL = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
PAID = {"dynamodb": {"NewImage": {"status": {"S": ["paid"]}}}}


def change(status: str = "paid", *, table: str = "orders", micros: bool = True, ttl: bool = False) -> KinesisChange:
    part = Change(
        NUMBER,
        ApproximateCreationDateTime=1720740233.012995 if micros else 1720740233.012,
        Keys=Raw(b'{"id":{"S":"a"}}'),
        NewImage=Raw(json.dumps({"status": {"S": status}, "total": {"N": "150"}}).encode()),
        SizeBytes=99,
        StreamViewType="NEW_AND_OLD_IMAGES",
    )
    found = KinesisChange(part, event_id="b015b5f0", event_name="INSERT", table_name=table, in_micros=micros)
    found.aws_region, found.event_source_arn = "eu-west-1", STREAM
    found.user_identity_wire = TTL if ttl else None
    return found


def plain(data: bytes) -> KinesisRecord:
    part = Data(NUMBER, data, "customer-7", 1607282941.778)
    return KinesisRecord(
        part, event_id=f"shardId-000000000000:{NUMBER}", aws_region="eu-west-1", event_source_arn=STREAM
    )


def matches(pattern: dict[str, Any], record: StreamRecord) -> bool:
    """What the hot path and the explanation say, which have to agree."""
    filters = compile_filters([pattern])
    matched = filters.matches(record)
    assert filters.explain(record).matched is matched
    return matched


@pytest.mark.parametrize("spelled", [PAID, {"data": PAID}], ids=["event", "below data"])
def test_a_change_has_two_spellings(spelled: dict[str, Any]) -> None:
    assert matches(spelled, change())
    assert not matches(spelled, change("late"))
    assert not matches(spelled, plain(b"paid"))


def test_the_explanation_says_which_spelling_matched() -> None:
    filters = compile_filters([{"data": PAID}, PAID])
    assert filters.explain(change()).reason == (
        "filters[0] matches, below data, where the change is as DynamoDB put it into the stream"
    )
    assert compile_filters([PAID, {"data": PAID}]).explain(change()).reason == "filters[0] matches"
    late = filters.explain(change("late")).reason
    assert "filters[0].data.dynamodb.NewImage.status.S: found 'late'" in late
    assert "filters[1].dynamodb.NewImage.status.S: found 'late'" in late


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"eventName": ["INSERT"], "tableName": ["orders"]}, True),
        ({"data": {"eventName": ["INSERT"], "tableName": ["orders"]}}, True),
        ({"data": {"tableName": ["others"]}}, False),
        ({"data.eventName": ["INSERT"]}, True),
        ({"data": {"eventSource": ["aws:dynamodb"], "recordFormat": ["application/json"]}}, True),
        # in the event a time is in seconds, below data it is the number that DynamoDB wrote
        ({"dynamodb": {"ApproximateCreationDateTime": [{"numeric": ["=", 1720740233.012995]}]}}, True),
        ({"data": {"dynamodb": {"ApproximateCreationDateTime": [{"numeric": ["=", 1720740233012995]}]}}}, True),
        ({"data": {"dynamodb": {"ApproximateCreationDateTimePrecision": ["MICROSECOND"]}}}, True),
        # what is filled in is not below data
        ({"dynamodb": {"StreamViewType": ["NEW_AND_OLD_IMAGES"], "SequenceNumber": [NUMBER]}}, True),
        ({"data": {"dynamodb": {"StreamViewType": [{"exists": False}]}}}, True),
        ({"data": {"eventVersion": [{"exists": True}]}}, False),
        ({"dynamodb": {"OldImage": {"status": [{"exists": False}]}}, "data": {"eventName": ["INSERT"]}}, True),
        ({"$or": [{"data": {"eventName": ["REMOVE"]}}, {"awsRegion": ["eu-west-1"]}]}, True),
        # nobody: null below data, and left out of the event
        ({"data": {"userIdentity": [None]}}, True),
        ({"userIdentity": [None]}, False),
        ({"userIdentity": {"type": [{"exists": False}]}}, True),
        ({"data": {"userIdentity": {"type": ["Service"]}}}, False),
    ],
)
def test_fields_of_a_change(pattern: dict[str, Any], expected: bool) -> None:
    assert matches(pattern, change()) is expected


def test_times_in_milliseconds_and_deletions_by_ttl() -> None:
    written = {"data": {"dynamodb": {"ApproximateCreationDateTime": [{"numeric": ["=", 1720740233012]}]}}}
    assert matches(written, change(micros=False))
    assert matches(
        {"data": {"dynamodb": {"ApproximateCreationDateTimePrecision": [{"exists": False}]}}}, change(micros=False)
    )
    by_ttl = {"userIdentity": {"principalId": ["dynamodb.amazonaws.com"]}}
    for spelled in (by_ttl, {"data": by_ttl}):
        assert matches(spelled, change(ttl=True))
        assert not matches(spelled, change())
    assert not matches({"data": {"userIdentity": [None]}}, change(ttl=True))


def test_numbers_are_compared_in_both_spellings_when_asked() -> None:
    above = {"dynamodb": {"NewImage": {"total": {"N": [{"numeric": [">", 100]}]}}}}
    for spelled in (above, {"data": above}):
        assert not compile_filters([spelled]).matches(change())
        assert "filter_options.numeric_on_n" in compile_filters([spelled]).explain(change()).reason
        assert compile_filters([spelled], numeric_on_numbers=True).matches(change())


ORDER = json.dumps({"status": "paid", "total": 150, "lines": [{"sku": "x"}], "note": None}).encode()


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        ({"data": {"status": ["paid"], "total": [{"numeric": [">", 100]}]}}, ORDER, True),
        ({"data": {"status": ["late"]}}, ORDER, False),
        ({"data": {"lines": {"sku": ["x"]}, "note": [None]}}, ORDER, True),
        ({"data": {"other": [{"exists": False}]}}, ORDER, True),
        ({"data": [None]}, b"null", True),
        ({"data": {"status": ["paid"]}}, b"paid", False),  # Lambda drops what is no JSON
        ({"data": {"status": ["paid"]}}, b"\xff\x00", False),
        ({"data": {"status": ["paid"]}}, b"[" * 100_000, False),
        ({"data": ["paid"]}, b"paid", True),
        ({"kinesis": {"partitionKey": [{"prefix": "customer-"}]}}, b"", True),
        ({"kinesis": {"sequenceNumber": [NUMBER]}, "eventSource": ["aws:kinesis"]}, b"", True),
        ({"kinesis": {"data": [base64.b64encode(b"paid").decode()]}}, b"paid", True),
        ({"kinesis": {"approximateArrivalTimestamp": [{"numeric": [">=", 1607282941.778]}]}}, b"", True),
        ({"dynamodb": {"Keys": {"id": {"S": ["a"]}}}}, ORDER, False),
    ],
)
def test_records_that_are_no_change_are_seen_as_in_lambda(pattern: dict[str, Any], data: bytes, expected: bool) -> None:
    assert matches(pattern, plain(data)) is expected


def test_the_explanation_of_a_record_that_is_no_change() -> None:
    reason = compile_filters([{"data": {"status": ["paid"]}}]).explain(plain(b"paid")).reason
    assert reason == "filters[0].data.status: the event has no such field, or its data is no JSON with it"


def test_one_table_of_several() -> None:
    filters = compile_filters([], table="orders")
    assert filters, "the subscription asks only filters that are true"
    assert len(filters) == 0
    assert filters.matches(change())
    assert not filters.matches(change(table="customers"))
    assert not filters.matches(plain(ORDER))
    assert not filters.matches(record(1)), "a record that does not tell its table"
    assert filters.explain(change()).reason == "there are no filters"
    assert filters.explain(change(table="customers")).reason == (
        "source.table: it is a change of table customers, and only those of orders are read"
    )
    assert filters.explain(plain(ORDER)).reason == (
        "source.table: it is no change of a table, and only those of orders are read"
    )


def test_one_table_and_patterns() -> None:
    filters = compile_filters([{"eventName": ["REMOVE"]}, {"data": PAID}], table="orders")
    assert len(filters) == 2
    assert filters.matches(change())
    assert not filters.matches(change("late"))
    assert not filters.matches(change(table="customers"))


def test_without_a_table_everything_is_read() -> None:
    filters = compile_filters([])
    assert not filters
    assert all(map(filters.matches, (change(), change(table="customers"), plain(ORDER))))


def test_an_image_that_does_not_decode_passes_but_not_that_of_another_table() -> None:
    """Somebody has to see it: the handler, which makes it a dead letter."""
    broken = change()
    broken.dynamodb.NewImage = Raw(b'{"status":{"S":')
    for spelled in (PAID, {"data": PAID}):
        assert compile_filters([spelled], table="orders").matches(broken)
        assert not compile_filters([spelled], table="customers").matches(broken)
