"""What a real worker reports: the queries of the Grafana dashboard on a real Prometheus, and lines for CloudWatch."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.local_aws import free_port
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, wait_until
from tests.support.dashboard import queries

PROMETHEUS = shutil.which("prometheus")
# What a worker has nothing to say about in a quiet minute: keys without an end, nothing refused, hardly any records.
MAY_BE_EMPTY = {"Credentials end in", "Calls that failed", "Share of the hottest key"}

HANDLED_AND_REPORTED = """
    rate(stream_consumer_records_total{result="handled"}[1m]) > 0
      and on (instance) count by (instance) (stream_consumer_lag_seconds)
"""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="prometheus is not installed (Debian and Ubuntu: package prometheus)"
    ),
]


def ask(port: int, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        body = json.load(answer)
    assert body["status"] == "success", body
    return body["data"]


@contextmanager
def scraping(target: int, folder: Path) -> Iterator[int]:
    """A Prometheus that asks this port every second; its own."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "consumers", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _has_series(port: int) -> bool:
    try:
        return bool(ask(port, "query", query=HANDLED_AND_REPORTED)["result"])
    except OSError:
        return False


def test_every_query_is_answered(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    """Without an error, and with series where there is something to say."""
    worker = fleet.start("w1", logging={"emf": True})
    with scraping(worker.port, tmp_path) as port:
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
