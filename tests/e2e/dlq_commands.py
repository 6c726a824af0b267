"""A place for dead letters, and `stream-consumer dlq` on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import unique
from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import ROOT, Fleet, wait_until


@dataclass
class Dead:
    """A place for dead letters, and the commands on it."""

    aws: Aws
    fleet: Fleet
    destination: str
    overrides: dict[str, Any]

    def config(self, **overrides: Any) -> Path:
        path = self.fleet.folder / "dlq.yaml"
        path.write_text(yaml.safe_dump(self.fleet.config(**{**self.overrides, **overrides})))
        path.chmod(0o600)
        return path

    def start(self, verb: str, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "consumer", "dlq", verb, "--config", str(self.config()), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_EC2_METADATA_DISABLED": "true",
                "JOURNAL": str(self.fleet.journal_path),
                "WORKER": "redrive",
                **(environment or {}),
            },
        )

    def run(
        self, verb: str, *options: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        with self.start(verb, *options, environment=environment) as process:
            try:
                out, err = process.communicate(timeout=120)
            except BaseException:
                process.kill()
                raise
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def list(self, *options: str) -> dict[str, Any]:
        done = self.run("list", "--output", "json", *options)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def poison(self, keys: range, versions: range) -> set[tuple[str, int]]:
        for version in versions:
            for n in keys:
                self.aws.poison(self.fleet.table, f"bad{n:03d}", version)
        return {(f"bad{n:03d}", version) for n in keys for version in versions}

    def letters_of(self, count: int, **overrides: Any) -> None:
        """The daemon runs until it has given up so many records, and stops."""
        worker = self.fleet.start("w1", **self.overrides, batch={"batch_size": 1}, **overrides)
        wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") >= count, 60, f"{count} dead letters")
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0


def made(kind: str, aws: Aws, fleet: Fleet) -> Dead:
    """A new queue (``sqs``) or bucket (``s3``)."""
    if kind == "sqs":
        _, destination = aws.queue()
    else:
        bucket = unique("bucket")
        client("s3", aws.endpoint).create_bucket(Bucket=bucket)
        destination = f"s3://{bucket}/dead"
    endpoints = dict.fromkeys(("dynamodb", "dynamodb_streams", "sqs", "s3"), aws.endpoint)
    aws_section = {"region": "us-east-1", "endpoints": endpoints}
    return Dead(aws, fleet, destination, {"aws": aws_section, "on_failure": {"destination": destination}})


def by_worker(journal: list[list[Any]], worker: str) -> list[tuple[str, int]]:
    """What one process handled: key and version."""
    return [(line[0], line[1]) for line in journal if line[2] == worker]
