"""The promises (docs/architecture.md, G1 to G7) as rules over what a simulation does, checked while it happens.

Each rule looks from outside: at handler calls, at rows as the table holds them, at dead letters as they arrive. None
asks the worker itself.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from consumer.domain.events import records_from_event
from consumer.domain.frontier import MAX_RUNS_BYTES, FrontierSnapshot, SettledFilter
from consumer.domain.lease import LeaseRow, LeaseState
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.shards import DAY
from consumer.settings.model import Settings
from consumer.testing.checkpoint_rules import CheckpointRules
from consumer.testing.history import Duplicate, History, Item
from consumer.testing.memory_rules import MemoryRules
from consumer.testing.open_records import Promptness, Stream, record_name

LISTING_WINDOW = 10.0  # seconds
DESCRIBE_LIMIT = 10.0  # DescribeStream calls a second, for the whole fleet: an AWS quota


class Checkers(Promptness):
    """The rules. Everything that crosses the border of a worker comes by here."""

    def __init__(self, history: History, streams: Sequence[Stream], *, max_age: float = DAY) -> None:
        """``max_age``: seconds until a record may be given up for its age."""
        super().__init__(history, streams)
        self._inexact: set[str | None] = set()  # incarnations whose frontiers name their low number only
        self._in_order: set[str] = set()  # incarnations where a failing record holds up more than its own key
        self._max_age = max_age
        self.rows: dict[str, LeaseRow] = {}
        self._deleted: dict[str, list[LeaseRow]] = defaultdict(list)  # by hand: as they were
        self._frontiers: dict[tuple[str, int], FrontierSnapshot] = {}  # what an epoch started from
        self._taken_as: dict[str, LeaseState] = {}  # the state of a shard when its epoch began
        self._busy: dict[tuple[str, str, str], int] = defaultdict(int)
        self._settled_by: dict[tuple[str, str | None, int], list[int]] = defaultdict(list)
        self._begun: dict[tuple[str, str | None, int], float] = {}  # when an epoch began to handle a shard
        self._saving: dict[str, LeaseRow] = {}
        self._damaged: dict[str, int] = {}  # by shard: the epoch whose frontier was made unreadable
        self._readable: dict[str, LeaseRow] = {}  # the row before that
        self._memory = MemoryRules(history)
        self.checkpoints = CheckpointRules(history)
        self.listing_limit = DESCRIBE_LIMIT  # calls a second that list shards
        self._listings: deque[float] = deque()
        self.moves: list[tuple[float, str, str | None, str | None]] = []  # time, shard, owner before and after
        self.cut_off: list[str] = []  # calls that did not get to their end

    def opened(self, incarnation: str, settings: Settings) -> None:
        """A worker takes part in the fleet, with these settings."""
        self.checkpoints.opened(incarnation, settings.checkpoint.interval)
        if settings.idempotency.mode == "off":
            self._inexact.add(incarnation)
        if settings.batch.order != "key" or settings.batch.tumbling_window:
            self._in_order.add(incarnation)

    # --- handler calls ---------------------------------------------------------------------------------

    def started(self, incarnation: str, call: HandlerCall) -> list[Item]:
        """User code is about to run."""
        history = self._history
        shard_id, epoch = call.shard_id, call.lease_epoch
        items = [history.items[record_name(shard_id, record.sequence_number)] for record in call.records]
        history.note("start", incarnation, shard_id, epoch, call.attempt, [item.number for item in items])
        self._begun.setdefault((shard_id, incarnation, epoch), history.now())
        self._check_owner(incarnation, shard_id, epoch)
        self._check_parents(shard_id, items)
        inside: set[int] = set()
        for item in items:
            before = item.previous
            if before is not None and before.open and before.number not in inside:
                history.violated(
                    "G2 order", f"{item.key} v{item.version} starts, v{before.version} is not settled ({incarnation})"
                )
            inside.add(item.number)
            if item.before_start:
                history.violated("start position", f"{item.key} v{item.version} is older than the start")
            if item.settled_at is not None:
                self._check_known(item, incarnation, shard_id, epoch)
        keys = dict.fromkeys(item.key for item in items)
        for key in keys:
            self._busy[incarnation, shard_id, key] += 1
            if self._busy[incarnation, shard_id, key] > 1:
                history.violated("G2 order", f"two calls for {key} at once in {incarnation}")
        return items

    def ended(self, incarnation: str, call: HandlerCall, items: Sequence[Item], outcome: Outcome | None) -> None:
        """User code has ended; None: it was cancelled."""
        history = self._history
        history.note("end", incarnation, call.shard_id, call.lease_epoch, outcome.kind if outcome else "cancelled")
        for key in dict.fromkeys(item.key for item in items):
            self._busy[incarnation, call.shard_id, key] -= 1
        if outcome is None:
            self.cut_off.append(f"{[item.number for item in items]} of {call.shard_id} in {incarnation}")
        if outcome is None or outcome.kind == "not_invoked":
            return
        done: Sequence[Item] = ()
        if outcome.kind == "ok":
            done = items
        elif outcome.kind == "partial":
            done = self._handled_in_part(incarnation, items, outcome)
        settled = {item.number for item in done}
        begun = self._begun[call.shard_id, incarnation, call.lease_epoch]
        for item in items:
            item.failures += item.number not in settled
        for item in done:
            self._took_effect(item, incarnation, begun)
            item.settles += 1
            item.settled_in = incarnation, call.lease_epoch
            if item.settles > 1:
                history.duplicates.append(Duplicate(history.now(), item, incarnation, call.lease_epoch))
            self._settle(item)
            self.checkpoints.settled(call.shard_id, incarnation)
            self._settled_by[call.shard_id, incarnation, call.lease_epoch].append(item.number)

    def _handled_in_part(self, incarnation: str, items: Sequence[Item], outcome: Outcome) -> list[Item]:
        """What counts as handled when the records that failed were named."""
        failed = {self.item(items[0].shard_id, number).number for number in outcome.failed}
        if incarnation in self._in_order or not outcome.exact:
            return [item for item in items if item.number < min(failed)]
        first: dict[str, int] = {}
        for item in items:
            if item.number in failed:
                first.setdefault(item.digest, item.number)
        return [item for item in items if item.number < first.get(item.digest, item.number + 1)]

    def sending_dead_letter(self, incarnation: str, shard_id: str) -> None:
        """A worker is about to send a dead letter: only the owner decides about a record."""
        row = self.rows.get(shard_id)
        if row is not None and row.owner != incarnation:
            found = f"{row.owner} at epoch {row.epoch}"
            self._history.violated(
                "G3 one owner", f"{incarnation} sends a dead letter of {shard_id}; the owner is {found}"
            )

    def dead_lettered(self, document: bytes, shard_id: str, condition: str) -> None:
        """A dead letter is durable. ``condition`` is Lambda's name for why the records were given up."""
        text = document[document.rindex(b'"payload":') + len(b'"payload":') : -1]
        for record in records_from_event(text):
            item = self._history.items[record_name(shard_id, record.sequence_number)]
            item.dead_lettered += 1
            age = self._streams[0].clock.wall() - item.created
            if condition == "RecordAgeExceeded":
                if age <= self._max_age:
                    self._history.violated("record age", f"{item.key} v{item.version} was given up after {age:.1f} s")
            elif not item.failures and condition != "KeyParked":
                self._history.violated("dead letters", f"{item.key} v{item.version} never failed")
            self._settle(item)
        self._history.note("dead letter", hashlib.blake2b(document, digest_size=8).hexdigest())

    def _check_owner(self, incarnation: str, shard_id: str, epoch: int) -> None:
        row = self.rows.get(shard_id)
        if row is not None and row.corrupt and epoch > self._damaged.get(shard_id, epoch):
            self._history.violated("quarantine", f"{incarnation} starts {shard_id}, whose checkpoint cannot be read")
        if row is None or (row.owner == incarnation and row.epoch == epoch):
            return
        if any((lost.owner, lost.epoch) == (incarnation, epoch) for lost in self._deleted[shard_id]):
            return  # by hand: its row was deleted, and it has not been able to look since
        found = f"{row.owner} at epoch {row.epoch}"
        self._history.violated(
            "G3 one owner", f"{incarnation} starts {shard_id} at epoch {epoch}; the owner is {found}"
        )

    def _check_parents(self, shard_id: str, items: Sequence[Item]) -> None:
        number = self._stream_of(shard_id)
        if number:
            for other, unsettled in self._open.items():
                if unsettled and self._stream_of(other) < number:
                    self._history.violated("G2 order", f"{shard_id} starts, {other} of an older stream is unsettled")
        for parent in self._streams[number].parents_of(shard_id):
            # A row that was made anew says less than the one that was deleted, and one that cannot be read nothing.
            rows = [self.rows.get(parent), *self._deleted[parent][-1:]]
            known = [self._readable.get(parent) if row and row.corrupt else row for row in rows]
            held_back = {key.digest for row in known if row is not None for key in row.frontier.deferred}
            held_back -= {item.digest for item in items}
            left = [item for item in self._open[parent].values() if item.digest not in held_back]
            if left:
                self._history.violated("G2 order", f"{shard_id} starts, its parent {parent} has {len(left)} unsettled")

    def _check_known(self, item: Item, incarnation: str, shard_id: str, epoch: int) -> None:
        """No owner handles again what it has settled itself, or what it has found to be settled. One whose row was
        deleted may begin anew, and its epochs repeat; a shard worker that has failed with a bug, which is a violation
        of its own, begins anew at its epoch."""
        anew = self._deleted[shard_id] or any(one.checker == "no bug" for one in self._history.violations)
        if item.settled_in == (incarnation, epoch) and not anew:
            found = f"{item.key} v{item.version} was settled at epoch {epoch} by {incarnation}, which handles it again"
            self._history.violated("G5 duplicates", found)
        known = self._frontiers.get((shard_id, epoch))
        if known is not None and item.number in SettledFilter(known) and not _is_deferred(item, _deferred_from(known)):
            self._history.violated(
                "G5 duplicates",
                f"{item.key} v{item.version} was settled in the frontier that {incarnation} took over at epoch {epoch}",
            )

    # --- the lease table -------------------------------------------------------------------------------

    def saving(self, operation: str, held: LeaseRow) -> None:
        """An owner is about to write its frontier: it must name whatever that epoch has settled or taken over, and once
        the shard has been read, where: a restart must notice when records were trimmed meanwhile."""
        if self._saving.get(held.shard_id) is held:
            return  # once more, after its row was put back: meanwhile there may be more
        self._saving[held.shard_id] = held
        if operation == "save" and held.shard_id in self.rows:  # or it finds the row gone, and is repeated
            self.checkpoints.sending(held)
        epoch = (held.shard_id, held.owner, held.epoch)
        if epoch in self._begun and held.frontier.low is None and held.frontier.first is None:
            self._history.violated("G7 no silent loss", f"the frontier of {held.shard_id} has no place to resume from")
        numbers = self._settled_by[epoch]
        taken_over = self._frontiers.get((held.shard_id, held.epoch), FrontierSnapshot()).runs
        if held.owner in self._inexact or not (numbers or taken_over):
            return
        frontier = SettledFilter(held.frontier)
        ends = (int(number) for run in taken_over for number in run)
        missing = [number for number in (*ends, *numbers) if number not in frontier]
        deferred_from = _deferred_from(held.frontier)
        items = self._history.items
        missing.extend(
            number
            for number in (numbers if deferred_from else ())
            if _is_deferred(items[record_name(held.shard_id, str(number))], deferred_from)
        )
        gone = self.gone_up_to(held.shard_id)
        missing = [number for number in missing if number > gone]  # nobody reads the others again
        size = sum(len(first) + len(last) + 6 for first, last in held.frontier.runs)
        if missing and size < MAX_RUNS_BYTES - 200:
            self._history.violated(
                "G5 duplicates", f"the frontier of {held.shard_id} forgets {len(missing)} settled, e.g. {missing[0]}"
            )
        low = int(held.frontier.low or -1)
        numbers[:] = [number for number in numbers if number > low]

    def written(self, operation: str, before: LeaseRow | None, after: LeaseRow) -> None:
        """A lease row was changed; this is the table's view, after its conditions held."""
        history, shard_id = self._history, after.shard_id
        self.rows[shard_id] = after
        history.note(operation, shard_id, after.owner, after.epoch, after.state, after.frontier.low)
        self._memory.written(operation, after)
        if before is None:
            self._check_put_back(after)
            self.checkpoints.put_back(shard_id)
            return
        if after.owner != before.owner:
            self.moves.append((history.now(), shard_id, before.owner, after.owner))
        if (after.owner, after.epoch) != (before.owner, before.epoch):
            self._frontiers[shard_id, after.epoch] = after.frontier
        self._check_fence(operation, before, after)
        if after.frontier != before.frontier or after.state != before.state:
            self._check_checkpoint(after)

    def deleted(self, shard_id: str) -> None:
        """A lease row was deleted by hand."""
        self._history.note("row deleted", shard_id)
        row = self.rows.pop(shard_id, None)
        if row is not None:
            self._deleted[shard_id].append(row)

    def corrupted(self, row: LeaseRow) -> None:
        """A lease row was made unreadable, or repaired, by hand."""
        self._history.note("row damaged" if row.corrupt else "row repaired", row.shard_id)
        before = self.rows.get(row.shard_id)
        if before is not None and not before.corrupt:
            self._readable[row.shard_id] = before
        self.rows[row.shard_id] = row
        self._damaged[row.shard_id] = row.epoch

    def removed(self, row: LeaseRow) -> None:
        """A worker has removed a row: only a tombstone of a shard that is gone may be."""
        self.rows.pop(row.shard_id, None)
        self._memory.removed(row.shard_id)
        self._history.note("removed", row.shard_id, row.state)
        if not row.finished or any(stream.has(row.shard_id) for stream in self._streams):
            self._history.violated("G4 fenced", f"the {row.state} row of {row.shard_id} was removed")

    def _check_put_back(self, after: LeaseRow) -> None:
        """An owner whose row was deleted writes it again as it was, or further on."""
        for lost in self._deleted[after.shard_id]:
            if after.owner is None or (lost.owner, lost.epoch) != (after.owner, after.epoch):
                continue
            if int(after.frontier.low or -1) < int(lost.frontier.low or -1):
                self._history.violated("G4 fenced", f"{after.shard_id} was put back behind its checkpoint")

    def _check_fence(self, operation: str, before: LeaseRow, after: LeaseRow) -> None:
        if after.epoch < before.epoch:
            self._history.violated("G4 fenced", f"{operation} took {after.shard_id} from epoch {before.epoch} back")
        if after.owner != before.owner and after.owner is not None and after.epoch != before.epoch + 1:
            self._history.violated("G4 fenced", f"{operation} changed the owner of {after.shard_id}, not its epoch")
        if int(after.frontier.low or -1) < int(before.frontier.low or -1):
            self._history.violated("G4 fenced", f"{operation} moved the checkpoint of {after.shard_id} back")
        order = {"waiting": 0, "open": 1, "halted": 1, "deferred": 2, "draining": 3, "done": 4}
        if after.epoch != before.epoch:
            self._taken_as[after.shard_id] = before.state
        # Where nothing may overtake a key, whoever takes over a shard that waits for some reads it again; once.
        again = (before.state, after.state) == ("deferred", "open") and after.owner in self._in_order
        again = again and self._taken_as.pop(after.shard_id, "") == "deferred"
        if order[after.state] < order[before.state] and not again:
            self._history.violated("G4 fenced", f"{operation} took {after.shard_id} from {before.state} back")

    def _check_checkpoint(self, row: LeaseRow) -> None:
        frontier = SettledFilter(row.frontier)
        deferred_from = _deferred_from(row.frontier) if not row.settled else {}
        passed = [
            item
            for item in self._open[row.shard_id].values()
            if not _is_deferred(item, deferred_from) and (row.lets_children_start or item.number in frontier)
        ]
        if passed:
            item = passed[0]
            self._history.violated(
                "G1 complete", f"the {row.state} checkpoint of {row.shard_id} passes {item.key} v{item.version}"
            )

    # --- calls to AWS ----------------------------------------------------------------------------------

    def listed(self, calls: int = 1) -> None:
        """Calls that list shards reached the service: as many as a listing has pages."""
        now = self._history.now()
        self._listings.extend([now] * calls)
        while self._listings[0] <= now - LISTING_WINDOW:
            self._listings.popleft()
        if len(self._listings) > self.listing_limit * LISTING_WINDOW:
            self._history.violated("listing rate", f"{len(self._listings)} calls in {LISTING_WINDOW:g} s")

    def at_the_end(self, gaps: set[str]) -> None:
        """Everything has settled down: nothing may be left, and whatever was skipped must have left a trace."""
        first = next(self.oldest_open(), None)
        if first is not None:
            what = f"{first.key} v{first.version} of {first.shard_id}"
            self._history.violated("G1 complete", f"{self.left} records never settled, e.g. {what}")
        for shard_id, items in self._lost.items():
            if shard_id not in gaps and any(item.settled_at is None for item in items):
                self._history.violated("G7 no silent loss", f"records of {shard_id} were trimmed, there is no gap row")


def _deferred_from(frontier: FrontierSnapshot) -> dict[str, int]:
    """From which number on the frontier leaves the records of a key to the list of its deferred keys, by digest."""
    return {key.digest: int(key.number) + key.passed for key in frontier.deferred}


def _is_deferred(item: Item, deferred_from: Mapping[str, int]) -> bool:
    return item.number >= deferred_from.get(item.digest, math.inf)
