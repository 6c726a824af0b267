"""What must hold of one shard, whatever is drawn: plans of hypothesis, and a model that sees what user code sees.

The model sees calls, letters and what a checkpoint would hold at every moment; ``dispatch_world`` runs the production
code against it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Literal

from hypothesis import strategies as st

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.frontier import FrontierSnapshot, SettledFilter
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.domain.record import Record

RAISED = HandlerFault("raised", "ValueError", "poison")
SOME = KeyBounds(
    line_records=6, failing_keys=3, deferred_keys=2
)  # of a key: three records of it are read again at once
TIGHT = KeyBounds(line_records=2, failing_keys=3, deferred_keys=2)
TIGHTEST = KeyBounds(line_records=1, line_bytes=100, failing_keys=2, deferred_keys=1)


@dataclass(frozen=True)
class Plan:
    """One run. ``pages`` are what the reader delivers: of each record its key, and whether it is poison (the calls that
    hold it fail), flaky (they fail now and then) or filtered (settled when it is read)."""

    pages: list[list[tuple[str, str]]]
    pauses: list[float]
    order: Literal["key", "shard"]
    batch_size: int
    factor: int
    places: int  # handler calls at once in the whole process; 0 means no limit
    batching_window: float
    room: int  # records whose event fits
    retries: int
    refusals: float  # of the letters, how many the destination refuses
    bisect: bool
    limited_age: bool
    bounds: KeyBounds
    stops: list[tuple[float, bool]]  # seconds until the shard changes its owner; after a crash or a hand-over
    windows: bool
    seed: int  # of what calls come to and how long they take

    @property
    def in_order(self) -> bool:
        """Nothing of the shard overtakes anything."""
        return self.windows or self.order == "shard"


def plans(*, windows: bool) -> st.SearchStrategy[Plan]:
    fates = st.sampled_from(["good", "good", "good", "flaky", "poison", "filtered"])
    page = st.lists(st.tuples(st.sampled_from("abcdefgh"), fates), min_size=1, max_size=8)
    moments = st.sampled_from([0.0, 0.1, 1.0, 7.0, 30.0])
    orders: st.SearchStrategy[Literal["key", "shard"]] = st.sampled_from(["key", "key", "shard"])
    made = st.builds(
        Plan,
        pages=st.lists(page, min_size=1, max_size=5),
        pauses=st.lists(moments, min_size=5, max_size=5),
        order=orders,
        batch_size=st.sampled_from([1, 2, 3, 5, 100]),
        factor=st.sampled_from([1, 2, 3, 10]),
        places=st.sampled_from([0, 1, 3]),
        batching_window=st.sampled_from([0.0, 0.0, 0.5, 5.0]),
        room=st.sampled_from([1, 3, 1000]),
        retries=st.sampled_from([0, 1, 2, 6]),
        refusals=st.sampled_from([0.0, 0.3, 0.8]),
        bisect=st.booleans(),
        limited_age=st.booleans(),
        bounds=st.sampled_from([BOUNDS, TIGHT, TIGHTEST]),
        stops=st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.3, 2.0, 20.0]), st.booleans()), max_size=3),
        windows=st.just(windows),
        seed=st.integers(0, 1 << 32),
    )
    return made.map(lambda plan: replace(plan, factor=1) if plan.in_order else plan)


def refused_plans() -> st.SearchStrategy[Plan]:
    """Few slots, much poison and a destination that refuses: many keys fail at a time."""
    fates = st.sampled_from(["good", "good", "poison", "flaky"])
    page = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), fates), min_size=4, max_size=10)
    changes = {
        "pages": st.lists(page, min_size=3, max_size=5),
        "pauses": st.lists(st.sampled_from([0.0, 0.1, 0.4, 1.0]), min_size=5, max_size=5),
        "order": st.just("key"),
        "batch_size": st.sampled_from([2, 3, 5]),
        "factor": st.sampled_from([1, 2]),
        "retries": st.sampled_from([0, 1]),
        "refusals": st.sampled_from([0.3, 0.8]),
    }
    return st.builds(replace, plans(windows=False), **changes)


def deferred_plans() -> st.SearchStrategy[Plan]:
    """Few keys that fail for long, with more behind each than may wait: they are deferred, and catch up."""
    page = st.lists(
        st.tuples(st.sampled_from("aabc"), st.sampled_from(["good", "flaky", "flaky", "poison", "filtered"])),
        min_size=2,
        max_size=6,
    )
    changes = {
        "pages": st.lists(page, min_size=6, max_size=10),
        "pauses": st.lists(st.sampled_from([0.1, 1.0, 3.0, 10.0]), min_size=10, max_size=10),
        "order": st.just("key"),
        "batch_size": st.sampled_from([1, 3, 100]),
        "factor": st.sampled_from([1, 2, 10]),
        "retries": st.sampled_from([1, 2, 2, 6]),
        "bounds": st.sampled_from([SOME, SOME, TIGHT, TIGHTEST]),
    }
    return st.builds(replace, plans(windows=False), **changes)


FAMILIES = {
    "batches": plans(windows=False),
    "windows": plans(windows=True),
    "refused": refused_plans(),
    "deferred": deferred_plans(),
}


@dataclass
class Fact:
    """One record and what became of it. ``digest`` is that of its key; ``was_deferred``: it was left to the list of
    deferred keys once, so it may come later than newer records of other keys."""

    number: int
    key: str
    digest: str
    fate: str
    record: Record
    settles: int = 0
    failures: int = 0
    dead_lettered: bool = False
    was_deferred: bool = False

    def copy(self) -> Record:
        """As a reader gets it: of every reading another one."""
        return copy(self.record)

    @property
    def is_settled(self) -> bool:
        return self.settles > 0 or self.fate == "filtered"


def covered_by(snapshot: FrontierSnapshot) -> Callable[[Fact], bool]:
    """Whether a frontier says that a record is settled."""
    frontier = SettledFilter(snapshot)
    deferred = {one.digest: int(one.number) + one.passed for one in snapshot.deferred}

    def covers(fact: Fact) -> bool:
        first = deferred.get(fact.digest)
        return fact.number in frontier if first is None else fact.number < first

    return covers


@dataclass
class Model:
    """What must hold, whatever the plan: every method checks it."""

    plan: Plan
    rng: random.Random
    now: Callable[[], float]
    facts: dict[int, Fact] = field(default_factory=dict)
    busy: Counter[str] = field(default_factory=Counter)
    invoked: Counter[str] = field(default_factory=Counter)
    totals: list[int] = field(default_factory=list)
    running: int = 0
    running_again: int = 0

    def attempts_of(self, call: HandlerCall) -> int:
        """How often these records were handed over as they are. A key that a partial answer has set apart was tried
        once, with others, under the request id of those."""
        known = self.invoked[call.request_id]
        facts = [self.facts[int(record.sequence_number)] for record in call.records]
        was_set_apart = len({fact.key for fact in facts}) == 1 and all(fact.failures for fact in facts)
        return 1 if not known and not self.plan.in_order and was_set_apart and call.attempt == 2 else known

    def begins(self, records: list[Record]) -> list[Fact]:
        """User code, or a letter, gets these records."""
        facts = [self.facts[int(record.sequence_number)] for record in records]
        in_stream_order([fact for fact in facts if not fact.was_deferred])
        keys = {fact.key for fact in facts}
        for key in keys:
            in_stream_order([fact for fact in facts if fact.key == key])
        held_up_by = keys if not self.plan.in_order else {fact.key for fact in self.facts.values()}
        unsettled = [fact for fact in self.facts.values() if not fact.is_settled and fact.key in held_up_by]
        for fact in facts:
            assert not fact.is_settled, f"{fact} is settled"
            before = [
                one
                for one in unsettled
                if one.number < fact.number and (self.plan.in_order or one.key == fact.key) and one not in facts
            ]
            assert not before, f"{fact} before {before}"
        assert not any(self.busy[key] for key in held_up_by), "two attempts of a key at once"
        self.busy.update(keys)
        return facts

    def ends(self, facts: list[Fact]) -> None:
        self.busy.subtract({fact.key for fact in facts})

    def settles(self, facts: list[Fact]) -> None:
        for fact in facts:
            fact.settles += 1
            assert fact.settles == 1, f"{fact} twice"

    def looks_at(self, snapshot: FrontierSnapshot) -> None:
        """What would be durable if the process ended now."""
        covers = covered_by(snapshot)
        passed = [fact for fact in self.facts.values() if covers(fact) and not fact.is_settled]
        assert not passed, "the checkpoint passes what is not settled"
        assert len(snapshot.deferred) <= self.plan.bounds.deferred_keys
        assert not (self.plan.in_order and snapshot.deferred), "a key is behind the others"

    def is_complete(self, snapshot: FrontierSnapshot) -> None:
        """After a drain the frontier knows everything: the next owner repeats nothing."""
        self.looks_at(snapshot)
        covers = covered_by(snapshot)
        assert all(covers(fact) for fact in self.facts.values() if fact.settles), "a hand-over forgets"
        assert not any(self.busy.values()), "a call goes on after the drain"

    def forgets(self, snapshot: FrontierSnapshot, totals: int) -> None:
        """A crash: what this checkpoint does not name happens again, and so do the ends of windows after it."""
        covers = covered_by(snapshot)
        for fact in self.facts.values():
            if not covers(fact):
                fact.settles, fact.dead_lettered = 0, False
        del self.totals[totals:]
        self.busy.clear()

    def comes_to(self, facts: list[Fact]) -> Outcome:
        """What a call with these records comes to; good records never make one fail."""
        bad = [fact for fact in facts if fact.fate == "poison" or (fact.fate == "flaky" and self.rng.random() < 0.5)]
        chance = self.rng.random()
        if chance < 0.1:
            return Outcome("not_invoked")
        if not bad:
            return OK
        for fact in facts:
            fact.failures += 1
        if chance < 0.5:
            return Outcome("failed", fault=RAISED)
        if chance < 0.7:  # a Lambda function that stops at the first failure
            return Outcome("partial", failed=(str(min(fact.number for fact in bad)),), exact=False)
        first = {fact.key: fact.number for fact in reversed(bad)}
        also = [
            fact
            for fact in facts
            if fact.number > (bad[0].number if self.plan.in_order else first.get(fact.key, fact.number))
            and self.rng.random() < 0.3
        ]
        named = [str(fact.number) for fact in (*bad, *also)]
        self.rng.shuffle(named)
        return Outcome("partial", failed=tuple(named))

    def handled_by(self, outcome: Outcome, facts: list[Fact]) -> list[Fact]:
        """Which records an answer settles. In the order of the shard: those below the lowest one that failed. Else
        those before the first one of their key that failed; but when the function may have stopped at the one that it
        names, nothing that it may not have come to."""
        if outcome.kind == "ok":
            return facts
        if outcome.kind != "partial":
            return []
        failed = set(map(int, outcome.failed))
        if self.plan.in_order:
            return [fact for fact in facts if fact.number < min(failed)]
        first = {fact.key: fact.number for fact in reversed(facts) if fact.number in failed}
        return [
            fact
            for fact in facts
            if (fact.key not in first or fact.number < first[fact.key]) and (outcome.exact or fact.number < min(failed))
        ]


def in_stream_order(facts: list[Fact]) -> None:
    numbers = [fact.number for fact in facts]
    assert numbers == sorted(set(numbers)), "stream order, each once"
