"""docs/kinesis.md: its handler makes the last state of every item right, and its numbers are those of the code."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from consumer.aws.kinesis_changes import change_in
from consumer.domain.attribute_values import item_from_json
from consumer.domain.events import batch_event_json, records_from_event
from consumer.domain.item_versions import BYTES_PER_ITEM
from consumer.domain.kinesis_format import READING
from consumer.domain.stream_record import StreamRecord
from consumer.settings.load import settings_from
from consumer.settings.model import Poll
from consumer.worker.fleet.incarnation import VERSIONS_SHARE
from consumer.worker.shard.look_back import PERIOD
from demo.local_aws import LocalAws
from tests.support.kinesis_changes import TableChange, generate

PAGE = (Path(__file__).parents[2] / "docs" / "kinesis.md").read_text()
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders-changes"
Handle = Callable[[Sequence[StreamRecord], object], None]


@pytest.fixture
def view(local_aws: LocalAws, aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", local_aws.endpoint)
    dynamodb = boto3.resource("dynamodb")
    table = dynamodb.create_table(
        TableName="orders-view",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield table
    table.delete()


def handler_of_the_page() -> Handle:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/kinesis.md", "exec"), names)
    handle: Handle = names["handle"]
    return handle


def shown(changes: Sequence[TableChange]) -> Sequence[StreamRecord]:
    """As a worker process gets them."""
    found = [change_in(change.data(), str(number), STREAM) for number, change in enumerate(changes, 10**55)]
    return records_from_event(batch_event_json([record for record in found if record is not None]))


def test_the_last_state_is_right_in_any_order_and_however_often(view: Any) -> None:
    log = generate(seed=3, changes=400, items=25, doubled=0.2, swapped=0.2)
    puts = list(log.puts)
    random.Random(3).shuffle(puts)
    handle = handler_of_the_page()
    for start in range(0, len(puts), 40):
        handle(shown(puts[start : start + 40]), None)
    rows = {row["id"]: row for row in view.scan()["Items"]}
    states = {
        name: {key: value for key, value in row.items() if key != "version"}
        for name, row in rows.items()
        if "gone_until" not in row
    }
    wanted = {name: _values(item) for name, item in log.final().items()}
    assert states == wanted
    assert len(rows) > len(states), "what was deleted is remembered"
    newest = {change.keys["id"]["S"]: change.created_us for change in log.changes}
    assert {name: int(row["version"]) for name, row in rows.items()} == newest


def test_binaries_and_numbers_arrive_as_they_are(view: Any) -> None:
    item = {"id": {"S": "a"}, "raw": {"B": "AP8="}, "total": {"N": "1.50"}, "tags": {"SS": ["x", "y"]}}
    handler_of_the_page()(shown([TableChange({"id": {"S": "a"}}, item, None, 1_720_740_233_012_995, "e")]), None)
    [row] = view.scan()["Items"]
    assert (row["raw"].value, row["total"], row["tags"]) == (b"\x00\xff", Decimal("1.50"), {"x", "y"})
    assert row["version"] == 1_720_740_233_012_995


def _values(item: Any) -> dict[str, Any]:

    return item_from_json(memoryview(json.dumps(item).encode()))


def test_the_source_on_the_page_is_one() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    settings = settings_from({"application": "a", "handler": {"target": "a:b"}, **yaml.safe_load(text)})
    assert settings.compiled_filters().table == "orders"


def test_the_numbers_of_the_page() -> None:
    items = int(64 * 1024**2 * VERSIONS_SHARE) // BYTES_PER_ITEM
    assert f"{round(items, -3):,} items with the default of 64 MiB ({BYTES_PER_ITEM} bytes an" in PAGE
    assert f"in the {PERIOD:g} seconds before its checkpoint" in PAGE
    assert f"| behind, or the page was full | {READING.interval:g} s, and until" in PAGE
    assert f"| near the tip, while records may come | between {READING.near_tip:g} s, as Lambda does, and" in PAGE
    assert f"less when the target is less, down to {READING.interval:g} s" in PAGE
    poll = Poll()
    assert f"`source.poll.target_latency` ({poll.target_latency:g} s)" in PAGE
    assert f"growing to `source.poll.idle_backoff_max` ({poll.idle_backoff_max:g} s)" in PAGE
