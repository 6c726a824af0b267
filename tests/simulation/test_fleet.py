"""Whole workers in virtual time: complete, in order, once; handed over, taken over and given back."""

from __future__ import annotations

import pytest

from consumer.domain.errors import DependencyError, PermissionDenied, Throttled
from consumer.testing.network import Weather
from consumer.testing.simulation import APPLICATION, Simulation
from tests.support.reported import report
from tests.support.simulated_fleet import (
    SLOW,
    Gate,
    add,
    checked,
    metric,
    owners,
    settled,
    takes_a_while,
    until_owned,
    until_settled,
    versions,
    write,
)

TIMED_OUT = DependencyError("UpdateItem", "Timeout")


def test_once_and_in_order_over_split_and_rollover() -> None:
    """Children are hidden for a while after their parent's end, and wait for it."""
    world = Simulation("split and rollover", shards=2, config=SLOW, stream={"page_records": 40})

    async def scenario(world: Simulation) -> None:
        write(world, 200)
        add(world, "a", takes_a_while)
        add(world, "b", takes_a_while)
        await world.until(lambda: settled(world) > 50, 30.0, "50 records settled")
        world.stream.hide_children(20.0)
        world.stream.split(world.stream.open_shards()[0])
        write(world, 200)
        world.stream.roll(world.stream.open_shards()[-1])
        write(world, 200)
        await until_settled(world, 120.0)
        await world.until(world.closed_shards_done, 60.0, "all closed shards done")
        assert sum(row.finished for row in world.rows().values()) == 2
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_children_wait_for_a_parent_that_is_still_being_handled() -> None:
    world = Simulation("parent in work")

    async def scenario(world: Simulation) -> None:
        gate = Gate(lambda call: ("slow", 1) in versions(call))
        world.put("slow")
        _, handler = add(world, "a", gate)
        await world.until(lambda: len(handler.running) == 1, 30.0, "the call for the parent")
        child = world.stream.roll(world.stream.shard_of("slow"))
        world.put("slow")
        await world.sleep(120.0)
        assert world.rows()[child].owner is None
        assert handler.handled == [("slow", 1)]
        gate.open()
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_dead_workers_leases_are_taken_after_its_session_was_fenced() -> None:
    world = Simulation("dead worker", shards=2, config=SLOW, stream={"page_records": 20})

    async def scenario(world: Simulation) -> None:
        write(world, 300)
        first, _ = add(world, "a", takes_a_while)
        await world.until(lambda: settled(world) > 60, 30.0, "60 records settled")
        dead = first.incarnation
        first.kill()
        second, handler = add(world, "b", takes_a_while)
        await until_settled(world)
        assert {call.lease_epoch for call in handler.calls} == {2}
        assert metric(second, "lease_events", event="peer_fenced") == 1
        await world.until(lambda: dead not in world.table.sessions[APPLICATION], 120.0, "the dead session's row goes")
        await world.finish()

    checked(world, scenario)


def test_settled_runs_are_skipped_after_a_crash() -> None:
    """One key hangs; what was settled above it is in the frontier, and is counted when it is read again."""
    world = Simulation("runs", config={"batch": {"batch_size": 1}})

    async def scenario(world: Simulation) -> None:
        write(world, 40, keys=4)
        shard = world.stream.open_shards()[0]
        first, _ = add(world, "a", Gate(lambda call: versions(call)[0][0] == "k0"))
        await world.until(lambda: settled(world) == 30, 30.0, "three keys settled")
        await world.until(lambda: len(world.rows()[shard].frontier.runs) == 10, 30.0, "ten runs in the frontier")
        first.kill()
        second, _ = add(world, "b")
        await until_settled(world)
        assert metric(second, "duplicates_skipped") == 30
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_newcomer_gets_its_share_without_duplicates() -> None:
    world = Simulation("newcomer", shards=4, config=SLOW, stream={"page_records": 20})

    async def scenario(world: Simulation) -> None:
        write(world, 1200)
        first, _ = add(world, "a", takes_a_while)
        await until_owned(world, first, 4)
        await world.until(lambda: settled(world) > 20, 30.0, "20 records settled")
        _, handler = add(world, "b", takes_a_while)
        await world.until(lambda: sorted(world.owned().values()) == [2, 2], 30.0, "two shards each")
        assert not world.everything_settled(), "or it was no hand-over of work"
        await until_settled(world)
        assert handler.calls
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


@pytest.mark.parametrize("operation", ["take", "save", "release"])
def test_lost_responses(operation: str) -> None:
    """Applied but not answered, for more than a whole series of attempts: nothing is lost or handled twice."""
    world = Simulation(f"lost responses to {operation}", shards=2, config=SLOW, stream={"page_records": 20})

    async def scenario(world: Simulation) -> None:
        write(world, 400)
        first, _ = add(world, "a", takes_a_while)
        lost = first.links["table"].lose_response(operation, times=4)
        await world.until(lambda: settled(world) > 50, 60.0, "50 records settled")
        if operation == "save":
            await world.until(lambda: lost.taken == 4, 30.0, "four saves without an answer")
        await first.stop()
        assert (owners(world), lost.taken) == (set(), 4)
        assert not world.everything_settled(), "or nothing could be handled twice"
        add(world, "b", takes_a_while)
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_nothing_is_written_and_nobody_works_after_the_session_was_fenced() -> None:
    world = Simulation("fenced", shards=2, config=SLOW, stream={"page_records": 20})

    async def scenario(world: Simulation) -> None:
        write(world, 2000)
        first, handler = add(world, "a", takes_a_while)
        await until_owned(world, first, 2)
        fenced = first.incarnation
        refused = first.links["session"].refuse(TIMED_OUT, "bump_session")
        second, others = add(world, "b", takes_a_while)
        await world.until(lambda: owners(world) == {second.incarnation}, 60.0, "the take-over")
        calls, rows = len(handler.calls), dict(world.rows())
        refused.end()
        await world.until(lambda: first.incarnation not in ("", fenced), 30.0, "a new session")
        assert len(handler.calls) == calls
        assert {world.rows()[shard].epoch for shard in rows} == {2}
        assert not world.everything_settled(), "or there was nothing to work on"
        await until_settled(world, 120.0)
        assert {call.lease_epoch for call in others.calls} <= {2, 3}
        await world.finish()

    checked(world, scenario)


