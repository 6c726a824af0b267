"""What becomes of the KCL's leases here: the lease rows with which this application goes on exactly behind them.

* A number is everything that is settled: ``low``. The shard counts as begun, so it waits for no parent.
* SHARD_END is ``done``.
* TRIM_HORIZON is a row that nobody has touched: it is read from its beginning, after its parents.
* LATEST and AT_TIMESTAMP say nothing of what was processed; somebody has to decide where such a shard begins.
* A listed shard that has no lease was finished, and its lease removed (``LeaseCleanupManager`` does that only when all
  children are past TRIM_HORIZON), or was never to be read, if a shard that comes after it was begun: the KCL reads no
  shard before one that it has begun (``HierarchicalShardSyncer``, ``BlockOnParentShardTask``). So it is ``done``, too,
  and all that come before it. Ordinary discovery would say so of parents only, and read a day of grandparents again.
* Any other shard without a lease is left to ordinary discovery: it is new, and read from its beginning.
* A shard that is not listed any more was trimmed. Its row is written all the same: whoever reads it finds out, leaves a
  durable trace, and ``source.on_gap`` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from .frontier import FrontierSnapshot
from .kcl_leases import SENTINELS, SHARD_END, TRIM_HORIZON, UNCHECKED, KclLease, some
from .lease import LeaseRow
from .shards import ShardInfo, missing_leases

Starts = Mapping[str, FrontierSnapshot | None]
"""What of a shard counts as processed, because somebody has decided so; None: all of it, it has ended."""

Numbering = Callable[[str, int], str]
"""``SourceFormat.book_number`` of the stream."""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row to write. ``checkpoint`` is what the KCL has stored (empty: no lease), ``why`` what it means here."""

    row: LeaseRow
    checkpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """``rows`` come in the order in which they may be written one by one: whatever is missing afterwards is read from
    its beginning, and never taken for finished. ``first`` of them must be written one after the other.

    ``discovered``: listed shards that are left to ordinary discovery. ``undecided``: leases at LATEST or AT_TIMESTAMP
    for which no start was given. ``problems``: why nothing may be written.
    """

    rows: tuple[PlannedRow, ...] = ()
    first: int = 0
    discovered: tuple[str, ...] = ()
    undecided: tuple[KclLease, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def plan_import(
    leases: Collection[KclLease],
    listed: Collection[ShardInfo],
    number: Numbering,
    *,
    starts: Starts,
    caught_up: Collection[str] = (),
    closing: bool = False,
) -> ImportPlan:
    """The rows for the leases of one stream.

    Args:
        leases: all of them.
        listed: a complete listing of the stream.
        number: how the stream numbers its records in the books.
        starts: where shards begin that have a lease at LATEST or AT_TIMESTAMP.
        caught_up: shards whose last processed record was trimmed, and of which somebody knows that nothing behind it
            was: they go on with the oldest record that is left.
        closing: the stream is disabled: shards that have ended may be listed as open.
    """
    return _Plan(leases, listed, number, starts, caught_up, closing=closing).made()


class _Plan:
    def __init__(
        self,
        leases: Collection[KclLease],
        listed: Collection[ShardInfo],
        number: Numbering,
        starts: Starts,
        caught_up: Collection[str],
        *,
        closing: bool,
    ) -> None:
        self._all = sorted(leases, key=lambda lease: lease.key)
        self._leases = {lease.shard_id: lease for lease in self._all}
        self._listed = {shard.shard_id: shard for shard in listed}
        self._number = number
        self._starts = starts
        self._caught_up = caught_up
        self._closing = closing
        self._notes: list[str] = []
        self._problems: list[str] = []

    def made(self) -> ImportPlan:
        self._problems += self._impossible()
        undecided = [
            lease
            for lease in self._leases.values()
            if lease.checkpoint in UNCHECKED and lease.shard_id not in self._starts
        ]
        planned = [row for lease in self._leases.values() if (row := self._of_lease(lease)) is not None]
        finished = [self._of_finished(shard_id) for shard_id in self._finished_without_lease()]
        first = self._overtaken()
        place = self._lineage()

        def order(one: PlannedRow) -> tuple[bool, bool, int]:
            return one.row.shard_id not in first, one.row.state == "done", place[one.row.shard_id]

        rows = sorted((*planned, *finished), key=order)
        known = {one.row.shard_id for one in rows} | self._leases.keys()
        self._note()
        return ImportPlan(
            rows=tuple(rows),
            first=len(first),
            discovered=tuple(shard_id for shard_id in self._listed if shard_id not in known),
            undecided=tuple(undecided),
            notes=tuple(self._notes),
            problems=tuple(self._problems),
        )

    # --- rows ------------------------------------------------------------------------------------------

    def _of_lease(self, lease: KclLease) -> PlannedRow | None:
        """None when that is a problem, or undecided."""
        shard = self._listed.get(lease.shard_id)
        try:
            frontier = self._frontier(lease, shard)
        except ValueError as problem:
            self._problems.append(f"{lease.key} {problem}")
            return None
        if lease.checkpoint in UNCHECKED and lease.shard_id not in self._starts:
            return None
        begun = lease.checkpoint not in SENTINELS or not (frontier is None or frontier.untouched)
        row = LeaseRow(
            lease.shard_id,
            parents=self._parents(lease.shard_id),
            state="done" if frontier is None else "open" if begun else "waiting",
            frontier=frontier or FrontierSnapshot(),
            starting_sequence_number=shard.starting_sequence_number if shard else None,
        )
        return PlannedRow(row, lease.position, _why(lease, row, listed=shard is not None))

    def _frontier(self, lease: KclLease, shard: ShardInfo | None) -> FrontierSnapshot | None:
        """What of a shard is settled; None: all of it. ValueError when its checkpoint cannot be right."""
        if lease.checkpoint == SHARD_END:
            if shard is not None and shard.ending_sequence_number is None and not self._closing:
                raise ValueError(
                    "is at SHARD_END, but the stream lists its shard as open: one that has just been closed is listed "
                    "so for a while (try again in a minute); else the table is that of another stream, or the row is "
                    "wrong (delete it, and the shard is read from its beginning)"
                )
            return None
        if lease.checkpoint not in SENTINELS:
            low = self._checked(lease, shard)
            return FrontierSnapshot() if lease.shard_id in self._caught_up else FrontierSnapshot(low=low)
        if lease.checkpoint == TRIM_HORIZON or any(self._is_unfinished(p) for p in self._parents(lease.shard_id)):
            return FrontierSnapshot()  # what comes after a record that is still to be read is to be read, too
        return self._starts.get(lease.shard_id, FrontierSnapshot())

    def _is_unfinished(self, shard_id: str) -> bool:
        """Whether a lease says that some of the shard is still to be read."""
        lease = self._leases.get(shard_id)
        if lease is None or lease.checkpoint == SHARD_END:
            return False
        return lease.checkpoint not in UNCHECKED or self._starts.get(shard_id, FrontierSnapshot()) is not None

    def _of_finished(self, shard_id: str) -> PlannedRow:
        shard = self._listed[shard_id]
        row = LeaseRow(
            shard_id,
            parents=shard.parents,
            state="done",
            starting_sequence_number=shard.starting_sequence_number,
        )
        return PlannedRow(row, "", "no lease, and a shard after it was begun: finished, or not to be read")

    def _checked(self, lease: KclLease, shard: ShardInfo | None) -> str:
        """The checkpoint's number in the books. ValueError when it cannot be one of this shard: shard ids of Kinesis
        are counted, so those of a stream that was made anew are the same."""
        checkpoint = int(lease.checkpoint)
        first, last = (shard.starting_sequence_number, shard.ending_sequence_number) if shard else (None, None)
        if (first is not None and checkpoint < int(first)) or (last is not None and checkpoint > int(last)):
            raise ValueError(
                f"has the checkpoint {lease.checkpoint}, which is none of its shard ({first} to {last or 'open'}): "
                "the table is that of another stream, or of one of the same name before it"
            )
        try:
            return self._number(lease.checkpoint, lease.sub_sequence_number)
        except ValueError as problem:
            raise ValueError(f"is at {lease.position}: {problem}") from problem

    def _parents(self, shard_id: str) -> tuple[str, ...]:
        shard = self._listed.get(shard_id)
        return shard.parents if shard is not None else self._leases[shard_id].parents

    # --- lineage ---------------------------------------------------------------------------------------

    def _lineage(self) -> Mapping[str, int]:
        """Every shard's place in a list in which parents come before children."""
        all_ids = (*self._leases, *(shard_id for shard_id in self._listed if shard_id not in self._leases))
        shards = (ShardInfo(shard_id, self._parents(shard_id), ending_sequence_number="0") for shard_id in all_ids)
        return {shard.shard_id: place for place, shard in enumerate(missing_leases(shards, ()))}

    def _finished_without_lease(self) -> list[str]:
        """Listed shards without a lease that come before one that was begun."""
        found: dict[str, None] = {}
        left = [lease.shard_id for lease in self._leases.values() if lease.begun]
        while left:
            for parent in self._parents(left.pop()):
                if parent in self._listed and parent not in self._leases and parent not in found:
                    found[parent] = None
                    left.append(parent)
        return list(found)

    def _overtaken(self) -> set[str]:
        """Unfinished shards of which a child was begun, as the KCL never does. If their rows were missing, their child
        would say that they were finished."""
        begun = (lease.shard_id for lease in self._leases.values() if lease.begun and lease.checkpoint not in UNCHECKED)
        return {
            parent
            for shard_id in (*begun, *self._finished_without_lease())
            for parent in self._parents(shard_id)
            if self._is_unfinished(parent)
        }

    def _impossible(self) -> Iterable[str]:
        """Why none of it can be right."""
        if len(self._leases) < len(self._all):
            twice = {lease.shard_id for lease in self._all if self._leases[lease.shard_id] is not lease}
            yield f"there is more than one lease of {some(twice)}"
        if self._leases and not self._leases.keys() & self._listed.keys():
            yield (
                f"the stream lists none of the {len(self._leases)} shards of the table ({some(self._leases)}): it is "
                "that of another stream, or all of them were trimmed, and there is nothing to go on with "
                "(source.starting_position says where to begin instead)"
            )

    # --- what should be known --------------------------------------------------------------------------

    def _note(self) -> None:
        for lease in self._leases.values():
            if lease.pending:
                self._notes.append(
                    f"{lease.key} has a pending checkpoint {lease.pending}: it was prepared and never made, so the "
                    f"checkpoint {lease.position} holds, and the records between are handled again; the state that "
                    "the application stored with it is not taken along"
                )
            if lease.checkpoint != SHARD_END and lease.shard_id not in self._listed:
                self._notes.append(
                    f"{lease.key} is at {lease.position}, and the stream does not list its shard any more: what was "
                    "not processed was trimmed; run leaves a gap row for it, and source.on_gap decides"
                )
        if overtaken := self._overtaken():
            self._notes.append(
                f"{some(overtaken)}: not finished, although a child was begun; both go on from their checkpoints, "
                "side by side"
            )
        unfinished = {lease.shard_id for lease in self._leases.values() if not lease.begun}
        missing = {p for shard_id in unfinished for p in self._parents(shard_id) if p in self._listed} - (
            self._leases.keys() | set(self._finished_without_lease())
        )
        if missing:
            self._notes.append(
                f"{some(missing)}: no lease, and their children are at TRIM_HORIZON; nothing says that they were "
                "finished, so they are read from their beginning, before their children"
            )


def _why(lease: KclLease, row: LeaseRow, *, listed: bool) -> str:
    if lease.checkpoint == SHARD_END:
        return "finished"
    if not listed:
        return "trimmed: run leaves a gap row"
    if lease.checkpoint == TRIM_HORIZON:
        return "not begun: from its beginning, after its parents"
    if lease.checkpoint not in UNCHECKED:
        return "goes on " + ("with the oldest record left" if row.frontier.untouched else "behind its checkpoint")
    if row.state == "done":
        return "as you have decided: all of it is older"
    return "as you have decided: " + ("from its beginning" if row.frontier.untouched else "behind what is older")
