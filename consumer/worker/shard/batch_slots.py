"""The slots of a shard: as many batches at a time as ``parallelization_factor`` says.

A batch whose dead letter is refused may have to wait for ever. It suspends its permit meanwhile, so that other keys get
the slot, and takes a slot again before it goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

# Batches of a shard without a slot. Each holds its records in memory and asks the destination every 30 seconds, so
# there must be an end; those after it keep their slots.
MAX_SUSPENDED = 256


class BatchSlots:
    """All slots of one shard. ``on_free`` is called when a batch gives up its slot in the middle of its work.

    ``taken`` counts the batches that have one, ``suspended`` those that have given theirs up for a while.
    """

    def __init__(self, width: int, on_free: Callable[[], None], max_suspended: int = MAX_SUSPENDED) -> None:
        self.taken = 0
        self.suspended = 0
        self.max_suspended = max_suspended
        self.on_free = on_free
        self._width = width
        self._resuming: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether a new batch may start."""
        return self.taken < self._width

    @property
    def is_awaited(self) -> bool:
        """Whether a suspended batch waits for a slot: it goes before new ones."""
        return bool(self._resuming)

    def take(self) -> SlotPermit:
        """For a new batch, when a slot is ``free``."""
        self.taken += 1
        return SlotPermit(self)

    def give_back(self) -> None:
        """One slot less is taken, or the next batch in line has it now."""
        while self._resuming:
            turn = self._resuming.popleft()
            if not turn.done():  # a task that was cancelled a moment ago has not taken its turn out yet
                turn.set_result(None)
                return
        self.taken -= 1

    async def take_again(self) -> None:
        """Wait in line for a slot."""
        if self.free:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resuming.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given just before
                self.give_back()
            elif turn in self._resuming:
                self._resuming.remove(turn)
            raise


class SlotPermit:
    """The slot of one batch, or of several one after the other. ``release`` it after the last one."""

    __slots__ = ("_slots", "_suspended")

    def __init__(self, slots: BatchSlots) -> None:
        self._slots = slots
        self._suspended = False

    @property
    def suspended(self) -> bool:
        """Whether the slot was given up."""
        return self._suspended

    def suspend(self) -> None:
        """Other batches may have the slot until ``resume``. Without effect when too many batches are suspended."""
        if not self._suspended and self._slots.suspended < self._slots.max_suspended:
            self._suspended = True
            self._slots.suspended += 1
            self._slots.give_back()
            self._slots.on_free()

    async def resume(self) -> None:
        """Wait for a slot again, after ``suspend``."""
        await self._slots.take_again()
        self._suspended = False
        self._slots.suspended -= 1

    def release(self) -> None:
        """The batch is through, however it ended."""
        if self._suspended:  # cancelled, or the lease was lost, without a slot
            self._slots.suspended -= 1
        else:
            self._slots.give_back()
