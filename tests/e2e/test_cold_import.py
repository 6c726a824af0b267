"""A handler process that is ready only when its shard has another owner."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import LEASE_SECONDS, Fleet, out_of_order, wait_until
from tests.e2e.hurt import has_event, wait_owned
from tests.e2e.test_fleet import stale_starts
from tests.support.reshard_proxy import ProxyThread

SHARDS = 1
pytestmark = pytest.mark.behind_proxy(shards=SHARDS)


def test_user_code_does_not_start_in_a_shard_of_the_next_owner(
    aws: Aws, fleet: Fleet, lease_proxy: ProxyThread
) -> None:
    """The process of a worker dies, and the next one takes long to import its libraries; meanwhile the worker is cut
    off from the lease table and loses its lease. Then the process is ready, and must not be given the call."""
    handler = {**fleet.config()["handler"], "target": "cold_handler:handler", "processes": 1}
    settings: dict[str, Any] = {"handler": handler, "retry": {"max_retry_attempts": 20}}
    endpoints = fleet.config()["aws"]["endpoints"]
    victim = fleet.start("victim", **settings, aws={"endpoints": {**endpoints, "dynamodb": lease_proxy.endpoint}})
    wait_owned(victim, SHARDS)
    expected = aws.write(fleet.table, 1, range(1, 2))
    wait_until(lambda: has_event(victim, "handler.worker_replaced"), 20, "the process has died")
    lease_proxy.call("fault", "*", kind="delay", seconds=30, times=100_000)
    other = fleet.start("other", **settings)
    wait_owned(other, SHARDS, 10 * LEASE_SECONDS)
    fleet.wait_for(expected | aws.write(fleet.table, 1, range(2, 4)), 20)
    (fleet.folder / "cold").unlink()
    wait_until((fleet.folder / "imported").exists, 10, "the next process of the first worker is ready")
    more = aws.write(fleet.table, 1, range(4, 6))
    fleet.wait_for(more, 20)
    lease_proxy.call("clear_faults")
    wait_until(lambda: has_event(victim, "session.fenced"), 35, "the first worker learns of its fence")
    journal = fleet.journal()
    assert {line[2] for line in journal} == {"other"}
    assert stale_starts(journal) == 0
    assert out_of_order(journal) == 0
