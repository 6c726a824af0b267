"""Batching, pieces, settlement, dead letters, deferred keys and frontier together, as the dispatcher wires them,
against a model from outside (``dispatch_model``).

Hypothesis draws the records, the options of the mapping, what every call comes to and how long it takes, where the
destination refuses, and when the shard is handed over. Time is virtual, so a back-off of half a minute costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import structlog
from hypothesis import Phase, given, settings
from msgspec import Raw

from consumer.domain.batching import Entry, PageHold
from consumer.domain.deferred import digest_of
from consumer.domain.errors import DependencyError, ExpiredIterator
from consumer.domain.events import EVENT_FRAME, records_from_event
from consumer.domain.frontier import MAX_RUNS_BYTES_GIVEN_AWAY, FrontierSnapshot
from consumer.domain.keys import partition_key_reader
from consumer.domain.lease import LeaseRow, SessionValidity
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.record import Change, Record
from consumer.domain.source_format import dynamodb_format
from consumer.domain.windows import TumblingWindow, WindowState
from consumer.operate.metrics import Metrics
from consumer.ports.source import Page, Position, StreamDescription
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.simulated_worker import ProcessRandomness, Scripted
from consumer.testing.virtual_loop import VirtualLoop
from consumer.worker.context import Ports, WorkerContext
from consumer.worker.handler_places import HandlerPlaces
from consumer.worker.memory_budget import BudgetAccount, ByteBudget
from consumer.worker.parked_keys import ParkedKeys
from consumer.worker.running_config import RunningConfig
from consumer.worker.shard.catch_up import CatchUp
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.subscription import Subscription
from tests.unit.worker.dispatch_model import FAMILIES, RAISED, Fact, Model, Plan, covered_by
from tests.unit.worker.right_clock import RightClock

SHARD = "shardId-1"
WINDOW = 10  # seconds
MOST_AGE = 60
# Seconds. An open breaker probes every ten minutes at last: a record with six retries may take more than an hour alone.
FOR_EVER = 12 * 3600.0
RE_READ = 8  # records in a page of the second reader
KEY_OF = partition_key_reader("id")


class Watched(Subscription):
    """Calls ``watch`` whenever records were settled or a key was deferred, with what was left to that key's entry."""

    watch: Callable[[Sequence[Entry]], None]

    def settle(self, entries: Sequence[Entry], result: str) -> None:
        super().settle(entries, result)
        self.watch(())

    def defer(self, key: bytes, kept: Sequence[Entry], dropped: Sequence[Entry]) -> None:
        super().defer(key, kept, dropped)
        self.watch((*kept, *dropped))


class SecondReading(MemoryStreamSource):
    """What the second reader of the shard sees: the records that have arrived so far."""

    def __init__(self, stream: MemoryStream, model: Model) -> None:
        super().__init__(stream)
        self._model = model

    async def iterator(self, shard_id: str, position: Position) -> str:
        number = position.sequence_number
        if number is None:
            return "1"
        return str(int(number) + (position.kind == "AFTER_SEQUENCE_NUMBER"))

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        model = self._model
        await asyncio.sleep(model.rng.choice((0.0, 0.05, 0.5)))
        if model.rng.random() < 0.1:
            raise ExpiredIterator(iterator)
        facts = [fact for fact in model.facts.values() if fact.number >= int(iterator)][:RE_READ]
        following = facts[-1].number + 1 if facts else int(iterator)
        return Page([fact.copy() for fact in facts], str(following), 100 * len(facts))


class NoParents:
    """The lineage of a shard that stands alone."""

    def has_children(self, shard_id: str) -> bool:
        return False

    def keys_held_back(self, parents: Collection[str]) -> list[tuple[str, ...] | None]:
        return []

    async def is_gone(self, shard_id: str) -> bool:
        return False

    async def register_children(self, parent: LeaseRow) -> None: ...

    def shard_settled(self, shard_id: str) -> None: ...


