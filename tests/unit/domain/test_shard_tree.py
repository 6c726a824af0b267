"""The lineage as lines."""

from __future__ import annotations

from consumer.domain.lease import LeaseRow
from consumer.domain.shard_tree import states_of, tree
from consumer.domain.shards import ShardInfo

# a was split into b and c, b rolled into d, c and e merged into f.
LISTED = [
    ShardInfo("a"),
    ShardInfo("b", ("a",)),
    ShardInfo("c", ("a",)),
    ShardInfo("d", ("b",)),
    ShardInfo("e"),
    ShardInfo("f", ("c", "e")),
]


def rows(**states: str) -> dict[str, LeaseRow]:
    parents = {shard.shard_id: shard.parents for shard in LISTED}
    return {name: LeaseRow(name, parents.get(name, ()), state=state) for name, state in states.items()}  # type: ignore[arg-type] # states by name


def drawn(leases: dict[str, LeaseRow], *, finished: bool) -> list[str]:
    return [f"{line.branch}{line.shard_id} {line.state}" for line in tree(LISTED, leases, finished=finished)]


def test_a_tree() -> None:
    """Splits go deeper, a sole child stays below its parent; a merge is drawn once, and names its other parent."""
    leases = rows(a="done", b="draining", c="open", d="waiting", e="open")
    assert drawn(leases, finished=True) == [
        "a done",
        "  ├ b draining",
        "  ↓ d waiting",
        "  └ c open",
        "  ↓ f new",
        "e open",
    ]
    merged = next(line for line in tree(LISTED, leases, finished=True) if line.shard_id == "f")
    assert (merged.parents, merged.others) == (("c", "e"), ("e",))


def test_what_is_over_is_hidden_and_its_children_are_roots() -> None:
    leases = rows(a="done", b="done", c="done", d="open", e="done", f="open")
    assert drawn(leases, finished=False) == ["d open", "f open"]


def test_shards_that_left_the_stream() -> None:
    """A finished one is gone; one that is not finished is shown whatever the listing says."""
    leases = rows(x="done", y="open")
    assert states_of(LISTED[:1], leases) == {"a": "new", "x": "gone", "y": "open"}
    [line] = [one for one in tree(LISTED[:1], leases, finished=False) if one.shard_id == "y"]
    assert not line.listed


def test_ten_thousand_generations() -> None:
    """Neither recursion nor indentation without end."""
    listed = [ShardInfo(f"s{n:05d}", (f"s{n - 1:05d}",) if n else ()) for n in range(10_000)]
    lines = tree(listed, {}, finished=True)
    assert [line.shard_id for line in lines] == [shard.shard_id for shard in listed]
    assert {line.branch for line in lines} == {"", "↓ "}
