"""``leases list|show|release|reset`` on rows in memory."""

from __future__ import annotations

import pytest

from consumer.domain.deferred import DeferredKey
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.parking import ParkedKey, ParkedShard
from consumer.domain.replay_start import ReplayStart
from consumer.testing.memory_table import HeldLease
from tests.unit.cli.fleet_world import APPLICATION, DURATION, FleetWorld, world

__all__ = ["world"]


def park(world: FleetWorld, digest: str, shard_id: str) -> None:
    label = world.stream.label
    world.table.parked[APPLICATION, digest] = ParkedKey(digest, "park-1", label=label, shard_id=shard_id)
    shard = ParkedShard(digest, label, shard_id, "park-1", "7", letters=3, done=1)
    world.table.parked_shards[APPLICATION, digest, label, shard_id] = shard


# --- list and show -------------------------------------------------------------------------------------


def test_list(world: FleetWorld) -> None:
    """What needs a person comes first; owners that are dead are marked; what is done is only counted."""
    left, right = world.stream.open_shards()
    alive, dead = world.session("host-a/11"), world.session("host-b/22", fenced=True)
    deferred = (DeferredKey("digest-1", "120", since=world.time.wall()),)
    world.lease(left, owner=alive, epoch=3, low="100", runs=(("110", "112"), ("115", "115")), deferred=deferred)
    world.lease(right, owner=dead, epoch=1, state="halted", note="records 5 to 9 were trimmed")
    world.lease("shardId-old", state="done", owner="host-c/1/x/5s", low="50")
    world.lease("shardId-torn", corrupt="low is no number", owner="host-d/4/x/5s")
    park(world, "digest-2", left)
    done = world.run("leases", "list")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == [
        *("SHARD", "STATE", "OWNER", "EPOCH", "CHECKPOINT", "ABOVE", "DEFERRED", "PARKED", "WRITTEN", "NOTE")
    ]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["shardId-torn", "quarantined"],
        [right, "halted"],
        [left, "open"],
    ]
    assert "host-d/4/x (no session)" in lines[1]
    assert "low is no number" in lines[1]
    assert "host-b/22/01234567 (fenced)" in lines[2]
    assert "records 5 to 9 were trimmed" in lines[2]
    assert lines[3].split()[2:8] == ["host-a/11/01234567", "3", "100", "2", "1", "1"]
    assert "shardId-old" not in done.output
    summary = "1 quarantined, 1 halted, 1 open, 1 done (--all lists them); 2 of 3 free; 1 keys parked"
    assert lines[-1] == f"projector: {summary}"
    assert "shardId-old" in world.run("leases", "list", "--all").output


