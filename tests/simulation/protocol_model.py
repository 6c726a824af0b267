"""The lease protocol as an abstract machine, and a breadth-first search over all its states.

Two workers, one lease, two incarnations each. Time is a global tick; every clock is an age that stops counting at the
lease duration, so the state space is finite. Messages may be late for ever, answers may be lost, workers may stop
renewing, crash and come back as a new incarnation at any moment.

Modelled as in docs/architecture.md: the session counter and its bump (with request and answer apart), the observer's
wait, the fence, the take (with a late answer), the owner-driven hand-over. The invariant is G3: no worker may start a
call with epoch e once the lease is at an epoch above e.

``stamp_before`` and ``fence`` switch off the two rules that everything rests on; the search then finds the way to
break the promise, which shows that it could.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tests.support import state_search

DURATION = 2  # ticks
INCARNATIONS = 2


class Bump(NamedTuple):
    """A renewal under way: ticks since it was sent, and whether the table has applied it."""

    age: int
    applied: bool


class Worker(NamedTuple):
    """``validity``: ticks since the sending (or the answer) of the last successful bump; DURATION: not valid.
    ``active``: the epoch it works with, 0 for none. ``answer``: the epoch of a take whose answer is on its way."""

    incarnation: int = 0
    validity: int = DURATION
    active: int = 0
    answer: int = 0
    bump: Bump | None = None


class Session(NamedTuple):
    """One incarnation as the table and its observer (the other worker) see it. ``seen``: the observer's reading is
    still what the table holds; ``unchanged``: ticks since it first read that."""

    fenced: bool = False
    seen: bool = False
    unchanged: int = 0


class State(NamedTuple):
    workers: tuple[Worker, Worker]
    sessions: tuple[tuple[Session, ...], tuple[Session, ...]]
    owner: tuple[int, int] | None  # worker and incarnation
    epoch: int


@dataclass(frozen=True)
class Rules:
    """``last_epoch``: the search ends there. In 2 each worker has had the lease, in 3 one of them twice, and later ones
    repeat the same situations."""

    stamp_before: bool = True
    fence: bool = True
    last_epoch: int = 2


START = State((Worker(), Worker()), ((Session(),) * INCARNATIONS,) * 2, None, 0)  # type: ignore[arg-type]  # pairs, as built here

Step = tuple[str, State]


def violation(state: State) -> str:
    """A worker could start a call now although the lease has moved on."""
    stale = any(w.active and w.validity < DURATION and state.epoch > w.active for w in state.workers)
    return "a stale owner may start a call" if stale else ""


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Everything that may happen next."""
    yield "tick", _tick(state)
    for me in (0, 1):
        yield from _renewal(state, me, rules)
        yield from _observation(state, me, rules)
        yield from _ownership(state, me, rules)
        yield from _crash(state, me)


def _tick(state: State) -> State:
    one, other = state.workers
    sessions = (_unchanged_for_longer(state.sessions[0]), _unchanged_for_longer(state.sessions[1]))
    return state._replace(workers=(_aged(one), _aged(other)), sessions=sessions)


@cache
def _aged(worker: Worker) -> Worker:
    bump = worker.bump and worker.bump._replace(age=_older(worker.bump.age))
    return worker._replace(validity=_older(worker.validity), bump=bump)


@cache
def _unchanged_for_longer(sessions: tuple[Session, ...]) -> tuple[Session, ...]:
    return tuple(session._replace(unchanged=_older(session.unchanged)) for session in sessions)


def _older(age: int) -> int:
    return min(DURATION, age + 1)


def _renewal(state: State, me: int, rules: Rules) -> Iterator[Step]:
    worker = state.workers[me]
    session = state.sessions[me][worker.incarnation]
    if worker.bump is None:
        yield f"w{me} sends a bump", _with(state, me, worker._replace(bump=Bump(0, False)))
        return
    if not worker.bump.applied and not session.fenced:
        applied = _with(state, me, worker._replace(bump=worker.bump._replace(applied=True)))
        yield f"w{me}'s bump is applied", _session(applied, me, worker.incarnation, session._replace(seen=False))
    if worker.bump.applied:
        validity = worker.bump.age if rules.stamp_before else 0
        answered = worker._replace(validity=min(worker.validity, validity), bump=None)
        yield f"w{me} gets its answer", _with(state, me, answered)
    yield f"w{me}'s bump or answer is lost", _with(state, me, worker._replace(bump=None))


