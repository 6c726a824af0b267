"""Dead letters in memory: for tests of handlers and workers, and for the simulator."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from consumer.domain.errors import PayloadTooLarge
from consumer.testing.network import Link


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
        link: the network in between (operation ``send``); without one nothing is ever refused or lost.
    """

    def __init__(
        self, destination: str = "memory:dead-letters", *, maximum_size: int = 0, link: Link | None = None
    ) -> None:
        self.destination = destination
        self.delivered: list[DeadLetter] = []
        self.maximum_size = maximum_size
        self._link = link or Link()

    async def prepare(self) -> None:
        """Nothing to check: it is always there."""
        await asyncio.sleep(0)

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Keep the document. PayloadTooLarge, and what ``link`` is told to raise."""
        self.check_size(document)
        await self._link.carry("send", lambda: self.delivered.append(DeadLetter(document, dict(attributes))))

    async def backlog(self) -> int:
        """All that was delivered: nobody takes letters away. What ``link`` is told to raise of ``backlog``."""
        return await self._link.carry("backlog", lambda: len(self.delivered))

    def check_size(self, document: bytes) -> None:
        """PayloadTooLarge when the document is larger than ``maximum_size``."""
        if self.maximum_size and len(document) > self.maximum_size:
            raise PayloadTooLarge(self.destination, len(document), self.maximum_size)
