"""What a real worker reports: the queries of the Grafana dashboard on a real Prometheus, and lines for CloudWatch."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, wait_until
from tests.e2e.prometheus import ask, needs_prometheus, scraping
from tests.support.dashboard import queries

# What a worker has nothing to say about in a quiet minute: keys without an end, nothing refused, hardly any records.
MAY_BE_EMPTY = {"Credentials end in", "Calls that failed", "Share of the hottest key"}

HANDLED_AND_REPORTED = """
    rate(stream_consumer_records_total{result="handled"}[1m]) > 0
      and on (instance) count by (instance) (stream_consumer_lag_seconds)
"""

pytestmark = [pytest.mark.soak, needs_prometheus]


def _has_series(port: int) -> bool:
    try:
        return bool(ask(port, "query", query=HANDLED_AND_REPORTED)["result"])
    except OSError:
        return False


def test_every_query_is_answered(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    """Without an error, and with series where there is something to say."""
    worker = fleet.start("w1", logging={"emf": True})
    with scraping([worker.port], tmp_path) as port:
        fleet.wait_for(aws.write(fleet.table, 5, range(1, 3)))
        wait_until(worker.owned, 30, "it owns a shard")
        aws.write(fleet.table, 20, range(3, 10))
        wait_until(lambda: _has_series(port), 60, "Prometheus has seen records that were handled")
        empty = set()
        for title, expr in queries():
            answer = ask(port, "query", query=expr)
            assert answer["resultType"] == "vector", title
            if not answer["result"]:
                empty.add(title)
        assert empty <= MAY_BE_EMPTY
        assert ask(port, "label/application/values") == [f"app-{fleet.table}"]
        assert ask(port, "label/table/values") == [fleet.table]
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    lines = [event for event in map(json.loads, worker.log.read_text().splitlines()) if "_aws" in event]
    assert lines, "metrics for CloudWatch, at the latest at the end"
    assert sum(line["stream_consumer_records_handled"] for line in lines) == 5 * 2 + 20 * 7
    assert {line["Application"] for line in lines} == {f"app-{fleet.table}"}
