"""One daemon process as its user sees it: handling, poison, stopping, restarting."""

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import STDOUT_CLOSED, STDOUT_FULL, Fleet, duplicates, out_of_order, wait_until

HANDLERS = {
    "lambda": {},
    "python-process": {"kind": "python", "target": "journal_handler:python_handler"},
    "python-inline": {"kind": "python", "target": "journal_handler:python_handler", "isolation": "inline"},
}


@pytest.mark.parametrize("handler", HANDLERS)
def test_every_record_once_and_in_order(handler: str, aws: Aws, fleet: Fleet) -> None:
    """All records reach the handler once, in order per key, whatever the kind of handler; SIGTERM exits 0."""
    expected = aws.write(fleet.table, 20, range(1, 16))
    worker = fleet.start("w1", handler=HANDLERS[handler])
    fleet.wait_for(expected)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


def test_recycled_processes_lose_and_repeat_nothing(aws: Aws, fleet: Fleet) -> None:
    """Every process is replaced after five calls, in the middle of the load."""
    expected = aws.write(fleet.table, 20, range(1, 16))
    worker = fleet.start("w1", {"HANDLER_SECONDS": "0.05"}, handler={"max_calls": 5}, batch={"batch_size": 5})
    fleet.wait_for(expected)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    events = [event for event in worker.events() if event["event"].startswith(("handler.worker", "batch.failed"))]
    assert len(events) >= 3
    assert {event["event"] for event in events} == {"handler.worker_recycled"}
    assert min(event["calls"] for event in events) == 5
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


def test_a_restart_after_sigterm_repeats_nothing(aws: Aws, fleet: Fleet) -> None:
    """Stop in the middle of a backlog, start again: nothing lost, nothing twice, nothing out of order."""
    expected = aws.write(fleet.table, 40, range(1, 21))
    slow = {"HANDLER_SECONDS": "0.05"}
    worker = fleet.start("w1", slow, batch={"batch_size": 5})
    wait_until(lambda: len(fleet.handled()) > 100, 30, "the first hundred records")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert len(fleet.handled()) < len(expected)
    fleet.start("w2", slow, batch={"batch_size": 50})
    fleet.wait_for(expected)
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


@pytest.mark.soak
def test_a_crash_repeats_little(aws: Aws, fleet: Fleet) -> None:
    """After SIGKILL only what was in flight or settled since the last frontier write comes again."""
    expected = aws.write(fleet.table, 40, range(1, 21))
    slow = {"HANDLER_SECONDS": "0.05"}
    worker = fleet.start("w1", slow, batch={"batch_size": 5})
    wait_until(lambda: len(fleet.handled()) > 200, 30, "the first two hundred records")
    worker.send(signal.SIGKILL)
    worker.wait()
    fleet.start("w2", slow, batch={"batch_size": 50})
    fleet.wait_for(expected)
    # 4 batches of 5 in flight, plus at most 0.5 s (and a write's time) of 4 lanes of 5 records in 0.05 s
    assert duplicates(fleet.journal()) <= 20 + 2 * 4 * 5 * 10
    assert out_of_order(fleet.journal()) == 0


def test_what_was_settled_behind_a_blocked_key_is_not_repeated_after_a_crash(aws: Aws, fleet: Fleet) -> None:
    """The frontier is exact: one key that never succeeds holds the checkpoint back, yet nothing else is done twice."""
    aws.poison(fleet.table, "bad", 1)
    expected = aws.write(fleet.table, 20, range(1, 11))
    for_ever = {"max_retry_attempts": -1, "backoff": {"initial": "1s", "max": "1s"}}
    worker = fleet.start("w1", batch={"batch_size": 1}, retry=for_ever)
    fleet.wait_for(expected)
    wait_until(lambda: [shard["checkpoint_age"] for shard in worker.owned()] == [0], 10, "the frontier is written")
    worker.send(signal.SIGKILL)
    worker.wait()
    again = fleet.start("w2", batch={"batch_size": 1}, retry=for_ever)
    more = aws.write(fleet.table, 20, range(11, 12))
    fleet.wait_for(more)
    assert duplicates(fleet.journal()) == 0
    assert again.metric("stream_consumer_duplicates_skipped_total") == len(expected)


