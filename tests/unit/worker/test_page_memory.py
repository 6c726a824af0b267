"""What a page of aggregates costs: its sub-records are many times larger in memory and in an event than on the wire."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.aws.kinesis_pages import KinesisShard, decode_page
from consumer.domain.batching import KeyBounds
from consumer.domain.events import batch_event_json
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.operate.metrics import Metrics
from consumer.ports.source import Page, Position
from consumer.settings.model import Settings
from consumer.worker.memory_budget import BYTES_PER_WIRE_BYTE, BudgetAccount, ByteBudget
from consumer.worker.shard.page_requests import PageRequests
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.subscription import Subscription
from tests.support import kpl_aggregates as kpl
from tests.support.kinesis_answers import ARN, FIRST, SHARD_ID, body_of, wire

MANY = 2000
WIRE = body_of(*[wire(kpl.plain([b""] * MANY), FIRST + place) for place in range(4)], following=None)
LARGE = decode_page(WIRE, KinesisShard(ARN, SHARD_ID)).page
PLAIN = Page(LARGE.records[:10], None, 100_000)


class OnePage:
    """A shard that ends with this page; notes how many records were asked for."""

    retention = 86_400.0

    def __init__(self, page: Page) -> None:
        self.page = page
        self.limits: list[int] = []

    async def iterator(self, _shard_id: str, _position: Position) -> str:
        return "iterator"

    async def get_records(self, _shard_id: str, _iterator: str, limit: int) -> Page:
        self.limits.append(limit)
        return self.page


def context_on(source: OnePage) -> Any:
    config = {
        "application": "a",
        "source": {"kind": "kinesis", "stream_arn": ARN, "poll": {"max_records": 10_000}},
        "handler": {"kind": "lambda", "target": "m:h"},
    }
    settings = Settings.model_validate(config)
    clock = SimpleNamespace(wall=time.time, monotonic=time.monotonic)
    return SimpleNamespace(
        ports=SimpleNamespace(source=source, clock=clock, random=random.Random(1)),
        metrics=Metrics(),
        settings=settings,
        stream=SimpleNamespace(format=KINESIS_FORMAT),
        start_at=None,
        filters=(),
        versions=None,
        bounds=KeyBounds(),
    )


@pytest.mark.parametrize(
    ("page", "size"), [(LARGE, LARGE.held_bytes), (PLAIN, int(100_000 * BYTES_PER_WIRE_BYTE))], ids=["large", "plain"]
)
async def test_memory_is_counted_as_the_page_says(page: Page, size: int) -> None:
    """By the wire alone a page of tiny sub-records would fill the memory of the process, and nobody would wait."""
    budget = ByteBudget(1 << 30)
    requests = PageRequests(context_on(OnePage(page)), SHARD_ID, BudgetAccount(budget))
    delivered: list[int] = []
    await requests.read("i", lambda _, held: bool(delivered.append(held)) or True)
    assert delivered == [budget.used] == [size]
    assert LARGE.held_bytes > 10 * LARGE.wire_bytes * BYTES_PER_WIRE_BYTE


async def test_how_many_to_ask_for_goes_by_what_the_service_counts() -> None:
    """Records of 1 MB that hold thousands: by their number inside, ten thousand of them would be asked for at once."""
    heavy = Page(LARGE.records, "next", 4_000_000, held_bytes=LARGE.held_bytes, count=4)
    source = OnePage(heavy)
    requests = PageRequests(context_on(source), SHARD_ID, BudgetAccount(ByteBudget(1 << 30)))
    for _ in range(2):
        await requests.read("i", lambda _page, _held: False)
    assert source.limits == [10_000, KINESIS_FORMAT.reading.wanted_bytes // 1_000_000]


async def test_the_event_of_a_page_is_bounded_as_it_says() -> None:
    """Batches are only measured when their pages could be too large together."""
    context = context_on(OnePage(LARGE))
    account = BudgetAccount(ByteBudget(1 << 30))
    subscription = Subscription(context, FrontierSnapshot(), account)
    entries: list[Any] = []
    reader = ShardReader(context, SHARD_ID, FrontierSnapshot(), subscription, account, SimpleNamespace())  # type: ignore[arg-type]  # it is not asked for children
    await reader.read_to_end(SimpleNamespace(add=entries.extend))  # type: ignore[arg-type]  # what it is given is looked at
    assert len(entries) == 4 * MANY
    assert entries[0].hold.event_bytes == LARGE.event_bytes >= len(batch_event_json(LARGE.records))
    assert entries[0].hold.charged == LARGE.held_bytes
