"""The shard graph."""

from __future__ import annotations

import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, LeaseState
from consumer.domain.shards import (
    DAY,
    TOMBSTONE_AGE,
    ShardInfo,
    all_settled,
    expired_tombstones,
    is_young,
    keys_held_back,
    may_start,
    missing_leases,
    settled_before,
    startable,
    unknown_parents,
)
from consumer.domain.source_format import created_by_id


@given(st.data())
def test_parents_come_before_children_in_any_graph(data: st.DataObject) -> None:
    """Any listing order, several parents, known ones in between: all that is missing, once, parents first."""
    count = data.draw(st.integers(1, 25))
    shards = [
        ShardInfo(
            f"s{n}", tuple(f"s{p}" for p in data.draw(st.sets(st.integers(0, n - 1), max_size=3)) if n) if n else ()
        )
        for n in range(count)
    ]
    known = {f"s{n}" for n in data.draw(st.sets(st.integers(0, count)))}
    found = [shard.shard_id for shard in missing_leases(data.draw(st.permutations(shards)), known)]
    assert sorted(found) == sorted(shard.shard_id for shard in shards if shard.shard_id not in known)
    place = {shard_id: index for index, shard_id in enumerate(found)}
    for shard in shards:
        for parent in shard.parents:
            if shard.shard_id in place and parent in place:
                assert place[parent] < place[shard.shard_id]


@pytest.mark.parametrize("newest_first", [False, True])
def test_five_thousand_generations_need_no_recursion_and_linear_work(newest_first: bool) -> None:
    """A long lineage, listed in either direction: each shard is looked up a constant number of times."""
    comparisons = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal comparisons
            comparisons += 1
            return str.__eq__(self, other)  # type: ignore[arg-type]  # as str itself takes it

        __hash__ = str.__hash__

    generations = 5000
    shards = [ShardInfo(Name(f"s{n:05d}"), (Name(f"s{n - 1:05d}"),) if n else ()) for n in range(generations)]
    assert generations > sys.getrecursionlimit()
    found = missing_leases(reversed(shards) if newest_first else shards, ())
    assert [str(shard.shard_id) for shard in found] == [str(shard.shard_id) for shard in shards]
    assert comparisons < 40 * generations


def test_siblings_that_depend_on_each_other_keep_their_order() -> None:
    """Both parents of a merged shard are missing and one descends from the other through a third."""
    shards = [ShardInfo("s", ("a", "b")), ShardInfo("b", ("c",)), ShardInfo("c", ("a",)), ShardInfo("a")]
    assert [shard.shard_id for shard in missing_leases(shards, ())] == ["a", "c", "b", "s"]


@pytest.mark.parametrize(
    "shards",
    [
        [ShardInfo("a", ("a",))],
        [ShardInfo("a", ("b",)), ShardInfo("b", ("a",))],
        [ShardInfo("a", ("b",)), ShardInfo("b", ("c", "d")), ShardInfo("c", ("a",)), ShardInfo("d")],
    ],
)
def test_cycles_do_not_hang(shards: list[ShardInfo]) -> None:
    """They cannot exist; every shard still comes out once."""
    found = missing_leases(shards, ())
    assert sorted(shard.shard_id for shard in found) == sorted(shard.shard_id for shard in shards)


def test_open_shards_come_first_behind_their_parents() -> None:
    """Thousands of closed generations: what can be read now is registered before them."""
    lineage = [ShardInfo(f"s{n}", (f"s{n - 1}",) if n else (), "1", "2" if n < 9 else None) for n in range(10)]
    root = ShardInfo("root")
    found = [shard.shard_id for shard in missing_leases([*lineage, root], ())]
    assert found == ["s8", "s9", "root", *(f"s{n}" for n in range(8))]


def test_listing_a_shard_twice_gives_one_lease() -> None:
    """Pages of a listing may overlap."""
    assert [shard.shard_id for shard in missing_leases([ShardInfo("a"), ShardInfo("a")], ())] == ["a"]


@pytest.mark.parametrize(
    ("states", "may"),
    [
        ([], True),
        ([None], False),
        (["waiting"], False),
        (["open"], False),
        (["halted"], False),
        (["deferred"], True),
        (["deferred", "open"], False),
        (["deferred", None], False),
        (["done", "deferred"], True),
        (["draining"], True),
        (["done"], True),
        (["done", "open"], False),
        (["done", "draining"], True),
        (["done", None], False),
        ([None, "open"], False),
    ],
)
def test_may_start(states: list[LeaseState | None], may: bool) -> None:
    """A child starts when every parent is known to be settled to its end, but for deferred keys, which the child holds
    back; None is a parent without a row."""
    rows = {f"p{n}": LeaseRow(f"p{n}", state=state) for n, state in enumerate(states) if state is not None}
    child = LeaseRow("c", parents=tuple(f"p{n}" for n in range(len(states))))
    assert may_start(child, rows | {"c": child}) is may


STATES: tuple[LeaseState, ...] = get_args(LeaseState)
NOW = 1_800_000_000.0


