"""Background tasks that may not end without a word.

A TaskGroup forgets a child that returns, and one that ends as cancelled although nobody has cancelled it: a library
that raises CancelledError by itself would leave the rest of a worker running without that part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NoReturn


def was_cancelled(error: BaseException) -> bool:
    """True when ``error`` is the cancellation that somebody has asked of the current task."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def never_ending(work: Awaitable[None], name: str) -> NoReturn:
    """Run ``work`` until the current task is cancelled. RuntimeError when it ends before."""
    try:
        await work
    except asyncio.CancelledError as error:
        if was_cancelled(error):
            raise
        raise RuntimeError(f"{name} was cancelled by nobody") from error
    raise RuntimeError(f"{name} ended")
