"""The destination of records that no handler could settle."""

from __future__ import annotations

from typing import Protocol


class DeadLetters(Protocol):
    """Where poison goes. ``send`` returns only when the document is durable at the destination."""

    destination: str

    async def prepare(self) -> None:
        """Check that the destination exists and may be used. ResourceMissing, PermissionDenied."""

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Raises DependencyError, PermissionDenied or ResourceMissing: the caller sends it again. LetterRefused: this
        document will never be taken."""

    async def backlog(self) -> int | None:
        """How many letters lie there, about; None where nobody counts them. Raises DependencyError, PermissionDenied or
        ResourceMissing. Never needed to go on, so nothing may wait for it."""