@pytest.mark.parametrize("state", [state for state in STATES if state != "waiting"])
def test_what_was_started_goes_on_whatever_became_of_its_parents(state: LeaseState) -> None:
    """The rule was applied when it started; a tombstone removed since must not stop it."""
    child = LeaseRow("c", parents=("p",), state=state)
    assert may_start(child, {"c": child})


@pytest.mark.parametrize(("corrupt", "held"), [("", [("digest",)]), ("low is not a sequence number: 'x'", [None])])
def test_a_parent_whose_row_is_corrupt_holds_back_every_key(corrupt: str, held: list[tuple[str, ...] | None]) -> None:
    """Which keys it has deferred its row does not say any more, so its children must not go on with any of them."""
    frontier = FrontierSnapshot() if corrupt else FrontierSnapshot("5", deferred=(DeferredKey("digest", "3"),))
    parent = LeaseRow("p", state="deferred", frontier=frontier, corrupt=corrupt)
    child = LeaseRow("c", parents=("p",))
    assert keys_held_back(["p"], {"p": parent}) == held
    assert may_start(child, {"p": parent, "c": child}) is (not corrupt)


@given(st.data())
def test_a_waiting_child_starts_only_behind_settled_rows(data: st.DataObject) -> None:
    """Any graph, any states, any rows missing: no waiting shard starts before every parent's row says settled, and
    everything it waits for is a row that is not settled yet, a listed shard without a row, or an unknown parent."""
    count = data.draw(st.integers(1, 12))
    rows = {}
    listed = []
    for n in range(count):
        parents = tuple(f"s{p}" for p in data.draw(st.sets(st.integers(0, n - 1), max_size=2))) if n else ()
        if data.draw(st.booleans()):
            rows[f"s{n}"] = LeaseRow(f"s{n}", parents=parents, state=data.draw(st.sampled_from(STATES)))
        if data.draw(st.booleans()):
            listed.append(ShardInfo(f"s{n}", parents))
    unknown = unknown_parents(listed, rows)
    known = {shard.shard_id for shard in listed}
    assert not unknown & (known | rows.keys())
    for row in rows.values():
        if row.state != "waiting":
            continue
        held_up = [p for p in row.parents if p not in rows or rows[p].state not in ("deferred", "draining", "done")]
        assert may_start(row, rows) is (not held_up)
        assert all(p in rows or p in known or p in unknown for p in held_up)
    entombed = rows | {p: LeaseRow(p, state="done") for p in unknown}
    assert unknown_parents(listed, entombed) == set()


@pytest.mark.parametrize(
    ("child", "settled"),
    [(None, False), ("waiting", False), ("open", True), ("deferred", True), ("done", True), ("halted", True)],
)
def test_a_started_child_proves_that_its_parent_was_settled(child: LeaseState | None, *, settled: bool) -> None:
    """So a parent whose row was removed is not read a second time."""
    rows = [LeaseRow("x", state="open")] + ([LeaseRow("c", parents=("p",), state=child)] if child else [])
    assert ("p" in settled_before(rows)) is settled


def test_a_child_whose_row_is_corrupt_proves_nothing() -> None:
    """It may wait for some keys of its parent, and does not say so any more."""
    corrupt = LeaseRow("c", ("p",), state="open", corrupt="low is not a sequence number: 'x'")
    assert settled_before([corrupt]) == set()


WAITS, WAITS_NO_MORE = DeferredKey("a", BEGINNING), DeferredKey("a", "7")


@pytest.mark.parametrize(
    ("children", "settled"),
    [
        ([(WAITS,)], False),
        ([(WAITS_NO_MORE,)], True),
        ([(WAITS_NO_MORE, WAITS)], False),
        ([(WAITS,), ()], True),
    ],
)
def test_a_child_that_waits_for_a_key_proves_nothing(children: list[tuple[DeferredKey, ...]], *, settled: bool) -> None:
    """It was started before its parent was through. A sibling that waits for none was started after that."""
    rows = [
        LeaseRow(f"c{n}", ("p",), state="open", frontier=FrontierSnapshot(first="1", deferred=deferred))
        for n, deferred in enumerate(children)
    ]
    assert ("p" in settled_before(rows)) is settled


@pytest.mark.parametrize(
    ("states", "held_back"),
    [
        ([], []),
        ([None], [None]),
        (["done", None], [None]),
        (["done"], []),
        (["draining"], []),
        (["deferred"], [("a", "b")]),
        (["open"], [None]),
        (["waiting"], [None]),
        (["halted"], [None]),
        (["deferred", "done"], [("a", "b")]),
        (["open", "deferred"], [None, ("a", "b")]),
    ],
)
def test_keys_held_back(states: list[LeaseState | None], held_back: list[tuple[str, ...] | None]) -> None:
    """What a parent lists, once it lists all that is left; before its end it may come to defer anything. One without a
    row may have deferred anything: the row may have been deleted by hand."""
    frontier = FrontierSnapshot("9", "1", deferred=(DeferredKey("a", "2"), DeferredKey("b", "3", passed=True)))
    rows = {
        f"p{n}": LeaseRow(f"p{n}", state=state, frontier=frontier)
        for n, state in enumerate(states)
        if state is not None
    }
    assert keys_held_back([f"p{n}" for n in range(len(states))], rows) == held_back


