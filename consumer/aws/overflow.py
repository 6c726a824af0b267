"""Dead letters that their destination cannot hold: the records go to S3, the rest goes where it always goes.

The payload is stored first, so that a document never points to nothing. Both steps give the same bytes at the same
place however often they are repeated; an object whose document was never delivered stays behind and does no harm.
"""

from __future__ import annotations

from typing import Final

from consumer.aws.s3 import S3Folder
from consumer.domain.dead_letter import pointing_documents, split_payload
from consumer.domain.errors import LetterRefused
from consumer.domain.letter_reading import PAYLOAD_SUFFIX
from consumer.ports.dead_letters import DeadLetters

SUFFIX: Final = PAYLOAD_SUFFIX  # tells the records from documents that lie under the same prefix


class WithOverflow:
    """``ports.DeadLetters`` around another destination.

    Documents that fit are sent as they are. Of the others ``payload`` is written to the store and replaced by
    ``payloadLocation`` (``s3://bucket/key``); every other field keeps its place and its value, or, when even that is
    too much, the text of the error is cut.

    Args:
        destination: where documents go.
        store: where payloads go.
    """

    def __init__(self, destination: DeadLetters, store: S3Folder) -> None:
        self.destination = destination.destination
        self._inner = destination
        self._store = store

    async def prepare(self) -> None:
        """Check both places, so that a missing bucket shows at the start and not with the first big letter."""
        await self._inner.prepare()
        await self._store.check()

    async def backlog(self) -> int | None:
        """Of the destination: payloads are no letters."""
        return await self._inner.backlog()

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Deliver one document, whole or pointing to its payload.

        Raises:
            LetterRefused: even without its payload, which is at ``payload_location`` then, or it has none.
            ResourceMissing, PermissionDenied, DependencyError: of either place; the caller tries again.
        """
        try:
            await self._inner.send(document, attributes=attributes)
            return
        except LetterRefused:
            rest, payload = split_payload(document)
            if not payload:
                raise
        location = await self._store.put(self._store.key(rest, attributes, SUFFIX), payload)
        for pointer in pointing_documents(document, location):
            try:
                await self._inner.send(pointer, attributes=attributes)
                return
            except LetterRefused as error:
                refusal = error
        refusal.payload_location = location
        raise refusal
