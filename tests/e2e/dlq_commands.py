"""A place for dead letters, and `stream-consumer dlq` on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import unique
from tests.e2e.commands import CREDENTIALS, in_this_process, written
from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import ROOT, Fleet, wait_until

LETTERS_PER_LOOK = 10  # of ReceiveMessage, at most


@dataclass
class Dead:
    """A place for dead letters, and the commands on it."""

    aws: Aws
    fleet: Fleet
    destination: str
    overrides: dict[str, Any]

    def config(self) -> Path:
        return written(self.fleet, "dlq.yaml", **self.overrides)

    def start(
        self, *options: str, environment: dict[str, str] | None = None, verb: str = "redrive"
    ) -> subprocess.Popen[str]:
        """A command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "consumer", "dlq", verb, "--config", str(self.config()), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **CREDENTIALS, **self._journal, **(environment or {})},
        )

    def run(
        self, verb: str, *options: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ("dlq", verb, "--config", str(self.config()), *options)
        return in_this_process(command, {**self._journal, **(environment or {})})

    def replay(self, *options: str) -> subprocess.CompletedProcess[str]:
        return in_this_process(("replay", "--config", str(self.config()), *options), {})

    @property
    def _journal(self) -> dict[str, str]:
        return {"JOURNAL": str(self.fleet.journal_path), "WORKER": "redrive"}

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


def made(kind: str, aws: Aws, fleet: Fleet, **on_failure: Any) -> Dead:
    """A new queue (``sqs``) or bucket (``s3``), for workers with these options."""
    if kind == "sqs":
        _, destination = aws.queue()
    else:
        bucket = unique("bucket")
        client("s3", aws.endpoint).create_bucket(Bucket=bucket)
        destination = f"s3://{bucket}/dead"
    endpoints = dict.fromkeys(("dynamodb", "dynamodb_streams", "sqs", "s3"), aws.endpoint)
    aws_section = {"region": "us-east-1", "endpoints": endpoints}
    return Dead(aws, fleet, destination, {"aws": aws_section, "on_failure": {"destination": destination, **on_failure}})


def by_worker(journal: list[list[Any]], worker: str) -> list[tuple[str, int]]:
    """What one process handled: key and version."""
    return [(line[0], line[1]) for line in journal if line[2] == worker]


def letters_in(dead: Dead) -> list[dict[str, Any]]:
    """All letters of parked keys, read without this project's reader, and left where they are."""
    if dead.destination.startswith("s3://"):
        bucket, _, prefix = dead.destination.removeprefix("s3://").partition("/")
        s3 = client("s3", dead.aws.endpoint)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/parked/")
        names = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return [json.loads(s3.get_object(Bucket=bucket, Key=name)["Body"].read()) for name in names]
    sqs = dead.aws.sqs
    url = sqs.get_queue_url(QueueName=dead.destination.rpartition(":")[2])["QueueUrl"]
    found = []
    while answer := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=LETTERS_PER_LOOK).get("Messages"):
        found += answer
    for message in found:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return [json.loads(message["Body"]) for message in found]


def _change(letter: dict[str, Any]) -> tuple[str, int, int]:
    """Key, version and sequence number of the only record of a letter."""
    (record,) = letter["payload"]["Records"]
    change = record["dynamodb"]
    return change["Keys"]["pk"]["S"], int(change["NewImage"]["version"]["N"]), int(change["SequenceNumber"])


def wait_for_letters(dead: Dead, wanted: dict[str, list[int]], seconds: float = 90) -> None:
    """Until these versions of these keys are letters, and no others; then their ordinals have their order, too. Before
    that there may be gaps: several letters of a key are under way at a time."""
    records = {(key, version) for key, versions in wanted.items() for version in versions}

    def arrived() -> bool:
        return {_change(letter)[:2] for letter in letters_in(dead)} == records

    wait_until(arrived, seconds, f"{len(records)} records are letters")
    assert parked_versions(letters_in(dead)) == wanted


def parked_versions(letters: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The versions of each key in the order in which a redrive must take them. In each shard they are counted from 1
    without a gap, and what comes twice is the same record."""
    by_place: dict[tuple[str, str], dict[int, tuple[int, int]]] = defaultdict(dict)
    for letter in letters:
        key, version, number = _change(letter)
        place, found = (key, letter["DDBStreamBatchInfo"]["shardId"]), (number, version)
        assert by_place[place].setdefault(letter["deadLetter"]["ordinal"], found) == found, "an ordinal is one record"
    of_key: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (key, _), ordinals in sorted(by_place.items()):
        assert sorted(ordinals) == list(range(1, len(ordinals) + 1)), f"no gap in {key}"
        in_turn = [ordinals[ordinal] for ordinal in sorted(ordinals)]
        assert in_turn == sorted(in_turn), f"the ordinals of {key} follow the stream"
        of_key[key] += in_turn
    return {key: [version for _, version in sorted(found)] for key, found in of_key.items()}
