"""A handler that raises anything, hangs, blocks or returns garbage never takes the daemon down or loses a lease."""

import json
import signal

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import LEASE_SECONDS, Fleet, out_of_order, wait_until

BAD = {"exit", "interrupt", "recursion", "garbage", "hang"}
HANDLERS = {
    "lambda": {"target": "journal_handler:torture_lambda"},
    "python-process": {"kind": "python", "target": "journal_handler:torture_python"},
    "python-inline": {"kind": "python", "target": "journal_handler:torture_python", "isolation": "inline"},
}


@pytest.mark.parametrize(
    "handler", [name if name == "lambda" else pytest.param(name, marks=pytest.mark.soak) for name in HANDLERS]
)
def test_misbehaving_handlers(handler: str, aws: Aws, fleet: Fleet) -> None:
    """Each bad key ends as one dead letter that says why; every other key is handled; the lease stays."""
    url, fleet.queue_arn = aws.queue()
    for key in (*BAD, "block"):
        item = {"pk": {"S": key}, "version": {"N": "1"}}
        aws.dynamodb.put_item(TableName=fleet.table, Item=item)
    expected = aws.write(fleet.table, 20, range(1, 6)) | {("block", 1)}
    worker = fleet.start(
        "w1",
        {"LEASE_SECONDS": str(LEASE_SECONDS)},
        handler={**HANDLERS[handler], "timeout": f"{3 * LEASE_SECONDS:g}s"},
        batch={"batch_size": 1, "parallelization_factor": 8, "report_batch_item_failures": True},
        retry={"max_retry_attempts": 0},
    )
    fleet.wait_for(expected, 90)
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") == len(BAD), 60, "the dead letters")
    letters = [json.loads(body) for body in aws.messages(url)]
    assert {letter["payload"]["Records"][0]["dynamodb"]["Keys"]["pk"]["S"] for letter in letters} == BAD
    assert all(letter["error"]["errorType"] for letter in letters)
    assert {line[4] for line in fleet.journal()} == {1}, "the lease was never lost"
    assert out_of_order(fleet.journal()) == 0
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
