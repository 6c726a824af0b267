"""The fair-share planner as properties of whole fleets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.planner import Plan, plan
from consumer.domain.shards import may_start

Rows = dict[str, LeaseRow]


def plans(sessions: Sequence[SessionRow], rows: Rows, dead: set[str]) -> dict[str, Plan]:
    return {session.incarnation: plan(session.incarnation, sessions, dead, rows) for session in sessions}


def carry_out(sessions: Sequence[SessionRow], rows: Rows, dead: set[str]) -> tuple[Rows, int]:
    """Everyone plans on the same view and does its part; returns the new rows and the number of changes."""
    after, touched = dict(rows), Counter[str]()
    for who, part in plans(sessions, rows, dead).items():
        for row in part.take:
            assert row.owner is None or row.owner in dead, "only free leases are taken"
            after[row.shard_id] = replace(row, owner=who, epoch=row.epoch + 1)
            touched[row.shard_id] += 1
        for shard_id, target in part.hand_over:
            row = rows[shard_id]
            assert row.owner == who, "everyone gives away its own only"
            assert target != who
            assert row.state != "halted"
            assert not row.corrupt
            after[shard_id] = replace(row, owner=target, epoch=row.epoch + 1)
            touched[shard_id] += 1
    assert max(touched.values(), default=0) <= 1, "a shard moves at most once per plan"
    return after, sum(touched.values())


def share(sessions: Sequence[SessionRow], rows: Rows) -> Counter[str]:
    counts = Counter({session.incarnation: 0 for session in sessions})
    counts.update(
        row.owner for row in rows.values() if row.owner in counts and not row.finished and may_start(row, rows)
    )
    return counts


@st.composite
def fleets(
    draw: st.DrawFn, *, caps: bool = False, leaving: bool = False, odd: bool = False
) -> tuple[list[SessionRow], Rows]:
    count = draw(st.integers(1, 8))
    sessions = [
        SessionRow(
            f"host-{index}/1/{index}",
            capacity=draw(st.integers(0, 9)) if caps else 0,
            leaving=draw(st.booleans()) if leaving else False,
        )
        for index in range(count)
    ]
    owners = [*[session.incarnation for session in sessions], None, "dead"]
    states = ["waiting", "open", "open", "draining", "done"] + (["halted"] if odd else [])
    rows: Rows = {}
    for index in range(draw(st.integers(0, 50))):
        shard_id = f"shardId-{index:05d}"
        parents = (draw(st.sampled_from(sorted(rows))),) if rows and draw(st.integers(0, 3)) == 0 else ()
        rows[shard_id] = LeaseRow(
            shard_id,
            parents=parents,
            owner=draw(st.sampled_from(owners)),
            epoch=draw(st.integers(0, 5)),
            state=draw(st.sampled_from(states)),  # type: ignore[arg-type]  # drawn from the states
            corrupt="garbage" if odd and draw(st.integers(0, 9)) == 0 else "",
        )
    return sessions, rows


@given(fleets())
@settings(max_examples=100, deadline=None)
def test_any_fleet_is_balanced_within_two_rounds_and_stays_so(fleet: tuple[list[SessionRow], Rows]) -> None:
    """Free leases first, then hand-overs: afterwards nobody holds two more than another, and nothing moves again."""
    sessions, rows = fleet
    for _ in range(2):
        rows, _ = carry_out(sessions, rows, {"dead"})
    rows, changes = carry_out(sessions, rows, {"dead"})
    assert changes == 0, "no ping-pong"
    counts = share(sessions, rows)
    assert max(counts.values()) - min(counts.values()) <= 1
    owners = {session.incarnation for session in sessions}
    assert all(row.owner in owners for row in rows.values() if not row.finished and may_start(row, rows))


@given(fleets(caps=True, leaving=True, odd=True))
@settings(max_examples=100, deadline=None)
def test_caps_and_leaving_workers_are_respected(fleet: tuple[list[SessionRow], Rows]) -> None:
    """Nobody is given more than its capacity, leaving workers neither take nor get anything, and it comes to rest."""
    sessions, rows = fleet
    staying = {session.incarnation: session.capacity for session in sessions if not session.leaving}
    for _ in range(4):
        before = share(sessions, rows)
        for who, part in plans(sessions, rows, {"dead"}).items():
            if who not in staying:
                assert part == Plan()
            assert all(target in staying for _, target in part.hand_over)
        rows, changes = carry_out(sessions, rows, {"dead"})
        for who, count in share(sessions, rows).items():
            if staying.get(who):
                assert count <= max(staying[who], before[who])
    assert changes == 0


@given(fleets(caps=True, leaving=True, odd=True))
@settings(max_examples=100, deadline=None)
def test_workers_with_the_same_view_never_want_the_same_lease(fleet: tuple[list[SessionRow], Rows]) -> None:
    """Takes are disjoint, name startable shards only, and do not depend on the order of the rows or sessions."""
    sessions, rows = fleet
    taken = [row.shard_id for part in plans(sessions, rows, {"dead"}).values() for row in part.take]
    assert len(taken) == len(set(taken))
    for shard_id in taken:
        row = rows[shard_id]
        assert not row.finished
        assert not row.corrupt
        assert may_start(row, rows)
    turned = dict(reversed(rows.items()))
    assert plans(sessions[::-1], turned, {"dead"}) == plans(sessions, rows, {"dead"})


@given(fleets(odd=True))
@settings(max_examples=100, deadline=None)
def test_shards_that_cannot_move_do_not_stop_the_others(fleet: tuple[list[SessionRow], Rows]) -> None:
    """Halted and quarantined shards stay; among movable ones nobody keeps two more than another could have."""
    sessions, rows = fleet
    for _ in range(3):
        rows, changes = carry_out(sessions, rows, {"dead"})
    assert changes == 0
    counts = share(sessions, rows)
    able = {
        row.owner
        for row in rows.values()
        if row.state != "halted" and not row.corrupt and not row.finished and may_start(row, rows)
    }
    givers = [counts[who] for who in counts if who in able]
    assert not givers or max(givers) - min(counts.values()) <= 1


def test_a_worker_full_of_halted_shards_does_not_hide_a_giver() -> None:
    """a holds five halted shards, b three open ones, c none: b hands one to c."""
    rows = {f"h{n}": LeaseRow(f"h{n}", owner="a", state="halted") for n in range(5)}
    rows |= {f"s{n}": LeaseRow(f"s{n}", owner="b", state="open") for n in range(3)}
    sessions = [SessionRow("a"), SessionRow("b"), SessionRow("c")]
    assert plan("b", sessions, (), rows) == Plan(hand_over=(("s0", "c"),))
    assert plan("a", sessions, (), rows) == Plan()


def test_a_quarantined_shard_is_never_chosen_to_move() -> None:
    """Nobody works on it, so nobody could drain it: another shard goes instead."""
    rows = {name: LeaseRow(name, owner="a", state="open") for name in ("s1", "s2", "s3")}
    rows["s1"] = replace(rows["s1"], corrupt="low is garbage")
    assert plan("a", [SessionRow("a"), SessionRow("b")], (), rows) == Plan(hand_over=(("s2", "b"),))


def test_finished_shards_and_blocked_children_do_not_count() -> None:
    """a owns two done shards and a child that may not start; b owns two open ones: nothing moves."""
    rows = {
        "d1": LeaseRow("d1", owner="a", state="done"),
        "d2": LeaseRow("d2", owner="a", state="done"),
        "c1": LeaseRow("c1", owner=None, parents=("s1",)),
        "s1": LeaseRow("s1", owner="b", state="open"),
        "s2": LeaseRow("s2", owner="b", state="open"),
    }
    sessions = [SessionRow("a"), SessionRow("b")]
    assert plan("a", sessions, (), rows) == Plan()
    assert plan("b", sessions, (), rows) == Plan(hand_over=(("s1", "a"),))


def test_a_difference_of_one_is_left_alone() -> None:
    """Three shards on two workers stay where they are."""
    rows = {f"s{n}": LeaseRow(f"s{n}", owner="a" if n < 2 else "b", state="open") for n in range(3)}
    sessions = [SessionRow("a"), SessionRow("b")]
    assert plans(sessions, rows, set()) == {"a": Plan(), "b": Plan()}


def test_nobody_hands_over_while_leases_are_free() -> None:
    """A new shard goes to the idle worker instead of moving one that is being read."""
    rows = {name: LeaseRow(name, owner="a", state="open") for name in ("s1", "s2")} | {"s3": LeaseRow("s3")}
    sessions = [SessionRow("a"), SessionRow("b")]
    assert plan("a", sessions, (), rows) == Plan()
    assert [row.shard_id for row in plan("b", sessions, (), rows).take] == ["s3"]


def test_scale_out_moves_the_least() -> None:
    """200 shards from one worker to twenty: 190 moves in one plan, ten shards each."""
    sessions = [SessionRow(f"w{n:02d}") for n in range(20)]
    rows = {f"s{n:03d}": LeaseRow(f"s{n:03d}", owner="w00", state="open") for n in range(200)}
    rows, changes = carry_out(sessions, rows, set())
    assert changes == 190
    assert set(share(sessions, rows).values()) == {10}


def test_strangers_and_the_leaving_plan_nothing() -> None:
    """A worker without a live session row, or one that is shutting down, does nothing."""
    rows = {"s1": LeaseRow("s1")}
    assert plan("me", [], (), rows) == Plan()
    assert plan("me", [SessionRow("me", leaving=True)], (), rows) == Plan()
    assert [row.shard_id for row in plan("me", [SessionRow("me")], (), rows).take] == ["s1"]


def quadratic_moves(sessions: Sequence[SessionRow], rows: Rows) -> dict[str, list[tuple[str, str]]]:
    """The rule of hand-overs as it is said: again and again whoever has the most gives to whoever has the fewest."""
    most_of = {s.incarnation: s.capacity or len(rows) + 1 for s in sessions if not s.leaving}
    counts = share([session for session in sessions if session.incarnation in most_of], rows)
    movable = [
        row
        for row in rows.values()
        if not row.finished and may_start(row, rows) and row.state != "halted" and not row.corrupt
    ]
    own = {worker: sorted(row.shard_id for row in movable if row.owner == worker) for worker in most_of}
    moves: dict[str, list[tuple[str, str]]] = {worker: [] for worker in most_of}
    while True:
        givers = [worker for worker in most_of if len(own[worker]) > len(moves[worker])]
        takers = [worker for worker in most_of if counts[worker] < most_of[worker]]
        if not givers or not takers:
            return moves
        giver = max(givers, key=lambda worker: (counts[worker], worker))
        taker = min(takers, key=lambda worker: (counts[worker], worker))
        if counts[giver] - counts[taker] < 2:
            return moves
        counts[giver] -= 1
        counts[taker] += 1
        moves[giver].append((own[giver][len(moves[giver])], taker))


@given(fleets(caps=True, leaving=True, odd=True))
@settings(max_examples=300, deadline=None)
def test_hand_overs_are_those_of_the_simple_rule(fleet: tuple[list[SessionRow], Rows]) -> None:
    sessions, rows = fleet
    rows = {shard_id: replace(row, owner=row.owner or "host-0/1/0") for shard_id, row in rows.items()}
    expected = quadratic_moves(sessions, rows)
    for who, part in plans(sessions, rows, set()).items():
        assert list(part.hand_over) == expected.get(who, [])


def test_a_worker_that_is_not_seen_yet_changes_few_choices() -> None:
    """Fifty workers start on 500 shards. Who does not see the last of them yet still makes most of the choices of one
    that does."""
    sessions = [SessionRow(f"host-{number}") for number in range(50)]
    rows = {f"s{number:03d}": LeaseRow(f"s{number:03d}") for number in range(500)}
    same = 0
    for session in sessions[:-1]:
        full, partial = (plan(session.incarnation, seen, (), rows).take for seen in (sessions, sessions[:-1]))
        assert len(full) == 10
        same += len(set(full) & set(partial))
    assert same > 0.5 * 10 * 49


@pytest.mark.parametrize("owners", [1, 500, 1000, 0])
def test_a_plan_for_a_thousand_workers_and_five_thousand_shards_takes_no_time(owners: int) -> None:
    """Below 50 ms of CPU, whether the leases are free, with one worker, with half of them, or shared evenly."""
    sessions = [SessionRow(f"host-{number:04d}/1/{number:032x}") for number in range(1000)]
    rows = {
        f"shardId-{number:020d}-{number:08x}": LeaseRow(
            f"shardId-{number:020d}-{number:08x}",
            owner=sessions[number % owners].incarnation if owners else None,
            state="open",
        )
        for number in range(5000)
    }
    took = []
    for _ in range(5):
        before = time.process_time()
        part = plan(sessions[0].incarnation, sessions, (), rows)
        took.append(time.process_time() - before)
    assert min(took) < 0.05
    assert (len(part.take), len(part.hand_over)) == {1: (0, 4995), 500: (0, 5), 1000: (0, 0), 0: (5, 0)}[owners]
