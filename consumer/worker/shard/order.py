"""In which order the batches of a shard are settled, as its dispatcher sees it.

``shard_order.py``: nothing overtakes; ``tumbling_windows.py``: the same within windows; ``key_order.py``: a failing key
holds up nothing but itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

Work = Callable[[], Awaitable[None]]
"""Something to be done in a slot of the shard: the calls of one batch, or of a piece of one."""


class Order(Protocol):
    """Decides what is done next, and what becomes of it."""

    @property
    def failing_keys(self) -> int:
        """Keys that wait for another attempt, or for their dead letter."""

    def failing(self) -> Iterator[tuple[bytes, float]]:
        """Those keys, each with the creation time (Unix seconds) of the first record that waits."""

    def failing_since(self) -> float | None:
        """Since when (monotonic seconds) the key, or the batch, fails that has failed for longest without a record
        getting through; None without one."""

    @property
    def is_paused(self) -> bool:
        """Whether so many keys fail that nothing new is started."""

    @property
    def is_through(self) -> bool:
        """False while something is left to do although everything that was added is settled."""

    def next(self, *, alone: bool) -> Work | None:
        """What to do in a slot that is free; None when there is nothing now. ``alone``: nothing else is under way."""

    def no_more(self) -> None:
        """The shard is read to its end."""

    def stop(self) -> None:
        """Start nothing more by itself: the shard is released."""
