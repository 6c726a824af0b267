"""Requests of a fleet times list prices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from consumer.domain.fleet_cost import (
    Fleet,
    Pace,
    lambda_invocations,
    message_requests,
    read_within,
    reads_of_shard,
    requests,
)
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.prices import MILLION, MONTH, Prices
from consumer.domain.source_format import ReadingLimits
from consumer.settings.model import Batch, Checkpoint, Leases, Poll, Settings
from consumer.worker.fleet.session_renewal import RENEWALS_PER_DURATION

_GB: Final = 1e9
_TARGETS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds of source.poll.target_latency to choose from


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the estimate rests on. ``settings`` None: the defaults. ``lambda_seconds`` is the time of an invocation,
    ``lambda_gb`` the memory of the function."""

    fleet: Fleet
    prices: Prices
    settings: Settings | None = None
    kind: str | None = None
    region_factor: float = 1.0
    lambda_seconds: float = 0.1
    lambda_gb: float = 0.5

    @property
    def source(self) -> str:
        return self.kind or (self.settings.source.kind if self.settings else "dynamodb")

    @property
    def batch(self) -> Batch:
        return self.settings.batch if self.settings else Batch()

    @property
    def pace(self) -> Pace:
        poll = self.settings.source.poll if self.settings else Poll()
        checkpoint = self.settings.checkpoint if self.settings else Checkpoint()
        leases = self.settings.leases if self.settings else Leases()
        reading = KINESIS_FORMAT.reading if self.source == "kinesis" else ReadingLimits()
        return Pace(
            reading,
            poll.target_latency,
            poll.idle_backoff_max,
            poll.max_records,
            checkpoint.interval,
            leases.duration,
            RENEWALS_PER_DURATION,
        )


class Line(NamedTuple):
    """One kind of request, a month."""

    what: str
    requests: float
    dollars: float
    note: str = ""


class Trade(NamedTuple):
    """What one ``source.poll.target_latency`` (seconds) brings. ``read_within``: 95 of 100 records, in seconds."""

    target_latency: float
    read_within: float
    reading: Line


class Estimate(NamedTuple):
    """``lines`` are ours, ``rival`` those of a Lambda event source mapping. ``trades``: for other targets, with the
    one that is configured among them."""

    assumed: Assumed
    lines: list[Line]
    rival: list[Line]
    trades: list[Trade]

    def document(self) -> dict[str, Any]:
        fleet, prices = self.assumed.fleet, self.assumed.prices

        def group(lines: list[Line]) -> dict[str, Any]:
            each = [
                {"what": one.what, "requests": round(one.requests), "dollars": round(one.dollars, 4), "note": one.note}
                for one in lines
            ]
            return {"dollars_a_month": round(sum(one.dollars for one in lines), 2), "lines": each}

        return {
            "shards": fleet.shards,
            "workers": fleet.workers,
            "records_per_second": fleet.rate,
            "source": self.assumed.source,
            "stream_consumer": group(self.lines),
            "lambda": group(self.rival),
            "target_latency": [
                {
                    "seconds": one.target_latency,
                    "read_within_seconds": round(one.read_within, 3),
                    "get_records": round(one.reading.requests),
                    "dollars": round(one.reading.dollars, 4),
                }
                for one in self.trades
            ],
            "prices": {"as_of": prices.as_of, "region": prices.region, "note": prices.note},
        }


def estimated(assumed: Assumed) -> Estimate:
    """A month of the fleet, and of a Lambda trigger in its place."""
    prices, fleet, factor = assumed.prices, assumed.fleet, assumed.region_factor
    found = requests(fleet, assumed.pace)
    writes, reads = prices.table_writes_per_million / MILLION, prices.table_reads_per_million / MILLION

    def line(what: str, a_second: float, price: float, note: str = "") -> Line:
        count = a_second * MONTH
        return Line(what, count, count * price * factor, note)

    lines = [
        _reading(assumed, found.get_records * MONTH),
        line("checkpoints", found.checkpoints, writes, "writes of the lease table"),
        line("session renewals", found.renewals, writes, "writes of the lease table"),
        line("looks at the fleet", found.looks, reads, "reads of bulletin and sessions"),
        line("lease rows", found.lease_rows, reads, "read units, all rows twice per leases.duration"),
    ]
    if fleet.letters_a_month:
        sent = fleet.letters_a_month * message_requests(fleet.record_bytes)
        dollars = sent * prices.sqs_requests_per_million / MILLION * factor
        lines.append(Line("dead letters", sent, dollars, "requests of SQS, of 64 KB each"))
    calls = lambda_invocations(fleet, assumed.batch.batch_size, assumed.batch.batching_window)
    seconds = calls * assumed.lambda_seconds
    rival = [
        line("invocations", calls, prices.lambda_requests_per_million / MILLION, "its reads are not billed"),
        Line(
            "GB-seconds",
            seconds * assumed.lambda_gb * MONTH,
            seconds * assumed.lambda_gb * MONTH * prices.lambda_gb_second * factor,
            f"{assumed.lambda_seconds * 1000:g} ms of {assumed.lambda_gb * 1024:g} MB each",
        ),
    ]
    return Estimate(assumed, lines, rival, _trades(assumed))


def _trades(assumed: Assumed) -> list[Trade]:
    fleet, pace = assumed.fleet, assumed.pace
    found = []
    for target in sorted({*_TARGETS, pace.target_latency}):
        other = replace(pace, target_latency=target, idle_backoff_max=max(target, pace.idle_backoff_max))
        calls = fleet.shards * reads_of_shard(fleet.rate_of_shard, fleet.record_bytes, other)
        found.append(Trade(target, read_within(fleet.rate_of_shard, other), _reading(assumed, calls * MONTH)))
    return found


def _reading(assumed: Assumed, calls: float) -> Line:
    prices = assumed.prices
    if assumed.source == "kinesis":
        gigabytes = assumed.fleet.rate * assumed.fleet.record_bytes * MONTH / _GB
        dollars = gigabytes * prices.kinesis_on_demand_out_per_gb * assumed.region_factor
        return Line("GetRecords", calls, dollars, "on demand, by the GB; nothing of a provisioned stream")
    billed = max(0.0, calls - prices.streams_free_reads_a_month)
    dollars = billed / 1e5 * prices.streams_read_requests_per_100k * assumed.region_factor
    return Line("GetRecords", calls, dollars, f"less {prices.streams_free_reads_a_month / MILLION:g} million free")
