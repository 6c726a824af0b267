"""One owner for each shard, whatever the settings of its peers, however long a machine slept, wherever a table is."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from consumer.domain.remembered import MAX_AGE
from tests.e2e.conftest import Aws
from tests.e2e.fleet import LEASE_SECONDS, Fleet, duplicates, out_of_order, wait_until
from tests.e2e.hurt import has_event, key_of, lease_rows, wait_owned
from tests.e2e.test_fleet import share_evenly, stale_starts
from tests.support.reshard_proxy import ProxyThread

SHARDS = 2
pytestmark = pytest.mark.behind_proxy(shards=SHARDS)


def test_workers_of_different_durations_do_not_take_each_other_for_dead(
    aws: Aws, fleet: Fleet, lease_proxy: ProxyThread
) -> None:
    """In the middle of a deploy that changes ``leases.duration``: a worker with the longer one cannot reach the lease
    table for more than two of the shorter ones. Its leases hold, and its peers wait as long as it says."""
    endpoints = {**fleet.config()["aws"]["endpoints"], "dynamodb": lease_proxy.endpoint}
    slow = fleet.start("slow", leases={"duration": f"{5 * LEASE_SECONDS:g}s"}, aws={"endpoints": endpoints})
    fleet.start("quick")
    share_evenly(fleet, SHARDS)
    fleet.wait_for(aws.write(fleet.table, 40, range(1, 3)))
    lease_proxy.call("fault", "*", kind="delay", seconds=60, times=1_000_000)
    cut_off_at, version = time.monotonic(), 3
    while time.monotonic() < cut_off_at + 2.5 * LEASE_SECONDS:
        fleet.wait_for(aws.write(fleet.table, 40, range(version, version + 1)), 5)
        version += 1
    lease_proxy.call("clear_faults")
    assert version > 4
    assert {line[2] for line in fleet.journal() if line[1] == version - 1} == {"slow", "quick"}
    assert not has_event(slow, "session.fenced")
    assert duplicates(fleet.journal()) == 0
    assert stale_starts(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


def test_a_worker_that_slept_does_not_bring_a_finished_shard_back(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """While it sleeps its shards end, are read to their end by another worker, leave the stream, and their rows are
    gone as they are after some days. What it remembers is older than that."""
    sleeper = fleet.start("sleeper")
    wait_owned(sleeper, SHARDS)
    fleet.wait_for(aws.write(fleet.table, 40, range(1, 3)))
    sleeper.send(signal.SIGSTOP)
    asleep_at = time.monotonic()
    other = fleet.start("other")
    wait_owned(other, SHARDS, 5 * LEASE_SECONDS)
    ended = {shard["shard_id"] for shard in proxy.call("shards")}
    for shard_id in ended:
        proxy.call("roll", shard_id)
    fleet.wait_for(aws.write(fleet.table, 40, range(3, 5)))
    rows = {row["sk"]["S"].partition("#")[2]: row for row in lease_rows(aws, fleet)}
    wait_until(lambda: states_of(aws, fleet, ended) == {"done"}, 20, "they are read to their end")
    for shard_id in ended:
        proxy.call("vanish", shard_id)
        aws.dynamodb.delete_item(TableName=f"leases-{fleet.table}", Key=key_of(rows[shard_id]))
    old = asleep_at + (MAX_AGE + 0.5) * LEASE_SECONDS  # a memory that is younger is of a row that was deleted by hand
    wait_until(lambda: time.monotonic() > old, 30, "what it remembers is old")
    sleeper.send(signal.SIGCONT)
    wait_until(lambda: has_event(sleeper, "session.fenced"), 30, "it learns that its session is over")
    share_evenly(fleet, SHARDS)
    fleet.wait_for(aws.write(fleet.table, 40, range(5, 7)))
    assert states_of(aws, fleet, ended) <= {"done"}
    for worker in (sleeper, other):
        assert worker.metric("stream_consumer_gaps_total") == 0
        assert not has_event(worker, "shard.gap")
    assert stale_starts(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


def states_of(aws: Aws, fleet: Fleet, shard_ids: set[str]) -> set[str]:
    return {row["state"]["S"] for row in lease_rows(aws, fleet) if row["sk"]["S"].partition("#")[2] in shard_ids}


ELSEWHERE: dict[str, Any] = {"old": ":us-east-1:", "new": ":eu-west-1:"}
REPLICATED = {"old": '"TableStatus"', "new": '"Replicas": [{"RegionName": "eu-west-1"}], "TableStatus"'}


def test_the_same_name_in_another_region_is_another_table(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """A second deployment of the same application and table names, for another region, at the same lease table."""
    first = fleet.start("first")
    fleet.wait_for(aws.write(fleet.table, 10, range(1, 2)))
    with ProxyThread(aws.endpoint) as elsewhere:
        elsewhere.call("fault", "*", kind="rewrite", about=f'"{fleet.table}"', times=1_000_000, **ELSEWHERE)
        endpoints = {**fleet.config()["aws"]["endpoints"], "dynamodb": elsewhere.endpoint}
        second = fleet.start("second", aws={"endpoints": endpoints})
        assert second.wait(40) == 78
    last = second.log.read_text().splitlines()[-1]
    for region in ("us-east-1", "eu-west-1"):
        assert f"arn:aws:dynamodb:{region}:000000000000:table/{fleet.table}" in last
    assert "Traceback" not in second.log.read_text()
    fleet.wait_for(aws.write(fleet.table, 10, range(2, 3)))
    assert first.process.poll() is None


def test_a_lease_table_of_two_regions_is_refused(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    table = f"leases-{fleet.table}"
    proxy.call("fault", "DescribeTable", kind="rewrite", about=f'"{table}"', times=1_000_000, **REPLICATED)
    worker = fleet.start("w1")
    assert worker.wait(40) == 78
    last = worker.log.read_text().splitlines()[-1]
    assert f"lease table {table}: it is a global table with replicas in eu-west-1" in last
    assert not fleet.journal()
