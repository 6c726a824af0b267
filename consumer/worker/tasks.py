"""Background tasks that may not end without a word, work that ends with an event, beside the loop, or much at once.

A TaskGroup forgets a child that returns, and one that ends as cancelled although nothing has cancelled it: a library
that raises CancelledError by itself would leave the rest of a worker running without that part.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

from consumer.domain.errors import Unavailable

T = TypeVar("T")

AT_ONCE = 32  # pieces of work of one fan-out under way: preparing so many requests in one turn of the loop takes 0.1 s

Died = Callable[[str, BaseException | None], Exception]
"""Makes known that a task ended by itself (its name, its error if there is one), and returns what to raise for it."""


class Stopped(Exception):
    """The stop came before the work was done."""


def was_cancelled(error: BaseException) -> bool:
    """True when ``error`` is a cancellation that was asked of the current task."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def never_ending(name: str, work: Awaitable[object], died: Died | None = None) -> NoReturn:
    """Run ``work`` until the current task is cancelled. However else it ends, raises what ``died`` returns; without
    ``died`` the error of the work, or RuntimeError when it has none."""
    error: BaseException | None = None
    try:
        await work
    except (Exception, asyncio.CancelledError) as ended:
        if was_cancelled(ended) or (died is None and isinstance(ended, Exception)):
            raise
        error = ended
    raise (RuntimeError(f"{name} ended by itself") if died is None else died(name, error)) from error


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


async def beside(name: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own. Cancelling leaves it behind, and nothing waits for it: the threads of a
    loop's executor are joined at the end, so one that hangs would keep the process from ending."""
    ended: Future[T] = Future()
    ended.set_running_or_notify_cancel()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            ended.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(ended)


async def each(
    items: Collection[T], do: Callable[[T], Awaitable[object]], *, at_once: int = AT_ONCE
) -> list[tuple[T, Unavailable]]:
    """``do`` it for every item, at most ``at_once`` at a time, begun in their order. One that is Unavailable stops no
    other: those items are returned with their errors. Any other error, and a cancellation, ends them all."""
    left, failed = iter(items), list[tuple[T, Unavailable]]()

    async def work() -> None:
        for item in left:
            try:
                await do(item)
            except Unavailable as error:
                failed.append((item, error))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(at_once, len(items))):
            tasks.create_task(work())
    return failed
