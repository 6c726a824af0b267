"""The rules of deferred keys as an abstract machine: every step that may come next.

A key is deferred at any moment at which records of it are in memory: they leave the books, only a prefix of them stays,
and an entry (key, first unsettled number) stands for the rest. A second iterator of the shard, one for all its deferred
keys, reads them again until it has met the main reader. Owners crash, save, or hand over after a drain at any moment;
the oldest records are trimmed at any moment; children begin with the list of their parents and may see an old copy.

What must hold in every state: the first effects of each key come in order; nothing happens twice unless a crash came
between and the row did not name it; what is not handled was trimmed and has its trace; and some step that helps leads
on until every shard is done and no entry is left. Steps that help never lead back, so there is no trap either.

A failing attempt changes nothing but that the key may be deferred, and that may happen at any moment, so attempts and
retry budgets are not modelled. A page is one record: a longer one is several steps with nothing between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from tests.unit.worker.deferred_world import (
    EXCUSED,
    HANDLED,
    Case,
    Entry,
    Owner,
    Row,
    Step,
    World,
    canonical,
    covered,
    effect,
    entry_of,
    lose,
    names,
    put,
    queue_of,
    with_entry,
    with_owner,
)


def steps(case: Case, world: World) -> Iterator[Step]:
    """Everything that may happen next."""
    for at, owner in enumerate(world.owners):
        if world.trims and world.horizons[at] < case.bounds[at][1]:
            horizons = put(world.horizons, at, world.horizons[at] + 1)
            yield Step(f"trim {horizons[at]}", world._replace(horizons=horizons, trims=world.trims - 1), helps=False)
        if owner is None:
            yield from _starts(case, world, at)
            continue
        yield from _calls(case, world, at, owner)
        if not owner.draining:
            yield from _main_reader(case, world, at, owner)
            yield from _deferrals(case, world, at, owner)
            yield from _catch_up(case, world, at, owner)
            yield from _look(case, world, at, owner)
        yield from _saves(case, world, at, owner)


# --- owners come and go --------------------------------------------------------------------------------------------


def _starts(case: Case, world: World, at: int) -> Iterator[Step]:
    """A worker takes the lease. Its copy of a parent's row may be an old one, whose list was longer."""
    row, shard = world.rows[at], case.shards[at]
    parents = [world.rows[parent] for parent in shard.parents]
    ready = ("done", "list") if case.mistake == "a list does not hold back the next stream" else ("done",)
    if row.state == "done" or any(parent.state == "open" for parent in parents):
        return
    if any(world.rows[other].state not in ready for other in shard.before):
        return
    if row.state == "list" and case.mistake == "nobody owns a shard with a list":
        return
    now = {key for parent in parents for key in parent.keys}
    old = sorted({key for parent in parents for key in parent.listed} - now)
    for count in range(len(old) + 1):
        for more in combinations(old, count):
            listed = now.union(more)
            yield Step(f"start {at} seeing {sorted(listed)}", with_owner(world, at, _starter(case, row, at, listed)))


def _starter(case: Case, row: Row, at: int, listed: set[str]) -> Owner:
    """What the row says, and in a child without progress what the parents list."""
    base, _ = case.bounds[at]
    fresh = row.low == base and not row.runs
    top = max((row.low, *row.runs))  # what lies below it may have been dropped
    waits = listed
    if case.mistake == "the meeting comes before the runs are read again":
        top = row.low
    elif case.mistake == "a child ignores the list":
        waits = listed = set()
    elif case.mistake == "a child defers the list but does not wait" or (
        case.mistake == "a restart forgets what blocks" and not fresh
    ):
        waits = set()
    elif case.mistake == "an old list is taken up again after progress":
        fresh = True
    entries = [
        Entry(key, start, until, (), top if left else 0, blocked=key in waits, left=left)
        for key, start, until, left in row.entries
    ]
    if fresh:
        entries += [Entry(key, base + 1, blocked=key in waits, left=False) for key in listed.difference(row.keys)]
    return Owner(row.low, (), row.runs, tuple(sorted(map(canonical, entries))))


def _saves(case: Case, world: World, at: int, owner: Owner) -> Iterator[Step]:
    """A checkpoint, the one write that gives the lease away after a drain, or a crash."""
    row = _snapshot(case, world.rows[at], at, owner)
    saved = world._replace(rows=put(world.rows, at, row))
    if not owner.draining:
        if row != world.rows[at]:
            yield Step(f"save {at}", with_owner(saved, at, None if row.state == "done" else owner))
        if case.forgets and row.runs and row._replace(runs=()) != world.rows[at]:
            forgetful = world._replace(rows=put(world.rows, at, row._replace(runs=())))
            yield Step(f"save {at} without runs", forgetful, helps=False)
        if world.moves:
            drain = with_owner(world._replace(moves=world.moves - 1), at, owner._replace(draining=True))
            yield Step(f"drain {at}", drain, helps=False)
    elif not owner.calling:
        yield Step(f"release {at}", with_owner(saved, at, None))
    elif case.mistake == "the final save comes before a call has ended":
        for key in owner.calling:
            saved = effect(case, saved, queue_of(case, owner, key)[0])
        yield Step(f"release {at} early", with_owner(saved, at, None))
    if world.crashes:
        base, last = case.bounds[at]
        named = {number for number in range(base + 1, last + 1) if names(case, world.rows[at], number)}
        fates = tuple(
            EXCUSED if base < number <= last and fate == HANDLED and number not in named else fate
            for number, fate in enumerate(world.fates, 1)
        )
        crashed = world._replace(crashes=world.crashes - 1, fates=fates)
        yield Step(f"crash {at}", with_owner(crashed, at, None), helps=False)


