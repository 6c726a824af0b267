"""``tail`` on a stream in memory."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import click
import pytest

from consumer.cli import tail
from consumer.domain.errors import DependencyError, PermissionDenied
from tests.unit.cli.fleet_world import FleetWorld, world

__all__ = ["world"]


def put(world: FleetWorld, version: int, keys: int = 6) -> None:
    for n in range(keys):
        world.stream.put({"id": f"k{n}", "version": version, "card": f"secret-{version}"})


def shown(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def versions(records: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Of each key, in the order in which they were printed."""
    found: dict[str, list[int]] = {}
    for record in records:
        image = record["dynamodb"]["NewImage"]
        found.setdefault(image["id"]["S"], []).append(int(image["version"]["N"]))
    return found


def test_from_the_horizon_over_splits_in_order(world: FleetWorld) -> None:
    """As Lambda's event has the records; without leases."""
    put(world, 1)
    left, right = world.stream.open_shards()
    world.stream.split(left)
    put(world, 2)
    world.stream.roll(right)
    put(world, 3)
    done = world.run("tail", "--from", "trim_horizon", "--limit", "18")
    assert done.exit_code == 0
    records = shown(done.stdout)
    assert versions(records) == {f"k{n}": [1, 2, 3] for n in range(6)}
    assert {record["eventSource"] for record in records} == {"aws:dynamodb"}
    assert {record["eventVersion"] for record in records} == {"1.1"}
    assert (world.table.leases, world.table.sessions) == ({}, {})


def test_latest_is_what_comes_from_now_on(world: FleetWorld) -> None:
    """Also in shards that a split makes while it runs; two reads a second at most."""
    put(world, 1)
    steps = iter(
        [lambda: put(world, 2), lambda: world.stream.split(world.stream.open_shards()[0]), lambda: put(world, 3)]
    )

    def meanwhile(_seconds: float) -> None:
        if len(world.time.slept) % 4 == 0:
            next(steps, lambda: None)()

    world.time.meanwhile = meanwhile
    done = world.run("tail", "--limit", "12")
    assert done.exit_code == 0
    assert versions(shown(done.stdout)) == {f"k{n}": [2, 3] for n in range(6)}
    assert min(world.time.slept) >= 0.5


def test_from_a_time(world: FleetWorld) -> None:
    put(world, 1)
    world.time.now += 600.0
    put(world, 2)
    world.time.now += 60.0
    assert versions(shown(world.run("tail", "--from", "5m", "--limit", "6").stdout)) == {f"k{n}": [2] for n in range(6)}


def test_one_shard(world: FleetWorld) -> None:
    put(world, 1)
    left, _ = world.stream.open_shards()
    count = len(world.stream._shards[left].numbers)
    world.time.meanwhile = lambda seconds: world.stream.put({"id": "more", "version": len(world.time.slept)})
    records = shown(world.run("tail", "--from", "trim_horizon", "--shard", left, "--limit", str(count)).stdout)
    numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    assert numbers == [str(number) for number in world.stream._shards[left].numbers[:count]]
    done = world.run("tail", "--shard", "shardId-unknown")
    assert (done.exit_code, "the stream has no shard shardId-unknown" in done.output) == (2, True)


def test_filters_and_redaction(world: FleetWorld) -> None:
    world.configure(
        filters=[{"dynamodb": {"Keys": {"id": {"S": ["k3"]}}}}],
        on_failure={"destination": "arn:aws:sqs:us-east-1:123456789012:dlq", "redact": ["card"]},
    )
    put(world, 1)
    done = world.run("tail", "--from", "trim_horizon", "--filters", "--limit", "1")
    assert list(versions(shown(done.stdout))) == ["k3"]
    assert "secret" not in world.run("tail", "--from", "trim_horizon", "--limit", "6").stdout


def test_ctrl_c_is_a_good_end(world: FleetWorld) -> None:
    put(world, 1)

    pressed: list[int] = []

    def interrupt(_seconds: float) -> None:
        if not pressed:  # a second one would end this process, as it should
            pressed.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    world.time.meanwhile = interrupt
    done = world.run("tail", "--from", "trim_horizon")
    assert done.exit_code == 0
    assert len(shown(done.stdout)) > 0


def test_what_passes_is_waited_for_and_a_refusal_is_not(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    put(world, 1)
    inner, failures = world.source.get_records, [0]

    async def fails_at_times(shard_id: str, iterator: str, limit: int) -> Any:
        failures[0] += 1
        if failures[0] % 2:
            raise DependencyError("GetRecords", "InternalServerError", "try again")
        return await inner(shard_id, iterator, limit)

    monkeypatch.setattr(world.source, "get_records", fails_at_times)
    done = world.run("tail", "--from", "trim_horizon", "--limit", "6")
    assert (done.exit_code, len(shown(done.stdout))) == (0, 6)

    async def refused(shard_id: str, iterator: str, limit: int) -> Any:
        raise PermissionDenied("dynamodb:GetRecords", "orders", "AccessDenied")

    monkeypatch.setattr(world.source, "get_records", refused)
    assert world.run("tail", "--from", "trim_horizon").exit_code == 77


def test_records_that_were_trimmed_meanwhile_are_told(world: FleetWorld) -> None:
    put(world, 1)
    left, right = world.stream.open_shards()

    def meanwhile(_seconds: float) -> None:
        if len(world.time.slept) == 3:
            put(world, 2)
            for shard_id in (left, right):
                world.stream.trim(shard_id)
            put(world, 3)

    world.time.meanwhile = meanwhile
    done = world.run("tail", "--limit", "6")
    assert done.exit_code == 0
    assert versions(shown(done.stdout)) == {f"k{n}": [3] for n in range(6)}
    assert "records were trimmed before they could be shown" in done.stderr


def test_a_reader_that_has_enough_is_a_good_end(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `tail | head`. Standard output is closed, but not that of the tests."""
    put(world, 1)
    left: list[int] = []

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(click, "echo", closed)
    monkeypatch.setattr(tail, "leave_stdout", lambda: left.append(1))
    assert world.run("tail", "--from", "trim_horizon").exit_code == 0
    assert left == [1]


def test_a_reader_that_leaves_is_noticed_without_another_record(
    world: FleetWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True, True, False])
    monkeypatch.setattr(tail, "is_read", lambda: next(looks, False))
    done = world.run("tail")
    assert (done.exit_code, done.stdout) == (0, "")


def test_a_pipe_is_read_until_its_reader_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert tail.is_read()
        os.close(reading)
        assert not tail.is_read()
        monkeypatch.undo()
