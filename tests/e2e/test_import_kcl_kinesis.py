"""From the lease table of a KCL application that reads Kinesis streams to the running daemon."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.local_aws import free_port
from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import closing, duplicates, out_of_order
from tests.e2e.test_import_kcl import import_kcl, kcl_table
from tests.e2e.test_kinesis import KinesisFleet, Stream
from tests.support.kcl_items import LEADER, lease_item
from tests.support.kinesis_servers import KinesisServer
from tests.unit.cli.test_kinesis_documents import packed


@pytest.fixture
def fleet(aws: Aws, kinesalite: KinesisServer, tmp_path: Path) -> Iterator[KinesisFleet]:
    fleet = KinesisFleet(aws.endpoint, tmp_path, f"k{free_port()}")
    fleet.kinesis, fleet.stream = kinesalite.endpoint, f"changes-{fleet.table}"
    with closing(fleet):
        yield fleet


def data(key: str, version: int) -> bytes:
    return json.dumps({"key": key, "version": version}).encode()


def test_the_daemon_goes_on_behind_the_checkpoints(aws: Aws, fleet: KinesisFleet) -> None:
    """In the middle of an aggregate, in the table of an application with several streams, after a split whose parent's
    lease was removed: nothing again, nothing left out, nothing of the other stream."""
    stream, kinesis = Stream(fleet.kinesis, fleet.stream, 2), client("kinesis", fleet.kinesis)
    versions = iter(range(1, 100))
    stream.put_plain(20, versions, 2)
    stream.split(0)
    stream.put_plain(20, versions, 2)
    aggregate = packed(*(data("packed", version) for version in (1, 2, 3)))
    placed = kinesis.put_record(StreamName=fleet.stream, Data=aggregate, PartitionKey="k")
    stream.put_plain(20, versions, 2)

    listed = kinesis.list_shards(StreamName=fleet.stream)["Shards"]
    is_open = {s["ShardId"]: "EndingSequenceNumber" not in s["SequenceNumberRange"] for s in listed}
    summary = kinesis.describe_stream_summary(StreamName=fleet.stream)["StreamDescriptionSummary"]
    account = summary["StreamARN"].split(":")[4]
    name = f"{account}:{fleet.stream}:{int(summary['StreamCreationTimestamp'].timestamp())}"
    wanted, leases = {("packed", 3)}, []
    for shard_id in [shard_id for shard_id, still in is_open.items() if still]:
        iterator = kinesis.get_shard_iterator(
            StreamName=fleet.stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON"
        )
        records = kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        if shard_id == placed["ShardId"]:
            place = next(n for n, one in enumerate(records) if one["SequenceNumber"] == placed["SequenceNumber"])
            leases.append(lease_item(f"{name}:{shard_id}", placed["SequenceNumber"], sub=1))
        else:
            place = len(records) // 2
            leases.append(lease_item(f"{name}:{shard_id}", records[place]["SequenceNumber"]))
        behind = [json.loads(one["Data"]) for one in records[place + 1 :] if one["Data"] != aggregate]
        wanted |= {(one["key"], one["version"]) for one in behind}
    assert len(leases) == 3

    table = kcl_table(aws, *leases, lease_item(f"{account}:other:1:shardId-000000000000", "5"), LEADER)
    code, said, error = import_kcl(fleet, table, "--yes", source=fleet.config()["source"])
    assert code == 0, error
    assert f"left alone: 1 lease of {account}:other:1" in said
    assert "sub-sequence number 1" in said

    worker = fleet.start("w1")
    fleet.wait_for(wanted)
    more = stream.put_plain(20, versions, 1)
    fleet.wait_for(more)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert fleet.handled() == wanted | more
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0
    assert not [event for event in worker.events() if event["event"] == "shard.gap"]
