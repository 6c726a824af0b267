"""The place where dead letters lie, for those who bring them back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter as it lies there. ``name`` is what people find it by: the id of a message, or the URL of an object.
    ``handle`` is for its store. ``attributes`` are named as in ``dead_letter.Letter.attributes``. ``received``: how
    often it was taken so far, this time included; 0 where nobody counts."""

    name: str
    handle: str
    body: bytes
    attributes: Mapping[str, str]
    received: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many letters a place holds, about: ``hidden`` are in the hands of somebody now, and are not shown."""

    visible: int
    hidden: int


class LetterStore(Protocol):
    """Dead letters of one application. All methods may raise DependencyError, Throttled, PermissionDenied and
    ResourceMissing."""

    place: str
    """Its ARN or ``s3://`` URL."""

    hidden_for: float
    """Seconds for which nobody else gets a letter that ``letters`` gave, unless ``keep`` is called meanwhile; infinity
    where letters stay in sight."""

    async def prepare(self) -> None:
        """Find it. MisconfiguredResource when it is of a kind that letters cannot be read from."""

    def letters(self, *, parked: bool = True) -> AsyncIterator[StoredLetter]:
        """All that can be had now, in any order. Two copies of one letter are normal in a queue, and the same message
        may come twice: the later one has the handle that counts. Without ``parked`` letters of parked keys are left out
        where they lie apart."""

    async def keep(self, letters: Sequence[StoredLetter]) -> list[StoredLetter]:
        """Hide them for another ``hidden_for``. Returns those that cannot be kept any longer: somebody else may get
        them now."""

    async def put_back(self, letters: Sequence[StoredLetter]) -> None:
        """Show them to everybody again."""

    async def delete(self, letter: StoredLetter) -> None:
        """Delete it for good; as after a success when it is gone."""

    async def waiting(self) -> Waiting | None:
        """None where everything that is there is shown."""


class PayloadStore(Protocol):
    """Payloads that lie apart from their letters (``payloadLocation``). A letter can say anything, so only places where
    this application keeps payloads are looked into: ValueError for any other one."""

    async def fetch(self, location: str) -> bytes:
        """The payload, whole. ResourceMissing when it, or a part of it, is gone."""

    async def delete(self, location: str) -> None:
        """Delete it; as after a success when it is gone."""
