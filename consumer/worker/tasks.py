"""Background tasks that may not end without a word, and work that ends with an event.

A TaskGroup forgets a child that returns, and one that ends as cancelled although nothing has cancelled it: a library
that raises CancelledError by itself would leave the rest of a worker running without that part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from consumer.domain.errors import StreamConsumerError

T = TypeVar("T")


Died = Callable[[str, BaseException | None], StreamConsumerError]
"""Makes known that a root task ended by itself (its name, its error if there is one), and returns the error that ends
the process."""


class Stopped(Exception):
    """The stop came before the work was done."""


def was_cancelled(error: BaseException) -> bool:
    """True when ``error`` is a cancellation that was asked of the current task."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def never_ending(work: Awaitable[None], name: str) -> NoReturn:
    """Run ``work`` until the current task is cancelled. RuntimeError when it ends before."""
    try:
        await work
    except asyncio.CancelledError as error:
        if was_cancelled(error):
            raise
        raise RuntimeError(f"{name} was cancelled by itself") from error
    raise RuntimeError(f"{name} ended")


async def root_task(name: str, work: Awaitable[object], died: Died) -> NoReturn:
    """Run ``work`` until the current task is cancelled. However else it ends, raises what ``died`` returns."""
    error: BaseException | None = None
    try:
        await work
    except (Exception, asyncio.CancelledError) as ended:
        if was_cancelled(ended):
            raise
        error = ended
    raise died(name, error) from error


async def until_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, or cancel it and raise Stopped when ``stop`` is set first."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Stopped
    finally:
        stopped.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