def test_no_call_starts_while_the_belief_is_expired() -> None:
    world = Simulation("expired")

    async def scenario(world: Simulation) -> None:
        first, handler = add(world, "a")
        write(world, 5)
        await until_settled(world)
        lost = first.links["session"].lose_request()
        await world.sleep(world.settings.leases.duration)
        calls = len(handler.calls)
        write(world, 5)
        await world.sleep(60.0)
        assert len(handler.calls) == calls
        lost.end()
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_a_corrupt_row_is_quarantined_and_the_others_run() -> None:
    world = Simulation("corrupt", shards=2)

    async def scenario(world: Simulation) -> None:
        first, _ = add(world, "a")
        await until_owned(world, first, 2)
        await first.stop()
        bad = world.stream.open_shards()[0]
        world.edit_row(bad, corrupt="low is not a sequence number")
        write(world, 100)
        second, handler = add(world, "b")
        elsewhere = {item.key for item in world.history.items.values() if item.shard_id != bad}
        held_up = sum(item.shard_id == bad for item in world.history.items.values())
        await world.until(lambda: world.checkers.left == held_up, 30.0, "the other shard settled")
        await world.sleep(60.0)
        assert {key for key, _ in handler.handled} == elsewhere
        assert world.rows()[bad].corrupt
        shown = report(second)
        assert shown is not None
        assert shown.free_leases == 0, "no worker could start on it"
        world.edit_row(bad, corrupt="")
        await until_settled(world)
        await world.finish()

    checked(world, scenario)


def test_permission_denied_is_waited_out() -> None:
    """Taken away from a running worker: it backs off, and nothing counts as empty, gone or settled."""
    world = Simulation("denied")

    async def scenario(world: Simulation) -> None:
        first, _ = add(world, "a")
        write(world, 5)
        await until_settled(world)
        denied = PermissionDenied("dynamodb:GetRecords", "the stream")
        refused = first.links["stream"].refuse(denied, "get_records", "iterator", "list_shards")
        write(world, 5)
        await world.sleep(300.0)
        assert metric(first, "get_records", outcome="error") >= 2
        assert [row.state for row in world.rows().values()] == ["open"]
        assert world.gaps_recorded() == set()
        refused.end()
        await until_settled(world)
        await world.finish()

    assert checked(world, scenario).history.duplicates == []


def test_one_refused_take_leaves_no_take_behind() -> None:
    """All takes of a plan have ended when the plan has: none goes on after its session was fenced."""
    world = Simulation("two takes", shards=2)

    async def scenario(world: Simulation) -> None:
        first, _ = add(world, "a")
        first.links["table"].refuse(Throttled("UpdateItem", "slow down"), "take", times=1)
        lost = first.links["table"].lose_request("take")  # the other take is tried three times, two seconds apart
        await world.until(lambda: lost.taken > 0, 30.0, "a take is on its way")
        fenced = first.incarnation
        world.table.drop_session(APPLICATION, fenced)
        await world.until(lambda: first.incarnation not in ("", fenced), 30.0, "a new session")
        lost.end()
        await until_owned(world, first, 2)
        await world.sleep(60.0)
        assert fenced not in {owner for _, _, _, owner in world.checkers.moves}
        await world.finish()

    checked(world, scenario)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_at_once(seed: int) -> None:
    """Crashes, drains, newcomers, splits and rollovers with hidden children on a bad network."""
    world = Simulation(f"everything at once, {seed}", shards=2, config=SLOW, stream={"page_records": 30})
    rng = world.rng("scenario")
    rough = Weather(lose_request=0.03, lose_response=0.03, slow=0.1, slowest=1.0)

    def join(name: str) -> None:
        worker, _ = add(world, name, takes_a_while)
        for service in ("table", "stream"):
            worker.links[service].weather = rough

    async def scenario(world: Simulation) -> None:
        fleet = ["w0", "w1", "w2"]
        for name in fleet:
            join(name)
        world.stream.hide_children(5.0)
        for step in range(12):
            write(world, 60, keys=17)
            await world.sleep(5.0)
            if step % 3 == 0:
                shard = rng.choice(world.stream.open_shards())
                world.stream.split(shard) if len(world.stream.open_shards()) < 4 else world.stream.roll(shard)
            if step % 4 == 1 or step % 6 == 2:
                leaver = world.workers[fleet.pop(0)]
                await leaver.stop() if step % 4 == 1 else leaver.kill()
                fleet.append(f"w{3 + step}")
                join(fleet[-1])
        await until_settled(world, 240.0)
        await world.finish()
        assert world.gaps_recorded() == set()
        assert all(row.state != "halted" for row in world.rows().values())

    checked(world, scenario)
