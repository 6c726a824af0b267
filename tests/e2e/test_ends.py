"""A process that cannot work ends, or at least says so."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import LEASE_SECONDS, Fleet, Worker, wait_until
from tests.e2e.hurt import has_event, lease_rows, wait_owned
from tests.support.reshard_proxy import ProxyThread

SHARDS = 2
GRACE = 2.0  # seconds
pytestmark = pytest.mark.behind_proxy(shards=SHARDS)


def readiness(worker: Worker) -> str:
    """What ``/readyz`` says; empty when nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/readyz", timeout=2) as answer:
            return answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
    except OSError:
        return ""


def test_a_thread_that_hangs_does_not_outlive_a_fence_for_long(
    aws: Aws, fleet: Fleet, lease_proxy: ProxyThread
) -> None:
    """Without an end of the process it would wait for its thread for ever, healthy and idle."""
    inline = {"kind": "python", "isolation": "inline", "target": "journal_handler:hangs_in_its_thread"}
    settings: dict[str, Any] = {"handler": inline, "shutdown": {"grace": f"{GRACE:g}s"}}
    endpoints = fleet.config()["aws"]["endpoints"]
    victim = fleet.start("victim", **settings, aws={"endpoints": {**endpoints, "dynamodb": lease_proxy.endpoint}})
    wait_owned(victim, SHARDS)
    wait_until(lambda: readiness(victim) == "ready", 10, "it is ready")
    expected = aws.write(fleet.table, 1, range(1, 2))
    fleet.wait_for(expected, 20)
    lease_proxy.call("fault", "*", kind="delay", seconds=30, times=100_000)
    other = fleet.start("other", **settings)
    wait_owned(other, SHARDS, 10 * LEASE_SECONDS)
    assert "session could not be renewed" in readiness(victim)
    lease_proxy.call("clear_faults")
    wait_until(lambda: has_event(victim, "session.fenced"), 35, "it learns of its fence")
    wait_until(lambda: "session has ended" in readiness(victim), GRACE, "it says that it waits")
    assert victim.wait(GRACE + 2 + 3) == 70
    assert has_event(victim, "session.overrun")


def says(worker: Worker, what: str) -> bool:
    """Whether ``/readyz`` names this as the reason."""
    return what in readiness(worker)


@pytest.mark.soak
def test_a_start_that_may_not_read_ends_with_77(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """It asks for twenty seconds, says so meanwhile, and gives its leases back."""
    workers = {}
    for operation in ("GetShardIterator", "GetRecords"):
        key = f"MAYNOT{operation}".upper()
        refusal = {"code": "AccessDeniedException", "status": 400, "times": 100_000, "signed_with": key}
        proxy.call("fault", operation, **refusal)
        workers[operation] = fleet.start(operation, {"AWS_ACCESS_KEY_ID": key}, application=f"app-{operation}")
    for operation, worker in workers.items():
        wait_owned(worker, SHARDS)
        wait_until(
            lambda operation=operation, worker=worker: operation in readiness(worker), 10, "it says what it may not do"
        )
    for operation, worker in workers.items():
        assert worker.wait(40) == 77, operation
        ends = [event for event in worker.events() if event["level"] == "critical"]
        assert [(event["event"], event["exit_code"]) for event in ends] == [("daemon.start_failed", 77)]
        last = worker.log.read_text().splitlines()[-1]
        assert last.startswith("stream-consumer: permission denied: dynamodb:")
        assert operation in last
    assert len(lease_rows(aws, fleet)) == 2 * SHARDS
    assert all("owner" not in row for row in lease_rows(aws, fleet))


def test_a_permission_that_comes_within_seconds_is_waited_for(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    proxy.call("fault", "GetRecords", code="AccessDeniedException", status=400, times=100_000)
    worker = fleet.start("w")
    wait_owned(worker, SHARDS)
    wait_until(lambda: "GetRecords" in readiness(worker), 10, "it is refused")
    proxy.call("clear_faults")
    fleet.wait_for(aws.write(fleet.table, 5, range(1, 2)), 20)
    wait_until(lambda: readiness(worker) == "ready", 10, "it is ready")
