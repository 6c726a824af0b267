"""Batching, settlement, dead letters and frontier together, as the dispatcher wires them, against a model from outside.

Hypothesis draws the records, the options of the mapping, what every call comes to and how long it takes, where the
destination refuses, and when the shard is handed over. The model sees what user code sees: calls, letters and what a
checkpoint would hold at every moment. Time is virtual, so a back-off of half a minute costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.batching import Entry, PageHold
from consumer.domain.errors import DependencyError
from consumer.domain.filters.filters import compile_filters
from consumer.domain.frontier import MAX_RUNS_BYTES_GIVEN_AWAY, Frontier, FrontierSnapshot, SettledFilter
from consumer.domain.lease import LeaseRow, SessionValidity
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.domain.record import Change, Record, records_from_event
from consumer.domain.windows import TumblingWindow, WindowState
from consumer.operate.metrics import Metrics
from consumer.ports.source import StreamDescription
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.simulated_worker import ProcessRandomness, Scripted
from consumer.testing.virtual_loop import VirtualLoop
from consumer.worker.context import Ports, WorkerContext, handler_slots
from consumer.worker.memory_budget import BudgetAccount, ByteBudget
from consumer.worker.shard.dispatcher import EVENT_FRAME, Dispatcher
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.subscription import Subscription

RAISED = HandlerFault("raised", "ValueError", "poison")
SHARD = "shardId-1"
WINDOW = 10  # seconds
MOST_AGE = 60
FOR_EVER = 3600.0


@dataclass(frozen=True)
class Plan:
    """One run. ``pages`` are what the reader delivers: of each record its key, and whether it is poison (the calls that
    hold it fail), flaky (they fail now and then) or filtered (settled when it is read)."""

    pages: list[list[tuple[str, str]]]
    pauses: list[float]
    batch_size: int
    factor: int
    slots: int  # handler calls at once in the whole process; 0 means no limit
    batching_window: float
    room: int  # records whose event fits
    retries: int
    refusals: float  # of the letters, how many the destination refuses
    bisect: bool
    limited_age: bool
    stops: list[tuple[float, bool]]  # seconds until the shard changes its owner; after a crash or a hand-over
    windows: bool
    seed: int  # of what calls come to and how long they take


def plans(*, windows: bool) -> st.SearchStrategy[Plan]:
    fates = st.sampled_from(["good", "good", "good", "flaky", "poison", "filtered"])
    page = st.lists(st.tuples(st.sampled_from("abcdefgh"), fates), min_size=1, max_size=8)
    moments = st.sampled_from([0.0, 0.1, 1.0, 7.0, 30.0])
    return st.builds(
        Plan,
        pages=st.lists(page, min_size=1, max_size=5),
        pauses=st.lists(moments, min_size=5, max_size=5),
        batch_size=st.sampled_from([1, 2, 3, 5, 100]),
        factor=st.just(1) if windows else st.sampled_from([1, 2, 3, 10]),
        slots=st.sampled_from([0, 1]),
        batching_window=st.sampled_from([0.0, 0.0, 0.5, 5.0]),
        room=st.sampled_from([1, 3, 1000]),
        retries=st.sampled_from([0, 1, 2, 6]),
        refusals=st.sampled_from([0.0, 0.3, 0.8]),
        bisect=st.booleans(),
        limited_age=st.booleans(),
        stops=st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.3, 2.0, 20.0]), st.booleans()), max_size=3),
        windows=st.just(windows),
        seed=st.integers(0, 1 << 32),
    )


def refused_plans() -> st.SearchStrategy[Plan]:
    """Few places, much poison and a destination that refuses: batches leave their places and wait for others."""
    fates = st.sampled_from(["good", "good", "poison", "flaky"])
    page = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), fates), min_size=4, max_size=10)
    changes = {
        "pages": st.lists(page, min_size=3, max_size=5),
        "pauses": st.lists(st.sampled_from([0.0, 0.1, 0.4, 1.0]), min_size=5, max_size=5),
        "batch_size": st.sampled_from([2, 3, 5]),
        "factor": st.sampled_from([1, 2]),
        "retries": st.sampled_from([0, 1]),
        "refusals": st.sampled_from([0.3, 0.8]),
    }
    return st.builds(replace, plans(windows=False), **changes)


FAMILIES = {"batches": plans(windows=False), "windows": plans(windows=True), "refused": refused_plans()}


@dataclass
class Fact:
    """One record and what became of it."""

    number: int
    key: str
    fate: str
    record: Record
    settles: int = 0
    failures: int = 0
    dead_lettered: bool = False


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

    def begins(self, records: list[Record]) -> list[Fact]:
        """User code, or a letter, gets these records."""
        facts = [self.facts[int(record.sequence_number)] for record in records]
        numbers = [fact.number for fact in facts]
        assert numbers == sorted(set(numbers)), "stream order, each once"
        for fact in facts:
            assert not fact.settles, f"{fact} is settled"
            before = [f for f in self.facts.values() if f.key == fact.key and f.number < fact.number and not f.settles]
            assert all(one in facts for one in before), f"{fact} before {before}"
        keys = {fact.key for fact in facts}
        assert not any(self.busy[key] for key in keys), "two attempts of a key at once"
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
        frontier = SettledFilter(snapshot)
        passed = [fact for fact in self.facts.values() if fact.number in frontier and not fact.settles]
        assert not passed, "the checkpoint passes what is not settled"

    def is_complete(self, snapshot: FrontierSnapshot) -> None:
        """After a drain the frontier knows everything: the next owner repeats nothing."""
        self.looks_at(snapshot)
        frontier = SettledFilter(snapshot)
        assert all(fact.number in frontier for fact in self.facts.values() if fact.settles), "a hand-over forgets"
        assert not any(self.busy.values()), "a call goes on after the drain"

    def forgets(self, snapshot: FrontierSnapshot, totals: int) -> None:
        """A crash: what this checkpoint does not name happens again, and so do the ends of windows after it."""
        frontier = SettledFilter(snapshot)
        for fact in self.facts.values():
            if fact.number not in frontier:
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
        also = [fact for fact in facts if fact.number > bad[0].number and self.rng.random() < 0.3]
        named = [str(fact.number) for fact in (*bad, *also)]
        self.rng.shuffle(named)
        return Outcome("partial", failed=tuple(named))


class Watched(Subscription):
    """Calls ``watch`` whenever records were settled."""

    watch: Callable[[], None]

    def settle(self, entries: Sequence[Entry], result: str) -> None:
        super().settle(entries, result)
        self.watch()


class Shard:
    """The dispatcher of one shard with everything below it; reader, handler and destination are simulated."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.process = loop.world
        self.clock = self.process
        self.rng = random.Random(plan.seed)
        self.model = Model(plan, self.rng, self.clock.wall)
        self.saved = (FrontierSnapshot(), WindowState(), 0)
        self.unread = [list(page) for page in plan.pages]
        event = Record(Change("1", Keys=Raw(b'{"id":{"S":"a"}}')), event_source_arn="arn").event_size
        self.max_event = EVENT_FRAME + plan.room * (event + 8)
        self.context = self._context()
        self.subscription = self._subscribe(FrontierSnapshot(), WindowState())
        self._newest = 0.0

    def _subscribe(self, resume_from: FrontierSnapshot, window: WindowState) -> Subscription:
        """What an owner starts from, watched at every moment at which something is settled."""
        one = Watched(self.context, resume_from)
        one.watch = self.checkpoint
        if self.plan.windows:
            one.window = TumblingWindow(WINDOW, window)
        return one

    @property
    def frontier(self) -> Frontier:
        return self.subscription.frontier

    def _context(self) -> WorkerContext:
        plan, clock = self.plan, self.clock
        config: dict[str, Any] = {
            "application": "app",
            "source": {"table": "orders"},
            "handler": {"kind": "lambda", "target": "m:h"},
            "batch": {
                "batch_size": plan.batch_size,
                "parallelization_factor": plan.factor,
                "batching_window": f"{plan.batching_window * 1000:.0f}ms",
                "tumbling_window": f"{WINDOW if plan.windows else 0}s",
            },
            "retry": {
                "max_retry_attempts": plan.retries,
                "bisect_on_error": plan.bisect,
                "max_record_age": f"{MOST_AGE}s" if plan.limited_age else -1,
            },
        }
        stream = MemoryStream(clock)
        store = MemoryLeaseStore(MemoryTable(), "app", clock.wall)
        rng = ProcessRandomness(self.rng)
        validity = SessionValidity()
        validity.renewed(0.0, float("inf"))
        description = StreamDescription(stream.arn, "label", "orders", "ENABLED", "NEW_IMAGE", "id", 0.0)
        return WorkerContext(
            settings=Settings.model_validate(config),
            ports=Ports(MemoryStreamSource(stream), store, Scripted(self.invoke), self, clock, rng),
            metrics=Metrics(),
            stream=description,
            incarnation="w/1/1",
            validity=validity,
            budget=ByteBudget(1 << 30),
            slots=handler_slots(plan.slots),
            start_at=None,
            filters=compile_filters([]),
        )

    # --- the handler and the destination ---------------------------------------------------------------

    async def invoke(self, call: HandlerCall) -> Outcome:
        model = self.model
        self.checkpoint()
        assert call.attempt == model.invoked[call.request_id] + 1, (
            "a retry keeps its request id, a throttle its attempt"
        )
        assert call.attempt <= self.plan.retries + 1, "more calls than retries allow"
        assert len(call.records) <= self.plan.batch_size
        assert len(call.records) == 1 or len(call.event()) <= self.max_event or call.window is not None
        if call.window is not None and call.window.final:
            return self.close_window(call)
        assert call.records, "an empty call is the end of a window"
        facts = model.begins(list(call.records))
        if call.window is not None:
            newest = max(fact.record.dynamodb.ApproximateCreationDateTime for fact in facts)
            assert newest < call.window.window.end, "a record of a later window"
        if self.plan.limited_age:
            assert all(model.now() - f.record.dynamodb.ApproximateCreationDateTime <= MOST_AGE for f in facts), (
                "expired"
            )
        model.running += 1
        assert model.running <= self.plan.factor, "more batches at once than parallelization_factor"
        try:
            await asyncio.sleep(self.rng.choice((0.0, 0.01, 0.4, 3.0)))
        finally:
            model.running -= 1
        outcome = model.comes_to(facts)
        model.ends(facts)
        if outcome.kind == "not_invoked":
            return outcome
        model.invoked[call.request_id] += 1
        lowest = min(map(int, outcome.failed), default=0)
        done = facts if outcome.kind == "ok" else [fact for fact in facts if fact.number < lowest]
        model.settles(done)
        if call.window is None or outcome.kind == "failed":
            return outcome
        state = json.loads(call.window.state).get("seen", [])
        state += [fact.number for fact in done]
        return Outcome(outcome.kind, outcome.failed, outcome.fault, state=json.dumps({"seen": state}).encode())

    def close_window(self, call: HandlerCall) -> Outcome:
        """The end of a window must see what was handled in it, all of it and once; it may fail, too."""
        assert call.window is not None
        assert not call.records
        self.model.invoked[call.request_id] += 1
        if self.plan.retries >= 2 and self.rng.random() < 0.3 and call.attempt < 3:
            return Outcome("failed", fault=RAISED)
        self.model.totals += json.loads(call.window.state).get("seen", [])
        return Outcome("ok", state=b"{}")

    destination = "memory"

    async def prepare(self) -> None: ...

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        letter = json.loads(document)
        records = records_from_event(json.dumps(letter["payload"]).encode())
        condition = letter["requestContext"]["condition"]
        model = self.model
        facts = model.begins(list(records))
        self.checkpoint()
        await asyncio.sleep(self.rng.choice((0.0, 0.2)))
        model.ends(facts)
        if self.rng.random() < self.plan.refusals:
            raise DependencyError("SendMessage", "ServiceUnavailable")
        if letter["payload"].get("isFinalInvokeForWindow"):  # the end of a window that was too old for another retry
            assert not facts
            assert self.plan.limited_age
            model.totals += letter["payload"]["state"].get("seen", [])
        elif condition == "RetryAttemptsExhausted":
            assert all(fact.failures > self.plan.retries for fact in facts), "given up before the retries are spent"
            assert any(fact.fate != "good" for fact in facts)
            assert not self.plan.bisect or len(facts) == 1, "a half would have been good"
        else:
            assert self.plan.limited_age
        for fact in facts:
            fact.dead_lettered = True
        model.settles(facts)

    # --- one life after the other ----------------------------------------------------------------------

    async def run(self) -> None:
        for stop, crash in self.plan.stops:
            await self._life(stop, crash=crash)
        await self._life(None)
        facts = self.model.facts.values()
        assert len(facts) == sum(map(len, self.plan.pages))
        assert all(fact.settles == 1 for fact in facts), "every record is settled exactly once"
        assert not [fact for fact in facts if fact.fate == "poison" and not fact.dead_lettered]
        assert not [
            f for f in facts if f.fate == "good" and f.dead_lettered and f.failures == 0 and not self.plan.limited_age
        ]
        assert self.frontier.snapshot() == FrontierSnapshot(str(len(facts)), "1", ())
        if self.plan.windows:
            handled = [fact.number for fact in facts if fact.fate != "filtered" and not fact.dead_lettered]
            assert self.model.totals == handled, "the windows count every record that was handled, once and in order"

    def checkpoint(self) -> None:
        """A write that may come at any moment: frontier and window as they are together."""
        snapshot = self.frontier.snapshot()
        self.model.looks_at(snapshot)
        if self.rng.random() < 0.5:
            self.saved = (snapshot, self._durable_window(), len(self.model.totals))

    async def _checkpoint_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.rng.choice((0.003, 0.1, 2.0)))
            self.checkpoint()

    def _durable_window(self) -> WindowState:
        return self.subscription.window_state or WindowState()

    async def _life(self, stop: float | None, *, crash: bool = False) -> None:
        """One owner, until everything is settled or the shard has another one."""
        row = LeaseRow(SHARD, owner="w/1/1", epoch=1, state="open")
        async with asyncio.TaskGroup() as tasks:
            lease = HeldLease(self.context, row, self.subscription)
            one = Dispatcher(self.context, lease, self.subscription, tasks, self.max_event)
            feeding = tasks.create_task(self._feed(one))
            checkpoints = tasks.create_task(self._checkpoint_for_ever())
            try:
                async with asyncio.timeout(FOR_EVER if stop is None else stop):
                    await feeding
                    one.no_more()
                    await one.settle_all()
            except TimeoutError:
                assert stop is not None, "it does not end"
                feeding.cancel()
            checkpoints.cancel()
            try:
                async with asyncio.timeout(0.0 if crash else None):
                    await one.drain()
            except TimeoutError:
                await one.cancel()
            one.abandon()
        assert self.context.metrics.in_flight_records.value == 0
        if crash:
            snapshot, window, totals = self.saved
            self.model.forgets(snapshot, totals)
        else:
            snapshot, window = self.frontier.snapshot(MAX_RUNS_BYTES_GIVEN_AWAY), self._durable_window()
            self.model.is_complete(snapshot)
        if stop is not None:
            self._start_again(snapshot, window)

    def _start_again(self, snapshot: FrontierSnapshot, window: WindowState) -> None:
        """The next owner starts from what is stored, and reads on after the low watermark."""
        self.saved = (snapshot, window, len(self.model.totals))
        self.subscription = self._subscribe(snapshot, window)

    async def _feed(self, one: Dispatcher) -> None:
        """As the reader: what lies above the low watermark once more, then the pages that were never read."""
        low = int(self.frontier.low or 0)
        again = [fact for fact in self.model.facts.values() if fact.number > low]
        if again:
            self._deliver(one, again)
        while self.unread:
            await asyncio.sleep(self.plan.pauses[len(self.unread) - 1])
            page = [self._arrives(key, fate) for key, fate in self.unread.pop(0)]
            self._deliver(one, page)

    def _arrives(self, key: str, fate: str) -> Fact:
        number = len(self.model.facts) + 1
        late = self.rng.choice((0, 0, 5, 59, 59, 70))  # seconds that the record is older than its reading
        created = self._newest = max(self._newest, float(int(self.clock.wall()) - late))
        change = Change(
            str(number), ApproximateCreationDateTime=created, Keys=Raw(f'{{"id":{{"S":"{key}"}}}}'.encode())
        )
        fact = self.model.facts[number] = Fact(number, key, fate, Record(change, event_source_arn="arn"))
        return fact

    def _deliver(self, one: Dispatcher, facts: list[Fact]) -> None:
        known = SettledFilter(self.frontier.snapshot(MAX_RUNS_BYTES_GIVEN_AWAY))
        positions = self.frontier.track([str(fact.number) for fact in facts])
        wanted, skipped = [], []
        for position, fact in zip(positions, facts, strict=True):
            if fact.number in known:
                assert fact.settles, "the frontier names what was never settled"
                skipped.append(position)
            elif fact.fate == "filtered":
                self.model.settles([fact])
                skipped.append(position)
            else:
                assert not fact.settles, "a hand-over repeats what is settled"
                wanted.append((position, fact))
        size = sum(fact.record.event_size for _, fact in wanted)
        hold = PageHold(BudgetAccount(self.context.budget), 0, left=len(wanted), event_bytes=size)
        if skipped:
            self.frontier.settle(skipped)
        one.add([Entry(position, fact.key.encode(), fact.record, hold) for position, fact in wanted])


def run(plan: Plan) -> None:
    """Run a plan to its end. AssertionError (in a group, from a task) when something does not hold."""
    loop = VirtualLoop(random.Random(0))
    try:
        loop.run_until(Shard(plan, loop).run())
    finally:
        loop.close()
    assert loop.failures == []


def main() -> None:
    """Run plans of either kind until one fails: for mutants of the package that PYTHONPATH leads to."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    @given(FAMILIES[sys.argv[1]])
    @settings(max_examples=400, database=None, deadline=None, phases=[Phase.generate], derandomize=True)
    def hold(plan: Plan) -> None:
        run(plan)

    hold()


if __name__ == "__main__":
    main()
