"""Powertools for AWS Lambda, the real package, unmodified, in worker processes: AsyncBatchProcessor and Idempotency.

BatchProcessor and Logger are in ``test_lambda_pool.py``, the parser in ``tests/unit/domain/test_lambda_documents.py``.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consumer.aws.session import AwsSession
from consumer.domain.outcome import HandlerCall
from demo.local_aws import LocalAws
from tests.conftest import unique
from tests.integration.handlers.support import alive, call, invoke, number, running, workers, write_module

ASYNC_BATCH = """
import asyncio, json, os
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor, EventType, async_process_partial_response
)

processor = AsyncBatchProcessor(event_type=EventType.DynamoDBStreams)
running = 0

async def record_handler(record):
    global running
    running += 1
    while running < int(os.environ["TOGETHER"]):  # hangs, and times out, unless the records really run together
        await asyncio.sleep(0)
    if record.dynamodb.keys["pk"] in os.environ["BAD"].split(","):
        raise ValueError("bad record")

def handler(event, context):
    global running
    running = 0
    return async_process_partial_response(
        event=event, record_handler=record_handler, processor=processor, context=context
    )
"""


async def test_async_batch_processor_reports_what_failed_call_after_call(tmp_path: Path) -> None:
    """Records of a batch run together, failures come back by number, and nothing of one call is left in the next."""
    path = write_module(tmp_path, ASYNC_BATCH)
    async with running(path, environment={"BAD": "k1,k3", "TOGETHER": "5"}) as handler:
        pids = workers()
        for attempt in range(3):
            outcome = await invoke(handler, call(5, attempt=attempt))
            assert (outcome.kind, outcome.failed) == ("partial", (number(1), number(3))), (attempt, outcome)
        assert workers() == pids


async def test_async_batch_processor_all_good_and_all_bad(tmp_path: Path) -> None:
    """It raises when every record failed, which is an error of the function."""
    path = write_module(tmp_path, ASYNC_BATCH)
    async with running(path, environment={"BAD": "", "TOGETHER": "2"}) as handler:
        assert (await invoke(handler, call(2))).kind == "ok"
    async with running(path, environment={"BAD": "k0,k1", "TOGETHER": "2"}) as handler:
        outcome = await invoke(handler, call(2))
        assert outcome.kind == "failed"
        assert outcome.fault is not None
        assert (outcome.fault.kind, outcome.fault.type) == ("raised", "BatchProcessingError")


IDEMPOTENT = """
import json, os, time
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
)

config = IdempotencyConfig(event_key_jmespath="dynamodb.SequenceNumber")
store = DynamoDBPersistenceLayer(table_name=os.environ["TABLE"])
processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
attempt = 0

def journal(what, key):
    with open(os.environ["JOURNAL"], "a") as file:
        file.write(json.dumps([what, key, attempt, os.getpid()]) + "\\n")

@idempotent_function(data_keyword_argument="record", config=config, persistence_store=store)
def record_handler(record):
    key = record.dynamodb.keys["pk"]
    journal("start", key)
    if attempt == 1 and key == os.environ.get("FAILS"):
        raise ValueError("the first time only")
    if attempt == 1 and key == os.environ.get("HANGS"):
        time.sleep(600)
    journal("end", key)
    return {"handled": key}

def handler(event, context):
    global attempt
    attempt = context.attempt
    config.register_lambda_context(context)
    return process_partial_response(event, record_handler, processor, context)
