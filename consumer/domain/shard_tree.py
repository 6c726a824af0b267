"""The lineage of a stream as lines of text, parents before their children."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from .fleet_rows import state_of
from .lease import LeaseRow
from .lineage import Lineage
from .shards import ShardInfo

UNKNOWN: Final = "new"  # listed, and no worker has made a row yet
GONE: Final = "gone"  # finished, and left the stream since
OVER: Final = frozenset({"done", GONE})


@dataclass(frozen=True, slots=True)
class TreeLine:
    """One shard. ``branch`` is what stands before its id: two spaces for each split above it, then ``├ `` or ``└ ``
    where it is one of several children of the shard above, ``↓ `` where it is the only one, nothing for a root.
    ``others``: parents under which it is not shown, because it came out of a merge. ``listed`` in the stream."""

    shard_id: str
    branch: str
    state: str
    parents: tuple[str, ...]
    others: tuple[str, ...]
    listed: bool


def states_of(listed: Collection[ShardInfo], rows: Mapping[str, LeaseRow]) -> dict[str, str]:
    """The state of every shard that is listed or has a row."""
    named = {shard.shard_id for shard in listed}
    found = {shard_id: UNKNOWN for shard_id in named if shard_id not in rows}
    for shard_id, row in rows.items():
        found[shard_id] = GONE if row.finished and not row.corrupt and shard_id not in named else state_of(row)
    return found


def tree(listed: Collection[ShardInfo], rows: Mapping[str, LeaseRow], *, finished: bool) -> list[TreeLine]:
    """All shards, or without ``finished`` those that are not over yet: what follows a hidden one is a root then."""
    states, graph = states_of(listed, rows), Lineage(listed, rows)
    visible = {shard_id for shard_id, state in states.items() if finished or state not in OVER}
    above: dict[str, str] = {}  # the parent under which a shard is shown
    below: dict[str, list[str]] = {}
    for shard_id in graph.parents_first(visible):
        parent = next((one for one in graph.parents(shard_id) if one in visible), None)
        if parent is not None:
            above[shard_id] = parent
            below.setdefault(parent, []).append(shard_id)
    lines = []
    todo = [(shard_id, "", "") for shard_id in sorted(visible - above.keys(), reverse=True)]
    while todo:  # without recursion: a stream may have thousands of generations
        shard_id, indent, mark = todo.pop()
        parents = graph.parents(shard_id)
        others = tuple(one for one in parents if one in visible and one != above.get(shard_id))
        lines.append(TreeLine(shard_id, indent + mark, states[shard_id], parents, others, shard_id in graph.listed))
        children = sorted(below.get(shard_id, ()))
        if len(children) == 1:
            todo.append((children[0], indent, "↓ "))
        else:
            last = len(children) - 1
            todo += [(children[place], f"{indent}  ", "└ " if place == last else "├ ") for place in range(last, -1, -1)]
    return lines
