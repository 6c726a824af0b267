"""What a replay changes: which lease rows are set back, and to what.

A shard that is set back takes all its descendants with it: a child that stayed where it was would run ahead of its
parent, and the order of keys would be lost. Its ancestors and the shards beside it stay as they are.

No record is lost by going back. What was not settled before the replay (a shard that was behind, a key that kept
failing) is still to be handled, so where that is older than the position of the replay, the shard goes back to there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from .frontier import FrontierSnapshot
from .lease import LeaseRow
from .lineage import Lineage
from .replay_start import NOTHING, ReplayStart
from .shards import ShardInfo, settled_before

_CLOCKS: Final = 60.0  # seconds that clocks may be apart


@dataclass(frozen=True, slots=True)
class Position:
    """Where a replay begins. By time: ``since`` (Unix seconds), 0 for the oldest record that is left. By number: that
    of the record ``number`` in the books, in ``shard_id``; ``since`` is when it was created then."""

    since: float
    number: str | None = None
    shard_id: str = ""


@dataclass(frozen=True, slots=True)
class SetBack:
    """One row: as it was read (None: there is none, so it is added), and as it will be. ``note`` says what is not as it
    was asked for."""

    before: LeaseRow | None
    after: LeaseRow
    note: str = ""

    @property
    def shard_id(self) -> str:
        return self.after.shard_id


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """``rows`` come parents before their children. ``finished``: rows to add for shards that were done long ago.
    ``passed``: shards that had ended before the position, which stay as they are. ``left``: shards that left the
    stream, so that nothing of them can be replayed. ``problems``: why nothing may be written."""

    rows: tuple[SetBack, ...] = ()
    finished: tuple[LeaseRow, ...] = ()
    passed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(one.shard_id for one in self.rows)


def plan_in_place(
    position: Position,
    chosen: Collection[str],
    listed: Collection[ShardInfo],
    rows: Mapping[str, LeaseRow],
    created: Callable[[str], float | None],
) -> ReplayPlan:
    """The rows of a running application, set back.

    Args:
        position: where to.
        chosen: shards that are set back, with their descendants; none: all of them (of a position by number its shard).
        listed: a complete listing of the stream.
        rows: the lease rows.
        created: ``SourceFormat.created``.
    """
    graph = Lineage(listed, rows)
    roots, problems = _roots(position, chosen, graph, rows)
    ended = graph.ended_before(position.since, created) if position.number is None else set()
    ended = {shard_id for shard_id in ended if shard_id not in rows or rows[shard_id].settled}
    lineage = graph.descendants(roots - ended)
    reachable = [shard_id for shard_id in graph.parents_first(lineage) if shard_id in graph.listed]
    found: list[SetBack] = []
    for shard_id in reachable:
        row = rows.get(shard_id)
        try:
            found.append(_set_back(row, position) if row else _added(graph, shard_id, position))
        except ValueError as problem:
            problems.append(str(problem))
    return ReplayPlan(
        tuple(found),
        _done_before(graph, lineage, rows),
        passed=tuple(sorted((roots & ended) - lineage)),
        left=tuple(sorted((roots | lineage) - graph.listed.keys())),
        problems=tuple(problems),
    )


def plan_reset(
    start: ReplayStart, chosen: Collection[str], listed: Collection[ShardInfo], rows: Mapping[str, LeaseRow]
) -> ReplayPlan:
    """The rows of the chosen shards (none: of all) and of all that come after them, as if nothing of them had been
    read: each begins at ``start``. What a row holds is forgotten, also what keeps a shard halted or quarantined."""
    graph = Lineage(listed, rows)
    roots, problems = _roots(Position(0.0), chosen, graph, rows)
    lineage = graph.descendants(roots)
    found = []
    for shard_id in graph.parents_first(lineage):
        if shard_id in graph.listed:
            row = rows.get(shard_id)
            before = row or _new(graph.listed[shard_id])
            cleared = replace(_cleared(before), corrupt="", state="waiting", frontier=FrontierSnapshot(), replay=start)
            cleared = replace(cleared, parents=graph.parents(shard_id))  # a row that cannot be read may not say them
            found.append(SetBack(row, cleared, _forgotten(row) if row else ""))
    return ReplayPlan(
        tuple(found),
        _done_before(graph, lineage, rows),
        left=tuple(sorted(lineage - graph.listed.keys())),
        problems=tuple(problems),
    )


def plan_for_another(
    position: Position,
    chosen: Collection[str],
    listed: Collection[ShardInfo],
    now: float,
    created: Callable[[str], float | None],
) -> ReplayPlan:
    """The rows of an application that has none. Shards outside of the replay begin ``now`` (Unix seconds) where shards
    were ``chosen``, and otherwise at the time of the position; their finished ancestors are done."""
    graph = Lineage(listed, {})
    roots, problems = _roots(position, chosen, graph, {})
    lineage = graph.descendants(roots)
    others_from = position.since if position.number is not None and not chosen else now
    ended = graph.ended_before(position.since, created)
    if chosen:
        ended |= {
            i for i, shard in graph.listed.items() if shard.ending_sequence_number is not None and i not in lineage
        }
    before = graph.ancestors(roots) if position.number is not None else set()
    found = []
    for shard_id in graph.parents_first(graph.listed.keys()):
        row = _new(graph.listed[shard_id])
        if shard_id == position.shard_id and position.number is not None:
            row = replace(row, state="open", frontier=FrontierSnapshot(first=position.number))
        elif shard_id in lineage:
            start = None if position.number is not None else _from(position.since)
            row = replace(row, state="done") if shard_id in ended and start else replace(row, replay=start)
        elif shard_id in before or shard_id in ended:
            row = replace(row, state="done")
        else:
            row = replace(row, replay=_from(others_from))
        found.append(SetBack(None, row))
    return ReplayPlan(tuple(found), problems=tuple(problems))


def levels(plan: ReplayPlan) -> list[list[SetBack]]:
    """The rows, children before their parents, those that are no relatives together: whichever writes are done when the
    others fail, what was set back has no child that was not."""
    depth: dict[str, int] = {}
    for one in plan.rows:  # parents come first
        depth[one.shard_id] = 1 + max((depth.get(parent, -1) for parent in one.after.parents), default=-1)
    found: list[list[SetBack]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for one in plan.rows:
        found[depth[one.shard_id]].append(one)
    return found[::-1]


def is_replaying(row: LeaseRow) -> bool:
    """Whether a replay of the shard was begun, or is to begin, and has not come to where the shard was before it."""
    if row.replay is None or row.settled:
        return False
    return int(row.frontier.low or 0) < int(row.replay.settled)


def _done_before(graph: Lineage, lineage: Collection[str], rows: Mapping[str, LeaseRow]) -> tuple[LeaseRow, ...]:
    """Rows for shards outside of the lineage that were done before shards of it began, and have none any more."""
    begun = settled_before(row for row in rows.values() if row.shard_id in lineage)
    done = sorted((begun & graph.listed.keys()) - rows.keys() - set(lineage))
    return tuple(replace(_new(graph.listed[shard_id]), state="done") for shard_id in done)


# --- one row -----------------------------------------------------------------------------------------


def _set_back(row: LeaseRow, position: Position) -> SetBack:
    """ValueError when that would hide what an operator has to know first."""
    if row.corrupt:
        raise ValueError(f"the row of {row.shard_id} cannot be read ({row.corrupt}): repair it first")
    if row.state == "halted":
        raise ValueError(
            f"{row.shard_id} is halted, because records were trimmed before they were read ({row.note}): let workers "
            "go on with source.on_gap: continue first, so that the gap has its trace"
        )
    if position.number is not None and row.shard_id == position.shard_id:
        return _to_number(row, position.number)
    settled, older_settled = _settled(row, position.since if position.number is None else 0.0)
    start = ReplayStart(0.0 if position.number is not None else position.since, settled, older_settled)
    after = replace(_cleared(row), state="waiting", frontier=FrontierSnapshot(), replay=start)
    note = ""
    if start.since and not older_settled and row.frontier.deferred:
        note = "keys of it failed before the replay: goes back to the oldest of their records"
    return SetBack(row, after, note)


def _forgotten(row: LeaseRow) -> str:
    """What goes with a row that should be known before."""
    if row.corrupt:
        return f"its row cannot be read ({row.corrupt}): what it held is given up"
    if row.state == "halted":
        return f"is halted ({row.note}): the gap leaves no other trace than this reset"
    if row.frontier.deferred:
        return f"{len(row.frontier.deferred)} keys of it were failing"
    return ""


def _to_number(row: LeaseRow, number: str) -> SetBack:
    frontier, wanted = row.frontier, int(number)
    if is_replaying(row):
        if _has_moved(row) or row.replay is None or int(row.replay.settled) < wanted:
            raise ValueError(_in_the_middle(row))
        start = ReplayStart(0.0, row.replay.settled)
        return SetBack(row, replace(_cleared(row), state="open", frontier=FrontierSnapshot(first=number), replay=start))
    if not row.settled and frontier.untouched:  # nothing of it was handled: all of it is still to come
        return SetBack(row, replace(_cleared(row), replay=ReplayStart(0.0)), "nothing of it was handled so far")
    settled, _ = _settled(row, 0.0)
    start = ReplayStart(0.0, settled)
    if settled == NOTHING:
        after = replace(_cleared(row), state="waiting", frontier=FrontierSnapshot(), replay=start)
        return SetBack(row, after, "nothing of it was settled but for some keys: begins at its oldest record")
    low = frontier.low
    if low is not None and not frontier.deferred and int(low) < wanted:
        runs = tuple((first, _below(last, wanted)) for first, last in frontier.runs if int(first) < wanted)
        after = replace(_cleared(row), state="open", frontier=FrontierSnapshot(low, frontier.first, runs), replay=start)
        return SetBack(row, after, f"was behind: goes on after {low}, its last settled record")
    at = min([number, *(key.number for key in frontier.deferred)], key=int)
    note = "" if at == number else f"goes back to {at}: from there on a key of it has failed"
    return SetBack(row, replace(_cleared(row), state="open", frontier=FrontierSnapshot(first=at), replay=start), note)


def _below(last: str, wanted: int) -> str:
    return last if int(last) < wanted else str(wanted - 1)


def _settled(row: LeaseRow, since: float) -> tuple[str, bool]:
    """Up to which number everything of a shard is settled, and whether everything is that is older than ``since``."""
    frontier = row.frontier
    if row.replay is not None and is_replaying(row):
        earlier = since <= row.replay.since
        if _has_moved(row) and not earlier:
            raise ValueError(_in_the_middle(row))
        return row.replay.settled, row.replay.older_settled and earlier
    if row.settled:
        return frontier.low or NOTHING, True
    numbers = [int(frontier.low or 0), *(max(0, int(key.number) - 1) for key in frontier.deferred)]
    complete = not frontier.deferred and frontier.complete_at >= since + _CLOCKS
    return str(min(numbers)), complete


def _has_moved(row: LeaseRow) -> bool:
    """Whether something of the replay that the row waits for was handled already."""
    return row.frontier.low is not None or bool(row.frontier.deferred)


def _in_the_middle(row: LeaseRow) -> str:
    return (
        f"{row.shard_id} is in the middle of a replay: keys of it are at older versions than they were. Let workers "
        "finish it first, or replay from its start or from before that"
    )


def _cleared(row: LeaseRow) -> LeaseRow:
    return replace(row, window_open=False, note="")


def _new(shard: ShardInfo) -> LeaseRow:
    return LeaseRow(shard.shard_id, parents=shard.parents, starting_sequence_number=shard.starting_sequence_number)


def _from(since: float) -> ReplayStart | None:
    """Of an application that has handled nothing yet; None: from the oldest record on."""
    return ReplayStart(since, older_settled=True) if since else None


# --- the lineage -------------------------------------------------------------------------------------


def _roots(
    position: Position, chosen: Collection[str], graph: Lineage, rows: Mapping[str, LeaseRow]
) -> tuple[set[str], list[str]]:
    """The shards that were asked for, and what is wrong with them."""
    wanted = set(chosen)
    if position.number is not None:
        wanted.add(position.shard_id)
    problems = [
        f"{shard_id} has left the stream: nothing of it can be replayed"
        if shard_id in rows
        else f"the stream has no shard {shard_id}"
        for shard_id in sorted(wanted - graph.listed.keys())
    ]
    return (wanted or graph.listed.keys() | rows.keys()) & graph.all, problems


def _added(graph: Lineage, shard_id: str, position: Position) -> SetBack:
    """A shard that was not discovered yet: nothing of it was handled, so only the application's own start matters."""
    start = ReplayStart(position.since if position.number is None else 0.0)
    return SetBack(None, replace(_new(graph.listed[shard_id]), replay=start))