"""


class Idempotency:
    """A handler with a persistence table on the local AWS, and what it executed."""

    def __init__(self, folder: Path, session: AwsSession, table: str, endpoint: str) -> None:
        self.path = write_module(folder, IDEMPOTENT)
        self.table = table
        self._session = session
        self._journal = folder / "journal"
        self.environment = {
            "AWS_LAMBDA_FUNCTION_NAME": "orders-projector",
            "AWS_ENDPOINT_URL": endpoint,
            "TABLE": table,
            "JOURNAL": str(self._journal),
        }

    def executed(self) -> list[tuple[str, str, int, int]]:
        return [tuple(json.loads(line)) for line in self._journal.read_text().splitlines()]

    async def items(self) -> dict[str, dict[str, Any]]:
        client = await self._session.client("dynamodb")
        return {item["id"]["S"]: item for item in (await client.scan(TableName=self.table))["Items"]}


@pytest.fixture
async def idempotency(tmp_path: Path, local_aws: LocalAws, local_clients: AwsSession) -> AsyncIterator[Idempotency]:
    client = await local_clients.client("dynamodb")
    table = unique("idempotency")
    await client.create_table(
        TableName=table,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield Idempotency(tmp_path, local_clients, table, local_aws.endpoint)
    await client.delete_table(TableName=table)


def rest(of: HandlerCall, start: int, attempt: int) -> HandlerCall:
    """The next call of the same batch, from its failed record on."""
    options = {name: getattr(of, name) for name in ("request_id", "application", "shard_id", "lease_epoch", "timeout")}
    return HandlerCall(records=of.records[start:], attempt=attempt, **options)


async def test_a_record_that_was_handled_is_not_executed_again_on_a_retry(idempotency: Idempotency) -> None:
    """Record 1 fails once; Lambda's rules send 1 and 2 again, and Powertools knows that 2 is done."""
    batch = call(3)
    async with running(idempotency.path, environment=idempotency.environment | {"FAILS": "k1"}) as handler:
        first = await invoke(handler, batch)
        assert (first.kind, first.failed) == ("partial", (number(1),)), first
        assert (await invoke(handler, rest(batch, 1, attempt=2))).kind == "ok"
        assert (await invoke(handler, rest(batch, 0, attempt=3))).kind == "ok"
    ends = [(key, attempt) for what, key, attempt, _ in idempotency.executed() if what == "end"]
    assert ends == [("k0", 1), ("k2", 1), ("k1", 2)]


async def test_keys_carry_the_functions_name_and_expire_with_the_call(idempotency: Idempotency) -> None:
    """The key's prefix is function, module and function in it, as on Lambda, so a table can be taken along;
    ``in_progress_expiration`` is when the call would be killed, from the context's remaining time."""
    timeout = 40.0
    async with running(idempotency.path, environment=idempotency.environment) as handler:
        before = time.time()
        assert (await invoke(handler, call(2, timeout=timeout))).kind == "ok"
        after = time.time()
    items = await idempotency.items()
    assert {key.partition("#")[0] for key in items} == {"orders-projector.app.record_handler"}
    for item in items.values():
        assert item["status"]["S"] == "COMPLETED"
        expires = int(item["in_progress_expiration"]["N"]) / 1000
        assert before + timeout - 0.1 <= expires <= after + timeout + 0.1, "the deadline of the call"


async def test_another_function_name_is_another_namespace(idempotency: Idempotency) -> None:
    for name in ("orders-projector", "orders-v2"):
        environment = idempotency.environment | {"AWS_LAMBDA_FUNCTION_NAME": name}
        async with running(idempotency.path, environment=environment) as handler:
            assert (await invoke(handler, call(1))).kind == "ok"
    assert [what for what, *_ in idempotency.executed()] == ["start", "end"] * 2


async def test_a_call_that_hangs_is_killed_and_its_record_is_free_for_the_retry(idempotency: Idempotency) -> None:
    """The kill leaves the record INPROGRESS. Because its expiration is the call's own deadline, the retry, in a new
    process, executes it at once instead of being refused for an hour."""
    environment = idempotency.environment | {"HANGS": "k0"}
    batch = call(1, timeout=3.0)
    async with running(idempotency.path, environment=environment) as handler:
        outcome = await invoke(handler, batch)
        assert outcome.kind == "failed", outcome
        assert outcome.fault is not None
        assert outcome.fault.kind == "timeout"
        ((what, _, _, killed),) = idempotency.executed()
        assert what == "start"
        assert not alive(killed)
        (item,) = (await idempotency.items()).values()
        assert item["status"]["S"] == "INPROGRESS"
        assert int(item["in_progress_expiration"]["N"]) <= time.time() * 1000
        assert (await invoke(handler, rest(batch, 0, attempt=2))).kind == "ok"
    lines = idempotency.executed()
    assert [(what, attempt) for what, _, attempt, _ in lines] == [("start", 1), ("start", 2), ("end", 2)]
    assert lines[1][3] != killed
    (item,) = (await idempotency.items()).values()
    assert item["status"]["S"] == "COMPLETED"
