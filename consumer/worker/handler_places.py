"""The places of the handler: as many calls at once as it can really run, over all shards of the process.

A call waits here for its place and for what it needs to start at once, before ownership is checked: user code starts
right after that check, and not after a wait for a process that still imports its libraries. Retries share a part of the
places: a handler that hangs on some keys until its time-out would otherwise fill them all, and every other key would
wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from consumer.domain.outcome import HandlerCall, Outcome
from consumer.ports.handler import Handler, Reservation

LOOKS: Final = 15  # that a saturation is the mean of: with one a second, what a scrape interval has seen


class HandlerPlaces:
    """As many places as ``handler`` is wide (0: any number), of which retries may take half, and one at least. Made
    once the handler is started, in the event loop of its calls."""

    def __init__(self, handler: Handler) -> None:
        width = handler.width
        self._handler = handler
        self._all = asyncio.Semaphore(width) if width else None
        self._again = asyncio.Semaphore(max(1, width // 2)) if width else None
        self._taken = _Taken(width, asyncio.get_running_loop().time)

    @property
    def are_limited(self) -> bool:
        """Whether a call may have to wait for a place."""
        return self._all is not None

    @property
    def are_taken(self) -> bool:
        """Whether the next call has to wait for a place."""
        return self._all is not None and self._all.locked()

    def saturation(self) -> float | None:
        """Which share of the places was taken, 0 to 1, on average since the last look and over the last LOOKS of them;
        None when there is no limit. A place is taken also while its process starts."""
        return self._taken.share() if self._all is not None else None

    async def reserve(self, *, again: bool) -> Reservation:
        """Wait in line for a place, then for the handler. ``again``: the call is a retry. Cancelling the wait gives the
        place back."""
        if self._all is None or self._again is None:
            return await self._handler.reserve()
        if again:
            await self._again.acquire()
        try:
            await self._all.acquire()
            self._taken.change(1)
            try:
                return _Place(await self._handler.reserve(), lambda: self._give_back(again=again))
            except BaseException:
                self._release()
                raise
        except BaseException:
            if again:
                self._again.release()
            raise

    def _give_back(self, *, again: bool) -> None:
        self._release()
        if again and self._again is not None:
            self._again.release()

    def _release(self) -> None:
        if self._all is not None:
            self._taken.change(-1)
            self._all.release()


class _Taken:
    """How many places are taken, and for how long: what is taken only between two looks counts as well. ``time`` gives
    monotonic seconds, also to a call that is dropped when no loop runs any more."""

    def __init__(self, width: int, time: Callable[[], float]) -> None:
        self._width = width
        self._time = time
        self._count = 0
        self._place_seconds = 0.0
        self._changed_at: float | None = None
        self._looked_at: float | None = None
        self._shares: deque[float] = deque(maxlen=LOOKS)

    def change(self, by: int) -> None:
        now = self._time()
        if self._changed_at is not None:
            self._place_seconds += self._count * (now - self._changed_at)
        self._changed_at = now
        self._count += by

    def share(self) -> float:
        self.change(0)
        now, before = self._changed_at or 0.0, self._looked_at
        if before is None or now <= before:
            self._shares.append(self._count / self._width)
        else:
            self._shares.append(self._place_seconds / (now - before) / self._width)
        self._looked_at, self._place_seconds = now, 0.0
        return sum(self._shares) / len(self._shares)


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
