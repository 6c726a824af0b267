"""The places of a shard: as many batches at a time as ``parallelization_factor`` says.

A batch whose dead letter is refused may have to wait for ever. It leaves its place to other keys meanwhile, and takes
one again before it goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

# Batches of a shard that wait outside. Each holds its records in memory and asks the destination every 30 seconds, so
# there must be an end; those after it keep their places.
MOST_AWAY = 256


class Places:
    """All places of one shard. ``on_free`` is called when a batch leaves its place in the middle of its work.

    ``taken`` counts the batches that have one, ``away`` those that have left theirs.
    """

    def __init__(self, width: int, on_free: Callable[[], None]) -> None:
        self.taken = 0
        self.away = 0
        self._width = width
        self.on_free = on_free
        self._returning: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether a new batch may start."""
        return self.taken < self._width

    @property
    def wanted(self) -> bool:
        """Whether a batch that was away waits for a place: it goes before new ones."""
        return bool(self._returning)

    def take(self) -> Place:
        """For a new batch, when one is ``free``."""
        self.taken += 1
        return Place(self)

    def give_back(self) -> None:
        """One place less is taken, or the next one in line has it now."""
        while self._returning:
            turn = self._returning.popleft()
            if not turn.done():  # a task that was cancelled a moment ago has not taken its turn out yet
                turn.set_result(None)
                return
        self.taken -= 1

    async def take_again(self) -> None:
        """Wait in line for a place."""
        if self.free:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given just before
                self.give_back()
            elif turn in self._returning:
                self._returning.remove(turn)
            raise


class Place:
    """The place of one batch, or of several one after the other. ``end`` when there is none left."""

    __slots__ = ("_away", "_places")

    def __init__(self, places: Places) -> None:
        self._places = places
        self._away = False

    @property
    def away(self) -> bool:
        """Whether it was left."""
        return self._away

    def leave(self) -> None:
        """Somebody else may have it until ``come_back``. Without effect when too many are away."""
        if not self._away and self._places.away < MOST_AWAY:
            self._away = True
            self._places.away += 1
            self._places.give_back()
            self._places.on_free()

    async def come_back(self) -> None:
        """Wait for a place again, after ``leave``."""
        await self._places.take_again()
        self._away = False
        self._places.away -= 1

    def end(self) -> None:
        """The batch is through, however it ended."""
        if self._away:  # cancelled, or the lease was lost, while it was away
            self._places.away -= 1
        else:
            self._places.give_back()