def test_filtered_records_are_counted_and_passed_by(aws: Aws, fleet: Fleet) -> None:
    """Only what matches a filter reaches the handler; the rest advances the frontier."""
    everything = aws.write(fleet.table, 20, range(1, 6))
    expected = {(key, version) for key, version in everything if key < "k0010"}
    worker = fleet.start("w1", filters=[{"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "k000"}]}}}}])
    fleet.wait_for(expected)
    wait_until(lambda: worker.metric("stream_consumer_filtered_total") == 50, 20, "the others are counted")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert fleet.handled() == expected
    again = fleet.start("w2")
    more = aws.write(fleet.table, 20, range(6, 7))
    fleet.wait_for(more)
    assert fleet.handled() == expected | more, "filtered records do not come back without the filter"
    assert again.metric("stream_consumer_filtered_total") == 0


def test_memory_stays_within_the_budget(aws: Aws, fleet: Fleet) -> None:
    """A stalled handler and a backlog many times the budget: memory grows by the budget and a constant."""
    budget = 8 * 1024 * 1024
    worker = fleet.start("w1", {"HANDLER_SECONDS": "60"}, handler={"timeout": "120s"}, limits={"buffer": "8MiB"})
    wait_until(worker.owned, 20, "the shard is owned")
    before = worker.resident_bytes()
    aws.write(fleet.table, 100, range(1, 41), size=20_000)  # 80 MB
    wait_until(lambda: worker.metric("stream_consumer_buffered_bytes") > budget / 2, 30, "the budget is used")
    wait_until(worker.has_stopped_reading, 30, "the reader waits")
    assert worker.metric("stream_consumer_buffered_bytes") < 2 * budget
    assert worker.resident_bytes() - before < 1.5 * budget + 40 * 1024 * 1024


def test_poison_holds_up_only_its_own_keys(aws: Aws, fleet: Fleet) -> None:
    """A record that always fails is retried while other keys go on; its dead letter holds the whole record."""
    url, fleet.queue_arn = aws.queue()
    aws.poison(fleet.table, "bad", 1)
    expected = aws.write(fleet.table, 10, range(1, 11))
    worker = fleet.start(
        "w1",
        retry={"max_retry_attempts": 3, "backoff": {"initial": "1s", "max": "1s"}},
        batch={"batch_size": 1},
    )
    fleet.wait_for(expected)
    assert worker.metric("stream_consumer_dead_letters_total") == 0, "the others went on while it was retried"
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") == 1, 20, "the dead letter")
    (body,) = aws.messages(url)
    letter = json.loads(body)
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert letter["requestContext"]["approximateInvokeCount"] == 4
    assert letter["payload"]["Records"][0]["dynamodb"]["NewImage"]["poison"] == {"BOOL": True}
    assert letter["DDBStreamBatchInfo"]["batchSize"] == 1
    more = aws.write(fleet.table, 10, range(11, 12))
    fleet.wait_for(more)


def test_no_destination_leaves_a_durable_trace(aws: Aws, fleet: Fleet) -> None:
    """Without on_failure a given-up record leaves a row in the lease table and an ERROR event, and work goes on."""
    aws.poison(fleet.table, "bad", 1)
    worker = fleet.start("w1", batch={"batch_size": 1})
    wait_until(lambda: worker.status().get("totals", {}).get("dead_lettered") == 1, 20, "the discard")
    rows = aws.dynamodb.scan(TableName=f"leases-{fleet.table}")["Items"]
    assert [row for row in rows if row["sk"]["S"].startswith("discarded#")]
    (event,) = (event for event in worker.events() if event["event"] == "records.discarded")
    assert event["level"] == "error"
    assert not {"window", "destination"} & event.keys()  # there is neither


@pytest.mark.parametrize("under", [STDOUT_CLOSED, STDOUT_FULL], ids=["closed", "full"])
def test_a_log_that_nobody_can_write_is_no_reason_to_fail(under: tuple[str, ...], aws: Aws, fleet: Fleet) -> None:
    """Records are handled, and a graceful stop exits 0, whether the daemon has a standard output or not."""
    expected = aws.write(fleet.table, 5, range(1, 4))
    handler = {"kind": "python", "target": "journal_handler:prints", "isolation": "inline"}
    worker = fleet.start("w1", {"PYTHONUNBUFFERED": ""}, under=under, handler=handler)
    fleet.wait_for(expected)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0, worker.log.read_text()
    assert worker.log.read_text() == "", "nor is there anything to say on standard error"


def test_a_handler_that_outlives_the_grace_is_cut_off(aws: Aws, fleet: Fleet) -> None:
    """After the grace the call is cancelled, the lease released, and the record is handled again elsewhere."""
    expected = aws.write(fleet.table, 1, range(1, 2))
    worker = fleet.start("w1", {"HANDLER_SECONDS": "30"}, handler={"timeout": "60s"}, shutdown={"grace": "2s"})
    wait_until(fleet.handled, 20, "the handler is busy")
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    fleet.forget_journal()
    fleet.start("w2")
    fleet.wait_for(expected, 10)


@pytest.mark.soak
def test_renewals_survive_64_computing_threads(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    """Plain functions in the daemon that never wait for anything: each of them wants the interpreter's lock."""
    done = tmp_path / "done"
    (tmp_path / "computing.py").write_text(
        "import time\n"
        "def handle(records, context):\n"
        "    end, total = time.monotonic() + 8.0, 0\n"
        "    while time.monotonic() < end:\n"
        "        for n in range(10000):\n"
        "            total += n * n\n"
        f"    with open({str(done)!r}, 'a') as file:\n"
        "        file.write('x')\n"
    )
    worker = fleet.start(
        "w",
        handler={
            "kind": "python",
            "isolation": "inline",
            "target": "computing:handle",
            "path": str(tmp_path),
            "timeout": "2m",
        },
        batch={"batch_size": 1, "parallelization_factor": 64},
        leases={"duration": "10s"},
    )
    wait_until(lambda: any(e["event"] == "lease.acquired" for e in worker.events()), 30, "it owns the shard")
    aws.write(fleet.table, 64, range(1, 2))
    wait_until(lambda: done.exists() and len(done.read_text()) >= 64, 150, "every record")
    lost = {"session.fenced", "session.renew_failed", "lease.lost"}
    assert not lost & {entry["event"] for entry in worker.events()}
