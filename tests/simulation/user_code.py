"""Handlers for the families of random runs: they work, fail and misbehave as the seed wants it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.domain.record import Record
from consumer.handlers.runtime.context import Context
from consumer.testing.history import Item
from consumer.testing.simulation import Simulation
from tests.simulation.sink import VersionedSink

RAISED: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("as the seed wants it"),
    lambda: ExceptionGroup("two", [ValueError("one"), KeyError("other")]),
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,  # its own, not ours
    lambda: RecursionError("too deep"),
)
GARBAGE: tuple[Any, ...] = (7, "done", object(), float("nan"), {"batchItemFailures": [{}]}, [None], [7])


SLOWEST = 20.0  # times as long, one call in fifty
MANNERS = ("raise", "raise", "partial", "garbage", "hang", "ignore")


class UserCode:
    """What a handler does with a call: take a while, write to the sink, succeed or not.

    Args:
        busy: most seconds that a call takes; one in fifty takes ``SLOWEST`` times that, and some runs have a slow key.
        failing, poison: how likely a call fails, or a record always does.
    """

    def __init__(self, world: Simulation, *, busy: float, failing: float, poison: float = 0.0) -> None:
        self._world = world
        self.sink = VersionedSink(world.history)
        self._rng: random.Random = world.rng("handler")
        self._busy = busy
        self._failing = failing
        self._poison = poison
        self._by_key = world.settings.batch.order == "key"
        self._reports: bool = world.settings.batch.report_batch_item_failures
        self._poisoned: dict[str, bool] = {}
        few_calls = world.settings.batch.batch_size >= 10  # or one key would need more time than there is
        self.failing_keys: set[str] = set()  # of which every call fails
        self.calm = False  # quick and good from now on, but for those keys
        self._slow_key = "k0" if few_calls and self._rng.random() < 0.5 else ""

    async def outcome(self, call: HandlerCall) -> Outcome:
        """For ``Scripted``: straight to an outcome, which is the quickest. A failing call names the poison, or a random
        record, as failed, or fails as a whole."""
        await self._take_a_while(call.records, call.shard_id)
        bad = self._bad(call.records)
        whole = not (self._reports and self._rng.random() < 0.7)
        stops = self._rng.random() < 0.5
        if stops and bad and not whole:
            bad = [min(bad, key=lambda record: int(record.sequence_number))]
        self._write(self._good_part(call.records, bad, whole=whole, stops=stops), call.shard_id)
        if not bad:
            return OK
        if not whole:
            return Outcome("partial", failed=tuple(record.sequence_number for record in bad), exact=not stops)
        return Outcome("failed", fault=HandlerFault("raised", "ValueError", "as the seed wants it"))

    async def misbehave(self, records: Sequence[Record], context: Context) -> Any:
        """For ``FunctionHandler``: an ``async def handle`` with every bad manner that user code can have."""
        await self._take_a_while(records, context.shard_id)
        bad = self._bad(records)
        manner = "raise" if self.calm else self._rng.choice(MANNERS)
        partial = manner == "partial" and self._reports
        self._write(self._good_part(records, bad, whole=not partial), context.shard_id)
        if not bad:
            return self._rng.choice((None, [], ()))
        if partial:
            return self._rng.sample(bad, len(bad))  # in any order
        if manner == "garbage" and self._reports:
            return self._rng.choice(GARBAGE)
        if manner in ("hang", "ignore"):
            await self._hang(ignores=manner == "ignore")
        error = self._rng.choice(RAISED)
        raise error()

    async def _hang(self, *, ignores: bool) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not ignores:
                raise
            await asyncio.sleep(self._rng.uniform(0.0, 4.0))

    @property
    def longest(self) -> float:
        """Seconds that a call may take, if it does not hang."""
        return (SLOWEST + 2) * self._busy

    async def _take_a_while(self, records: Sequence[Record], shard_id: str) -> None:
        """Half of the time is between two writes to the sink: a zombie may wake up there."""
        if self.calm:
            await asyncio.sleep(0.01)
            return
        seconds = self._busy * self._rng.random() * (SLOWEST if self._rng.random() < 0.02 else 1.0)
        if self._item(records[0], shard_id).key == self._slow_key:
            seconds += 2 * self._busy
        await asyncio.sleep(seconds / 2)
        if not any(self._is_poison(record.sequence_number) for record in records[:1]):
            self._write(records[:1], shard_id)
        await asyncio.sleep(seconds / 2)

    def _bad(self, records: Sequence[Record]) -> list[Record]:
        if self.calm:
            return [record for record in records if self._is_of_failing_key(record)]
        bad = [record for record in records if self._is_poison(record.sequence_number)]
        if self.failing_keys:
            bad += [record for record in records if self._is_of_failing_key(record) and record not in bad]
        if not bad and self._rng.random() < self._failing:
            bad = [self._rng.choice(records)]
        return bad

    def _good_part(
        self, records: Sequence[Record], bad: Sequence[Record], *, whole: bool, stops: bool = False
    ) -> Sequence[Record]:
        """What takes effect: all but the bad ones and what follows them of their keys, or, of a handler that ``stops``,
        all before the first bad one; of a call that fails as a whole, any part of that."""
        if not bad:
            return records
        if not (whole or stops) and self._by_key:
            failing: set[bytes] = set()
            good = []
            for record in records:
                if record in bad:
                    failing.add(bytes(record.dynamodb.Keys))
                elif bytes(record.dynamodb.Keys) not in failing:
                    good.append(record)
            return good
        good = records[: list(records).index(min(bad, key=lambda record: int(record.sequence_number)))]
        return good[: self._rng.randint(0, len(good))] if whole else good

    def _is_of_failing_key(self, record: Record) -> bool:
        return record.keys["id"] in self.failing_keys

    def _is_poison(self, number: str) -> bool:
        if number not in self._poisoned:
            self._poisoned[number] = self._rng.random() < self._poison
        return self._poisoned[number]

    def _write(self, records: Sequence[Record], shard_id: str) -> None:
        for record in records:
            self.sink.write(self._item(record, shard_id), record.event_source_arn)

    def _item(self, record: Record, shard_id: str) -> Item:
        return self._world.checkers.item(shard_id, record.sequence_number)