class Shard:
    """The dispatcher of one shard with everything below it; first reader, handler and destination are simulated."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.clock = RightClock(loop.world)
        self.rng = random.Random(plan.seed)
        self.model = Model(plan, self.rng, self.clock.wall)
        self.saved = (FrontierSnapshot(), WindowState(), 0)
        self.unread = [list(page) for page in plan.pages]
        event = Record(Change("1", Keys=Raw(b'{"id":{"S":"a"}}')), event_source_arn="arn").event_size
        self.max_event = EVENT_FRAME + plan.room * (event + 8)
        self.context = self._context()
        self.dispatcher: Dispatcher | None = None
        self.breaker_opened = False
        self._subscribe(FrontierSnapshot(), WindowState())
        self._newest = 0.0

    def _subscribe(self, resume_from: FrontierSnapshot, window: WindowState) -> None:
        """What an owner starts from, watched at every moment at which something is settled."""
        self.resume_from = resume_from
        self.account = BudgetAccount(self.context.budget)
        one = Watched(self.context, resume_from, self.account)
        one.watch = self._watch
        if self.plan.windows:
            one.window = TumblingWindow(WINDOW, window)
        self.subscription = one

    def _context(self) -> WorkerContext:
        plan, clock = self.plan, self.clock
        config: dict[str, Any] = {
            "application": "app",
            "source": {"table": "orders"},
            "handler": {"kind": "lambda", "target": "m:h"},
            "filters": [{"eventName": ["MODIFY"]}],
            "batch": {
                "order": plan.order,
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
        source_format = dynamodb_format("id")
        description = StreamDescription(stream.arn, "label", "orders", "ENABLED", "NEW_IMAGE", source_format, 0.0)
        source = SecondReading(stream, self.model)
        handler = Scripted(self.invoke)
        handler.width = plan.places
        return WorkerContext(
            config=RunningConfig(Settings.model_validate(config)),
            ports=Ports(source, store, handler, self, clock, rng),
            metrics=Metrics(),
            stream=description,
            incarnation="w/1/1",
            validity=validity,
            budget=ByteBudget(1 << 30),
            places=HandlerPlaces(handler),
            start_at=None,
            parked=ParkedKeys(MemoryLeaseStore(MemoryTable(), "app", clock.wall)),
            bounds=plan.bounds,
        )

    # --- the handler and the destination ---------------------------------------------------------------

    async def invoke(self, call: HandlerCall) -> Outcome:
        model, plan = self.model, self.plan
        self.checkpoint()
        assert call.attempt == model.attempts_of(call) + 1, "a retry keeps its request id, a throttle its attempt"
        self.breaker_opened |= self.dispatcher is not None and not self.dispatcher.breaker.is_closed
        # While it is open no record is given up because of its retries, and once it has closed each is tried once more.
        assert call.attempt <= plan.retries + 1 or self.breaker_opened, "more calls than retries allow"
        assert len(call.records) <= plan.batch_size
        assert len(call.records) == 1 or len(call.event()) <= self.max_event or call.window is not None
        if call.window is not None and call.window.final:
            return self.close_window(call)
        assert call.records, "an empty call is the end of a window"
        facts = model.begins(list(call.records))
        if call.window is not None:
            newest = max(fact.record.dynamodb.ApproximateCreationDateTime for fact in facts)
            assert newest < call.window.window.end, "a record of a later window"
        if plan.limited_age:
            assert all(model.now() - f.record.dynamodb.ApproximateCreationDateTime <= MOST_AGE for f in facts), (
                "expired"
            )
        again = call.attempt > 1
        model.running += 1
        model.running_again += again
        assert model.running <= plan.factor, "more batches at once than parallelization_factor"
        assert model.running <= (plan.places or plan.factor), "more calls at once than the handler has places"
        assert model.running_again <= max(1, plan.factor // 2), "retries take more than half of the slots"
        assert model.running_again <= max(1, (plan.places or plan.factor) // 2), "... or of the places"
        try:
            await asyncio.sleep(self.rng.choice((0.0, 0.01, 0.4, 3.0)))
        finally:
            model.running -= 1
            model.running_again -= again
        outcome = model.comes_to(facts)
        model.ends(facts)
        if outcome.kind == "not_invoked":
            return outcome
        model.invoked[call.request_id] = call.attempt
        done = model.handled_by(outcome, facts)
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
        self.model.invoked[call.request_id] = call.attempt
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
            assert self.plan.in_order or len({fact.key for fact in facts}) == 1, "another key would have been good"
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
        assert all(fact.settles == (fact.fate != "filtered") for fact in facts), "every record is settled exactly once"
        assert not [fact for fact in facts if fact.fate == "poison" and not fact.dead_lettered]
        assert not [
            f for f in facts if f.fate == "good" and f.dead_lettered and f.failures == 0 and not self.plan.limited_age
        ]
        assert self.subscription.snapshot() == FrontierSnapshot(str(len(facts)), "1")
        assert self.account.held == 0, "nothing is held when everything is settled"
        if self.plan.windows:
            handled = [fact.number for fact in facts if fact.fate != "filtered" and not fact.dead_lettered]
            assert self.model.totals == handled, "the windows count every record that was handled, once and in order"

    def checkpoint(self) -> None:
        """A write that may come at any moment: frontier and window as they are together."""
        snapshot = self.subscription.snapshot()
        self.model.looks_at(snapshot)
        if self.rng.random() < 0.5:
            self.saved = (snapshot, self._durable_window(), len(self.model.totals))

    def _watch(self, deferred: Sequence[Entry]) -> None:
        for entry in deferred:
            self.model.facts[int(entry.record.sequence_number)].was_deferred = True
        self.checkpoint()

    async def _checkpoint_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.rng.choice((0.003, 0.1, 2.0)))
            self.checkpoint()

    def _durable_window(self) -> WindowState:
        return self.subscription.window_state or WindowState()

    async def _life(self, stop: float | None, *, crash: bool = False) -> None:
        """One owner, until everything is settled or the shard has another one."""
        row = LeaseRow(SHARD, owner="w/1/1", epoch=1, state="open")
        subscription, account, lineage = self.subscription, self.account, NoParents()
        async with asyncio.TaskGroup() as tasks:
            lease = HeldLease(self.context, row, subscription)
            parked = ParkedRows(self.context, lease)
            one = self.dispatcher = Dispatcher(self.context, lease, subscription, parked, tasks, self.max_event)
            reader = ShardReader(self.context, SHARD, self.resume_from, subscription, account, lineage)
            catch_up = CatchUp(self.context, lease, reader, subscription, parked, account, lineage)
            beside = [tasks.create_task(self._checkpoint_for_ever()), tasks.create_task(catch_up.run(one))]
            feeding = tasks.create_task(self._feed(one, reader))
            try:
                async with asyncio.timeout(FOR_EVER if stop is None else stop):
                    await feeding
                    one.no_more()
                    await one.settle_all()
                    while subscription.deferred:
                        subscription.settled.clear()
                        await subscription.settled.wait()
                    assert one.failing_since() is None, "nothing fails when everything is settled"
            except TimeoutError:
                assert stop is not None, "it does not end"
                feeding.cancel()
            for task in beside:
                task.cancel()
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
            snapshot, window = subscription.snapshot(MAX_RUNS_BYTES_GIVEN_AWAY), self._durable_window()
            self.model.is_complete(snapshot)
        if stop is not None:
            account.close()
            self.saved = (snapshot, window, len(self.model.totals))
            self._subscribe(snapshot, window)

    async def _feed(self, one: Dispatcher, reader: ShardReader) -> None:
        """As the reader: what lies above the low watermark once more, then the pages that were never read."""
        low = int(self.resume_from.low or 0)
        again = [fact for fact in self.model.facts.values() if fact.number > low]
        if again:
            self._deliver(one, again)
        while self.unread:
            await asyncio.sleep(self.plan.pauses[len(self.unread) - 1])
            page = [self._arrives(key, fate) for key, fate in self.unread.pop(0)]
            self._deliver(one, page)
        reader.state.ended = True

    def _arrives(self, key: str, fate: str) -> Fact:
        number = len(self.model.facts) + 1
        late = self.rng.choice((0, 0, 5, 59, 59, 70))  # seconds that the record is older than its reading
        created = self._newest = max(self._newest, float(int(self.clock.wall()) - late))
        change = Change(
            str(number), ApproximateCreationDateTime=created, Keys=Raw(f'{{"id":{{"S":"{key}"}}}}'.encode())
        )
        name = "REMOVE" if fate == "filtered" else "MODIFY"
        record = Record(change, event_name=name, event_source_arn="arn")
        fact = self.model.facts[number] = Fact(number, key, digest_of(KEY_OF(record)), fate, record)
        return fact

    def _deliver(self, one: Dispatcher, facts: list[Fact]) -> None:
        subscription = self.subscription
        covers = covered_by(subscription.snapshot(MAX_RUNS_BYTES_GIVEN_AWAY))
        size = sum(fact.record.event_size for fact in facts)
        self.account.charge(size)
        entries = subscription.accept([f.copy() for f in facts], PageHold(self.account, size, left=0, event_bytes=size))
        if not entries:
            self.account.release(size)
        wanted = {int(entry.record.sequence_number) for entry in entries}
        for fact in facts:
            if fact.number in wanted:
                assert not fact.is_settled, "a hand-over repeats what is settled"
            elif subscription.is_deferred(KEY_OF(fact.record)):
                fact.was_deferred = True
            else:
                assert fact.is_settled, "what was never settled is skipped"
                assert covers(fact) or fact.fate == "filtered"
        one.add(entries)


def run(plan: Plan) -> None:
    """Run a plan to its end. AssertionError (in a group, from a task) when something does not hold."""
    loop = VirtualLoop(random.Random(0))

    async def life() -> None:
        await Shard(plan, loop).run()

    try:
        loop.run_until(life())
    finally:
        loop.close()
    assert loop.failures == []


def main() -> None:
    """Run plans of one family until one fails: for mutants of the package that PYTHONPATH leads to."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    @given(FAMILIES[sys.argv[1]])
    @settings(max_examples=2000, database=None, deadline=None, phases=[Phase.generate], derandomize=True)
    def hold(plan: Plan) -> None:
        run(plan)

    hold()


if __name__ == "__main__":
    main()
