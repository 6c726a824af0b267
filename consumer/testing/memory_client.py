"""One worker's connection to the lease table in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from consumer.domain.errors import DependencyError, ResourceMissing, Throttled
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import Link

T = TypeVar("T")

ATTEMPTS = 3  # of one write when no answer comes, as in the DynamoDB store


class MemoryClient:
    """What the stores on a ``MemoryTable`` share."""

    def __init__(
        self, table: MemoryTable, application: str, clock_wall: Callable[[], float], link: Link | None = None
    ) -> None:
        self._table = table
        self._application = application
        self._wall = clock_wall
        self._link = link or Link()

    async def _read(self, operation: str, read: Callable[[], T]) -> T:
        def look() -> T:
            if not self._table.exists:
                raise ResourceMissing(f"lease table {self._table.name}")
            return read()

        return await self._link.carry(operation, look)

    async def _write(self, operation: str, apply: Callable[[], T]) -> T:
        """Apply a write atomically; apply it again when it got no answer."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._read(operation, apply)
            except DependencyError as error:
                if isinstance(error, Throttled) or attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")
