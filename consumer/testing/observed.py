"""The ports of a simulated worker, each showing the checkers what goes through it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable

from consumer.domain.dead_letter import Parked, split_payload
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.handlers.inline import InlineHandler
from consumer.handlers.runtime.context import Context
from consumer.handlers.runtime.functions import is_async
from consumer.ports.handler import Handler, Reservation
from consumer.testing.checkers import Checkers
from consumer.testing.memory_dead_letters import DeadLetter, MemoryDeadLetters
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import Link
from consumer.testing.parking_rules import ParkingRules


class ObservedHandler:
    """``ports.Handler``: the start of a call is where the worker hands it over."""

    def __init__(
        self,
        checkers: Checkers,
        incarnation: Callable[[], str],
        inner: Handler,
        parking: ParkingRules | None = None,
    ) -> None:
        self._checkers = checkers
        self._incarnation = incarnation
        self._inner = inner
        self._parking = parking
        self.start = inner.start
        self.close = inner.close

    @property
    def width(self) -> int:
        return self._inner.width

    async def reserve(self) -> Reservation:
        return _ObservedReservation(self._checkers, self._incarnation, await self._inner.reserve(), self._parking)


class _ObservedReservation:
    def __init__(
        self,
        checkers: Checkers,
        incarnation: Callable[[], str],
        inner: Reservation,
        parking: ParkingRules | None,
    ) -> None:
        self._parking = parking
        self._checkers = checkers
        self._incarnation = incarnation
        self._inner = inner
        self.release = inner.release

    async def run(self, call: HandlerCall) -> Outcome:
        incarnation = self._incarnation()
        items = self._checkers.started(incarnation, call)
        if self._parking is not None:
            self._parking.live(incarnation, call)
        outcome: Outcome | None = None
        try:
            outcome = await self._inner.run(call)
        finally:
            self._checkers.ended(incarnation, call, items, outcome)
        return outcome


class ObservedDeadLetters:
    """``ports.DeadLetters`` behind a network. A document that arrives is durable, answered or not; the checkers see it
    with its records, in whatever form it came and wherever they are kept."""

    def __init__(
        self,
        checkers: Checkers,
        incarnation: Callable[[], str],
        inner: MemoryDeadLetters,
        link: Link,
        table: MemoryTable,
        parking: ParkingRules | None = None,
    ) -> None:
        self._parking = parking
        self.destination = inner.destination
        self._checkers = checkers
        self._incarnation = incarnation
        self._inner = inner
        self._link = link
        self._table = table

    async def prepare(self) -> None:
        await asyncio.sleep(0)

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        def store() -> None:
            self._inner.delivered.append(DeadLetter(document, dict(attributes)))
            whole = whole_document(document, self._table)
            self._checkers.dead_lettered(whole, attributes["shard_id"], attributes["condition"])
            if self._parking is not None and "park_id" in attributes:
                number = json.loads(document)["DDBStreamBatchInfo"]["startSequenceNumber"]
                place = Parked(attributes["park_id"], int(attributes["ordinal"]))
                self._parking.letter(attributes["shard_id"], place, number)

        self._checkers.sending_dead_letter(self._incarnation(), attributes["shard_id"])
        self._inner.check_size(document)
        await self._link.carry("send", store)

    async def backlog(self) -> int:
        return await self._link.carry("backlog", lambda: len(self._inner.delivered))


def whole_document(document: bytes, table: MemoryTable) -> bytes:
    """A document with its records in it, whatever form it came in."""
    if split_payload(document)[1]:
        return document
    found = json.loads(document)
    if "payloadEncoding" in found:
        payload = gzip.decompress(base64.b64decode(found["payload"]))
    else:
        payload = table.payload(found["payloadLocation"])
    return b'{"payload":' + payload + b"}"


class FunctionHandler(InlineHandler):
    """A user's own ``async def handle(records, context)`` as the daemon runs it with ``isolation: inline``.

    Raises TypeError for a plain function: it would run in a thread, which no simulation can repeat.
    """

    def __init__(self, function: Callable[..., object], *, report_failures: bool = True) -> None:
        super().__init__("simulated:handler", None, report_failures=report_failures)
        if not is_async(function):
            raise TypeError(f"{function!r} must be an async function to run in a simulation")
        self._given = function

    async def start(self) -> None:
        """As in a new process (the timers of a killed one never come); there is nothing to import."""
        super().__init__(self._target, None, report_failures=self._report_failures)
        self._function = self._given
        self._is_async = True

    def _context(self, call: HandlerCall) -> Context:
        return _VirtualContext(super()._context(call), asyncio.get_running_loop(), call.timeout)


class _VirtualContext(Context):
    """The context of a call in virtual time."""

    def __init__(self, real: Context, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        vars(self).update(vars(real))
        self._loop = loop
        self._ends = loop.time() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(int((self._ends - self._loop.time()) * 1000), 0)
