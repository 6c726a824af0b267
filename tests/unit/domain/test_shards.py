"""The shard graph."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.lease import LeaseRow, LeaseState
from consumer.domain.shards import ShardInfo, children_of, may_start, missing_leases


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
            return str.__eq__(self, other)  # type: ignore[arg-type]

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


def test_listing_a_shard_twice_gives_one_lease() -> None:
    """Pages of a listing may overlap."""
    assert [shard.shard_id for shard in missing_leases([ShardInfo("a"), ShardInfo("a")], ())] == ["a"]


@pytest.mark.parametrize(
    ("states", "may"),
    [
        ([], True),
        ([None], True),
        (["waiting"], False),
        (["open"], False),
        (["halted"], False),
        (["draining"], True),
        (["done"], True),
        (["done", "open"], False),
        (["done", "draining"], True),
        (["done", None], True),
        ([None, "open"], False),
    ],
)
def test_may_start(states: list[LeaseState | None], may: bool) -> None:
    """A child starts when every parent that has a row is settled to its end; None is a parent without a row."""
    rows = {f"p{n}": LeaseRow(f"p{n}", state=state) for n, state in enumerate(states) if state is not None}
    child = LeaseRow("c", parents=tuple(f"p{n}" for n in range(len(states))))
    assert may_start(child, rows | {"c": child}) is may


def test_children_of() -> None:
    """Every row that names the shard among its parents."""
    rows = [
        LeaseRow("a"),
        LeaseRow("b", parents=("a",)),
        LeaseRow("c", parents=("x", "a")),
        LeaseRow("d", parents=("b",)),
    ]
    assert [row.shard_id for row in children_of("a", rows)] == ["b", "c"]
