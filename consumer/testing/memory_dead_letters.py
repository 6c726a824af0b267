"""Dead letters in memory: for tests of handlers and workers, and for the simulator."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from consumer.domain.errors import PayloadTooLarge, StreamConsumerError


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One document as it was delivered."""

    document: bytes
    attributes: dict[str, str]

    def json(self) -> Any:
        """The decoded document."""
        return json.loads(self.document)


class MemoryDeadLetters:
    """``ports.DeadLetters`` that keeps what it is sent in ``delivered``, in order of arrival.

    Args:
        destination: the name shown in logs.
        maximum_size: bytes above which a document is refused with PayloadTooLarge; 0 means no limit.

    ``fail_next`` scripts the faults of a real destination, ``lose_next`` the nastiest one: stored, but not answered.
    """

    def __init__(self, destination: str = "memory:dead-letters", *, maximum_size: int = 0) -> None:
        self.destination = destination
        self.delivered: list[DeadLetter] = []
        self._maximum_size = maximum_size
        self._faults: deque[tuple[StreamConsumerError, bool]] = deque()

    def fail_next(self, error: StreamConsumerError, times: int = 1) -> None:
        """The next ``times`` sends raise ``error`` and store nothing."""
        self._faults.extend([(error, False)] * times)

    def lose_next(self, error: StreamConsumerError, times: int = 1) -> None:
        """The next ``times`` sends store the document and raise ``error`` all the same."""
        self._faults.extend([(error, True)] * times)

    async def prepare(self) -> None:
        """Nothing to check: it is always there."""
        await asyncio.sleep(0)

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Keep the document, or do what the script says."""
        await asyncio.sleep(0)
        if self._maximum_size and len(document) > self._maximum_size:
            raise PayloadTooLarge(self.destination, len(document), self._maximum_size)
        error, stored = self._faults.popleft() if self._faults else (None, True)
        if stored:
            self.delivered.append(DeadLetter(document, dict(attributes)))
        await asyncio.sleep(0)
        if error is not None:
            raise error
