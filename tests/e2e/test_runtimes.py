"""Functions in their own environment and in another language, side by side on one table, each behind a daemon."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, Worker, closing, duplicates, out_of_order, wait_until
from tests.e2e.hurt import has_event
from tests.functions.commands import FOLDER, awslambdaric, go, runtime_python

pytestmark = pytest.mark.xdist_group("real runtimes")  # the Go function is built once
KEYS, VERSIONS = 30, 6


def handlers() -> dict[str, dict[str, Any]]:
    """The same function behind AWS's client, in an interpreter of its own, and in Go."""
    return {
        "awslambdaric": {"command": list(awslambdaric())},
        "interpreter": {"target": "with_boto3.handler", "python": runtime_python()},
        "go": {"command": list(go())},
    }


class OwnFleet(Fleet):
    """Workers whose handler is given whole."""

    def config(self, **overrides: Any) -> dict[str, Any]:
        return super().config(**overrides) | {"handler": overrides["handler"]}


def ask(aws: Aws, table: str, key: str, do: str) -> None:
    aws.dynamodb.put_item(TableName=table, Item={"pk": {"S": key}, "version": {"N": "1"}, "do": {"S": do}})


def start(fleet: Fleet, name: str, handler: dict[str, Any]) -> Worker:
    handler |= {"kind": "lambda", "path": str(FOLDER), "processes": 2, "timeout": "2s"}
    retry = {"max_retry_attempts": 1, "backoff": {"initial": "50ms", "max": "200ms"}}
    return fleet.start("w1", handler=handler, retry=retry, application=f"app-{name}")


@pytest.mark.soak
def test_functions_of_their_own_environment_and_language_run_beside_each_other(aws: Aws, tmp_path: Path) -> None:
    """The order of every key, retries, partial failures, time-outs, ends and dead letters: as with the built-in kind.
    Two have another boto3 than the daemon, one is in Go."""
    table = aws.table()
    with contextlib.ExitStack() as stack:
        fleets, workers, urls = [], [], []
        for name, handler in handlers().items():
            (tmp_path / name).mkdir()
            url, arn = aws.queue()
            fleets.append(stack.enter_context(closing(OwnFleet(aws.endpoint, tmp_path / name, table, arn))))
            workers.append(start(fleets[-1], name, handler))
            urls.append(url)
        expected = aws.write(table, KEYS, range(1, VERSIONS))
        wanted = {"fail", "partial", "hang", "exit"}
        for do in sorted(wanted):
            ask(aws, table, f"bad-{do}", do)
        expected |= aws.write(table, KEYS, range(VERSIONS, VERSIONS + 2))
        for fleet, worker, url in zip(fleets, workers, urls, strict=True):
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
