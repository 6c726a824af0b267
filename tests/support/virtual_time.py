"""Code that waits, in no time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from consumer.testing.virtual_loop import Process, VirtualLoop


def in_virtual_time(work: Callable[[Process], Awaitable[None]]) -> None:
    """Run ``work`` on a virtual loop; it gets the clock. Raises what it raises, and for tasks that failed unseen."""
    loop = VirtualLoop(random.Random(0))

    async def body() -> None:
        await work(loop.world)

    try:
        loop.run_until(body())
    finally:
        loop.close()
    assert not loop.failures
