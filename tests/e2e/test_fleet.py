"""Several daemon processes on several shards, hurt in the middle of a load: nothing lost, nothing out of order.

``FLEET_RECORDS`` sets the size of the load (default 4,000; the release check uses 20,000).
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import LEASE_SECONDS, Fleet, duplicates, out_of_order, wait_until
from tests.e2e.hurt import impatient
from tests.support.reshard_proxy import ProxyThread

KEYS = 200
VERSIONS = int(os.environ.get("FLEET_RECORDS", "4000")) // KEYS
pytestmark = pytest.mark.behind_proxy(shards=4)


class Load:
    """Writes in a thread while the test hurts the fleet."""

    def __init__(self, aws: Aws, table: str, versions: int = VERSIONS) -> None:
        self.expected: set[tuple[str, int]] = set()
        self._aws, self._table, self._versions = aws, table, versions
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        for version in range(1, self._versions + 1):
            self.expected |= self._aws.write(self._table, KEYS, range(version, version + 1))

    def finish(self) -> set[tuple[str, int]]:
        self._thread.join()
        return self.expected


def owners(fleet: Fleet) -> list[int]:
    return [len(worker.owned()) for worker in fleet.workers if worker.process.poll() is None]


def share_evenly(fleet: Fleet, shards: int) -> None:
    def even() -> bool:
        counts = owners(fleet)
        return sum(counts) == shards and max(counts) - min(counts) <= 1

    wait_until(even, 30, "every worker has its share")


def stale_starts(journal: list[list[Any]]) -> int:
    """Calls of an old epoch that started after a call of a newer epoch of the same shard had started."""
    first: dict[tuple[str, int], float] = {}
    for _, _, _, shard, epoch, started in journal:
        first[shard, epoch] = min(started, first.get((shard, epoch), started))
    return sum(
        1
        for _, _, _, shard, epoch, started in journal
        if any(s == shard and e > epoch and begun < started for (s, e), begun in first.items())
    )


def test_one_killed_and_one_stopped_under_load(aws: Aws, fleet: Fleet) -> None:
    """Three workers, one SIGKILLed and one stopped with SIGTERM on the way: lost 0, out of order 0."""
    for name in ("w1", "w2", "w3"):
        fleet.start(name)
    share_evenly(fleet, 4)
    load = Load(aws, fleet.table)
    total = KEYS * VERSIONS
    wait_until(lambda: len(fleet.handled()) > total * 0.2, 120, "a fifth is handled")
    fleet.workers[0].send(signal.SIGKILL)
    wait_until(lambda: len(fleet.handled()) > total * 0.4, 120, "two fifths are handled")
    fleet.workers[1].send(signal.SIGTERM)
    assert fleet.workers[1].wait() == 0
    fleet.wait_for(load.finish(), 180)
    assert out_of_order(fleet.journal()) == 0
    assert stale_starts(fleet.journal()) == 0


def test_a_rolling_deploy_repeats_nothing(aws: Aws, fleet: Fleet) -> None:
    """Replace every worker by SIGTERM under load: duplicates 0."""
    fleet.start("a1")
    fleet.start("a2")
    share_evenly(fleet, 4)
    load = Load(aws, fleet.table)
    for old, new in (("a1", "b1"), ("a2", "b2")):
        fleet.start(new)
        (leaver,) = (worker for worker in fleet.workers if worker.name == old)
        wait_until(lambda: len(fleet.handled()) > 0, 60, "work is under way")
        leaver.send(signal.SIGTERM)
        assert leaver.wait() == 0
    fleet.wait_for(load.finish(), 180)
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


@pytest.mark.soak
def test_splits_and_rollovers_keep_the_order(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """Children that show up late start only when their parent is settled."""
    proxy.call("hide_children", 1.0)
    fleet.start("w1")
    fleet.start("w2")
    share_evenly(fleet, 4)
    load = Load(aws, fleet.table)
    wait_until(lambda: len(fleet.handled()) > 200, 60, "work is under way")
    open_shards = [shard["shard_id"] for shard in proxy.call("shards") if shard["open"]]
    proxy.call("split", open_shards[0])
    proxy.call("roll", open_shards[1])
    wait_until(lambda: len(fleet.handled()) > 600, 60, "work goes on")
    proxy.call("split", next(s["shard_id"] for s in proxy.call("shards") if s["open"]))
    fleet.wait_for(load.finish(), 180)
    assert out_of_order(fleet.journal()) == 0
    assert duplicates(fleet.journal()) == 0
    wait_until(lambda: sum(owners(fleet)) == 6, 30, "six open shards are owned")


def test_a_frozen_worker_starts_nothing_when_it_wakes(aws: Aws, fleet: Fleet) -> None:
    """SIGSTOP a worker until its leases are taken, wake it: no stale call, no lost record, and it joins again."""
    frozen = fleet.start("frozen")
    wait_until(lambda: len(frozen.owned()) == 4, 30, "it owns all shards")
    other = fleet.start("other")
    share_evenly(fleet, 4)
    load = Load(aws, fleet.table)
    wait_until(lambda: len(fleet.handled()) > 200, 60, "work is under way")
    frozen.send(signal.SIGSTOP)
    wait_until(lambda: len(other.owned()) == 4, 5 * LEASE_SECONDS, "the other took over")
    frozen.send(signal.SIGCONT)
    fleet.wait_for(load.finish(), 180)
    wait_until(lambda: any(e["event"] == "session.fenced" for e in frozen.events()), 30, "it notices")
    share_evenly(fleet, 4)
    assert stale_starts(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


def test_take_over_and_hand_over_are_quick(aws: Aws, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """After SIGKILL the leases move within 1.6 x duration + 1 s, after SIGTERM at once (times are printed, the bounds
    here are generous: this machine is shared)."""
    first = fleet.start("first")
    wait_until(lambda: len(first.owned()) == 4, 30, "the first owns all")
    second = fleet.start("second")
    share_evenly(fleet, 4)
    second.send(signal.SIGTERM)
    started = time.monotonic()
    wait_until(lambda: len(first.owned()) == 4, 15, "handed over")
    handed_over = time.monotonic() - started
    third = fleet.start("third")
    wait_until(lambda: len(third.owned()) == 2, 30, "the third has its share")
    first.send(signal.SIGKILL)
    started = time.monotonic()
    wait_until(lambda: len(third.owned()) == 4, 10 * LEASE_SECONDS, "taken over")
    with capsys.disabled():
        print(
            f"\n  hand-over {handed_over:.2f} s, take-over {time.monotonic() - started:.2f} s (lease {LEASE_SECONDS} s)"
        )


@pytest.mark.soak
def test_faults_of_the_services_lose_and_repeat_nothing(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """Throttling, expired iterators, cut-off pages, 5xx and lost answers of lease writes: all of it passes."""
    worker = fleet.start("w1", batch={"batch_size": 20})
    wait_until(lambda: len(worker.owned()) == 4, 30, "it owns all shards")
    load = Load(aws, fleet.table, versions=10)
    for _ in range(3):
        proxy.call("fault", "GetRecords", code="ProvisionedThroughputExceededException", status=400, times=3)
        proxy.call("fault", "GetRecords", kind="truncate", times=2)
        proxy.call("fault", "GetRecords", code="InternalServerError", status=500, times=2)
        proxy.call("fault", "UpdateItem", kind="lose_response", times=2)
        proxy.call("expire_iterators")
        seen = len(fleet.handled())
        wait_until(lambda seen=seen: len(fleet.handled()) > seen + 50 or len(fleet.handled()) >= 2000, 60, "goes on")
    fleet.wait_for(load.finish(), 120)
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0
    assert worker.metric('stream_consumer_throttles_total{operation="GetRecords"}') > 0


@pytest.mark.parametrize("policy", ["halt", "continue"])
def test_trimmed_records_are_never_skipped_silently(policy: str, aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """A trim gap leaves a row, a counter and an ERROR; ``on_gap`` decides whether the shard goes on."""
    fleet.wait_for(set())
    worker = fleet.start("w1", source={"on_gap": policy})
    fleet.wait_for(aws.write(fleet.table, 40, range(1, 4)))
    wait_until(lambda: all(s["checkpoint_age"] == 0 for s in worker.owned()), 10, "checkpoints are written")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    lost = aws.write(fleet.table, 40, range(4, 5))
    newest = max((record["dynamodb"]["SequenceNumber"] for record in stream_records(aws, fleet.table)), key=int)
    for shard in proxy.call("shards"):
        proxy.call("trim", shard["shard_id"], newest)
    more = aws.write(fleet.table, 40, range(5, 6))
    again = fleet.start("w2", source={"on_gap": policy})
    wait_until(lambda: again.metric("stream_consumer_gaps_total") == 4, 30, "four gaps are counted")
    rows = aws.dynamodb.scan(TableName=f"leases-{fleet.table}")["Items"]
    assert len([row for row in rows if row["sk"]["S"].startswith("gap#")]) == 4
    assert [event for event in again.events() if event["event"] == "shard.gap" and event["level"] == "error"]
    if policy == "continue":
        fleet.wait_for(more)
    else:
        wait_until(lambda: {s["state"] for s in again.owned()} == {"halted"}, 20, "the shards are halted")
        assert not (fleet.handled() & more)
    assert not (fleet.handled() & lost)


def stream_records(aws: Aws, table: str) -> list[dict[str, Any]]:
    from tests.e2e.conftest import client

    streams = client("dynamodbstreams", aws.endpoint)
    arn = aws.dynamodb.describe_table(TableName=table)["Table"]["LatestStreamArn"]
    shard = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
    iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    records: list[dict[str, Any]] = []
    while page := (answer := streams.get_records(ShardIterator=iterator))["Records"]:
        records += page
        iterator = answer["NextShardIterator"]
    return records


def test_a_missing_permission_is_named(fleet: Fleet, proxy: ProxyThread, tmp_path: Path) -> None:
    """Exit 77 with the IAM action and the resource, in one line; each as an application of its own, with a patience of
    two seconds instead of twenty."""
    soon = impatient(tmp_path, "DENIED_DEADLINE", 2.0)
    refused = ("DescribeTable", "PutItem", "UpdateItem")
    workers = {}
    for operation in refused:
        key = f"MAYNOT{operation}".upper()
        refusal = {"code": "AccessDeniedException", "status": 400, "times": 1000, "signed_with": key}
        proxy.call("fault", operation, **refusal)
        workers[operation] = fleet.start(operation, {"AWS_ACCESS_KEY_ID": key, **soon}, application=f"app-{operation}")
    for operation, worker in workers.items():
        assert worker.wait(60) == 77, operation
        last = worker.log.read_text().splitlines()[-1]
        assert f"dynamodb:{operation}" in last
        assert fleet.table in last
        assert "Traceback" not in worker.log.read_text()
