"""All letters of a place that a command is about, before it begins: order within a key needs all of them.

Their payloads may be more than memory holds, so they go to a file without a name, which is gone with the process.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from consumer.domain.errors import ResourceMissing
from consumer.domain.letter_reading import ReadLetter, read_letter
from consumer.domain.letter_selection import Selection
from consumer.domain.stream_record import StreamRecord
from consumer.ports.letter_store import LetterStore, PayloadStore, StoredLetter
from consumer.redrive.held_letters import HeldLetters


class Spool:
    """Payloads in a file that only this process can open. Use as a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="letters-")  # noqa: SIM115 - closed by __exit__
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, payload: bytes) -> tuple[int, int]:
        """Keep it; returns where: offset and size."""
        self._file.seek(self._end)
        self._file.write(payload)
        place = (self._end, len(payload))
        self._end += len(payload)
        return place

    def get(self, place: tuple[int, int]) -> bytes:
        self._file.seek(place[0])
        return self._file.read(place[1])


@dataclass(frozen=True, slots=True)
class GatheredLetter:
    """A letter, its payload in the spool. ``letter.location`` stays: the payload there goes with the letter.
    ``problem`` says why its records cannot be had; ``digests`` are of their keys, none when they are not known."""

    name: str
    letter: ReadLetter
    received: int
    digests: frozenset[str] = frozenset()
    spooled: tuple[int, int] = (0, 0)
    problem: str = ""


@dataclass(slots=True)
class Gathered:
    """``foreign``: what is no letter of this application, by name, and why. ``parked`` are letters of parked keys that
    were not asked for."""

    letters: list[GatheredLetter] = field(default_factory=list)
    parked: list[GatheredLetter] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)
    not_selected: int = 0


class Gathering:
    """Reads a place.

    Args:
        store: where the letters lie.
        payloads: where payloads lie that are apart from them.
        held: gets every letter that is taken.
        spool: gets the payloads.
        application: whose letters.
        key_of: the ordering key of a record; None when the source cannot be asked, then keys are known only of letters
            that say them.
    """

    def __init__(
        self,
        store: LetterStore,
        payloads: PayloadStore,
        held: HeldLetters,
        spool: Spool,
        application: str,
        key_of: Callable[[StreamRecord], bytes] | None,
    ) -> None:
        self._store = store
        self._payloads = payloads
        self._held = held
        self._spool = spool
        self._application = application
        self._key_of = key_of

    async def gather(
        self,
        selection: Selection,
        limit: int | None = None,
        *,
        payloads: bool = True,
        parked: bool = True,
        stop: asyncio.Event | None = None,
    ) -> Gathered:
        """All letters that are there and selected, ``limit`` at most, and fewer once ``stop`` is set. Without
        ``payloads`` those that lie apart are not fetched. Without ``parked`` letters of parked keys are put aside, as
        far as they are seen at all. Unavailable."""
        gathered = Gathered()
        async for stored in self._store.letters(parked=parked):
            if stop is not None and stop.is_set():
                self._held.add(stored)
                break
            if not self._held.add(stored):
                continue
            try:
                letter = self._read(stored)
            except ValueError as error:
                gathered.foreign[stored.name] = str(error)
                continue
            if letter.parked is not None and not parked:
                gathered.parked.append(await self._found(stored, letter, payloads=False))
                continue
            if not selection.may_take(letter):
                gathered.not_selected += 1
                continue
            found = await self._found(stored, letter, payloads=payloads)
            if not selection.takes(letter, found.digests):
                gathered.not_selected += 1
                continue
            gathered.letters.append(found)
            if limit is not None and len(gathered.letters) >= limit:
                break
        return gathered

    async def more_parked(self) -> AsyncGenerator[GatheredLetter, None]:
        """Letters of parked keys that have come since, or were not shown before. Unavailable."""
        async for stored in self._store.letters():
            if not self._held.add(stored):
                continue
            try:
                letter = self._read(stored)
            except ValueError:
                continue  # it was named when it was here before, or is next time
            if letter.parked is not None:
                yield await self._found(stored, letter, payloads=False)

    def _read(self, stored: StoredLetter) -> ReadLetter:
        letter = read_letter(stored.body, stored.attributes)
        if letter.application not in ("", self._application):
            raise ValueError(f"is a letter of the application {letter.application}")
        return letter

    async def _found(self, stored: StoredLetter, letter: ReadLetter, *, payloads: bool) -> GatheredLetter:
        digests = frozenset([letter.key_digest] if letter.key_digest else [])
        problem, payload = "", letter.payload
        try:
            if letter.location and payloads:
                payload = await self._payloads.fetch(letter.location)
            if payload and not digests and self._key_of is not None:
                digests = letter.with_payload(payload).key_digests(self._key_of)
        except (ValueError, ResourceMissing) as error:
            problem = str(error)
        return GatheredLetter(
            stored.name, replace(letter, payload=b""), stored.received, digests, self._spool.put(payload), problem
        )

    def payload(self, found: GatheredLetter) -> bytes:
        """Empty when it was not fetched."""
        return self._spool.get(found.spooled)

    async def fetched(self, found: GatheredLetter) -> Sequence[StreamRecord]:
        """The records of a letter, wherever they are. ValueError when they cannot be had; Unavailable."""
        payload = self.payload(found)
        if not payload:
            try:
                payload = await self._payloads.fetch(found.letter.location)
            except ResourceMissing as error:
                raise ValueError(str(error)) from error
        return found.letter.with_payload(payload).records()

    def records(self, found: GatheredLetter) -> Sequence[StreamRecord]:
        """The records of a letter. ValueError when they cannot be had."""
        if found.problem:
            raise ValueError(found.problem)
        return found.letter.with_payload(self.payload(found)).records()


def whole_keys(letters: Sequence[GatheredLetter], limit: int | None) -> list[GatheredLetter]:
    """About ``limit`` letters, the oldest first, and with each letter all others of its keys: what is handled later
    must not be older than what was handled before."""
    in_order = sorted(letters, key=lambda one: one.letter.given_up_at)
    if limit is None:
        return in_order
    of_key: dict[str, list[int]] = {}
    for place, one in enumerate(in_order):
        for digest in one.digests:
            of_key.setdefault(digest, []).append(place)
    taken: set[int] = set()
    for place in range(len(in_order)):
        if len(taken) >= limit:
            break
        waiting = {place} - taken
        while waiting:
            taken |= waiting
            waiting = {more for one in waiting for digest in in_order[one].digests for more in of_key[digest]} - taken
    return [in_order[place] for place in sorted(taken)]
