"""From a lease table of the KCL to the running daemon: it goes on exactly behind the checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.conftest import unique
from tests.e2e.commands import consumer
from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import ROOT, Fleet, duplicates, out_of_order
from tests.support.kcl_items import KEYS, LEADER, METRICS, Item, lease_item
from tests.support.reshard_proxy import ProxyThread
from tests.support.threads import repeatedly


class Stream:
    """The stream as any consumer reads it: its shards, and the records of each in order."""

    def __init__(self, endpoint: str, table: str, aws: Aws) -> None:
        self.client = client("dynamodbstreams", endpoint)
        self.arn = aws.dynamodb.describe_table(TableName=table)["Table"]["LatestStreamArn"]

    def shards(self) -> dict[str, str | None]:
        """Parents by shard."""
        listed = self.client.describe_stream(StreamArn=self.arn)["StreamDescription"]["Shards"]
        return {shard["ShardId"]: shard.get("ParentShardId") for shard in listed}

    def records(self, shard_id: str) -> list[tuple[str, tuple[str, int]]]:
        """Number, and key with version, of each."""
        start = self.client.get_shard_iterator(StreamArn=self.arn, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
        iterator, empty, found = start["ShardIterator"], 0, []
        while iterator and empty < 3:
            page = self.client.get_records(ShardIterator=iterator)
            found += page["Records"]
            empty = 0 if page["Records"] else empty + 1
            iterator = page.get("NextShardIterator")
        return [(one["dynamodb"]["SequenceNumber"], version_of(one["dynamodb"])) for one in found]


def version_of(change: dict[str, Any]) -> tuple[str, int]:
    return change["Keys"]["pk"]["S"], int(change["NewImage"]["version"]["N"])


def kcl_table(aws: Aws, *items: Item) -> str:
    name = unique("kcl")
    aws.dynamodb.create_table(TableName=name, **KEYS)
    for item in items:
        aws.dynamodb.put_item(TableName=name, Item=item)
    return name


def import_kcl(fleet: Fleet, table: str, *options: str, **overrides: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    command = ("import-kcl", "--config", "{config}", "--table", table, "--failover-time", "1s", *options)
    done = consumer(fleet, *command, **overrides)
    return done.returncode, done.stdout, done.stderr


def our_leases(aws: Aws, fleet: Fleet) -> dict[str, tuple[str, str | None]]:
    """State and number of every lease row of ours."""
    items = aws.dynamodb.scan(TableName=f"leases-{fleet.table}")["Items"]
    return {
        item["sk"]["S"].removeprefix("shard#"): (item["state"]["S"], item.get("low", {}).get("S"))
        for item in items
        if item["sk"]["S"].startswith("shard#")
    }


@pytest.mark.behind_proxy(shards=2)
def test_the_daemon_goes_on_behind_the_checkpoints(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """Two shards at a checkpoint, one finished and one whose lease the KCL has removed, and two that it never saw:
    nothing that it has processed is handled again, nothing else is left out."""
    stream = Stream(proxy.endpoint, fleet.table, aws)
    left, right = stream.shards()
    aws.write(fleet.table, 20, range(1, 4))
    [left_child] = proxy.call("roll", left)  # left: finished, and its lease was removed
    [right_child] = proxy.call("roll", right)  # right: finished
    aws.write(fleet.table, 20, range(4, 7))
    before = {shard_id: stream.records(shard_id) for shard_id in stream.shards()}
    places = {left_child: 4, right_child: 11}
    checkpoints = {shard_id: before[shard_id][place][0] for shard_id, place in places.items()}
    processed = {version for shard_id in (left, right) for _, version in before[shard_id]}
    processed |= {version for shard_id, place in places.items() for _, version in before[shard_id][: place + 1]}
    proxy.call("split", left_child)
    aws.write(fleet.table, 20, range(7, 9))  # in shards that the KCL has no lease of
    everything = {version for shard_id in stream.shards() for _, version in stream.records(shard_id)}
    assert len(everything) == 160

    table = kcl_table(
        aws,
        lease_item(left_child, checkpoints[left_child], parents=(left,)),
        lease_item(right, "SHARD_END", owner=None),
        lease_item(right_child, checkpoints[right_child], parents=(right,), entityType={"S": "LEASE"}),
        METRICS,
        LEADER,
    )
    code, said, error = import_kcl(
        fleet, table, "--dry-run", "--output", "json", source={"starting_position": "latest"}
    )
    assert code == 0, error
    planned = {row["shard_id"]: (row["state"], row["low"]) for row in json.loads(said)["rows"]}
    assert planned == {
        left: ("done", None),
        right: ("done", None),
        left_child: ("open", checkpoints[left_child]),
        right_child: ("open", checkpoints[right_child]),
    }
    assert f"leases-{fleet.table}" not in aws.dynamodb.list_tables()["TableNames"], "a dry run makes no table either"

    code, said, error = import_kcl(fleet, table, source={"starting_position": "latest"})
    assert (code, "nothing was written: add --yes to write 4 rows" in error) == (2, True), error
    assert f"leases-{fleet.table}" not in aws.dynamodb.list_tables()["TableNames"]

    code, said, error = import_kcl(fleet, table, "--yes", source={"starting_position": "latest"})
    assert (code, "4 rows written, 0 were there" in error) == (0, True), error
    assert checkpoints[left_child] in said
    assert our_leases(aws, fleet) == planned

    code, _, error = import_kcl(fleet, table, "--yes", source={"starting_position": "latest"})
    assert (code, "0 rows written, 4 were there" in error) == (0, True), error

    worker = fleet.start("w1", source={"starting_position": "latest"})
    fleet.wait_for(everything - processed)
    more = aws.write(fleet.table, 20, range(9, 10))
    fleet.wait_for(more)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert fleet.handled() == (everything - processed) | more
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0

    code, _, error = import_kcl(fleet, table, "--yes")
    assert code == 78
    assert "lease rows that say something else" in error


def test_it_refuses_while_the_old_fleet_works(aws: Aws, fleet: Fleet) -> None:
    """The counter of a lease moves; nothing is written, and the worker is named. A dry run shows the rows, too."""
    stream = Stream(aws.endpoint, fleet.table, aws)
    aws.write(fleet.table, 5, range(1, 2))
    [shard_id] = stream.shards()
    number = stream.records(shard_id)[0][0]
    table = kcl_table(aws, lease_item(shard_id, number, owner="i-0abc"))

    def renew(count: int) -> None:
        aws.dynamodb.put_item(TableName=table, Item=lease_item(shard_id, number, owner="i-0abc", counter=count))

    with repeatedly(renew, 0.3):  # three times in a failover time, as a live worker does
        for option in ("--yes", "--dry-run"):
            code, said, error = import_kcl(fleet, table, option)
            assert code == 78
            assert "the old fleet lives: within 1 s 1 of 1 rows have moved, of the workers i-0abc" in error
            assert number in said
    assert f"leases-{fleet.table}" not in aws.dynamodb.list_tables()["TableNames"]
    assert import_kcl(fleet, table, "--dry-run")[0] == 0


def test_it_refuses_while_our_own_fleet_works(aws: Aws, fleet: Fleet) -> None:
    stream = Stream(aws.endpoint, fleet.table, aws)
    fleet.start("w1")
    fleet.wait_for(aws.write(fleet.table, 5, range(1, 2)))
    [shard_id] = stream.shards()
    table = kcl_table(aws, lease_item(shard_id, stream.records(shard_id)[0][0]))
    code, _, error = import_kcl(fleet, table, "--yes")
    assert code == 78
    assert "workers of this application are running: " in error
    assert "lease rows that say something else" in error


def test_a_shard_at_latest_needs_a_decision(aws: Aws, fleet: Fleet) -> None:
    """Without one nothing is written; then it begins where it was decided."""
    stream = Stream(aws.endpoint, fleet.table, aws)
    aws.write(fleet.table, 5, range(1, 2))
    [shard_id] = stream.shards()
    table = kcl_table(aws, lease_item(shard_id, "LATEST"))
    code, _, error = import_kcl(fleet, table, "--yes")
    assert code == 78
    assert "--without-checkpoint: trim_horizon" in error
    code, said, error = import_kcl(fleet, table, "--dry-run", "--without-checkpoint", "trim_horizon")
    assert (code, "waiting" in said) == (0, True), error
    last = stream.records(shard_id)[-1][0]
    code, said, error = import_kcl(fleet, table, "--yes", "--without-checkpoint", "2999-01-01T00:00:00Z")
    assert (code, our_leases(aws, fleet)) == (0, {shard_id: ("open", last)}), error


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--table", "no-such-table"), 78, "table no-such-table does not exist (check its name"),
        ((), 2, "give the KCL's lease table with --table"),
        (("--table", "x", "--dry-run", "--yes"), 2, "--dry-run writes nothing: it does not go with --yes"),
        (("--table", "x", "--failover-time", "10"), 2, "add a unit: 10s or 10ms"),
        (("--table", "x", "--without-checkpoint", "soon"), 2, "must be trim_horizon, latest or an ISO-8601 time"),
        (("--properties", "x.properties"), 2, "--properties prints a config file: it goes with neither"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], code: int, says: str, fleet: Fleet) -> None:
    path = fleet.folder / "import.yaml"
    path.write_text(yaml.safe_dump(fleet.config()))
    path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "import-kcl", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
