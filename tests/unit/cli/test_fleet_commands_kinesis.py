"""The same commands on a Kinesis stream: the real source on a stream in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.domain.kinesis_numbers import book_number
from consumer.testing.memory_kinesis import MemoryKinesis
from consumer.testing.memory_kinesis_client import kinesis_source
from tests.support.kinesis_answers import change, data_of
from tests.unit.cli.fleet_world import APPLICATION, FleetWorld

SHARDS = 2


@pytest.fixture
def kinesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FleetWorld, MemoryKinesis]:
    world = FleetWorld(tmp_path, monkeypatch)
    stream = MemoryKinesis(world.time, shards=SHARDS)
    world.source = kinesis_source(stream, world.time.wall)
    world.stream.label = stream.label  # under which rows are found
    world.table.applications[APPLICATION] = stream.stream_arn
    world.table.streams[APPLICATION] = stream.arn
    world.configure(source={"kind": "kinesis", "stream": stream.name})
    return world, stream


def test_tail_shows_changes_over_a_merge(kinesis: tuple[FleetWorld, MemoryKinesis]) -> None:
    world, stream = kinesis
    for n in range(4):
        stream.put(data_of(change()), f"k{n}")
    stream.merge(*stream.open_shards())
    world.time.now += 10
    for n in range(4):
        stream.put(b"no change", f"k{n}")
    done = world.run("tail", "--from", "trim_horizon", "--limit", "8")
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["eventSource"] for record in records] == ["aws:dynamodb"] * 4 + ["aws:kinesis"] * 4


def test_lag_and_shards(kinesis: tuple[FleetWorld, MemoryKinesis]) -> None:
    world, stream = kinesis
    first, second = stream.open_shards()
    numbers: dict[str, list[str]] = {first: [], second: []}
    for n in range(10):
        shard_id, number = stream.put(data_of(change()), f"k{n}")
        numbers[shard_id].append(book_number(number, 0))
    world.time.now += 90
    world.lease(first, low=numbers[first][0])
    world.lease(second, low=numbers[second][-1])
    found = world.json("lag")
    lags = {one["shard_id"]: one["lag_seconds"] for one in found["shards"]}
    assert lags[second] == 0.0
    assert lags[first] > 80
    child = stream.merge(first, second)
    shown = {one["shard_id"]: one for one in world.json("shards")["shards"]}
    assert shown[child]["state"] == "new"
    assert set(shown[child]["parents"]) == {first, second}
