"""What lies between a client and a service: delays, losses on either way, refusals, partitions.

A request that was sent is on its own: it arrives and is applied whatever happens to its sender meanwhile, and its
answer goes to the sender's lane, which may be frozen or gone. So the nasty cases need no special code: a write that is
applied although its sender timed out, was frozen, or died.

``Link.weather`` hurts calls at random, as the link's generator draws them. A *fault* hurts the next calls that a test
names, on a simulated network and on any other event loop alike:

    fault = worker.links["table"].lose_response("take", times=3)
    held = worker.links["session"].hold_response("bump_session")
    held.end()  # the answer goes on its way
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from consumer.aws.answers import HttpAnswer
from consumer.domain.bulletin import Bulletin
from consumer.domain.errors import DependencyError, PermissionDenied, Throttled
from consumer.testing.virtual_loop import Process

T = TypeVar("T")

QUICKEST, SLOWEST = 0.001, 0.012  # seconds one way on a healthy simulated network

# What something in between answers with; and what an adapter that believed it would make of it, where that is not None.
STRANGE = HttpAnswer(200, {"content-type": "text/html"}, b"{}")
_BELIEVED: dict[str, object] = {
    **dict.fromkeys(("open_session", "fence_session", "add_lease", "remove_lease"), True),
    "bump_session": (True, 0),
    "sessions": [],
    "leases": [],
    "bulletin": Bulletin(),
    "posts": [],
}
_HAS_MORE = ("pin_application", "switch_stream", "register", "window_state")  # could not be taken for a success
_CAN_BE_STRANGE = ("table", "session", "dead_letters")  # services


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
    strange: float = 0.0  # something else answers, half of them after the call was applied

    @property
    def fair(self) -> bool:
        lost = self.lose_request or self.lose_response or self.slow
        return not (lost or self.throttle or self.deny or self.expired or self.broken or self.strange)


@dataclass(eq=False, slots=True)
class Fault:
    """What one call of a ``Link`` method does to the next ``times`` calls; ``taken`` counts those that it has hurt."""

    kind: Literal["refuse", "lose_request", "lose_response", "hold_request", "hold_response"]
    operations: tuple[str, ...]
    times: float
    error: BaseException | None = None
    taken: int = 0
    held: list[Callable[[], object]] = field(default_factory=list)

    def takes(self, operation: str) -> bool:
        """Whether the fault hurts this call; it counts if so."""
        if self.times <= 0 or (self.operations and operation not in self.operations):
            return False
        self.times -= 1
        self.taken += 1
        return True

    def end(self) -> None:
        """Hurt no further call; what is held goes on its way, in the order in which it was sent."""
        self.times = 0
        held, self.held = self.held, []
        for go_on in held:
            go_on()


class Link:
    """One client's way to one service. Operations are the names of the port's methods.

    Args:
        process: the simulated process that sends. Without one the link works on any event loop: calls take no time, but
            other tasks run on their way.
        service: ``table``, ``session`` (the table too, on a connection of its own), ``stream`` or ``dead_letters``.
        rng: decides delays and losses.
        timeout: seconds after which the sender gives up a call that got no answer.
        observe: is given every call that arrives: link, operation, and the type of its result or error.
        heard: is given the service's time (Unix seconds) with every answer that comes from it.
    """

    def __init__(
        self,
        process: Process | None = None,
        service: str = "",
        rng: random.Random | None = None,
        timeout: float = 0.0,
        observe: Callable[[Link, str, str], None] | None = None,
        heard: Callable[[float], None] | None = None,
    ) -> None:
        self.sender = process.name if process is not None else ""
        self.service = service
        self.timeout = timeout
        self.weather = Weather()
        self.when_applied: Callable[[], object] | None = None  # called once, before the next answer leaves
        self.observe = observe
        self.heard = heard
        self._process = process
        self._rng = (rng or random.Random(0)).random  # noqa: S311  # no secret
        self._faults: list[Fault] = []

    # --- faults of the next calls: of all operations when none is named, until ``end`` when ``times`` is not given ---

    def refuse(self, error: BaseException, *operations: str, times: float = math.inf) -> Fault:
        """The service answers with ``error`` and applies nothing."""
        return self._add(Fault("refuse", operations, times, error))

    def lose_request(self, *operations: str, times: float = math.inf) -> Fault:
        """The request never arrives; the sender gives up after its time-out."""
        return self._add(Fault("lose_request", operations, times))

    def lose_response(self, *operations: str, times: float = math.inf) -> Fault:
        """The request is applied, its answer is lost."""
        return self._add(Fault("lose_response", operations, times))

    def hold_request(self, *operations: str, times: float = math.inf) -> Fault:
        """The request arrives at the ``end`` of the fault, which may be long after its sender gave it up."""
        return self._add(Fault("hold_request", operations, times))

    def hold_response(self, *operations: str, times: float = math.inf) -> Fault:
        """The request is applied, its answer leaves at the ``end`` of the fault."""
        return self._add(Fault("hold_response", operations, times))

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    # --- calls -------------------------------------------------------------------------------------------

    async def carry(self, operation: str, apply: Callable[[], T]) -> T:
        """Send a request, ``apply`` it when it arrives, and wait for the answer: the result of ``apply``, or what it
        raises. DependencyError ``Timeout`` when none comes."""
        flight: _Flight[T] = _Flight(self, operation, apply, asyncio.get_running_loop().create_future())
        there, flight.back = self._one_way(), self._one_way()
        if not self.weather.fair:
            self._roughen(flight)
        if self._faults:
            self._hurt(flight)
        if flight.arrives:
            self.after(there, flight.arrive)
        if flight.arrives and flight.answers and flight.held_by is None and there + flight.back <= self.timeout:
            return self._judged(operation, await flight.answer)
        waiting = asyncio.get_running_loop().call_later(self.timeout, flight.give_up)
        try:
            return self._judged(operation, await flight.answer)
        finally:
            waiting.cancel()

    @property
    def service_time(self) -> float:
        """What the date of an answer says, in whole seconds."""
        return float(int(self._process.loop.world.wall())) if self._process is not None else 0.0

    def _judged(self, operation: str, answer: T) -> T:
        """What an adapter makes of an answer, by the rule that production has."""
        if answer is not STRANGE:
            return answer
        flaw = STRANGE.flaw(json_body=True)
        if flaw is not None:
            raise DependencyError(operation, flaw.code)
        return _BELIEVED.get(operation)  # type: ignore[return-value]  # what is not there

    def after(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Run ``callback`` in ``delay`` seconds, whatever becomes of the sender."""
        if self._process is not None:
            self._process.loop.after(delay, callback, *args)
        elif delay:
            asyncio.get_running_loop().call_later(delay, callback, *args)
        else:
            asyncio.get_running_loop().call_soon(callback, *args)

    def _one_way(self) -> float:
        """Seconds."""
        weather, rng = self.weather, self._rng
        seconds = QUICKEST + (SLOWEST - QUICKEST) * rng() if self._process is not None else 0.0
        return seconds if weather.fair or rng() >= weather.slow else seconds + weather.slowest * rng()

    def _roughen(self, flight: _Flight[Any]) -> None:
        """Let the weather decide about a call."""
        weather, rng = self.weather, self._rng
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
        flight.arrives = rng() >= weather.lose_request
        if weather.strange and self.service in _CAN_BE_STRANGE and flight.operation not in _HAS_MORE:
            flight.strange = rng() < weather.strange
            flight.applied_all_the_same = flight.applied_all_the_same or rng() < 0.5

    def _hurt(self, flight: _Flight[Any]) -> None:
        """Let the first fault that is meant for this call decide about it."""
        self._faults = [fault for fault in self._faults if fault.times > 0]
        fault = next((fault for fault in self._faults if fault.takes(flight.operation)), None)
        if fault is None:
            return
        if fault.kind == "refuse":
            flight.refusal = fault.error
        elif fault.kind == "lose_response":
            flight.answers = False
        elif fault.kind == "hold_response":
            flight.held_by = fault
        else:
            flight.arrives = False
            if fault.kind == "hold_request":
                fault.held.append(flight.arrive)


