"""The places of the handler: as many calls at once as it can really run, over all shards of the process.

A call waits for its place here, before ownership is checked, so that user code starts right after the check and not
after a wait for a free process. Retries share a part of the places: a handler that hangs on some keys until its
time-out would otherwise fill them all, and every other key would wait.
"""

from __future__ import annotations

import asyncio


class HandlerPlaces:
    """``width`` places (0: any number), of which retries may take half, and one at least."""

    def __init__(self, width: int) -> None:
        self._all = asyncio.Semaphore(width) if width else None
        self._again = asyncio.Semaphore(max(1, width // 2)) if width else None

    async def take(self, *, again: bool) -> None:
        """Wait in line for a place. ``again``: the call is a retry."""
        if self._all is None or self._again is None:
            return
        if again:
            await self._again.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            if again:
                self._again.release()
            raise

    def give_back(self, *, again: bool) -> None:
        """The call for which a place was taken has ended."""
        if self._all is not None and self._again is not None:
            self._all.release()
            if again:
                self._again.release()
