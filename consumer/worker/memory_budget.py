"""One byte budget for the whole process: readers wait here, so memory does not grow with shards or backlog.

A reader waits in line until its page fits into ``limits.buffer``. That is all while handlers keep up. But a shard that
holds next to nothing gets its page ``PAGE_PATIENCE`` after it asked at the latest, whether it fits or not: what other
shards hold, for whatever reason and however long, never stops it.

So the sum of what is reserved stays below ``limits.buffer`` and, for each owned shard, a page and ``SMALL``. Proof:
when a page was last granted because it fitted, the sum was within the buffer. Since then an account has grown only by
pages that were granted without that, and when it got the last of them it held less than ``SMALL``. Beyond this come,
for each shard, what its page is larger than the reserve, what is copied out of pages (which releases them), and what
its failing keys hold, which ``shard/key_order.py`` bounds.
"""

from __future__ import annotations

import asyncio
from collections import deque

# A page held by records that wait: its body, a struct and an entry a record, its key and its place in the frontier.
# Measured as growth of RSS: 1.65 x its wire size.
BYTES_PER_WIRE_BYTE = 1.65
# What GetRecords may return at most is 1 MB of records; their JSON is larger (escapes, base64, key names).
PAGE_RESERVE = 4 * 1024 * 1024
PAGE_PATIENCE = 0.5  # seconds; a shard that has to wait so for each page still lags less than two
# Bytes that a shard may hold and still be sure of a page: the records of some failing keys, but no full page, or a
# stall of all handlers would cost two pages a shard.
SMALL = 256 * 1024


class Claim:
    """A place in the line for ``size`` bytes of ``account``."""

    __slots__ = ("account", "size", "turn")

    def __init__(self, size: int, account: BudgetAccount | None) -> None:
        self.size = size
        self.account = account
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class ByteBudget:
    """Bytes held by fetched, unsettled records. ``reserve`` waits in line; ``charge`` never waits.

    Must be used on one event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[Claim] = deque()
        self.short = asyncio.Event()  # set while a reader waits for room

    @property
    def used(self) -> int:
        return self._used

    @property
    def page_reserve(self) -> int:
        """What a reader reserves for a page not read yet: never so much that a few records that wait stop all
        reading."""
        return min(PAGE_RESERVE, self._limit // 4)

    @property
    def small(self) -> int:
        """Bytes; an account that holds less is sure of a page."""
        return min(SMALL, self.page_reserve)

    def resize(self, limit: int) -> None:
        """Another limit from now on. What is held above a smaller one is not taken back: it is waited for."""
        self._limit = limit
        self._wake()

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes fit (first come, first served), and take them. A size above the whole budget is
        granted when nothing else is held, so that a small budget slows the daemon down but never stops it."""
        claim = self.claim(size)
        if claim is not None:
            await self.wait(claim)

    def claim(self, size: int, account: BudgetAccount | None = None) -> Claim | None:
        """Take ``size`` bytes, for ``account`` if there is one, or stand in line for them: then ``wait``."""
        if not self._waiting and self._fits(size):
            (account or self).charge(size)
            return None
        claim = Claim(size, account)
        self._waiting.append(claim)
        self.short.set()
        return claim

    async def wait(self, claim: Claim) -> None:
        """Returns when the bytes are taken. A cancellation gives them back, or leaves the line."""
        turn = claim.turn
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                (claim.account or self).release(claim.size)
            else:
                if claim in self._waiting:  # a release right after the cancellation may have dropped it already
                    self._waiting.remove(claim)
                self._wake()
            raise

    def grant(self, claim: Claim) -> None:
        """Let a claim take its bytes now, out of turn and whether they fit or not, if it still waits."""
        if not claim.turn.done():
            self._waiting.remove(claim)
            self._let_pass(claim)
            self._wake()

    def charge(self, size: int) -> None:
        self._used += size

    def release(self, size: int) -> None:
        self._used -= size
        self._wake()

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._limit or self._used <= 0

    def _let_pass(self, claim: Claim) -> None:
        """An account knows of it at once: it may have two readers, and is sure of one page only."""
        if not claim.turn.done():
            (claim.account or self).charge(claim.size)
            claim.turn.set_result(None)

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            self._let_pass(self._waiting.popleft())
        if not self._waiting:
            self.short.clear()


class BudgetAccount:
    """One shard's share of the budget. ``close`` gives back whatever its records still hold: when a lease ends with
    unsettled records, nothing else releases their pages. A closed account holds nothing, whatever comes late."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0
        self._closed = False
        self.short = False  # the last page was granted out of turn: a reader should ask for few records
        self._aside = 0
        self._overdue: list[Claim] = []  # claims that are granted as soon as little is held

    @property
    def held(self) -> int:
        return self._held

    @property
    def page_reserve(self) -> int:
        return self._budget.page_reserve

    async def reserve(self, size: int) -> None:
        """Wait for ``size`` bytes (a page) and take them: in line, and for ``PAGE_PATIENCE`` at most once this account
        holds less than ``ByteBudget.small``."""
        claim = self._budget.claim(size, self)
        self.short = False
        if claim is None:
            return
        timer = asyncio.get_running_loop().call_later(PAGE_PATIENCE, self._is_overdue, claim)
        try:
            await self._budget.wait(claim)
        finally:
            timer.cancel()
            if claim in self._overdue:
                self._overdue.remove(claim)

    def charge(self, size: int) -> None:
        if not self._closed:
            self._budget.charge(size)
            self._held += size

    def release(self, size: int) -> None:
        if not self._closed:
            self._held -= size
            self._budget.release(size)
            self._take_page()

    def set_aside(self, size: int) -> None:
        """So many of the bytes held are bounded otherwise (those of failing keys), and take no page from this shard."""
        self._aside = size
        self._take_page()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._budget.release(self._held)
            self._held = 0
            self._take_page()

    def _is_overdue(self, claim: Claim) -> None:
        self._overdue.append(claim)
        self._take_page()

    def _take_page(self) -> None:
        while self._overdue and self._held - self._aside < self._budget.small:
            self.short = True
            self._budget.grant(self._overdue.pop(0))
