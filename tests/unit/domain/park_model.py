"""An exhaustive search of how one key is parked and freed.

The parent shard A holds its records 1 to 3, the child B record 4. Every attempt may fail, in a worker or in a redrive;
owners and redrives end at any moment; a letter under way arrives late, also after its sender is gone; an owner that has
held the key for too long parks it again; a closing is given up when its redrive is fenced; the row of a shard that is
settled to its end may go before the key is free. What becomes of a record
says ``consumer.domain.parking.fate``. Nothing may take effect before an earlier record, and when all is settled and the
key is free everything has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple, get_args

from consumer.domain.parking import Fate, ParkedKey, ParkedShard, fate

Shard = Literal["A", "B"]
Mistake = Literal[
    "the frontier is written before the counter",
    "what was handled before the key was parked becomes a letter",
    "a letter is sent before its key is parked",
    "a key is freed without the answers of owners",
    "owners do not hold back what follows",
    "a shard makes its row while the key is closing, and believes that row alone",
    "a row is removed before its shard is settled",
    "a row is removed before its letters are done",
]
MISTAKES: tuple[Mistake, ...] = get_args(Mistake)
BELIEVES_ITS_ROW = MISTAKES[5]

FIRST = {"A": 1, "B": 4}
LAST = {"A": 3, "B": 4}
FAILING = (1, 2, 3)
MOST_NONCES = 3


class Key(NamedTuple):
    state: Literal["parked", "closing"]
    park: int
    nonce: int = 0


class Row(NamedTuple):
    park: int
    first: int
    letters: int = 0
    last: int = 0
    closed: int = 0
    done: int = 0


class Letter(NamedTuple):
    park: int
    shard: Shard
    ordinal: int
    record: int


class Owner(NamedTuple):
    """Of the shard that is next: ``at`` a record. It ``knows`` that the key is parked, and has counted ``letters`` up
    to the record ``last``; ``sending`` one, or about to park the key of the record that ``failed``."""

    shard: Shard
    at: int
    knows: bool
    letters: int = 0
    last: int = 0
    sending: Letter | None = None
    failed: bool = False


class Redrive(NamedTuple):
    """``closing`` with this nonce (0: not yet); ``freeing``: the rows that it has listed."""

    closing: int = 0
    freeing: tuple[Shard, ...] | None = None


class State(NamedTuple):
    settled: tuple[int, int] = (0, 0)  # of A and B, as their checkpoints say
    key: Key | None = None
    rows: tuple[Row | None, Row | None] = (None, None)
    letters: frozenset[Letter] = frozenset()
    under_way: frozenset[Letter] = frozenset()
    owner: Owner | None = None
    redrive: Redrive | None = None
    effects: tuple[int, ...] = ()
    crashes: int = 1
    redrive_crashes: int = 1
    serial: int = 0

    def row(self, shard: Shard) -> Row | None:
        return self.rows[shard == "B"]

    def with_row(self, shard: Shard, row: Row | None) -> State:
        return self._replace(rows=(self.rows[0], row) if shard == "B" else (row, self.rows[1]))

    def with_settled(self, shard: Shard, upto: int) -> State:
        return self._replace(settled=(self.settled[0], upto) if shard == "B" else (upto, self.settled[1]))

    def with_effect(self, record: int) -> State:
        return self if record in self.effects else self._replace(effects=(*self.effects, record))

    @property
    def is_closing(self) -> bool:
        return self.key is not None and self.key.state == "closing"


def search(mistake: Mistake | None = None, most: int = 600_000, *, crashes: int = 1) -> tuple[int, list[str]]:
    """How many states there are, and the way to the first that must not be; empty without one. AssertionError when
    there are more states than ``most``."""
    start = State(crashes=crashes)
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for name, after in steps(state, mistake):
            if after in came_from:
                continue
            came_from[after] = state, name
            wrong = violation(after)
            if wrong:
                return len(came_from), [*_way(came_from, after), wrong]
            queue.append(after)
        assert len(came_from) <= most, f"more than {most} states"
    return len(came_from), []


def violation(state: State) -> str:
    if list(state.effects) != sorted(state.effects):
        return f"effects {state.effects}"
    at_rest = state.settled == (LAST["A"], LAST["B"]) and state.key is None and state.owner is None
    return f"lost: only {state.effects}" if at_rest and len(state.effects) < LAST["B"] else ""


def steps(state: State, mistake: Mistake | None) -> Iterator[tuple[str, State]]:
    for letter in state.under_way:
        arrived = state._replace(letters=state.letters | {letter}, under_way=state.under_way - {letter})
        yield f"letter {letter.ordinal} arrives", arrived
    if state.owner is None:
        yield from _take(state)
    else:
        if state.crashes:
            yield "the owner crashes", state._replace(owner=None, crashes=state.crashes - 1)
        yield from _own(state, state.owner, mistake)
    key = state.key
    if key is not None and key.state == "closing":
        yield "the key was held for too long", state._replace(key=Key("parked", key.park))
    if state.redrive is not None:
        if state.redrive_crashes:
            yield "the redrive crashes", state._replace(redrive=None, redrive_crashes=state.redrive_crashes - 1)
        yield from _redrive(state, state.redrive, mistake)
    elif key is not None:
        yield "a redrive begins", state._replace(redrive=Redrive())


# --- the owner of a shard ------------------------------------------------------------------------------


def _take(state: State) -> Iterator[tuple[str, State]]:
    shard: Shard = "A" if state.settled[0] < LAST["A"] else "B"
    at = (state.settled[shard == "B"] or FIRST[shard] - 1) + 1
    if at <= LAST[shard]:
        row = state.row(shard)
        counted = (row.letters, row.last) if row is not None else (0, 0)
        yield f"{shard} is taken", state._replace(owner=Owner(shard, at, state.key is not None, *counted))


def _own(state: State, owner: Owner, mistake: Mistake | None) -> Iterator[tuple[str, State]]:
    if owner.sending is not None:
        if owner.sending in state.letters:
            sent = owner._replace(knows=True, letters=owner.sending.ordinal, last=owner.at, sending=None)
            yield from _settle(state, sent, f"letter {sent.letters} is sent", mistake)
    elif owner.failed:
        yield from _park(state, owner)
    elif owner.knows:
        yield from _follow(state, owner, mistake)
    else:
        yield from _settle(state.with_effect(owner.at), owner, f"record {owner.at} is handled", mistake)
        if owner.at in FAILING:
            failed = owner._replace(failed=True)
            under_way = state.under_way
            if mistake == "a letter is sent before its key is parked":
                under_way |= {Letter(state.serial + 1, owner.shard, 1, owner.at)}
            yield f"record {owner.at} fails", state._replace(owner=failed, under_way=under_way)


def _park(state: State, owner: Owner) -> Iterator[tuple[str, State]]:
    row = state.row(owner.shard)
    parked = owner._replace(knows=True, failed=False)
    if state.key is None:
        park = state.serial + 1
        made = state._replace(key=Key("parked", park), serial=park, owner=parked._replace(letters=0, last=0))
        yield "the key is parked", made.with_row(owner.shard, Row(park, owner.at))
    elif not state.is_closing:
        if row is None:
            state = state.with_row(owner.shard, Row(state.key.park, owner.at))
            parked = parked._replace(letters=0, last=0)
        yield "the key is parked already", state._replace(owner=parked)


def _follow(state: State, owner: Owner, mistake: Mistake | None) -> Iterator[tuple[str, State]]:
    shard, key, row = owner.shard, state.key, state.row(owner.shard)
    first = 0 if row is None or mistake == "what was handled before the key was parked becomes a letter" else row.first
    becomes = _fate(key, row, first, owner.last, owner.at)
    if mistake == "owners do not hold back what follows" and becomes == "hold" and row is not None:
        becomes = "letter"
    if mistake == BELIEVES_ITS_ROW:
        if becomes == "hold" and row is None:
            becomes = "join"
        if key is None and row is not None:
            key = Key("parked", row.park)
            becomes = _fate(key, row, first, owner.last, owner.at)
    if becomes == "handle":
        yield "the key is free", state._replace(owner=Owner(shard, owner.at, knows=False))
    elif becomes == "skip":
        yield from _settle(state, owner, f"record {owner.at} was settled before", mistake)
    elif becomes == "join" and key is not None:
        joined = state._replace(owner=owner._replace(letters=0, last=0))
        yield f"{shard} has a row", joined.with_row(shard, Row(key.park, owner.at))
    elif becomes == "letter" and key is not None:
        letter = Letter(key.park, shard, owner.letters + 1, owner.at)
        sending = state._replace(under_way=state.under_way | {letter}, owner=owner._replace(sending=letter))
        yield f"letter {letter.ordinal} is on its way", sending
    elif row is not None and key is not None and row.closed != key.nonce:
        closed = row._replace(letters=owner.letters, last=owner.last, closed=key.nonce)
        upto = owner.at - 1 if owner.at > FIRST[shard] else 0
        yield f"{shard} is closed", state.with_row(shard, closed).with_settled(shard, upto)


def _settle(state: State, owner: Owner, what: str, mistake: Mistake | None) -> Iterator[tuple[str, State]]:
    """The next record, with a checkpoint, without one, or with a half of it: the counter comes before the frontier."""
    shard, upto = owner.shard, owner.at
    moved = state._replace(owner=owner._replace(at=upto + 1))
    row = moved.row(shard)
    counted = moved
    if row is not None:
        counted = moved.with_row(shard, row._replace(letters=owner.letters, last=owner.last))
    if upto == LAST[shard]:
        yield f"{what}, the last of {shard}", counted.with_settled(shard, upto)._replace(owner=None)
        return
    yield what, moved
    yield f"{what}, counted", counted
    yield f"{what}, checkpoint", counted.with_settled(shard, upto)
    if mistake == "the frontier is written before the counter":
        yield f"{what}, frontier only", moved.with_settled(shard, upto)


@cache
def _fate(key: Key | None, row: Row | None, first: int, last: int, number: int) -> Fate:
    parked = None if key is None else ParkedKey("D", str(key.park), key.state, nonce=str(key.nonce))
    own = None
    if row is not None:
        own = ParkedShard("D", "label", "shard", str(row.park), str(first), last=str(last) if last else "")
    return fate(parked, own, number)


# --- a redrive -----------------------------------------------------------------------------------------


def _redrive(state: State, redrive: Redrive, mistake: Mistake | None) -> Iterator[tuple[str, State]]:
    key = state.key
    if key is None:
        yield "the redrive ends", state._replace(redrive=None)
        return
    rows: list[tuple[Shard, Row]] = [(shard, row) for shard in get_args(Shard) if (row := state.row(shard)) is not None]
    for shard, row in rows:
        parent = state.rows[0]
        if shard == "B" and parent is not None and parent.done < parent.letters:
            continue  # in the order of the lineage
        for letter in state.letters:
            if (letter.park, letter.shard, letter.ordinal) == (key.park, shard, row.done + 1):
                handled = state.with_effect(letter.record)
                yield f"record {letter.record} is redriven", handled
                yield f"letter {letter.ordinal} is done", handled.with_row(shard, row._replace(done=row.done + 1))
    careless = mistake in ("a key is freed without the answers of owners", "owners do not hold back what follows")
    if redrive.freeing is not None:
        listed = [state.row(shard) for shard in redrive.freeing]
        good = (key.state, key.nonce) == ("closing", redrive.closing) and all(
            row is not None and (careless or row.closed == redrive.closing) and row.done == row.letters
            for row in listed
        )
        if good:
            freed = state._replace(key=None, redrive=None)
            for shard in redrive.freeing:
                freed = freed.with_row(shard, None)
            yield "the key is freed", freed
        else:
            yield "the redrive begins anew", state._replace(redrive=Redrive())
    elif key.state == "parked":
        for shard, row in rows:
            is_settled = state.settled[shard == "B"] == LAST[shard] or mistake == MISTAKES[6]
            if is_settled and (row.done == row.letters or mistake == MISTAKES[7]):
                yield f"the row of {shard}, which gets no further letters, is removed", state.with_row(shard, None)
        if state.serial < MOST_NONCES:
            nonce = state.serial + 1
            closing = Key("closing", key.park, nonce)
            yield "the key is closing", state._replace(key=closing, redrive=Redrive(nonce), serial=nonce)
    elif redrive.closing == key.nonce:
        answered = state
        for shard, row in rows:  # what a shard that is settled has is final
            if state.settled[shard == "B"] == LAST[shard] and row.closed != key.nonce:
                answered = answered.with_row(shard, row._replace(closed=key.nonce))
        if answered != state:
            yield "the redrive answers for shards that are settled", answered
        if all((careless or row.closed == key.nonce) and row.done == row.letters for _, row in rows):
            listing = redrive._replace(freeing=tuple(shard for shard, _ in rows))
            yield "the redrive lists the rows", state._replace(redrive=listing)


def _way(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    way: list[str] = []
    while (before := came_from[state]) is not None:
        state, name = before
        way.append(name)
    return way[::-1]
