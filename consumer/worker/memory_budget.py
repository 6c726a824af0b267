"""One byte budget for the whole process: readers wait here, so memory does not grow with shards or backlog."""

from __future__ import annotations

import asyncio
from collections import deque

# A page held by records that wait: its body, a struct and an entry a record, its key and its place in the frontier.
# Measured as growth of RSS: 1.65 x its wire size.
BYTES_PER_WIRE_BYTE = 1.65
# What GetRecords may return at most is 1 MB of records; their JSON is larger (escapes, base64, key names).
PAGE_RESERVE = 4 * 1024 * 1024


class ByteBudget:
    """Bytes held by fetched, unsettled records. ``reserve`` waits in line; ``charge`` never waits.

    The budget may be overdrawn by one page per reader whose page was larger than its reserve, and by records copied
    out of their pages (which release the page): both are bounded. Must be used on one event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.short = asyncio.Event()  # set while a reader waits for room

    @property
    def used(self) -> int:
        return self._used

    @property
    def page_reserve(self) -> int:
        """What a reader reserves for a page not read yet: never so much that a few records that wait stop all
        reading."""
        return min(PAGE_RESERVE, self._limit // 4)

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes fit (first come, first served), and take them. A size above the whole budget is
        granted when nothing else is held, so that a small budget slows the daemon down but never stops it."""
        if not self._waiting and self._fits(size):
            self._used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        self.short.set()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            else:
                if entry in self._waiting:  # a release right after the cancellation may have dropped it already
                    self._waiting.remove(entry)
                self._wake()
            raise

    def charge(self, size: int) -> None:
        self._used += size

    def release(self, size: int) -> None:
        self._used -= size
        self._wake()

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._limit or self._used <= 0

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._used += size
                turn.set_result(None)
        if not self._waiting:
            self.short.clear()


class BudgetAccount:
    """One shard's share of the budget. ``close`` gives back whatever its records still hold: when a lease ends with
    unsettled records, nothing else releases their pages. A closed account holds nothing, whatever comes late."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0
        self._closed = False

    @property
    def held(self) -> int:
        return self._held

    @property
    def page_reserve(self) -> int:
        return self._budget.page_reserve

    async def reserve(self, size: int) -> None:
        await self._budget.reserve(size)
        if self._closed:
            self._budget.release(size)
        else:
            self._held += size

    def charge(self, size: int) -> None:
        if not self._closed:
            self._budget.charge(size)
            self._held += size

    def release(self, size: int) -> None:
        if not self._closed:
            self._held -= size
            self._budget.release(size)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._budget.release(self._held)
            self._held = 0
