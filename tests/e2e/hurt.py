"""What the fault tests share: lease-table rows and their damage, impatience, and the exact bound on duplicates."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Aws
from tests.e2e.fleet import ROOT, Fleet, Worker, wait_until


def impatient(folder: Path, deadline: str, seconds: float) -> dict[str, str]:
    """Environment of a daemon that waits so long for something at its start: DENIED_DEADLINE or START_DEADLINE."""
    change = f"import consumer.worker.retrying as retrying\nretrying.{deadline} = {seconds}\n"
    (folder / "sitecustomize.py").write_text(change)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def lease_rows(aws: Aws, fleet: Fleet) -> list[dict[str, Any]]:
    """The raw rows of all shards, of every stream of the application."""
    rows = aws.dynamodb.scan(TableName=f"leases-{fleet.table}", ConsistentRead=True)["Items"]
    return [row for row in rows if row["sk"]["S"].startswith("shard#")]


def key_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"pk": row["pk"], "sk": row["sk"]}


def make_lease_table(aws: Aws, fleet: Fleet) -> None:
    """As `init` would: for tests that forbid the daemon to make it."""
    aws.dynamodb.create_table(
        TableName=f"leases-{fleet.table}",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    )


def all_is_written(worker: Worker) -> bool:
    """Everything that the worker settled is in the lease table."""
    owned = worker.owned()
    return bool(owned) and all(shard["checkpoint_age"] == 0 and shard["in_flight"] == 0 for shard in owned)


def has_event(worker: Worker, event: str) -> bool:
    return any(entry["event"] == event for entry in worker.events())


def repeated(journal: list[list[Any]]) -> list[tuple[str, float]]:
    """For every repetition of a record: the worker of an earlier call and when that call started."""
    calls: dict[tuple[str, int], list[tuple[str, float]]] = defaultdict(list)
    for key, version, worker, _, _, started in journal:
        calls[key, version].append((worker, started))
    return [call for one in calls.values() for call in sorted(one, key=lambda call: call[1])[:-1]]


def unexplained(journal: list[list[Any]], killed_at: dict[str, float], window: float) -> int:
    """Repetitions that no kill explains: the earlier call was not made by a worker that was killed within ``window``
    seconds after it. That is the bound of G5: what was settled since the last frontier write, and what was in flight.
    """
    return sum(
        1
        for worker, started in repeated(journal)
        if worker not in killed_at or not started - 0.5 <= killed_at[worker] <= started + window
    )


def wait_owned(worker: Worker, shards: int, seconds: float = 30) -> None:
    wait_until(lambda: len(worker.owned()) == shards, seconds, f"{worker.name} owns {shards} shards")
