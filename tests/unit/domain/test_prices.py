"""What calls cost: each by its price, and nothing made up for what is not paid by the call."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from consumer.domain.prices import Prices, cost_of_calls

PRICES = Prices(
    as_of="2026-11-29",
    region="us-east-1",
    note="as remembered",
    streams_read_requests_per_100k=0.02,
    streams_free_reads_a_month=2_500_000,
    table_writes_per_million=0.625,
    table_reads_per_million=0.125,
    kinesis_on_demand_out_per_gb=0.04,
    sqs_requests_per_million=0.40,
    sns_publishes_per_million=0.50,
    s3_puts_per_million=5.0,
    lambda_requests_per_million=0.20,
    lambda_gb_second=0.0000166667,
)


@pytest.mark.parametrize(
    ("operation", "dollars"),
    [
        ("GetRecords", 0.146),
        ("Query", 0.09125),
        ("GetItem", 0.09125),
        ("UpdateItem", 0.45625),
        ("PutItem", 0.45625),
        ("DeleteItem", 0.45625),
        ("TransactWriteItems", 1.825),
        ("SendMessage", 0.292),
        ("GetQueueAttributes", 0.292),
        ("Publish", 0.365),
        ("PutObject", 3.65),
    ],
)
def test_a_thousand_calls_an_hour_for_a_month(operation: str, dollars: float) -> None:
    found = cost_of_calls({operation: 1000.0}, "dynamodb", PRICES)
    assert found.by_operation == {operation: pytest.approx(dollars)}
    assert found.dollars_a_month == pytest.approx(dollars)


@pytest.mark.parametrize(
    ("operation", "source"), [("GetRecords", "kinesis"), ("ListShards", "dynamodb"), ("GetShardIterator", "dynamodb")]
)
def test_what_is_not_paid_by_the_call_is_left_out(operation: str, source: Literal["dynamodb", "kinesis"]) -> None:
    found = cost_of_calls({operation: 1000.0, "Query": 1000.0}, source, PRICES)
    assert (set(found.by_operation), found.dollars_a_month) == ({"Query"}, pytest.approx(0.09125))


def test_own_prices_take_the_place_of_some_and_of_what_is_said_of_all() -> None:
    own = PRICES.with_own({"table_reads_per_million": 1, "as_of": "2027-01-01"})
    assert (own.table_reads_per_million, own.table_writes_per_million) == (1, 0.625)
    assert (own.as_of, own.region, own.note) == ("2027-01-01", "your file", "")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"table_reads": 1.0}, "table_reads is no price that is known: as_of"),
        ({"table_reads_per_million": "1"}, "table_reads_per_million must be a number of dollars"),
        ({"table_reads_per_million": -1}, "table_reads_per_million must be a number of dollars"),
        ({"table_reads_per_million": True}, "table_reads_per_million must be a number of dollars"),
        ({"table_reads_per_million": float("inf")}, "table_reads_per_million must be a number of dollars"),
        ({"as_of": 2027}, "as_of must be a text"),
    ],
)
def test_what_is_no_price_is_named(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PRICES.with_own(given)
