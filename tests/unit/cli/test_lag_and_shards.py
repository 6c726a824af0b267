"""``lag`` and ``shards`` on a stream and rows in memory."""

from __future__ import annotations

import json

import pytest

from consumer.domain.deferred import DeferredKey
from consumer.domain.errors import DependencyError, PermissionDenied
from consumer.ports.leases import Registration
from consumer.ports.source import Page
from tests.unit.cli.fleet_world import APPLICATION, FleetWorld, world

__all__ = ["world"]


def numbers(world: FleetWorld, shard_id: str) -> list[str]:
    return [str(number) for number in world.stream._shards[shard_id].numbers]


def fill(world: FleetWorld, every: float = 10.0) -> None:
    """Records of many keys, one each 10 s."""
    for n in range(20):
        world.stream.put({"id": f"k{n}"})
        world.time.now += every


def test_the_age_of_the_record_behind_the_checkpoint(world: FleetWorld) -> None:
    """A shard that is settled to the tip has lag 0, and that is known; its reads are far apart."""
    left, right = world.stream.open_shards()
    fill(world)
    at = 3
    world.lease(left, low=numbers(world, left)[at])
    world.lease(right, low=numbers(world, right)[-1])
    created = json.loads(world.stream._shards[left].bodies[at + 1])["dynamodb"]["ApproximateCreationDateTime"]
    found = world.json("lag")
    shards = {one["shard_id"]: one for one in found["shards"]}
    assert shards[left]["lag_seconds"] == pytest.approx(world.time.wall() - created, abs=2.0)
    assert (shards[left]["state"], shards[right]["state"]) == ("measured", "at the tip")
    assert shards[right]["lag_seconds"] == 0.0
    assert (found["lag_seconds"], found["unknown_shards"]) == (shards[left]["lag_seconds"], 0)
    assert set(world.time.slept) == {0.5}


