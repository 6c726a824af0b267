"""What workers make from memory as an abstract machine, and a breadth-first search over all its states.

Two workers, one lease row. They read it, take it, finish its shard, remember it, fall asleep at any moment and wake up;
a hand deletes the row; the service stops naming the finished shard, and days later its tombstone is removed. A request
to put the row back may be on its way for as long as its sender sleeps. Two invariants: a shard that was finished and
forgotten is never opened again, and no epoch is handed out twice.

Each rule of docs/architecture.md ("Memory has an age") can be switched off; the search then finds the way to break one.
What the service's clock stands for is a number above all epochs that were handed out so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.support import state_search

LAST_EPOCH = 3  # the search ends there: later epochs repeat the same situations
DELETIONS = 1


class Row(NamedTuple):
    epoch: int
    done: bool


class Request(NamedTuple):
    """To put the row back, on its way. ``fenced``: its sender's session has been, since."""

    epoch: int
    fenced: bool = False


class Worker(NamedTuple):
    """``memory``: the row as read last. ``missing``: that row is gone; ``old``: and this worker had not looked for too
    long. ``looked``: since it woke up."""

    memory: Row | None = None
    missing: bool = False
    old: bool = False
    looked: bool = True
    asleep: bool = False
    request: Request | None = None


class State(NamedTuple):
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    row: Row | None = Row(0, done=False)
    highest: int = 0
    named: bool = True
    forgotten: bool = False
    deletions: int = DELETIONS
    broken: str = ""


@dataclass(frozen=True)
class Rules:
    """``age``: an old memory needs the service to name the shard. ``session``: one that was fenced puts nothing back.
    ``above``: an epoch from memory is above all that were handed out, and not one more than what is remembered."""

    age: bool = True
    session: bool = True
    above: bool = True


Step = tuple[str, State]


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Everything that may happen next."""
    for me, worker in enumerate(state.workers):
        if worker.asleep:
            yield f"w{me} wakes up", _with(state, me, worker._replace(asleep=False))
            if worker.request is not None and not worker.request.fenced:
                fenced = worker.request._replace(fenced=True)
                yield f"w{me} is fenced", _with(state, me, worker._replace(request=fenced))
        else:
            yield f"w{me} falls asleep", _with(state, me, worker._replace(asleep=True, looked=False))
            yield f"w{me} reads", _with(state, me, _read(state, worker, rules))
            yield from _work(state, me, rules)
        if worker.request is not None:
            yield f"w{me}'s request is lost", _with(state, me, worker._replace(request=None))
            yield f"w{me}'s request arrives", _arrives(state, me, worker.request, rules)
    yield from _surroundings(state)


def _read(state: State, worker: Worker, rules: Rules) -> Worker:
    if state.row is not None:
        return worker._replace(memory=state.row, missing=False, old=False, looked=True)
    if worker.memory is None or worker.memory.done:
        return worker._replace(memory=None, missing=False, old=False, looked=True)
    old = rules.age and (worker.old or not worker.looked)
    return worker._replace(missing=True, old=old, looked=True)


def _work(state: State, me: int, rules: Rules) -> Iterator[Step]:
    worker, row = state.workers[me], state.row
    if row is not None and not row.done:
        if row.epoch < LAST_EPOCH and (worker.memory is None or row.epoch >= worker.memory.epoch):
            taken = state._replace(row=row._replace(epoch=row.epoch + 1), highest=max(state.highest, row.epoch + 1))
            yield f"w{me} takes", _break(taken, "an epoch repeats" if row.epoch < state.highest else "")
        if row.epoch:
            yield f"w{me} finishes the shard", state._replace(row=row._replace(done=True))
    if worker.old and state.named:
        yield f"w{me} sees the shard named", _with(state, me, worker._replace(old=False))
    if worker.missing and not worker.old and worker.looked and worker.request is None and worker.memory is not None:
        epoch = state.highest + 1 if rules.above else worker.memory.epoch + 1
        if epoch <= LAST_EPOCH:
            yield f"w{me} puts the row back", _with(state, me, worker._replace(request=Request(epoch)))


def _arrives(state: State, me: int, request: Request, rules: Rules) -> State:
    arrived = _with(state, me, state.workers[me]._replace(request=None))
    if state.row is not None or (request.fenced and rules.session):
        return arrived
    made = arrived._replace(row=Row(request.epoch, done=False))
    if state.forgotten:
        return _break(made, "a finished shard is open again")
    return _break(made, "an epoch repeats" if request.epoch <= state.highest else "")


def _surroundings(state: State) -> Iterator[Step]:
    """The hand, the service, and the days. Requests of those that are awake arrive in minutes, those of sleepers are
    fenced by then; and whoever is awake for days has seen that the shard is done."""
    on_its_way = any(worker.request and not worker.request.fenced for worker in state.workers)
    row = state.row
    if row is None:
        return
    if state.deletions and not on_its_way:
        yield "the row is deleted", state._replace(row=None, deletions=state.deletions - 1)
    if row.done and state.named:
        yield "the service forgets the shard", state._replace(named=False)
    elif row.done and not on_its_way and all(w.asleep or (w.memory == row and w.looked) for w in state.workers):
        yield "its tombstone goes", state._replace(row=None, forgotten=True)


def _with(state: State, me: int, worker: Worker) -> State:
    workers = (worker, state.workers[1]) if me == 0 else (state.workers[0], worker)
    return state._replace(workers=workers)


def _canonical(state: State) -> State:
    """The two workers are the same but for their names, which may swap from step to step in a way found."""
    mirror = state._replace(workers=state.workers[::-1])
    return state if hash(state) <= hash(mirror) else mirror  # equal hashes only cost a state counted twice


def _break(state: State, what: str) -> State:
    return state._replace(broken=what)


def search(rules: Rules) -> tuple[int, list[str] | None]:
    """All reachable states: how many there are, and the shortest way to a violation if there is one."""

    def following(state: State) -> Iterator[tuple[str, State]]:
        return ((name, _canonical(reached)) for name, reached in steps(state, rules))

    return state_search.search(State(), following, lambda state: state.broken, 1_000_000)
