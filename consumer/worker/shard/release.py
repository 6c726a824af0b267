"""The wish that a shard's lease is released: by whom it is taken over, and how long calls under way may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Release:
    """``asked`` is set once the lease is to be released: to the incarnation ``to``, or to any worker (None)."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.to: str | None = None
        self.grace: float | None = None
        self._limit: asyncio.Timeout | None = None

    def ask(self, to: str | None = None, *, grace: float | None = None) -> None:
        """``grace`` limits the wait for calls under way, in seconds from now (None: no limit). A second wish (a
        shutdown during a hand-over) replaces both."""
        self.to, self.grace = to, grace
        self.asked.set()
        limit = self._limit
        if limit is not None and not limit.expired() and grace is not None:
            limit.reschedule(asyncio.get_running_loop().time() + grace)

    @asynccontextmanager
    async def within_grace(self) -> AsyncIterator[None]:
        """TimeoutError when the block takes longer than the grace, also one that is given meanwhile."""
        try:
            async with asyncio.timeout(self.grace if self.asked.is_set() else None) as self._limit:
                yield
        finally:
            self._limit = None