def _snapshot(case: Case, before: Row, at: int, owner: Owner) -> Row:
    low = owner.unsettled[0] - 1 if owner.unsettled else owner.fetched
    runs = tuple(number for number in range(low + 1, owner.fetched + 1) if number not in owner.unsettled)
    if case.mistake != "a hand-over forgets the runs beyond what was read again":
        runs += owner.resumed
    entries = tuple((entry.key, entry.start, entry.until, entry.left) for entry in owner.entries)
    if case.mistake == "the entry is not saved":
        entries = ()
    elif case.mistake == "the entry is not saved after the meeting":
        entries = tuple(one for one in entries if not one[2])
    if case.mistake != "the meeting point is believed after a restart":
        entries = tuple((key, start, 0, left) for key, start, _, left in entries)
    if case.mistake == "a restart forgets that a record was dropped":
        entries = tuple((key, start, until, start > case.bounds[at][0] + 1) for key, start, until, _ in entries)
    if low < case.bounds[at][1]:
        return Row(low, runs, entries, "open")
    state = "list" if entries and case.mistake != "a list counts as done" else "done"
    listed = before.listed if before.state == "list" else tuple(key for key, *_ in entries)
    return Row(low, (), entries, state, listed if state == "list" else ())


# --- handling ------------------------------------------------------------------------------------------------------


def _calls(case: Case, world: World, at: int, owner: Owner) -> Iterator[Step]:
    base, last = case.bounds[at]
    for key in sorted(set(case.key[base + 1 : last + 1])):
        queue, entry = queue_of(case, owner, key), entry_of(owner, key)
        if not queue or (entry is not None and entry.blocked):
            continue
        if case.calls and key not in owner.calling:
            if not owner.draining:
                calling = tuple(sorted((*owner.calling, key)))
                yield Step(f"call {queue[0]}", with_owner(world, at, owner._replace(calling=calling)))
        elif case.calls or not owner.draining:
            ended = owner._replace(calling=tuple(other for other in owner.calling if other != key))
            settled = _settle(case, ended, entry, queue[0])
            yield Step(f"handle {queue[0]}", effect(case, with_owner(world, at, settled), queue[0]))
            if case.calls and key in case.failing:
                yield Step(f"fail {queue[0]}", with_owner(world, at, ended), helps=False)


def _settle(case: Case, owner: Owner, entry: Entry | None, number: int) -> Owner:
    if entry is None or not entry.line:
        return owner._replace(unsettled=tuple(other for other in owner.unsettled if other != number))
    line = entry.line[1:]
    if entry.until and not line:
        return with_entry(owner, entry.key, None)
    start = owner.fetched + 1 if case.mistake == "the entry moves too far" else number + 1
    return with_entry(owner, entry.key, entry._replace(start=start, line=line))


# --- reading -------------------------------------------------------------------------------------------------------


def _main_reader(case: Case, world: World, at: int, owner: Owner) -> Iterator[Step]:
    if owner.fetched == case.bounds[at][1]:
        return
    number, horizon = owner.fetched + 1, world.horizons[at]
    if owner.fetched < horizon:  # the trace names the whole stretch, what of it belongs to deferred keys included
        resumed = tuple(other for other in owner.resumed if other > horizon)
        lost = [one for one in range(number, horizon + 1) if not _is_settled(case, owner, one)]
        gone = lose(with_owner(world, at, owner._replace(fetched=horizon, resumed=resumed)), lost)
        yield Step(f"gap up to {horizon}", gone)
        return
    read = owner._replace(fetched=number, resumed=tuple(other for other in owner.resumed if other > number))
    entry = entry_of(owner, case.key[number])
    if not _is_settled(case, owner, number):
        if (
            entry is not None
            and number >= entry.start
            and (not entry.until or case.mistake == "the main reader drops after the meeting")
        ):
            before = 0 if case.mistake == "a record that is dropped hides how far the runs go" else entry.dropped
            read = with_entry(read, entry.key, entry._replace(dropped=max(number, before), left=True))
        else:
            read = read._replace(unsettled=(*read.unsettled, number))
    yield Step(f"read {number}", with_owner(world, at, read))


