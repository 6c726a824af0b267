"""Batches of a Kinesis stream at handlers outside of the daemon: changes, other records, parts of an aggregate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from structlog.testing import capture_logs

from consumer.domain.outcome import HandlerCall
from tests.integration.handlers.http_servers import serving, started
from tests.integration.handlers.support import call, invoke, running, write_module
from tests.support import kpl_aggregates as kpl
from tests.support.kinesis_answers import FIRST, change, data_of
from tests.support.kinesis_records import records_of

CHECKS = """
from consumer import KinesisRecord, Record

def check(records):
    changed, plain, first, second = records
    assert isinstance(changed, Record), type(changed)
    assert (changed.table_name, changed.keys, changed.new_image["n"]) == ("orders", {"id": "a"}, 2)
    assert changed.approximate_creation_time.microsecond == 123456
    assert changed.as_event()["tableName"] == "orders"
    for record, data in ((plain, bytes(range(256))), (first, b"one"), (second, b"two")):
        assert isinstance(record, KinesisRecord) and not isinstance(record, Record), type(record)
        assert record.data == data
    assert (first.partition_key, second.partition_key) == ("a", "b")
    assert second.sequence_number == first.sequence_number.replace(":0", ":1")
    assert second.as_event()["kinesis"]["data"] == "dHdv"

def handler(records, context):
    check(records)
    return [records[2]]

async def asynchronous(records, context):
    check(records)
    return {records[2].sequence_number}
"""
THIRD = f"{FIRST + 2}:0"


def batch() -> HandlerCall:
    packed = kpl.aggregate([("a", None, b"one"), ("b", None, b"two")])
    return msgspec.structs.replace(call(), records=records_of(data_of(change()), bytes(range(256)), packed))


async def test_python_code_in_a_worker_process(tmp_path: Path) -> None:
    path = write_module(tmp_path, CHECKS)
    for target in ("app:handler", "app:asynchronous"):
        async with running(path, "python", target) as handler:
            outcome = await invoke(handler, batch())
        assert (outcome.kind, outcome.failed, outcome.exact) == ("partial", (THIRD,), True), outcome


async def test_a_lambda_function(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import json
        def handler(event, context):
            print(json.dumps(event))
            return {"batchItemFailures": [{"itemIdentifier": event["Records"][2]["kinesis"]["sequenceNumber"]}]}
        """,
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            outcome = await invoke(handler, batch())
    assert (outcome.kind, outcome.failed) == ("partial", (THIRD,)), outcome
    [line] = [entry["line"] for entry in logs if entry["event"] == "handler.output"]
    assert json.loads(line)["Records"] == [record.as_event() for record in batch().records]


async def test_an_endpoint() -> None:
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response({"batchItemFailures": [{"itemIdentifier": THIRD}]})

    async with serving(answer) as url, started(url) as handler:
        outcome = await invoke(handler, batch())
    assert (outcome.kind, outcome.failed) == ("partial", (THIRD,)), outcome
    assert seen == [{"Records": [record.as_event() for record in batch().records]}]
