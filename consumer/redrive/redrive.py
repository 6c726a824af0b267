"""Letters of ``on_failure.order: continue`` through the handler again.

All of them first, then key by key, several keys at once. A letter is deleted when every record in it was handled, and
not before; what was not is put back with its reason. Letters of parked keys are left to ``redrive_parked``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from consumer.domain.deferred import digest_of
from consumer.domain.errors import StreamConsumerError
from consumer.domain.read_again import Marked
from consumer.domain.redrive_plan import KeyWork, Place, RecordId, key_work
from consumer.domain.stream_record import StreamRecord
from consumer.redrive.attempts import STOPPED, Attempts
from consumer.redrive.gathering import GatheredLetter, Gathering
from consumer.redrive.key_run import KeyRun, Rules
from consumer.redrive.letter_deletion import LetterDeletion

PARKED: Final = "is of a parked key, which comes back as a whole"
IN_WINDOW: Final = "is of a tumbling window, whose state has gone on without it: no call can bring that back"

Result = Literal["handled", "left", "not_deleted"]


@dataclass(frozen=True, slots=True)
class LetterResult:
    """What became of a letter. ``not_deleted``: it was handled, and lies there still."""

    found: GatheredLetter
    result: Result
    reason: str = ""


@dataclass(slots=True)
class Summary:
    """What a redrive has done. ``keys_left`` are the digests of keys of which a letter was left; ``stopped`` says that
    it ended before its work was done, ``fenced`` that its session was lost."""

    results: list[LetterResult] = field(default_factory=list)
    records_handled: int = 0
    keys_left: set[str] = field(default_factory=set)
    stopped: bool = False
    fenced: bool = False

    def count(self, result: Result) -> int:
        return sum(one.result == result for one in self.results)


def why_not(found: GatheredLetter) -> str:
    """Why a letter is left without a look at its records; empty when it is not."""
    letter = found.letter
    if found.problem:
        return found.problem
    if letter.parked is not None:
        return PARKED
    return IN_WINDOW if letter.in_window else ""


class Redrive:
    """One run over gathered letters.

    Args:
        gathering: has their payloads.
        deletion: deletes them; None for a dry run.
        key_of: the ordering key of a record.
        done: is told of each letter.
    """

    def __init__(
        self,
        gathering: Gathering,
        deletion: LetterDeletion | None,
        key_of: Callable[[StreamRecord], bytes],
        done: Callable[[LetterResult], None],
    ) -> None:
        self._gathering = gathering
        self._deletion = deletion
        self._key_of = key_of
        self._done = done
        self._summary = Summary()
        self._letters: Sequence[GatheredLetter] = []
        self._open: dict[int, set[RecordId]] = {}  # records of each letter that nobody has come to yet
        self._letters_of: dict[RecordId, list[int]] = {}
        self._reasons: dict[int, list[str]] = {}

    async def run(
        self,
        letters: Sequence[GatheredLetter],
        rules: Rules,
        attempts: Attempts | None,
        stop: asyncio.Event,
        concurrency: int,
    ) -> Summary:
        """Until all is done, or ``stop``. Without ``attempts`` nothing is called and nothing deleted. Unavailable when
        the source cannot be asked; then everything that was not handled is left."""
        self._letters = letters
        work = key_work(self._places())
        turns = asyncio.Semaphore(concurrency)

        async def one(key: KeyWork) -> None:
            async with turns:
                run = KeyRun(key, rules, attempts)
                if not stop.is_set():
                    try:
                        await run.run(self._records(key))
                    except StreamConsumerError as error:  # calls that are under way end as they should
                        failures.append(error)
                        stop.set()
                untouched = {place.id for place in key.places} - run.settled - run.left.keys()
                run.left |= dict.fromkeys(untouched, STOPPED)
                await self._ended(key, run)

        failures: list[StreamConsumerError] = []
        async with asyncio.TaskGroup() as tasks:
            for key in work:
                tasks.create_task(one(key))
        if failures:
            raise failures[0]
        self._summary.stopped = stop.is_set()
        self._summary.fenced = self._deletion is not None and self._deletion.fenced
        return self._summary

    def _places(self) -> list[Place]:
        places = []
        for number, found in enumerate(self._letters):
            reason = why_not(found)
            try:
                records: Sequence[StreamRecord] = [] if reason else self._gathering.records(found)
                of_letter = [self._place(number, index, record) for index, record in enumerate(records)]
            except ValueError as error:
                reason, of_letter = str(error), []
            if reason:
                self._report(LetterResult(found, "left", reason))
                continue
            self._open[number] = {place.id for place in of_letter}
            self._reasons[number] = []
            for one in self._open[number]:
                self._letters_of.setdefault(one, []).append(number)
            places += of_letter
        # Of a record that lies there redacted and whole the last one counts.
        return sorted(places, key=lambda place: not self._letters[place.letter].letter.redacted)

    def _place(self, letter: int, index: int, record: StreamRecord) -> Place:
        where = self._letters[letter].letter
        number = RecordId(where.stream_label, int(record.number), where.shard_id)
        return Place(number, digest_of(self._key_of(record)), letter, index)

    def _records(self, key: KeyWork) -> dict[RecordId, Marked]:
        """Read when it is their turn: memory holds the keys that are worked on."""
        by_letter: dict[int, Sequence[StreamRecord]] = {}
        for place in key.places:
            if place.letter not in by_letter:
                by_letter[place.letter] = self._gathering.records(self._letters[place.letter])
        lacks = {letter: self._letters[letter].letter.redacted for letter in by_letter}
        return {place.id: (by_letter[place.letter][place.index], lacks[place.letter]) for place in key.places}

    async def _ended(self, key: KeyWork, run: KeyRun) -> None:
        self._summary.records_handled += len(run.settled)
        if run.left:
            self._summary.keys_left.add(key.digest)
        ids = run.settled | run.left.keys()
        for number in sorted({letter for one in ids for letter in self._letters_of[one]}):
            self._reasons[number] += [run.left[one] for one in sorted(self._open[number] & run.left.keys())]
            self._open[number] -= ids
            if not self._open[number]:
                del self._open[number]
                await self._letter_ended(number)

    async def _letter_ended(self, number: int) -> None:
        found, reasons = self._letters[number], self._reasons.pop(number)
        if reasons:
            self._report(LetterResult(found, "left", reasons[0]))
            return
        problem = await self._deletion.delete(found) if self._deletion is not None else ""
        reason = f"was handled, and {problem}" if problem else ""
        self._report(LetterResult(found, "not_deleted" if problem else "handled", reason))

    def _report(self, result: LetterResult) -> None:
        self._summary.results.append(result)
        if result.result != "handled":
            self._summary.keys_left |= result.found.digests or {result.found.name}
        self._done(result)
