"""Functions in their own environment and in another language, side by side on one table, each behind a daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, Worker, closing, duplicates, out_of_order, wait_until
from tests.e2e.hurt import has_event
from tests.functions.commands import FOLDER, RUNTIMES

pytestmark = pytest.mark.xdist_group("real runtimes")  # the Go function is built once
KEYS, VERSIONS = 30, 6


class ProgramFleet(Fleet):
    """Workers whose handler is a program."""

    def config(self, **overrides: Any) -> dict[str, Any]:
        config = super().config(**overrides)
        del config["handler"]["target"]
        return config


def ask(aws: Aws, table: str, key: str, do: str) -> None:
    aws.dynamodb.put_item(TableName=table, Item={"pk": {"S": key}, "version": {"N": "1"}, "do": {"S": do}})


def start(fleet: Fleet, command: tuple[str, ...]) -> Worker:
    handler = {"kind": "lambda", "command": list(command), "path": str(FOLDER), "processes": 2, "timeout": "2s"}
    retry = {"max_retry_attempts": 1, "backoff": {"initial": "50ms", "max": "200ms"}}
    return fleet.start("w1", handler=handler, retry=retry, application=f"app-{command[0][-12:].replace('/', '-')}")


def test_functions_of_their_own_environment_and_language_run_beside_each_other(aws: Aws, tmp_path: Path) -> None:
    """The order of every key, retries, partial failures, time-outs, ends and dead letters: as with the built-in kind.
    One has another boto3 than the daemon, one is in Go."""
    commands = [command() for command in RUNTIMES.values()]
    table = aws.table()
    folders = [tmp_path / name for name in RUNTIMES]
    queues = [aws.queue() for _ in folders]
    for folder in folders:
        folder.mkdir()
    with (
        closing(ProgramFleet(aws.endpoint, folders[0], table, queues[0][1])) as one,
        closing(ProgramFleet(aws.endpoint, folders[1], table, queues[1][1])) as two,
    ):
        workers = [start(fleet, command) for fleet, command in zip((one, two), commands, strict=True)]
        expected = aws.write(table, KEYS, range(1, VERSIONS))
        wanted = {"fail", "partial", "hang", "exit"}
        for do in sorted(wanted):
            ask(aws, table, f"bad-{do}", do)
        expected |= aws.write(table, KEYS, range(VERSIONS, VERSIONS + 2))
        for fleet, worker, (url, _) in zip((one, two), workers, queues, strict=True):
            fleet.wait_for(expected)
            letters: list[dict[str, Any]] = []

            def all_arrived(url: str = url, letters: list[dict[str, Any]] = letters) -> bool:
                letters.extend(map(json.loads, aws.messages(url)))
                return len(letters) >= len(wanted)

            wait_until(all_arrived, 60, "a letter for each of them")
            keys = [record["dynamodb"]["Keys"]["pk"]["S"] for one in letters for record in one["payload"]["Records"]]
            assert sorted(keys) == [f"bad-{do}" for do in sorted(wanted)]
            assert out_of_order(fleet.journal()) == 0
            assert not has_event(worker, "session.fenced")
            # What was in a batch with a bad record may have been handled before that was found out.
            assert duplicates(fleet.journal()) <= len(expected)
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            assert worker.wait() == 0
