"""Pieces in the pause before their next attempt, and those of which it is over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from consumer.domain.pieces import Piece


class PausingPieces:
    """Of one shard. ``on_due`` is called when a pause is over, and after ``wake``."""

    def __init__(self, tasks: asyncio.TaskGroup, on_due: Callable[[], None]) -> None:
        self._timers: dict[Piece, asyncio.TimerHandle] = {}
        self._due: deque[Piece] = deque()
        self._is_due = asyncio.Event()
        self._on_due = on_due
        # A task, and no timer, fills slots: it ends with its group, which takes no new tasks once a lease is lost.
        self._waking = tasks.create_task(self._wake(), name="retries that are due")

    @property
    def any_due(self) -> bool:
        """Whether the pause of a piece is over."""
        return bool(self._due)

    @property
    def first(self) -> Piece:
        """The piece that is due for longest."""
        return self._due[0]

    def add(self, piece: Piece, seconds: float) -> None:
        """The piece pauses from now on."""
        self._timers[piece] = asyncio.get_running_loop().call_later(seconds, self._over, piece)

    def add_due(self, pieces: Iterable[Piece]) -> None:
        """These pieces are due, without a pause."""
        self._due.extend(pieces)

    def prefer_least_tried(self) -> None:
        """Of the pieces that are due, the one that was tried least often comes first."""
        least = min(self._due, key=lambda piece: piece.invocations)
        self._due.remove(least)
        self._due.appendleft(least)

    def next(self) -> Piece:
        """``first``, which is due no more."""
        return self._due.popleft()

    def remove(self, piece: Piece) -> None:
        """The piece pauses no more, and is not tried."""
        timer = self._timers.pop(piece, None)
        if timer is not None:
            timer.cancel()
        else:
            self._due.remove(piece)

    def wake(self) -> None:
        """As if a pause were over."""
        self._is_due.set()

    def stop(self) -> None:
        """No pause ends any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waking.cancel()

    def _over(self, piece: Piece) -> None:
        del self._timers[piece]
        self._due.append(piece)
        self._is_due.set()

    async def _wake(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            self._on_due()