@pytest.mark.parametrize(
    ("state", "deferred", "waits"),
    [
        ("waiting", (), True),
        ("open", (), True),  # nothing of it was read yet
        ("deferred", (WAITS,), True),
        ("deferred", (WAITS_NO_MORE,), False),
        ("draining", (), False),
    ],
)
def test_a_parent_that_is_waited_for_and_is_nowhere_is_found(
    state: LeaseState, deferred: tuple[DeferredKey, ...], waits: bool
) -> None:
    """It gets a row that says it is done, or its children would wait for ever."""
    frontier = FrontierSnapshot("9", "1", deferred=deferred) if deferred else FrontierSnapshot()
    rows = {"c": LeaseRow("c", ("p",), state=state, frontier=frontier)}
    assert unknown_parents([ShardInfo("c", ("p",))], rows) == ({"p"} if waits else set())
    assert unknown_parents([ShardInfo("p"), ShardInfo("c", ("p",))], rows) == set()


@pytest.mark.parametrize("state", STATES)
def test_all_settled_waits_for_deferred_keys(state: LeaseState) -> None:
    """A stream that replaces this one is not begun before they are through: their order would be lost."""
    rows = {"a": LeaseRow("a", state="done"), "b": LeaseRow("b", state=state)}
    settled = state in ("draining", "done")
    assert all_settled([ShardInfo("a"), ShardInfo("b")], rows) is settled
    assert not all_settled([ShardInfo("a"), ShardInfo("c")], rows)
    assert not all_settled([], {})


@pytest.mark.parametrize(
    ("shard_id", "young"),
    [
        (f"shardId-{int((NOW - 3600) * 1000):020d}-0a1b2c3d", True),
        (f"shardId-{int((NOW - DAY + 1) * 1000):020d}-0a1b2c3d", True),
        (f"shardId-{int((NOW - DAY - 1) * 1000):020d}-0a1b2c3d", False),
        ("shardId-00000000000000000001-00000000", False),
        ("shardId-000000000001", False),
        ("anything", False),
    ],
)
def test_is_young(shard_id: str, *, young: bool) -> None:
    """An id that does not tell its time says nothing."""
    assert is_young(created_by_id(shard_id), NOW, DAY) is young


OLD = NOW - TOMBSTONE_AGE - 1


@pytest.mark.parametrize(
    ("why", "row", "others", "listed", "removed"),
    [
        ("left long ago", LeaseRow("p", state="done", updated_at=OLD), [], ["c"], True),
        ("still listed", LeaseRow("p", state="done", updated_at=OLD), [], ["c", "p"], False),
        ("done not long ago", LeaseRow("p", state="done", updated_at=OLD + 2), [], ["c"], False),
        ("age unknown", LeaseRow("p", state="done"), [], ["c"], False),
        ("an empty listing", LeaseRow("p", state="done", updated_at=OLD), [], [], False),
        ("not finished", LeaseRow("p", state="draining", updated_at=OLD), [], ["c"], False),
        ("halted", LeaseRow("p", state="halted", updated_at=OLD), [], ["c"], False),
        ("keys are deferred", LeaseRow("p", state="deferred", updated_at=OLD), [], ["c"], False),
        ("a child waits", LeaseRow("p", state="done", updated_at=OLD), [LeaseRow("c", ("p",))], ["c"], False),
        (
            "one of two waits",
            LeaseRow("p", state="done", updated_at=OLD),
            [LeaseRow("c", ("p",), state="open"), LeaseRow("d", ("p",))],
            ["c"],
            False,
        ),
        (
            "children started",
            LeaseRow("p", state="done", updated_at=OLD),
            [LeaseRow("c", ("p",), state="open"), LeaseRow("d", ("p",), state="done")],
            ["c"],
            True,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_expired_tombstones(
    why: str, row: LeaseRow, others: list[LeaseRow], listed: list[str], *, removed: bool
) -> None:
    """A row goes only when the shard left a complete listing long ago and nobody can need it any more."""
    rows = {one.shard_id: one for one in [row, *others]}
    found = expired_tombstones([ShardInfo(one) for one in listed], rows, NOW, DAY)
    assert (row in found) is removed, why
    assert not expired_tombstones([ShardInfo(one) for one in listed], rows, NOW, 7 * DAY), "a longer retention"


def test_startable_are_the_unowned_and_those_of_the_fenced_that_may_start() -> None:
    """Nobody takes from the living, and silence alone does not free a lease. Quarantined ones wait for a person."""
    rows = [
        LeaseRow("s1"),
        LeaseRow("s2", owner="dead", epoch=3),
        LeaseRow("s3", owner="alive", epoch=1),
        LeaseRow("s4", owner="unknown", epoch=1),
        LeaseRow("s5", corrupt="low is not a sequence number"),
        LeaseRow("s6", state="done"),
        LeaseRow("s7", parents=("s3",)),
        LeaseRow("s8", parents=("s6",)),
    ]
    found = startable({row.shard_id: row for row in rows}, ["dead"])
    assert [row.shard_id for row in found] == ["s1", "s2", "s8"]
