"""Daemon processes on a real local server: start them, load the table, hurt them, and read what they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process import total_of
from demo.local_aws import free_port
from tests.support.authorities import NONE_ELSE

ROOT = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 3.0
# What a daemon can be started under.
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")  # a PID namespace of its own, as in a container
STDOUT_CLOSED = ("sh", "-c", 'exec "$@" >&-', "sh")
STDOUT_FULL = ("sh", "-c", 'exec "$@" >/dev/full', "sh")  # as a full disk


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until ``condition`` holds; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class JsonLines:
    """The whole lines of JSON in a file that grows, each of them parsed once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        self._lines: list[Any] = []

    def read(self) -> list[Any]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._end)
                new = file.read()
        except FileNotFoundError:
            return []
        new = new[: new.rfind(b"\n") + 1]
        self._end += len(new)
        self._lines += [json.loads(line) for line in new.splitlines() if line[:1] in (b"{", b"[")]
        return list(self._lines)


@dataclass
class Worker:
    """One daemon process."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    config: Path

    def __post_init__(self) -> None:
        self._events = JsonLines(self.log)

    def status(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status.json", timeout=2) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return {}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
            return answer.read().decode()

    def metric(self, wanted: str) -> float:
        """The sum of all samples as ``total_of`` finds them; 0 while the daemon is not up yet."""
        try:
            return total_of(self.metrics(), wanted)
        except OSError:
            return 0.0

    def owned(self) -> list[dict[str, Any]]:
        return [shard for shard in self.status().get("shards", []) if shard["mine"]]

    def events(self) -> list[dict[str, Any]]:
        return self._events.read()

    def resident_bytes(self) -> int:
        """Memory of the daemon process itself, without its handler processes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def has_stopped_reading(self) -> bool:
        """True when no page was read for a second."""
        pages = self.metric("stream_consumer_get_records_total")
        time.sleep(1)
        return self.metric("stream_consumer_get_records_total") == pages

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, seconds: float = 40) -> int:
        return self.process.wait(seconds)


@dataclass
class Fleet:
    """Workers of one application on one table."""

    endpoint: str
    folder: Path
    table: str
    queue_arn: str = ""
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._journal = JsonLines(self.journal_path)

    def config(self, **overrides: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "application": f"app-{self.table}",
            "aws": {
                "region": "us-east-1",
                "endpoints": dict.fromkeys(("dynamodb", "dynamodb_streams", "sqs"), self.endpoint),
            },
            "source": {"table": self.table, "poll": {"target_latency": "200ms", "idle_backoff_max": "500ms"}},
            "handler": {
                "kind": "lambda",
                "target": "journal_handler:lambda_handler",
                "path": str(Path(__file__).parent),
                "timeout": "10s",
            },
            "batch": {"batch_size": 50, "parallelization_factor": 4},
            "retry": {"max_retry_attempts": 1, "backoff": {"initial": "50ms", "max": "200ms"}},
            "leases": {"table": f"leases-{self.table}", "create_table": True, "duration": f"{LEASE_SECONDS:g}s"},
            "checkpoint": {"interval": "500ms"},
            "shutdown": {"grace": "10s"},
        }
        if self.queue_arn:
            config["on_failure"] = {"destination": self.queue_arn}
        for section, values in overrides.items():
            config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
        return config

    def start(
        self,
        name: str,
        environment: dict[str, str] | None = None,
        *,
        under: tuple[str, ...] = (),
        stdin: int = subprocess.DEVNULL,
        **overrides: Any,
    ) -> Worker:
        """``under``: a command that runs the daemon's."""
        port = free_port()
        path = self.folder / f"{name}.yaml"
        http = {"port": port} | overrides.pop("http", {})
        path.write_text(yaml.safe_dump(self.config(http=http, **overrides)))
        path.chmod(0o600)
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", "consumer", "run", "--config", str(path)],
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    **os.environ,
                    **NONE_ELSE,
                    "AWS_ACCESS_KEY_ID": "test",
                    "AWS_SECRET_ACCESS_KEY": "test",
                    "AWS_EC2_METADATA_DISABLED": "true",
                    "JOURNAL": str(self.journal_path),
                    "WORKER": name,
                    **(environment or {}),
                },
            )
        worker = Worker(name, process, port, log, path)
        self.workers.append(worker)
        return worker

    @property
    def journal_path(self) -> Path:
        return self.folder / "journal.jsonl"

    def journal(self) -> list[list[Any]]:
        return self._journal.read()

    def forget_journal(self) -> None:
        self.journal_path.unlink()
        self._journal = JsonLines(self.journal_path)

    def handled(self) -> set[tuple[str, int]]:
        return {(line[0], line[1]) for line in self.journal()}

    def wait_for(self, expected: set[tuple[str, int]], seconds: float = 60) -> None:
        wait_until(lambda: expected <= self.handled(), seconds, f"{len(expected)} records handled")

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
                worker.process.wait()


def out_of_order(journal: list[list[Any]]) -> int:
    """Records whose first handling came after the first handling of a later version of the same key."""
    newest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    count = 0
    for key, version, *_ in journal:
        if (key, version) in seen:
            continue
        seen.add((key, version))
        count += version < newest.get(key, 0)
        newest[key] = max(version, newest.get(key, 0))
    return count


def duplicates(journal: list[list[Any]]) -> int:
    return sum(count - 1 for count in Counter((key, version) for key, version, *_ in journal).values())


@contextmanager
def closing(fleet: Fleet) -> Iterator[Fleet]:
    """End every process by its id, whatever the test did to it."""
    try:
        yield fleet
    finally:
        fleet.close()