@dataclass(eq=False, slots=True)
class _Flight(Generic[T]):
    """One request on its way. Its sender waits for ``answer``, or has given up."""

    link: Link
    operation: str
    apply: Callable[[], T]
    answer: asyncio.Future[T]
    arrives: bool = True
    answers: bool = True
    back: float = 0.0  # seconds that the answer takes
    refusal: BaseException | None = None
    applied_all_the_same: bool = False  # although it is refused
    held_by: Fault | None = None
    strange: bool = False  # something else answers
    date: float = 0.0

    def arrive(self) -> None:
        link = self.link
        outcome: T | BaseException | None = None
        if (self.refusal is None and not self.strange) or self.applied_all_the_same:
            try:
                outcome = self.apply()
            except Exception as error:  # noqa: BLE001  # whatever the service says is the sender's to handle
                outcome = error
        if self.refusal is not None:
            outcome = self.refusal
        if self.strange:
            outcome = STRANGE  # type: ignore[assignment]  # as nothing that was asked for
        self.date = link.service_time
        if link.observe is not None:
            link.observe(link, self.operation, type(outcome).__name__)
        if link.when_applied is not None:
            then, link.when_applied = link.when_applied, None
            then()
        if self.held_by is not None:
            self.held_by.held.append(lambda: self.deliver(outcome))
        elif self.answers:
            link.after(self.back, self.deliver, outcome)

    def deliver(self, outcome: T | BaseException | None) -> None:
        if self.answer.done():
            return
        if self.link.heard is not None and not self.strange:
            self.link.heard(self.date)
        if isinstance(outcome, BaseException):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)  # type: ignore[arg-type]  # None only where T allows it

    def give_up(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(DependencyError(self.operation, "Timeout"))
