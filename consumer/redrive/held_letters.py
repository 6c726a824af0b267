"""The letters that a command has taken: hidden from others for as long as it works, and put back in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final

import structlog

from consumer.domain.errors import StreamConsumerError
from consumer.ports.letter_store import LetterStore, StoredLetter

log = structlog.get_logger()

KEPT_EVERY: Final = 3  # times while a letter stays hidden, so that two attempts may fail


class HeldLetters:
    """What ``letters`` of a store gave, by name. A letter that comes again has a newer handle."""

    def __init__(self, store: LetterStore) -> None:
        self._store = store
        self._held: dict[str, StoredLetter] = {}

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[HeldLetters]:
        """While this is open the letters stay hidden; what is still held at its end is put back."""
        keeping = asyncio.create_task(self._keep(), name="letters")
        try:
            yield self
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            with suppress(StreamConsumerError):  # they come back by themselves, later
                await self._store.put_back(list(self._held.values()))

    def add(self, letter: StoredLetter) -> bool:
        """Hold a letter, without its body. False when it was held before."""
        is_new = letter.name not in self._held
        self._held[letter.name] = replace(letter, body=b"")
        return is_new

    def holds(self, name: str) -> bool:
        """Whether nobody else can have got the letter meanwhile."""
        return name in self._held

    async def delete(self, name: str) -> None:
        """Delete a letter that is held (``holds``, right before). Unavailable; then it is still held."""
        await self._store.delete(self._held[name])
        self._held.pop(name, None)  # meanwhile it may have been hidden for as long as can be

    async def _keep(self) -> None:
        """Letters that cannot be kept any longer are not held any more: whoever gets them next decides."""
        if self._store.hidden_for == float("inf"):
            return
        while True:
            await asyncio.sleep(self._store.hidden_for / KEPT_EVERY)
            try:
                for lost in await self._store.keep(list(self._held.values())):
                    self._held.pop(lost.name, None)
            except StreamConsumerError as error:
                log.warning("dead_letter.not_kept", destination=self._store.place, error=str(error))
