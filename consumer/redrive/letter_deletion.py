"""Deletes letters, and the payloads that lie apart from them."""

from __future__ import annotations

from consumer.domain.errors import StreamConsumerError
from consumer.ports.letter_store import PayloadStore
from consumer.redrive.attempts import NOT_SURE
from consumer.redrive.gathering import GatheredLetter
from consumer.redrive.held_letters import HeldLetters
from consumer.redrive.session import RedriveSession


class LetterDeletion:
    """Of one run. Nothing is deleted unless the ``session`` is sure of itself and the letter is ``held``."""

    def __init__(self, held: HeldLetters, payloads: PayloadStore, session: RedriveSession) -> None:
        self._held = held
        self._payloads = payloads
        self._session = session

    @property
    def fenced(self) -> bool:
        """Whether the session was lost."""
        return self._session.lost.is_set()

    async def delete(self, found: GatheredLetter) -> str:
        """The letter, then its payload: a letter must never point to nothing. Says what was not deleted, and why; empty
        when all of it is gone."""
        if not self._session.holds():
            return f"is not deleted: {NOT_SURE}"
        if not self._held.holds(found.name):
            return "is not deleted: it was not hidden any more, so somebody else may have it"
        try:
            await self._held.delete(found.name)
        except StreamConsumerError as error:
            return f"cannot be deleted: {error}"
        if found.letter.location:
            try:
                await self._payloads.delete(found.letter.location)
            except (StreamConsumerError, ValueError) as error:
                return f"is deleted, but not its payload at {found.letter.location}: {error}"
        return ""
