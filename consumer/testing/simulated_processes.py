"""Handlers for the simulator that are not always ready."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.ports.handler import Reservation

Behaviour = Callable[[HandlerCall], Coroutine[Any, Any, Outcome]]


class ScriptedProcesses:
    """``ports.Handler`` like a pool of worker processes: ``width`` calls at a time, and it takes seconds until a new
    process has imported its target.

    Args:
        behave: what a call does.
        starts_in: draws the seconds that a process takes to start.
        dies: decides whether a call ends with the death of its process. A call that is cancelled always does.
    """

    def __init__(
        self, behave: Behaviour, *, width: int, starts_in: Callable[[], float], dies: Callable[[], bool] = lambda: False
    ) -> None:
        self.width = width
        self._behave = behave
        self._starts_in = starts_in
        self._dies = dies
        self._ready = asyncio.Semaphore(0)

    async def start(self) -> None:
        """As in a new daemon: all its processes start at once."""
        self._ready = asyncio.Semaphore(0)
        for seconds in sorted(self._starts_in() for _ in range(self.width)):
            asyncio.get_running_loop().call_later(seconds, self._ready.release)

    async def reserve(self) -> Reservation:
        await self._ready.acquire()
        return _ReservedProcess(self)

    async def close(self) -> None:
        """Nothing to end."""

    async def run(self, call: HandlerCall) -> tuple[Outcome, bool]:
        """What came of the call, and whether the process survived it."""
        if self._dies():
            return Outcome("failed", fault=HandlerFault("crashed", "Runtime.ExitError", "as the seed wants it")), False
        return await self._behave(call), True

    def gone(self, *, alive: bool) -> None:
        """A process is free again, or one has to start in its place."""
        if alive:
            self._ready.release()
        else:
            asyncio.get_running_loop().call_later(self._starts_in(), self._ready.release)


class _ReservedProcess:
    def __init__(self, pool: ScriptedProcesses) -> None:
        self._pool: ScriptedProcesses | None = pool
        self._alive = True

    async def run(self, call: HandlerCall) -> Outcome:
        if self._pool is None:
            raise RuntimeError("the reservation was given back")
        self._alive = False  # unless it comes back
        outcome, self._alive = await self._pool.run(call)
        return outcome

    def release(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.gone(alive=self._alive)


def processes(behave: Behaviour, rng: random.Random, slowest: float, calm: Callable[[], bool]) -> ScriptedProcesses:
    """A pool of up to four processes as ``rng`` wants it: each takes up to ``slowest`` seconds to start, and one call
    in five is the end of its process, but for calm times."""
    return ScriptedProcesses(
        behave,
        width=rng.randint(1, 4),
        starts_in=lambda: rng.uniform(0.0, slowest),
        dies=lambda: not calm() and rng.random() < 0.2,
    )
