"""What lies between a simulated process and a service: delays, losses on either way, refusals, partitions.

A request that was sent is on its own: it arrives and is applied whatever happens to its sender meanwhile, and its
answer goes to the sender's lane, which may be frozen or gone. So the nasty cases need no special code: a write that is
applied although its sender timed out, was frozen, or died.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from consumer.domain.errors import DependencyError, PermissionDenied, StreamConsumerError, Throttled
from consumer.testing.virtual_loop import Process, VirtualLoop

T = TypeVar("T")

QUICKEST, SLOWEST = 0.001, 0.012  # seconds one way on a healthy network


@dataclass(slots=True)
class Weather:
    """What a link does to its calls; all are probabilities of one call but ``slowest`` (seconds, one way)."""

    lose_request: float = 0.0
    lose_response: float = 0.0
    slow: float = 0.0
    slowest: float = 0.0
    throttle: float = 0.0
    deny: float = 0.0
    expired: float = 0.0  # the credentials have expired
    broken: float = 0.0  # a 500, half of them after the call was applied

    @property
    def fair(self) -> bool:
        lost = self.lose_request or self.lose_response or self.slow
        return not (lost or self.throttle or self.deny or self.expired or self.broken)


class Link:
    """One process's way to one service.

    Args:
        process: who sends.
        service: ``table``, ``session`` (the table too, on a connection of its own), ``stream`` or ``dead_letters``.
        rng: decides delays and losses.
        timeout: seconds after which the sender gives up.
        observe: is told of every call that arrives: link, operation, and what it came to.
    """

    def __init__(
        self,
        process: Process,
        service: str,
        rng: random.Random,
        timeout: float,
        observe: Callable[[Link, str, str], None],
    ) -> None:
        self.process = process
        self.service = service
        self.timeout = timeout
        self.weather = Weather()
        self.ambush: Callable[[], object] | None = None  # once, when the next call was applied
        self.loop: VirtualLoop = process.loop
        self._rng = rng.random
        self.observe = observe

    async def request(self, operation: str) -> None:
        """A way for calls that change nothing anywhere."""
        await self.carry(operation, lambda: None)

    async def response(self, operation: str) -> None:
        """The answer was part of ``request``."""

    async def carry(self, operation: str, apply: Callable[[], T]) -> T:
        """Send a request, apply it when it arrives, and wait for the answer. DependencyError when none comes."""
        loop = self.loop
        flight: _Flight[T] = _Flight(self, operation, apply, loop.create_future())
        if self.weather.fair:
            there, back, arrives = self._on_the_way(), self._on_the_way(), True
        else:
            there, back, arrives = self._rough(flight)
        flight.back = back
        if arrives:
            loop.after(there, flight.arrive)
        if arrives and flight.answers and there + back < self.timeout:
            return await flight.answer
        waiting = loop.call_later(self.timeout, flight.give_up)
        try:
            return await flight.answer
        finally:
            waiting.cancel()

    def _on_the_way(self) -> float:
        return QUICKEST + (SLOWEST - QUICKEST) * self._rng()

    def _rough(self, flight: _Flight[Any]) -> tuple[float, float, bool]:
        """Seconds there and back, and whether the request arrives at all."""
        weather, rng = self.weather, self._rng
        there = self._on_the_way() + (weather.slowest * rng() if rng() < weather.slow else 0.0)
        back = self._on_the_way() + (weather.slowest * rng() if rng() < weather.slow else 0.0)
        flight.answers = rng() >= weather.lose_response
        if rng() < weather.throttle:
            flight.refusal = Throttled(flight.operation, "ThrottlingException")
        elif rng() < weather.deny:
            flight.refusal = PermissionDenied(f"dynamodb:{flight.operation}", self.service, "in this simulation")
        elif rng() < weather.expired:
            flight.refusal = DependencyError(flight.operation, "ExpiredTokenException")
        elif rng() < weather.broken:
            flight.refusal = DependencyError(flight.operation, "InternalServerError")
            flight.applied_all_the_same = rng() < 0.5
        return there, back, rng() >= weather.lose_request


class _Flight(Generic[T]):
    """One request on its way. Its sender waits for ``answer``, or has given up."""

    __slots__ = ("_apply", "_link", "answer", "answers", "applied_all_the_same", "back", "operation", "refusal")

    def __init__(self, link: Link, operation: str, apply: Callable[[], T], answer: asyncio.Future[T]) -> None:
        self._link = link
        self._apply = apply
        self.operation = operation
        self.answer = answer
        self.answers = True
        self.back = 0.0
        self.refusal: StreamConsumerError | None = None
        self.applied_all_the_same = False  # although it is refused

    def arrive(self) -> None:
        link = self._link
        outcome: T | StreamConsumerError | None = None
        if self.refusal is None or self.applied_all_the_same:
            try:
                outcome = self._apply()
            except StreamConsumerError as error:
                outcome = error
        if self.refusal is not None:
            outcome = self.refusal
        link.observe(link, self.operation, type(outcome).__name__)
        if link.ambush is not None:
            ambush, link.ambush = link.ambush, None
            ambush()
        if self.answers:
            link.loop.after(self.back, self.deliver, outcome)

    def deliver(self, outcome: T | StreamConsumerError) -> None:
        if self.answer.done():
            return
        if isinstance(outcome, StreamConsumerError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)

    def give_up(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(DependencyError(self.operation, "Timeout"))
