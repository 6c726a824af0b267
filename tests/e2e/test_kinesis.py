"""A fleet on a Kinesis stream into which DynamoDB puts changes as it does: doubled, and some in the wrong order."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiobotocore.session
import pytest

from demo.local_aws import free_port
from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import Fleet, closing, duplicates, out_of_order, wait_until
from tests.support.kinesis_changes import ChangeLog, TableChange, generate, put_changes
from tests.support.kinesis_servers import KinesisServer

CHANGES, ITEMS = 20_000, 500
KEYS = 60
LEASE_SECONDS = 2.0


class Stream:
    """A stream with ``shards`` shards, and what its owner does to it."""

    def __init__(self, endpoint: str, name: str, shards: int) -> None:
        self.name = name
        self._endpoint = endpoint
        self._client = client("kinesis", endpoint)
        self._client.create_stream(StreamName=name, ShardCount=shards)
        self._until_active()

    def put(self, changes: Sequence[TableChange]) -> None:
        async def put() -> None:
            session = aiobotocore.session.get_session()
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
            making = session.create_client("kinesis", region_name="us-east-1", endpoint_url=self._endpoint, **keys)
            async with making as kinesis:
                await put_changes(kinesis, self.name, changes)

        asyncio.run(put())

    def put_plain(self, keys: int, versions: Iterator[int], rounds: int) -> set[tuple[str, int]]:
        """The next versions of so many keys, each after the one before it; returns what must come out."""
        put = set()
        for _ in range(rounds):
            version = next(versions)
            names = [f"key-{number}" for number in range(keys)]
            self.put_version(names, version)
            put |= {(name, version) for name in names}
        return put

    def put_version(self, keys: Sequence[str], version: int) -> list[tuple[str, str]]:
        """A version of each key; returns the shard and the SequenceNumber of each record."""
        data = {key: json.dumps({"key": key, "version": version}).encode() for key in keys}
        records = [{"Data": data[key], "PartitionKey": key} for key in keys]
        answer = self._client.put_records(StreamName=self.name, Records=records)
        assert not answer["FailedRecordCount"], answer
        return [(record["ShardId"], record["SequenceNumber"]) for record in answer["Records"]]

    def make_again(self, shards: int) -> bool:
        """Delete the stream and make it anew. Whether it was made in another second: that is what tells them apart."""
        before = self._created()
        self._client.delete_stream(StreamName=self.name)
        wait_until(lambda: self.name not in self._client.list_streams()["StreamNames"], 30, "the stream is gone")
        self._client.create_stream(StreamName=self.name, ShardCount=shards)
        self._until_active()
        return self._created() != before

    def _created(self) -> int:
        summary = self._client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        return int(summary["StreamCreationTimestamp"].timestamp())

    def resize(self, count: int) -> None:
        self._client.update_shard_count(StreamName=self.name, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        self._until_active()

    def split(self, place: int) -> None:
        shard = self._open()[place]
        hashes = shard["HashKeyRange"]
        middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"]) + 1) // 2
        self._client.split_shard(StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
        self._until_active()

    def merge(self, place: int) -> None:
        one, two = self._open()[place : place + 2]
        self._client.merge_shards(
            StreamName=self.name, ShardToMerge=one["ShardId"], AdjacentShardToMerge=two["ShardId"]
        )
        self._until_active()

    def _open(self) -> list[dict[str, Any]]:
        """Open shards in the order of their hash keys."""
        shards = self._client.list_shards(StreamName=self.name)["Shards"]
        found = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(found, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def _until_active(self) -> None:
        def active() -> bool:
            summary = self._client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
            return summary["StreamStatus"] == "ACTIVE"

        wait_until(active, 30, "the stream is active")


class KinesisFleet(Fleet):
    """Workers on a stream of Kinesis; leases and dead letters are on the usual server."""

    kinesis: str = ""
    stream: str = ""

    def config(self, **overrides: Any) -> dict[str, Any]:
        config = super().config(**overrides)
        config["aws"]["endpoints"]["kinesis"] = self.kinesis
        source = {
            "kind": "kinesis",
            "stream": self.stream,
            "poll": {"target_latency": "200ms", "idle_backoff_max": "500ms"},
        }
        config["source"] = {**source, **overrides.get("source", {})}
        config["handler"]["target"] = "kinesis_handler:handler"
        config["leases"]["duration"] = f"{LEASE_SECONDS:g}s"
        return config


@pytest.fixture
def kinesis_fleet(aws: Aws, kinesalite: KinesisServer, tmp_path: Path) -> Iterator[KinesisFleet]:
    fleet = KinesisFleet(aws.endpoint, tmp_path, f"k{free_port()}")
    fleet.kinesis, fleet.stream = kinesalite.endpoint, f"changes-{fleet.table}"
    with closing(fleet):
        yield fleet


def effects(fleet: Fleet) -> list[tuple[str, str]]:
    """Item and event id of everything that was handled, in order."""
    return [(line[0], line[1]) for line in fleet.journal()]


def superseded(puts: Sequence[TableChange]) -> set[str]:
    """Event ids of what was put only after a newer change of its item."""
    newest: dict[str, int] = {}
    early: set[str] = set()
    late: set[str] = set()
    for change in puts:
        if change.created_us < newest.get(change.partition_key, 0):
            late.add(change.event_id)
        else:
            early.add(change.event_id)
            newest[change.partition_key] = change.created_us
    return late - early


def check(log: ChangeLog, fleet: Fleet) -> None:
    """Nothing is lost, and the last version of every item is the last effect."""
    found = effects(fleet)
    handled = {event_id for _, event_id in found}
    wanted = {change.event_id for change in log.changes}
    assert wanted - handled <= superseded(log.puts), "only what came after a newer change is left out"
    last_change = {change.keys["id"]["S"]: change.event_id for change in log.changes}
    assert dict(found) == last_change, "the last effect on each item is its last change"


def test_the_last_version_of_every_item_is_the_last_effect(kinesis_fleet: KinesisFleet, kinesalite: Any) -> None:
    """20,000 changes of 500 items with 10 % doubles and swaps within 2 s; a split, a merge, two SIGKILLs."""
    fleet = kinesis_fleet
    log = generate(seed=14, changes=CHANGES, items=ITEMS, doubled=0.1, swapped=0.1)
    stream = Stream(fleet.kinesis, fleet.stream, 2)
    step = -(-len(log.puts) // 5)
    parts = [log.puts[start : start + step] for start in range(0, len(log.puts), step)]
    victims = [fleet.start(name) for name in ("w1", "w2")]
    wait_until(lambda: all(worker.owned() for worker in victims), 40, "both own a shard")
    stream.put(parts[0])
    stream.split(0)
    stream.put(parts[1])
    wait_until(lambda: len(effects(fleet)) > CHANGES // 10, 60, "some are handled")
    writing = threading.Thread(target=stream.put, args=(parts[2],))
    writing.start()
    victims[0].send(signal.SIGKILL)
    fleet.start("w3")
    writing.join()
    stream.merge(1)
    writing = threading.Thread(target=stream.put, args=(parts[3],))
    writing.start()
    victims[1].send(signal.SIGKILL)
    fleet.start("w4")
    writing.join()
    stream.put(parts[4])
    last_change = {change.keys["id"]["S"]: change.event_id for change in log.changes}
    wait_until(lambda: dict(effects(fleet)) == last_change, 120, "the last change of every item is the last effect")
    left_out = superseded(log.puts)
    wanted = {change.event_id for change in log.changes} - left_out
    wait_until(lambda: wanted <= {event_id for _, event_id in effects(fleet)}, 60, "nothing is lost")
    survivors = fleet.workers[2:]
    wait_until(lambda: all(shard["in_flight"] == 0 for one in survivors for shard in one.owned()), 30, "all is settled")
    check(log, fleet)
    assert sum(worker.metric('stream_consumer_records_total{result="superseded"}') for worker in survivors) > 0
    assert sum(worker.metric("stream_consumer_gaps_total") for worker in survivors) == 0
    for worker in survivors:
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0


def test_re_sharding_under_load_keeps_everything_and_the_order_of_keys(
    aws: Aws, kinesis_local: KinesisServer, tmp_path: Path
) -> None:
    """From two shards to eight and back, while records that are no changes of a table are put: every key's records are
    handled in order, across splits and merges, by two workers, and nothing is lost."""
    fleet = KinesisFleet(aws.endpoint, tmp_path, f"k{free_port()}")
    fleet.kinesis, fleet.stream = kinesis_local.endpoint, f"changes-{fleet.table}"
    stream = Stream(fleet.kinesis, fleet.stream, 2)
    versions = iter(range(1, 100))
    with closing(fleet):
        for name in ("w1", "w2"):
            fleet.start(name)
        put = stream.put_plain(KEYS, versions, 4)
        for target in (4, 8, 4, 2):
            resizing = threading.Thread(target=stream.resize, args=(target,))
            resizing.start()
            while resizing.is_alive():
                put |= stream.put_plain(KEYS, versions, 1)
            put |= stream.put_plain(KEYS, versions, 2)
        wait_until(lambda: put <= fleet.handled(), 120, f"{len(put)} records are handled")
        assert out_of_order(fleet.journal()) == 0
        assert duplicates(fleet.journal()) == 0
        assert sum(worker.metric("stream_consumer_gaps_total") for worker in fleet.workers) == 0
        for worker in fleet.workers:
            worker.send(signal.SIGTERM)
            assert worker.wait() == 0
