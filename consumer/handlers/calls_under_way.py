"""The calls that run inside the daemon (``isolation: inline``): when their time is over, and how their ends are heard.

What ends in one turn of the loop is heard of a few at a time. Calls that end together would start their successors
together, in the next turn but one, and so march in step from then on: all of them wait while nothing computes, and then
nothing waits while all of them compute. A few at a time, their starts lie as far apart as what is done between two
calls takes, and the next time they end that far apart, too: handlers that wait 5 ms got 1.5 times the calls a second
from the same slots (``docs/performance.md``).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog

from consumer.domain.outcome import HandlerCall

# Fewer spread better. A turn of the loop costs 3 us, which is little beside four calls.
AT_ONCE: Final = 4
Answer = tuple[Any, BaseException | None]  # what the handler returned, or what it raised
log = structlog.get_logger(__name__)


def _nothing() -> None:
    """User code is not started yet."""


class CallsUnderWay:
    """All calls of a handler, on one loop. A call that was asked to end and does not is complained about after
    ``first_complaint`` seconds."""

    def __init__(self, first_complaint: float) -> None:
        self.first_complaint = first_complaint
        self.deadlines = _Deadlines()
        self.ends = _Ends()


class CallUnderWay:
    """One call: ``await call.ended`` gives its answer. Made right before user code is started."""

    __slots__ = (
        "_all",
        "_call",
        "_cancel",
        "_handle",
        "_since",
        "answered",
        "at",
        "ended",
        "expired",
        "loop",
        "seconds",
    )

    def __init__(self, calls: CallsUnderWay, loop: asyncio.AbstractEventLoop, call: HandlerCall) -> None:
        self.loop = loop
        self.ended: asyncio.Future[Answer] = loop.create_future()
        self.answered = False
        self.expired = False  # its time was over before it ended
        self.seconds = -loop.time()  # that it took, once it has ended
        self.at = call.timeout - self.seconds
        self._all = calls
        self._call = call
        self._cancel: Callable[[], object] = _nothing
        self._since = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def expires(self, cancel: Callable[[], object]) -> None:
        """User code is started; ``cancel`` asks it to end when its time is over."""
        self._cancel = cancel
        self._all.deadlines.add(self)

    def end(self, answer: Answer, at: float | None = None) -> None:
        """User code has ended with this, now or ``at`` that time of the loop; what comes later is not heard."""
        if not self.answered:
            self.answered = True
            self.seconds += self.loop.time() if at is None else at
            self._all.deadlines.discard(self)
            self._all.ends.add(self.loop, self.ended, answer)

    def stop(self) -> None:
        """The call has ended, with or without an answer: no time is over any more, and nothing to complain about."""
        self._all.deadlines.discard(self)
        self._cancel = _nothing  # it refers to this: a cycle for each call would be the garbage collector's work
        if self._handle is not None:
            self._handle.cancel()

    def expire(self) -> None:
        self.expired = True
        self._cancel()
        self.complain_later()

    def complain_later(self) -> None:
        """The call was asked to end: complain when it does not, then ever more rarely."""
        if not self._since:
            self._all.deadlines.discard(self)
            self._since = self.loop.time()
            first = self._all.first_complaint
            self._handle = self.loop.call_later(first, self._complain, first)

    def _complain(self, seconds: float) -> None:
        log.warning(
            "handler.stuck",
            seconds=round(self.loop.time() - self._since, 1),
            request_id=self._call.request_id,
            shard_id=self._call.shard_id,
            hint="the handler ignores its cancellation; handler.isolation: process can kill it",
        )
        self._handle = self.loop.call_later(seconds, self._complain, seconds * 2)


class _Deadlines:
    """One timer of the loop for all deadlines. Nearly every call ends in time, and a timer of its own, cancelled again,
    costs 6 us of the 50 that a call takes: the loop keeps it on its heap until its time has come."""

    def __init__(self) -> None:
        self._due: set[CallUnderWay] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._at = math.inf

    def add(self, call: CallUnderWay) -> None:
        self._due.add(call)
        if call.at < self._at:
            self._arm(call.loop, call.at)

    def discard(self, call: CallUnderWay) -> None:
        self._due.discard(call)

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        self._handle = loop.call_at(at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle, self._at = None, math.inf
        now = loop.time() + 0.001  # the loop is allowed to come a moment early
        over = [call for call in self._due if call.at <= now]
        self._due.difference_update(over)
        if self._due:
            self._arm(loop, min(call.at for call in self._due))
        for call in over:
            call.expire()


class _Ends:
    """Passes answers on, AT_ONCE in a turn of the loop, in the order in which the calls have ended."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[Answer], Answer]] = deque()
        self._room = AT_ONCE  # in this turn
        self._counts = False  # whether turns are counted at the moment

    def add(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[Answer], answer: Answer) -> None:
        if not self._counts:
            self._counts = True
            loop.call_soon(self._turn, loop)
        self._waiting.append((ended, answer))
        if self._room:
            self._pass_on()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._counts = self._room < AT_ONCE or bool(self._waiting)
        self._room = AT_ONCE
        if self._counts:
            loop.call_soon(self._turn, loop)
            while self._waiting and self._room:
                self._pass_on()

    def _pass_on(self) -> None:
        self._room -= 1
        ended, answer = self._waiting.popleft()
        if not ended.done():  # its caller was cancelled meanwhile
            ended.set_result(answer)