def test_what_cannot_be_known_is_never_zero(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    fill(world)
    world.lease(left, corrupt="low is no number")
    world.lease(right, low=numbers(world, right)[0])
    world.stream.trim(right, numbers(world, right)[2])
    world.lease("shardId-child", state="waiting", parents=("shardId-unknown",))
    found = world.json("lag")
    shards = {one["shard_id"]: one for one in found["shards"]}
    assert {one["lag_seconds"] for one in shards.values()} == {None}
    assert [shards[name]["state"] for name in (left, right, "shardId-child")] == ["not known", "trimmed", "not known"]
    assert (found["lag_seconds"], found["unknown_shards"]) == (None, 3)
    text = world.run("lag").output
    assert "projector: lag not known, not known of 3 shards" in text


def test_a_shard_that_waits_for_its_parents_is_no_unknown_one(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    fill(world)
    world.lease(left, low=numbers(world, left)[0])
    world.lease("shardId-child", state="waiting", parents=(left,))
    found = world.json("lag")
    assert (found["unknown_shards"], found["shards_behind"]) == (0, 1)


def test_a_read_that_fails_is_not_known(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left)

    class Failing:
        async def describe(self) -> object:
            return await inner.describe()

        async def iterator(self, shard_id: str, position: object) -> str:
            raise DependencyError("kinesis", "Throttled", "slow down")

    inner, world.source = world.source, Failing()
    [shard] = world.json("lag")["shards"]
    assert (shard["state"], shard["lag_seconds"], "slow down" in shard["detail"]) == ("not known", None, True)


def test_a_record_that_does_not_say_when_it_was_made_is_not_the_tip(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    fill(world)
    world.lease(left, low=numbers(world, left)[-2])
    world.lease(right, low=numbers(world, right)[0])
    for shard_id, number in ((left, -1), (right, 1)):
        bodies = world.stream._shards[shard_id].bodies
        bodies[number] = bodies[number].replace(b"ApproximateCreationDateTime", b"Unknown")
    found = world.json("lag")
    assert [(shard["state"], shard["lag_seconds"]) for shard in found["shards"]] == [("not known", None)] * 2


def test_an_empty_page_is_not_yet_the_tip(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    fill(world)
    world.lease(left, low=numbers(world, left)[0])
    world.stream.empty_pages(left, 2)
    [shard] = world.json("lag")["shards"]
    assert shard["state"] == "measured"
    assert shard["lag_seconds"] > 100


def test_pages_that_are_behind_without_records_are_not_the_tip(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left)

    class Behind:
        async def describe(self) -> object:
            return await inner.describe()

        async def iterator(self, shard_id: str, position: object) -> str:
            return "i"

        async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
            return Page((), "i", 0, behind=40.0)

    inner, world.source = world.source, Behind()
    [shard] = world.json("lag")["shards"]
    assert (shard["state"], shard["lag_seconds"]) == ("not known", None)


def test_deferred_keys_count(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    fill(world)
    since = world.time.wall() - 500.0
    deferred = (DeferredKey("digest-1", "5", since=since), DeferredKey("digest-2", "9", since=since + 100))
    world.lease(left, low=numbers(world, left)[-1], deferred=deferred)
    [shard] = world.json("lag")["shards"]
    assert shard["lag_seconds"] == shard["deferred_lag_seconds"] == pytest.approx(500.0, abs=3.0)


def test_records_before_the_start_of_the_application_are_passed_over(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    fill(world)
    start = world.time.wall()
    for n in range(20):
        world.stream.put({"id": f"k{n}", "version": 2})
    world.time.now += 7.0
    label = world.stream.label
    world.table.registrations[APPLICATION, label] = Registration(world.stream.arn, start)
    for shard_id in world.stream.open_shards():
        world.lease(shard_id, state="waiting")
    assert world.json("lag")["lag_seconds"] == pytest.approx(7.0, abs=2.0)
    assert left


def test_watch_goes_on_until_ctrl_c(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    fill(world)
    world.lease(left, low=numbers(world, left)[0])
    looks: list[float] = []

    def meanwhile(seconds: float) -> None:
        if seconds == 30.0:
            looks.append(seconds)
            if len(looks) == 3:
                raise KeyboardInterrupt

    world.time.meanwhile = meanwhile
    done = world.run("lag", "--watch", "--interval", "30s", "--output", "json")
    assert done.exit_code == 0
    lags = [json.loads(line)["lag_seconds"] for line in done.stdout.splitlines()]
    assert len(lags) == 3
    assert lags[2] > lags[1] > lags[0]


def test_watch_outlives_what_passes(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look fails with 69, the next ones of --watch come."""
    left, _ = world.stream.open_shards()
    world.lease(left, state="done")
    inner, asked = world.source.describe, [0]

    async def fails_at_first() -> object:
        asked[0] += 1
        if asked[0] in (1, 2):
            raise DependencyError("DescribeTable", "InternalServerError", "try again")
        return await inner()

    def meanwhile(_seconds: float) -> None:
        if len(world.time.slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(world.source, "describe", fails_at_first)
    world.time.meanwhile = meanwhile
    assert world.run("lag").exit_code == 69
    done = world.run("lag", "--watch", "--output", "json")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 1)
    assert "looking again in 10 s" in done.stderr


def test_a_permission_that_is_missing_is_no_lag(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left)

    async def refused(shard_id: str, position: object) -> str:
        raise PermissionDenied("dynamodb:GetShardIterator", "orders", "AccessDenied")

    monkeypatch.setattr(world.source, "iterator", refused)
    done = world.run("lag")
    assert (done.exit_code, "dynamodb:GetShardIterator" in done.output) == (77, True)


def test_watch_is_gentle(world: FleetWorld) -> None:
    done = world.run("lag", "--watch", "--interval", "1s")
    assert (done.exit_code, "must be 2s or more" in done.output) == (2, True)


# --- shards --------------------------------------------------------------------------------------------


def test_shards_as_a_tree(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    fill(world)
    children = world.stream.split(left)
    owner = world.session("host-a/11")
    world.lease(left, state="draining", owner=owner, low=numbers(world, left)[-1])
    for child in children:
        world.lease(child, parents=(left,), state="open", owner=owner)
    world.lease(right, state="done")
    done = world.run("shards")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["SHARD", "STATE", "OWNER", "LAG", "NOTE"]
    assert lines[1].startswith(f"{left}        draining  host-a/11/01234567  0.0s".replace("        ", "")[:4])
    assert [line.split()[:2] for line in lines[2:4]] == [["├", children[0]], ["└", children[1]]]
    assert right not in done.output
    assert lines[-1] == "4 shards: 1 done, 1 draining, 2 open (--all shows those that are over)"
    assert right in world.run("shards", "--all").output


def test_shards_without_a_lease_and_without_reading(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    world.lease(left)
    found = world.json("shards", "--no-lag")
    assert {one["shard_id"]: (one["state"], one["lag_seconds"]) for one in found["shards"]} == {
        left: ("open", None),
        right: ("new", None),
    }
    assert found["states"] == {"open": 1, "new": 1}
    assert world.time.slept == []


def test_a_thousand_shards_stay_readable(world: FleetWorld) -> None:
    """Sixteen generations; only what is not over is listed."""
    for step in range(20):
        for shard_id in world.stream.open_shards():
            (world.stream.split if step < 5 else world.stream.roll)(shard_id)
            world.lease(shard_id, state="done")
    done = world.run("shards", "--no-lag")
    open_shards = world.stream.open_shards()
    assert len(world.stream.listed()) > 1000
    assert len(done.output.splitlines()) == len(open_shards) + 2
