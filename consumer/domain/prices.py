"""List prices of AWS, and what calls cost by them. Estimates: no discounts, no free tier of an account, one region."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, NamedTuple

MONTH: Final = 730 * 3600.0  # seconds, as AWS counts
MILLION: Final = 1e6

_READS: Final = frozenset({"GetItem", "Query"})
_WRITES: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
_MESSAGES: Final = frozenset({"GetQueueAttributes", "GetQueueUrl", "SendMessage"})
_TRANSACTION_WRITES: Final = 4  # units: two rows at least, each written twice
_TEXTS: Final = ("as_of", "region", "note")


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars in ``region``, as of a day (``as_of``, YYYY-MM-DD). A read of a table is one unit: 4 KiB, consistent; a
    write 1 KB."""

    as_of: str
    region: str
    note: str
    streams_read_requests_per_100k: float
    streams_free_reads_a_month: float
    table_writes_per_million: float
    table_reads_per_million: float
    kinesis_on_demand_out_per_gb: float
    sqs_requests_per_million: float
    sns_publishes_per_million: float
    s3_puts_per_million: float
    lambda_requests_per_million: float
    lambda_gb_second: float

    def with_own(self, given: Mapping[str, Any]) -> Prices:
        """The same with others in place of some. ValueError names what is no price.

        The texts speak of all of them, so those that are not ``given`` with the numbers are taken away."""
        known = {one.name for one in fields(self)}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"{name} is no price that is known: {', '.join(sorted(known))}")
            if name in _TEXTS:
                if not isinstance(value, str):
                    raise ValueError(f"{name} must be a text")
            elif not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of dollars, 0 or more")
        texts = {"as_of": "an unknown day", "region": "your file", "note": ""}
        return replace(self, **{**texts, **given})

    def of_call(self, operation: str, source: Literal["dynamodb", "kinesis"]) -> float | None:
        """Dollars of one call as the daemon sends it, each read or write of a table as one unit, which is the least;
        None for what is not paid by the call, or hardly ever sent."""
        if operation == "GetRecords":
            return self.streams_read_requests_per_100k / 1e5 if source == "dynamodb" else None
        if operation in _READS:
            return self.table_reads_per_million / MILLION
        if operation in _WRITES:
            return self.table_writes_per_million / MILLION
        if operation == "TransactWriteItems":
            return _TRANSACTION_WRITES * self.table_writes_per_million / MILLION
        if operation in _MESSAGES:
            return self.sqs_requests_per_million / MILLION
        if operation == "Publish":
            return self.sns_publishes_per_million / MILLION
        return self.s3_puts_per_million / MILLION if operation == "PutObject" else None


class CallCosts(NamedTuple):
    """Dollars a month, at the rate of calls of late; ``by_operation`` without what is not paid by the call."""

    dollars_a_month: float
    by_operation: Mapping[str, float]


def cost_of_calls(
    calls_per_hour: Mapping[str, float], source: Literal["dynamodb", "kinesis"], prices: Prices
) -> CallCosts:
    """What a month of these calls costs."""
    found: dict[str, float] = {}
    for operation, calls in calls_per_hour.items():
        price = prices.of_call(operation, source)
        if price is not None:
            found[operation] = calls * MONTH / 3600.0 * price
    return CallCosts(sum(found.values()), found)
