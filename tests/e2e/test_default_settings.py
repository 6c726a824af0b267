"""Promises that count most where nobody has chosen anything: the real daemon with the options that have no default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, Worker, out_of_order, wait_until
from tests.e2e.hurt import has_event

KEYS = 60
DEFAULTS: dict[str, Any] = {"batch": None, "retry": None, "checkpoint": None, "shutdown": None}


def breaker(worker: Worker) -> float:
    return worker.metric("stream_consumer_breaker_state")


def test_an_outage_of_the_handler_fills_no_queue_and_ends_by_itself(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    """What the handler needs is down when the daemon starts on a table that is full of changes."""
    outage = tmp_path / "outage"
    outage.touch()
    url, queue = aws.queue()
    written = aws.write(fleet.table, KEYS, range(1, 4))
    worker = fleet.start(
        "w1",
        {"OUTAGE": str(outage)},
        **DEFAULTS,
        source={"poll": None},
        leases={"duration": "10s"},
        on_failure={"destination": queue},
    )
    wait_until(lambda: breaker(worker) == 2, 90, "the breaker opens")
    (shard,) = [one for one in worker.status()["shards"] if one["mine"]]
    assert (shard["breaker"], shard["last_error"]) == ("open", "ConnectionError")
    assert has_event(worker, "breaker.opened")
    assert fleet.handled() == set()

    outage.unlink()
    fleet.wait_for(written, 120)
    wait_until(lambda: breaker(worker) == 0, 60, "it is closed")
    assert has_event(worker, "breaker.closed")
    assert out_of_order(fleet.journal()) == 0
    assert worker.metric("stream_consumer_dead_letters_total") == 0
    assert "Messages" not in aws.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
