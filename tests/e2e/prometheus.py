"""A real Prometheus that scrapes daemons. Without it the tests that need it are skipped."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.local_aws import free_port

PROMETHEUS = shutil.which("prometheus")

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="prometheus is not installed (Debian and Ubuntu: package prometheus)"
)


def ask(port: int, path: str, **parameters: str) -> Any:
    """What its API answers. OSError while it starts."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        body = json.load(answer)
    assert body["status"] == "success", body
    return body["data"]


@contextmanager
def scraping(
    targets: Sequence[int], folder: Path, *, interval: str = "1s", rules: Sequence[Path] = ()
) -> Iterator[int]:
    """Its port; it asks these ports, and evaluates ``rules``, every ``interval``."""
    port = free_port()
    static = [{"targets": [f"127.0.0.1:{target}" for target in targets]}]
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": "1s", "evaluation_interval": interval},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [{"job_name": "consumers", "static_configs": static}],
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
