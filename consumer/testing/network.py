"""What lies between a simulated process and a service: delays, losses on either way, throttles, partitions.

A request that was sent is on its own: it arrives and is applied whatever happens to its sender meanwhile, and its
answer goes to the sender's lane, which may be frozen or gone. So the nasty cases need no special code: a write that is
applied although its sender timed out, was frozen, or died.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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

    @property
    def fair(self) -> bool:
        return not (self.lose_request or self.lose_response or self.slow or self.throttle or self.deny)


class Link:
    """One process's way to one service.

    Args:
        process: who sends.
        service: ``table``, ``keeper`` (the table too, on a connection of its own), ``stream`` or ``dead_letters``.
        dice: decides delays and losses.
        timeout: seconds after which the sender gives up.
        observe: is told of every call that arrives: link, operation, and what it came to.
        late_saves: a save that its sender gave up may still be applied, after newer ones of the same owner.
    """

    def __init__(
        self,
        process: Process,
        service: str,
        dice: random.Random,
        timeout: float,
        observe: Callable[[Link, str, str], None],
        *,
        late_saves: bool = False,
    ) -> None:
        self.process = process
        self.service = service
        self.timeout = timeout
        self.weather = Weather()
        self._loop: VirtualLoop = process.loop
        self._dice = dice.random
        self._observe = observe
        self._late_saves = late_saves

    async def request(self, operation: str) -> None:
        """A way for calls that change nothing anywhere."""
        await self.carry(operation, lambda: None)

    async def response(self, operation: str) -> None:
        """The answer was part of ``request``."""

    async def carry(self, operation: str, apply: Callable[[], T]) -> T:
        """Send a request, apply it when it arrives, and wait for the answer. DependencyError when none comes."""
        loop, weather, dice = self._loop, self.weather, self._dice
        answer: asyncio.Future[T] = loop.create_future()
        there = QUICKEST + (SLOWEST - QUICKEST) * dice()
        back = QUICKEST + (SLOWEST - QUICKEST) * dice()
        arrives = answers = True
        refusal: StreamConsumerError | None = None
        if not weather.fair:
            if dice() < weather.slow:
                there += weather.slowest * dice()
            if dice() < weather.slow:
                back += weather.slowest * dice()
            arrives = dice() >= weather.lose_request
            answers = dice() >= weather.lose_response
            refusal = self._refusal(operation, dice(), dice())

        def arrive() -> None:
            if operation == "save" and answer.done() and not self._late_saves:
                return
            outcome: T | StreamConsumerError
            if refusal is not None:
                outcome = refusal
            else:
                try:
                    outcome = apply()
                except StreamConsumerError as error:
                    outcome = error
            self._observe(self, operation, type(outcome).__name__)
            if answers:
                loop.after(back, deliver, outcome)

        def deliver(outcome: T | StreamConsumerError) -> None:
            if answer.done():
                return
            if isinstance(outcome, StreamConsumerError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(DependencyError(operation, "Timeout"))

        if arrives:
            loop.after(there, arrive)
        if arrives and answers and there + back < self.timeout:
            return await answer
        waiting = loop.call_later(self.timeout, give_up)
        try:
            return await answer
        finally:
            waiting.cancel()

    def _refusal(self, operation: str, throttled: float, denied: float) -> StreamConsumerError | None:
        if throttled < self.weather.throttle:
            return Throttled(operation, "ThrottlingException")
        if denied < self.weather.deny:
            return PermissionDenied(f"dynamodb:{operation}", self.service, "an interval of the simulation")
        return None
