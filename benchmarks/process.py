"""The daemon as users run it: a process of its own with a configuration file, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from botocore.session import get_session

from benchmarks.daemon import config_of
from benchmarks.handlers import STAMPS
from benchmarks.servers import child_environment
from demo.local_aws import free_port

_TICK = os.sysconf("SC_CLK_TCK")


def wait_for(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> None:
    """Poll ``condition``; RuntimeError when it does not hold within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s")
        time.sleep(pause)


class DaemonProcess:
    """``stream-consumer run`` on the stub. Its handler may leave time stamps (``benchmarks.handlers``)."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._stamps = Path(self._folder.name) / "stamps"
        self._config = Path(self._folder.name) / "config.yaml"
        self._config.write_text(yaml.safe_dump({**config, "http": {"port": self.port}}))

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "consumer", "run", "--config", str(self._config)],
            env={**child_environment(), STAMPS: str(self._stamps)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # what it holds does not matter any more
        self._folder.cleanup()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def lines(self) -> list[str]:
        """What its handler has written down."""
        return self._stamps.read_text().splitlines() if self._stamps.exists() else []

    def stamps(self) -> list[float]:
        """When its handler was called, on this machine's monotonic clock."""
        return [float(line) for line in self.lines()]

    def cpu(self) -> float:
        """CPU seconds so far, to a hundredth."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self, field: str) -> int:
        """``VmRSS`` or ``VmHWM`` (the peak) in bytes."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    def metric(self, *wanted: str) -> float:
        """The sum of all samples as ``total_of`` finds them; 0 while it is not up."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        return sum(total_of(text, one) for one in wanted)


def total_of(metrics: str, wanted: str) -> float:
    """The sum of the samples of one name, in the text that Prometheus gets: ``name``, or ``name{label="value"}`` for
    those with these labels, among others."""
    name, _, labels = wanted.partition("{")
    texts = [text for text in labels.rstrip("}").split(",") if text]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith((f"{name}{{", f"{name} ")) and all(text in line for text in texts)
    )


def daemon_process(stream: str, table: str, target: str, application: str = "", **sections: Any) -> DaemonProcess:
    """A daemon with the inline handler ``benchmarks.handlers:target``; equal ``application`` makes a fleet."""
    config = config_of(stream, table, {"target": f"benchmarks.handlers:{target}"}, **sections)
    if application:
        config |= {"application": application, "leases": {"table": application, "create_table": True}}
    return DaemonProcess(config)


def frontier_writes(endpoint: str, table: str) -> int:
    """How many frontiers the worker that runs has written to its lease table: it numbers them over all of its
    shards."""
    client: Any = get_session().create_client("dynamodb", "eu-west-1", endpoint_url=endpoint)
    rows = client.scan(TableName=table, ConsistentRead=True)["Items"]
    return max(int(row["revision"]["N"]) for row in rows if "revision" in row)
