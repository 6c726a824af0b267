"""The one way to try again: what may pass is repeated with growing pauses, on tenacity.

Clocks are a seam because a simulated process has its own; pauses are ``asyncio.sleep``, which the simulator's loop
makes virtual. A stop ends a pause at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_base

from consumer.domain.errors import DependencyError, PermissionDenied, Unavailable
from consumer.ports.time import Clock

log = structlog.get_logger()

T = TypeVar("T")

START_DEADLINE = 60.0  # seconds a dependency may stay unavailable at the start before the exit with 69
DENIED_DEADLINE = 20.0  # seconds that a permission may be refused at the start: a new one takes a while to spread

Failed = Callable[[Exception, int], None]
"""Is told of every failure that is followed by another attempt: the error and how many attempts there were. What it
raises ends the attempts."""


def may_pass(error: BaseException) -> bool:
    """True for ``Unavailable``: a daemon that is up waits for whatever was taken away from it."""
    return isinstance(error, Unavailable)


@dataclass(frozen=True, slots=True)
class Backoff(wait_base):
    """Seconds between two attempts: ``first``, doubled after every further one up to ``most``.

    ``jitter`` (0 to 1) is called for every pause and added to the factor of ``first``; None for exact pauses.
    """

    first: float
    most: float
    jitter: Callable[[], float] | None = None

    def after(self, attempts: int) -> float:
        """The pause after so many attempts (1 and up)."""
        factor = 2.0 ** min(attempts - 1, 20) + (self.jitter() if self.jitter is not None else 0.0)
        return min(self.most, self.first * factor)

    def __call__(self, retry_state: RetryCallState) -> float:
        return self.after(retry_state.attempt_number)


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    backoff: Backoff,
    failed: Failed,
    *,
    on: Callable[[BaseException], bool] = may_pass,
    stop: asyncio.Event | None = None,
) -> T:
    """Await ``attempt()`` until it works, and return what it returns.

    Args:
        on: which errors may pass; all others are raised at once.
        stop: when it is set, the attempt under way is the last one, and its error is raised.
    """

    async def pause(seconds: float) -> None:
        if stop is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            pass

    def enough(_: RetryCallState) -> bool:
        return stop is not None and stop.is_set()

    def before_pause(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, Exception):
            failed(error, state.attempt_number)

    async for one in AsyncRetrying(
        wait=backoff, stop=enough, retry=retry_if_exception(on), sleep=pause, before_sleep=before_pause, reraise=True
    ):
        with one:
            return await attempt()
    raise RuntimeError("attempts ended without a result")


async def at_start(clock: Clock, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat until it works, at most until the start deadline. Only what passes by itself is waited for: a missing
    resource is raised at once, because a person has to mend it, and so is a missing permission that stays refused."""
    return await retrying(attempt, _WAITING, _waits_for(what), on=_Patience(clock))


class _Patience:
    """How long an error may go on at the start, counted from when that kind of error was first seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[float, float] = {}

    def __call__(self, error: BaseException) -> bool:
        if isinstance(error, PermissionDenied):
            patience = DENIED_DEADLINE
        elif isinstance(error, Unavailable) and error.exit_code == DependencyError.exit_code:
            patience = START_DEADLINE
        else:
            return False
        now = self._clock.monotonic()
        return now - self._since.setdefault(patience, now) < patience


async def while_up(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat until it works. A daemon that was up waits for whatever was taken away from it: ending it would only start
    a crash loop."""
    return await retrying(attempt, _WAITING, _waits_for(what))


_WAITING = Backoff(0.5, 5.0)


def _waits_for(what: str) -> Failed:
    def failed(error: Exception, _: int) -> None:
        log.warning("start.waiting", waiting_for=what, error=str(error))

    return failed
