"""What is deleted, and what is said of the rest."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.errors import DependencyError
from consumer.domain.letter_reading import ReadLetter
from consumer.redrive.gathering import GatheredLetter
from consumer.redrive.letter_deletion import LetterDeletion

REFUSED = DependencyError("DeleteObject", "InternalError", "try again")


class Held:
    """As ``HeldLetters``: one letter, as long as it is hidden."""

    def __init__(self, error: Exception | None = None) -> None:
        self.names = {"one"}
        self._error = error

    def holds(self, name: str) -> bool:
        return name in self.names

    async def delete(self, name: str) -> None:
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        self.names.remove(name)


class Payloads:
    def __init__(self, error: Exception | None = None) -> None:
        self.deleted: list[str] = []
        self._error = error

    async def delete(self, location: str) -> None:
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        self.deleted.append(location)


class Session:
    def __init__(self, *, sure: bool = True) -> None:
        self.sure = sure

    def holds(self) -> bool:
        return self.sure


def found() -> GatheredLetter:
    letter = ReadLetter(
        "key", "app", "arn", "label", "shard", "RetryAttemptsExhausted", "h", 0.0, "1", 1, location="s3://big/1"
    )
    return GatheredLetter("one", letter, 0)


async def deleted(held: Held, payloads: Payloads, session: Session) -> str:
    return await LetterDeletion(held, payloads, session).delete(found())  # type: ignore[arg-type]  # as far as asked


async def test_a_letter_goes_with_its_payload() -> None:
    held, payloads = Held(), Payloads()
    assert await deleted(held, payloads, Session()) == ""
    assert (held.names, payloads.deleted) == (set(), ["s3://big/1"])


async def test_a_letter_that_is_not_hidden_any_more_stays_and_so_does_its_payload() -> None:
    held, payloads = Held(), Payloads()
    held.names.clear()
    assert "not hidden any more" in await deleted(held, payloads, Session())
    assert payloads.deleted == []


async def test_one_that_is_not_sure_of_its_session_deletes_nothing() -> None:
    held, payloads = Held(), Payloads()
    assert "not sure" in await deleted(held, payloads, Session(sure=False))
    assert (held.names, payloads.deleted) == ({"one"}, [])


async def test_a_letter_that_cannot_be_deleted_keeps_its_payload() -> None:
    held, payloads = Held(REFUSED), Payloads()
    assert "InternalError" in await deleted(held, payloads, Session())
    assert payloads.deleted == []


@pytest.mark.parametrize("error", [REFUSED, ValueError("not a place of ours")])
async def test_a_payload_that_stays_is_named(error: Exception) -> None:
    said = await deleted(Held(), Payloads(error), Session())
    assert "s3://big/1" in said
    assert str(error) in said
