"""The commands about a fleet on a real daemon's rows and stream: one daemon, all commands."""

from __future__ import annotations

import json
import signal

from tests.e2e.commands import consumer
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, wait_until


def as_json(fleet: Fleet, *command: str) -> tuple[int, dict]:
    done = consumer(fleet, *command, "{config}", "--output", "json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_while_it_runs_and_after(aws: Aws, fleet: Fleet) -> None:
    aws.write(fleet.table, 10, range(1, 3))
    daemon = fleet.start("first")
    wait_until(lambda: len(fleet.handled()) == 20, 60, "all is handled")

    code, leases = as_json(fleet, "leases", "list")
    owned = [one for one in leases["leases"] if one["owner_state"] == "session"]
    assert (code, len(leases["workers"]), len(owned)) == (0, 1, len(leases["leases"]))
    shard_id = owned[0]["shard_id"]

    def is_settled() -> bool:
        code, lag = as_json(fleet, "lag")
        return (code, lag["lag_seconds"], lag["unknown_shards"]) == (0, 0.0, 0)

    wait_until(is_settled, 60, "the checkpoint is at the tip")
    checkpoints = {one["shard_id"]: one["checkpoint"] for one in as_json(fleet, "leases", "list")[1]["leases"]}
    code, shards = as_json(fleet, "shards", "--no-lag")
    assert (code, [one["state"] for one in shards["shards"]]) == (0, ["open"] * len(owned))
    tailed = consumer(fleet, "tail", "{config}", "--from", "trim_horizon", "--limit", "20")
    records = [json.loads(line) for line in tailed.stdout.splitlines()]
    assert (tailed.returncode, {record["eventSourceARN"] for record in records}) == (0, {leases["stream_id"]})
    assert len(records) == 20
    frame = consumer(fleet, "top", "{config}", "--once")
    assert (frame.returncode, "every lease has an owner" in frame.stdout, shard_id in frame.stdout) == (0, True, True)

    refused = consumer(fleet, "leases", "release", "{config}", "--yes")
    assert (refused.returncode, "workers of this application are running" in refused.stderr) == (78, True)
    daemon.send(signal.SIGKILL)
    daemon.wait()
    code, released = as_json(fleet, "leases", "release", "--yes")
    assert (code, released["released"]) == (0, [one["shard_id"] for one in owned])
    shown = as_json(fleet, "leases", "list")[1]["leases"]
    assert {one["owner"] for one in shown} == {None}
    assert {one["shard_id"]: one["checkpoint"] for one in shown} == checkpoints

    code, reset = as_json(fleet, "leases", "reset", "--all", "--yes")
    assert (code, reset["written"]) == (0, len(owned))
    fleet.journal_path.unlink()
    fleet.start("again")
    wait_until(lambda: len(fleet.handled()) == 20, 60, "all is handled again, from the beginning")