def _observation(state: State, me: int, rules: Rules) -> Iterator[Step]:
    other = 1 - me
    for incarnation, session in enumerate(state.sessions[other]):
        if not session.seen:
            read = session._replace(seen=True, unchanged=0)
            yield f"w{me} reads w{other}.{incarnation}", _session(state, other, incarnation, read)
        elif session.unchanged >= DURATION and not session.fenced and rules.fence:
            fenced = session._replace(fenced=True)
            yield f"w{me} fences w{other}.{incarnation}", _session(state, other, incarnation, fenced)


def _ownership(state: State, me: int, rules: Rules) -> Iterator[Step]:
    worker = state.workers[me]
    if worker.answer:
        yield f"w{me} learns of its take", _with(state, me, worker._replace(active=worker.answer, answer=0))
        yield f"w{me}'s take answer is lost", _with(state, me, worker._replace(answer=0))
    if state.owner == (me, worker.incarnation):
        if not worker.active and not worker.answer:  # a handed-over lease, or a take whose answer was lost
            yield f"w{me} finds its lease", _with(state, me, worker._replace(active=state.epoch))
        if worker.active == state.epoch and state.epoch < rules.last_epoch:
            target = (1 - me, state.workers[1 - me].incarnation)
            drained = _with(state, me, worker._replace(active=0))
            yield f"w{me} hands over", drained._replace(owner=target, epoch=state.epoch + 1)
            yield f"w{me} releases", drained._replace(owner=None)
    if state.epoch < rules.last_epoch and not worker.answer and _free(state, me, rules):
        taken = _with(state, me, worker._replace(answer=state.epoch + 1))
        yield f"w{me} takes", taken._replace(owner=(me, worker.incarnation), epoch=state.epoch + 1)


def _free(state: State, me: int, rules: Rules) -> bool:
    if state.owner is None:
        return True
    who, incarnation = state.owner
    if who == me:
        return incarnation != state.workers[me].incarnation and state.sessions[me][incarnation].fenced
    session = state.sessions[who][incarnation]
    if rules.fence:
        return session.fenced
    return session.seen and session.unchanged >= DURATION


def _crash(state: State, me: int) -> Iterator[Step]:
    """SIGKILL, or the end of a fenced incarnation; the process starts again under a new name."""
    if state.workers[me].incarnation + 1 < INCARNATIONS:
        yield f"w{me} starts anew", _with(state, me, Worker(incarnation=state.workers[me].incarnation + 1))


def _with(state: State, me: int, worker: Worker) -> State:
    workers = (worker, state.workers[1]) if me == 0 else (state.workers[0], worker)
    return state._replace(workers=workers)


def _session(state: State, whose: int, incarnation: int, session: Session) -> State:
    of = list(state.sessions[whose])
    of[incarnation] = session
    sessions = (tuple(of), state.sessions[1]) if whose == 0 else (state.sessions[0], tuple(of))
    return state._replace(sessions=sessions)


@cache  # there are a million steps, and few different sessions of a worker
def _readable(sessions: tuple[Session, ...], incarnation: int, owning: int | None) -> tuple[Session, ...]:
    """The sessions of a worker, without what nobody reads of them again. ``owning``: the one that owns the lease."""

    def read(number: int, session: Session) -> Session:
        if number not in (incarnation, owning) or not (session.seen or session.fenced):
            return Session()
        return Session(fenced=True) if session.fenced else session

    return tuple(read(number, session) for number, session in enumerate(sessions))


def _canonical(state: State) -> State:
    """One state for all that can never be told apart again: what can be read no more is forgotten, and the two
    workers are the same but for their names (so the names in a way found may swap from step to step)."""
    one, other = state.workers
    owner, owning = state.owner or (None, None)
    of_one = _readable(state.sessions[0], one.incarnation, owning if owner == 0 else None)
    of_other = _readable(state.sessions[1], other.incarnation, owning if owner == 1 else None)
    if one.bump and not one.bump.applied and of_one[one.incarnation].fenced:
        one = one._replace(bump=None)
    if other.bump and not other.bump.applied and of_other[other.incarnation].fenced:
        other = other._replace(bump=None)
    state = State((one, other), (of_one, of_other), state.owner, state.epoch)
    others = None if state.owner is None else (1 - state.owner[0], state.owner[1])
    mirror = State(state.workers[::-1], state.sessions[::-1], others, state.epoch)
    return state if hash(state) <= hash(mirror) else mirror  # equal hashes only cost a state counted twice


def search(rules: Rules) -> tuple[int, list[str] | None]:
    """All reachable states: how many there are, and the shortest way to a violation if there is one."""

    def following(state: State) -> Iterator[tuple[str, State]]:
        return ((name, _canonical(reached)) for name, reached in steps(state, rules))

    return state_search.search(START, following, violation, 3_000_000)