def _is_settled(case: Case, owner: Owner, number: int) -> bool:
    """Of a record that the main reader reads (again, if a run names it)."""
    entry, named = entry_of(owner, case.key[number]), number in owner.resumed
    if entry is None:
        return named
    if case.mistake == "low and runs decide about a deferred key, too":
        return named and number < entry.start
    return number < entry.start


def _deferrals(case: Case, world: World, at: int, owner: Owner) -> Iterator[Step]:
    """A key is deferred, is deferred again after the meeting, or leaves the pass: any prefix of it stays in memory."""
    for key in case.failing:
        queue, entry = queue_of(case, owner, key), entry_of(owner, key)
        reading = entry is not None and entry.member
        if not reading and (not queue or (entry is not None and not entry.until)):
            continue
        first = queue[0] if entry is None else entry.start
        for kept in range(1 if key in owner.calling else 0, len(queue) + 1):
            dropped = queue[-1] if kept < len(queue) else 0
            if entry is not None and not entry.until:
                dropped = max(dropped, entry.dropped)
            new: Entry | None = Entry(key, first, 0, queue[:kept], dropped)
            stay: tuple[int, ...] = ()
            if case.mistake == "the failing record stays in the books":
                stay = queue[:1]
            elif case.mistake == "the tail stays in the books when the key is deferred again" and entry is not None:
                stay = queue
            elif case.mistake == "the entry goes when the key is deferred again" and entry is not None:
                new = None
            rest = tuple(one for one in owner.unsettled if case.key[one] != key or one in stay)
            yield Step(
                f"defer {key}, keep {queue[:kept]}",
                with_owner(world, at, with_entry(owner._replace(unsettled=rest), key, new)),
                helps=False,
            )


def _catch_up(case: Case, world: World, at: int, owner: Owner) -> Iterator[Step]:
    waiting = [e for e in owner.entries if not (e.until or e.blocked or e.line or e.member)]
    if owner.read < 0 and waiting:
        begun = owner._replace(read=min(entry.start for entry in waiting) - 1)
        for entry in waiting:
            begun = with_entry(begun, entry.key, entry._replace(member=True))
        yield Step(f"pass from {begun.read + 1}", with_owner(world, at, begun))
    for entry in waiting:
        beyond = owner.read >= entry.start and case.mistake != "a key joins a pass that is beyond its entry"
        if owner.read >= 0 and not beyond:
            joined = with_entry(owner, entry.key, entry._replace(member=True))
            yield Step(f"{entry.key} joins at {owner.read}", with_owner(world, at, joined))
    if 0 <= owner.read < owner.fetched:
        yield _pass_reads(case, world, at, owner)
    for entry in owner.entries:
        if entry.until or (entry.blocked and case.mistake != "a key that a parent lists meets at once"):
            continue
        early = 1 if case.mistake == "the meeting comes before the last record is read" else 0
        there = owner.fetched
        if case.mistake == "the meeting comes before the main reader is there":
            there = covered(owner, entry)
        if entry.dropped - early <= covered(owner, entry) <= there:
            met = entry._replace(until=owner.fetched, member=False, dropped=0) if entry.line else None
            yield Step(f"{entry.key} meets", with_owner(world, at, with_entry(owner, entry.key, met)))


def _pass_reads(case: Case, world: World, at: int, owner: Owner) -> Step:
    """The next record of the second iterator, or what was trimmed before it."""
    before, horizon = owner.read, min(world.horizons[at], owner.fetched)
    gap = before < horizon
    number = horizon if gap else before + 1
    read, lost = owner._replace(read=number), list[int]()
    for entry in [entry for entry in owner.entries if entry.member]:
        first = before + 1 if case.mistake == "a pass takes what is before the entry" else max(before + 1, entry.start)
        mine = tuple(one for one in range(first, number + 1) if case.key[one] == entry.key)
        start, line = entry.start, entry.line
        if gap:
            lost += () if case.mistake == "catch-up goes on from the horizon without a trace" else mine
            start = start if line else max(start, horizon + 1)
        elif case.mistake != "catch-up skips what the row covers" or number > world.rows[at].low:
            line += mine
        read = with_entry(read, entry.key, entry._replace(start=start, line=line))
    name = f"pass meets the horizon {horizon}" if gap else f"pass reads {number}"
    return Step(name, lose(with_owner(world, at, read), lost))


def _look(case: Case, world: World, at: int, owner: Owner) -> Iterator[Step]:
    """The owner reads the rows of the parents."""
    now = {key for parent in case.shards[at].parents for key in world.rows[parent].keys}
    entries = tuple(entry._replace(blocked=entry.blocked and entry.key in now) for entry in owner.entries)
    if entries != owner.entries and case.mistake != "the list is read once":
        yield Step(f"{at} sees {sorted(now)}", with_owner(world, at, owner._replace(entries=entries)))