def test_list_as_json(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    owner = world.session("host-a/11")
    world.lease(left, owner=owner, epoch=3, low="100", runs=(("110", "112"),))
    world.lease(right, state="waiting", parents=(left,))
    found = world.json("leases", "list")
    assert (found["application"], found["stream_id"]) == (APPLICATION, world.stream.arn)
    assert [(one["incarnation"], one["leases"], one["fenced"]) for one in found["workers"]] == [(owner, 1, False)]
    first, second = found["leases"]
    assert (first["shard_id"], first["owner_state"], first["checkpoint"]) == (left, "session", "100")
    assert first["settled_above"] == [{"first": "110", "last": "112"}]
    assert (second["parents"], second["owner"], second["checkpoint"]) == ([left], None, None)


def test_an_application_without_rows_is_named(world: FleetWorld) -> None:
    world.table.applications.clear()
    done = world.run("leases", "list")
    assert done.exit_code == 78
    assert "the application projector has no rows in the lease table stream-consumer" in done.output


def test_show(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    deferred = (DeferredKey("digest-1", "120", since=1_790_000_000.0),)
    world.lease(left, low="100", runs=(("110", "112"),), deferred=deferred)
    park(world, "digest-2", left)
    found = world.json("leases", "show", left)
    assert found["deferred"] == [
        {"key": "digest-1", "from": "120", "since": "2026-09-21T14:13:20Z", "waits_for_parent": False}
    ]
    assert found["parked"] == [{"key": "digest-2", "letters": 3, "handled": 1}]
    text = world.run("leases", "show", left).output
    assert "checkpoint     100" in text
    assert "digest-2  3        1" in text


def test_show_of_a_shard_without_a_lease(world: FleetWorld) -> None:
    done = world.run("leases", "show", "shardId-unknown")
    assert (done.exit_code, "shardId-unknown has no lease" in done.output) == (2, True)
    done = world.run("leases", "show")
    assert (done.exit_code, "give the id of a shard" in done.output) == (2, True)


# --- release -------------------------------------------------------------------------------------------


def test_release_shows_and_asks_first(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    before = world.lease(left, owner=world.session("host-a/11"), epoch=3, low="100")
    done = world.run("leases", "release")
    assert done.exit_code == 2
    assert f"{left}  open" in done.output
    assert "nothing was written: add --yes to free 1 leases" in done.output
    assert (world.row(left), world.time.slept) == (before, [])


def test_release_of_a_dead_owner_keeps_the_checkpoint(world: FleetWorld) -> None:
    """Its session is fenced: it cannot come back. The epoch grows, so late writes of it change nothing."""
    left, right = world.stream.open_shards()
    dead, alive = world.session("host-a/11"), world.session("host-b/22")
    world.lease(left, owner=dead, epoch=3, low="100", runs=(("110", "112"),))
    other = world.lease(right, owner=alive, epoch=7)
    world.time.meanwhile = lambda seconds: world.renew(alive)
    found = world.json("leases", "release", "--shard", left, "--yes")
    assert found["released"] == [left]
    row = world.row(left)
    assert (row.owner, row.epoch > 3, row.frontier) == (None, True, FrontierSnapshot("100", runs=(("110", "112"),)))
    assert world.time.slept[0] >= 1.1 * DURATION
    assert (world.is_fenced(dead), world.is_fenced(alive)) == (True, False)
    assert world.row(right) == other


def test_release_refuses_while_an_owner_lives(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    dead, alive = world.session("host-a/11"), world.session("host-b/22")
    rows = [world.lease(left, owner=dead, epoch=3), world.lease(right, owner=alive, epoch=7)]
    world.time.meanwhile = lambda seconds: world.renew(alive)
    done = world.run("leases", "release", "--yes")
    assert done.exit_code == 78
    assert f"workers of this application are running: {alive}" in done.output
    assert [world.row(left), world.row(right)] == rows


def test_release_waits_for_an_owner_without_a_session(world: FleetWorld) -> None:
    """A renewal that it sent before its row was deleted may still count."""
    left, _ = world.stream.open_shards()
    world.lease(left, owner="host-a/11/0123/20s", epoch=3)
    assert world.json("leases", "release", "--yes")["released"] == [left]
    assert world.time.slept[0] == pytest.approx(22.0)


def test_release_of_what_nobody_owns(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left)
    done = world.run("leases", "release", "--yes")
    assert (done.exit_code, "no lease of them has an owner" in done.output) == (0, True)
    done = world.run("leases", "release", "--shard", "shardId-unknown", "--yes")
    assert (done.exit_code, "shardId-unknown has no lease" in done.output) == (78, True)


def test_a_lease_that_a_worker_took_meanwhile_is_left_to_it(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left, owner=world.session("host-a/11"), epoch=3)
    taken = "host-b/22/0123/5s"

    def take(_seconds: float) -> None:
        world.lease(left, owner=taken, epoch=4)

    world.time.meanwhile = take
    assert world.json("leases", "release", "--yes")["released"] == []
    assert world.row(left).owner == taken


# --- reset ---------------------------------------------------------------------------------------------


def test_reset_takes_all_descendants_along(world: FleetWorld) -> None:
    """And nothing else. They begin where the configuration says, whatever their rows held."""
    left, right = world.stream.open_shards()
    child = world.stream.roll(left)
    world.lease(left, state="done", low="100")
    world.lease(child, state="halted", parents=(left,), note="trimmed", low="150")
    other = world.lease(right, low="30")
    done = world.run("leases", "reset", "--shard", left)
    assert done.exit_code == 2
    assert "nothing was written: add --yes to reset 2 rows" in done.output
    assert "is halted (trimmed): the gap leaves no other trace than this reset" in done.output
    assert world.json("leases", "reset", "--shard", left, "--yes")["written"] == 2
    for shard_id in (left, child):
        row = world.row(shard_id)
        assert (row.state, row.owner, row.note) == ("waiting", None, "")
        assert (row.frontier, row.replay) == (FrontierSnapshot(), ReplayStart(0.0))
    assert world.row(right) == other
    [trace] = world.table.replays[APPLICATION, world.stream.label]
    assert (trace.position, set(trace.shards)) == ("reset to trim_horizon", {left, child})


@pytest.mark.parametrize(
    ("position", "since"),
    [("2026-09-21T14:00:00Z", 1_789_999_200.0), ("latest", 1_790_001_000.0)],
)
def test_reset_to_another_starting_position(world: FleetWorld, position: str, since: float) -> None:
    """Older records are left out."""
    left, _ = world.stream.open_shards()
    world.lease(left, low="100")
    world.configure(source={"table": "orders", "starting_position": position})
    assert world.json("leases", "reset", "--shard", left, "--yes")["written"] == 1
    assert world.row(left).replay == ReplayStart(since, older_settled=True)


def test_reset_repairs_a_row_that_cannot_be_read(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left, corrupt="low is no number")
    assert world.json("leases", "reset", "--all", "--yes")["written"] == 2
    assert (world.row(left).corrupt, world.row(left).state) == ("", "waiting")


def test_reset_refuses_while_a_worker_lives_or_keys_are_parked(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    before = world.lease(left, low="100")
    alive = world.session("host-a/11")
    world.time.meanwhile = lambda seconds: world.renew(alive)
    done = world.run("leases", "reset", "--shard", left, "--yes")
    assert (done.exit_code, f"workers of this application are running: {alive}" in done.output) == (78, True)
    assert "stop them, then reset the leases" in done.output
    world.table.sessions.clear()
    park(world, "digest-2", left)
    done = world.run("leases", "reset", "--shard", left, "--yes")
    assert (done.exit_code, "1 keys are parked" in done.output) == (78, True)
    assert world.row(left) == before


def test_reset_of_a_shard_that_left_the_stream(world: FleetWorld) -> None:
    world.lease("shardId-old", low="100")
    done = world.run("leases", "reset", "--shard", "shardId-old", "--yes")
    assert (done.exit_code, "shardId-old has left the stream" in done.output) == (78, True)
    assert world.row("shardId-old").frontier.low == "100"


def test_reset_keeps_a_finished_parent_finished(world: FleetWorld) -> None:
    """Its row may be gone by then: the listing would bring it back, and all of it would be handled again."""
    left, _ = world.stream.open_shards()
    child = world.stream.roll(left)
    world.lease(child, parents=(left,), low="150")
    world.run("leases", "reset", "--shard", child, "--yes")
    assert (world.row(left).state, world.row(child).state) == ("done", "waiting")


@pytest.mark.parametrize("words", [(), ("--all", "--shard", "shardId-1")])
def test_reset_must_be_told_what(world: FleetWorld, words: tuple[str, ...]) -> None:
    done = world.run("leases", "reset", *words)
    assert (done.exit_code, "give --shard SHARD (it may be repeated), or --all" in done.output) == (2, True)


def test_a_row_of_another_application_is_nobodys(world: FleetWorld) -> None:
    world.table.leases["other", world.stream.label] = {"s": HeldLease(world.lease("shardId-mine"))}
    assert [one["shard_id"] for one in world.json("leases", "list")["leases"]] == ["shardId-mine"]
