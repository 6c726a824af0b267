"""The places of the handler: as many calls at once as it can really run, over all shards of the process.

A call waits here for its place and for what it needs to start at once, before ownership is checked: user code starts
right after that check, and not after a wait for a process that still imports its libraries. Retries share a part of the
places: a handler that hangs on some keys until its time-out would otherwise fill them all, and every other key would
wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumer.domain.outcome import HandlerCall, Outcome
from consumer.ports.handler import Handler, Reservation


class HandlerPlaces:
    """As many places as ``handler`` is wide (0: any number), of which retries may take half, and one at least. Made
    once the handler is started."""

    def __init__(self, handler: Handler) -> None:
        width = handler.width
        self._handler = handler
        self._all = asyncio.Semaphore(width) if width else None
        self._again = asyncio.Semaphore(max(1, width // 2)) if width else None

    @property
    def are_limited(self) -> bool:
        """Whether a call may have to wait for a place."""
        return self._all is not None

    @property
    def are_taken(self) -> bool:
        """Whether the next call has to wait for a place."""
        return self._all is not None and self._all.locked()

    async def reserve(self, *, again: bool) -> Reservation:
        """Wait in line for a place, then for the handler. ``again``: the call is a retry. Cancelling the wait gives the
        place back."""
        if self._all is None or self._again is None:
            return await self._handler.reserve()
        if again:
            await self._again.acquire()
        try:
            await self._all.acquire()
            try:
                return _Place(await self._handler.reserve(), lambda: self._give_back(again=again))
            except BaseException:
                self._all.release()
                raise
        except BaseException:
            if again:
                self._again.release()
            raise

    def _give_back(self, *, again: bool) -> None:
        if self._all is not None and self._again is not None:
            self._all.release()
            if again:
                self._again.release()


class _Place:
    """A reservation with its place."""

    def __init__(self, reserved: Reservation, give_back: Callable[[], None]) -> None:
        self._reserved = reserved
        self._give_back: Callable[[], None] | None = give_back

    async def run(self, call: HandlerCall) -> Outcome:
        return await self._reserved.run(call)

    def release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self._reserved.release()
            give_back()
