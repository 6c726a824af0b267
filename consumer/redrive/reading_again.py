"""Reads the items of redacted letters again (``domain/read_again.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from consumer.domain.errors import PermissionDenied, ResourceMissing
from consumer.domain.read_again import Marked, as_it_is_now, in_runs, why_not_told
from consumer.domain.staleness import primary_key
from consumer.domain.stream_record import StreamRecord
from consumer.ports.items import SourceItems
from consumer.ports.parked_letters import ParkedLetter

log = structlog.get_logger()

REDACTED = "was redacted, so the handler would not get what it should"
GONE = "was redacted, and its item was deleted since: purge it, or --force tells the handler of a REMOVE"
BACK = "removes an item that was written again since"


class CannotReadAgain(ValueError):
    """A sentence that goes on after "the record"."""


@dataclass(frozen=True, slots=True)
class ReadingAgain:
    """``items`` is None when no table can be read; ``why_not`` says why."""

    items: SourceItems | None
    why_not: str = "no table of the source is known"

    async def event(self, run: Sequence[Marked], *, newest_only: bool = False) -> StreamRecord:
        """One event for redacted records of one item. With ``newest_only`` not for an item of which a newer change has
        been handled that this event would contradict: one that was deleted, or written again after a REMOVE.
        CannotReadAgain; Unavailable when the table does not answer."""
        newest = run[-1][0]
        if problem := why_not_told(newest):
            raise CannotReadAgain(f"{REDACTED}, and {problem}")
        removes = newest.event_name == "REMOVE"
        item = None if removes and not newest_only else await self._item(newest)
        if newest_only and (item is None) != removes:
            raise CannotReadAgain(BACK if removes else GONE)
        found = as_it_is_now(run, item)
        numbers = {"sequence_number": found.sequence_number, "records": len(run)}
        log.info("dead_letter.read_again", event_name=found.event_name, **numbers)
        return found

    async def _item(self, newest: StreamRecord) -> dict[str, object] | None:
        if self.items is None:
            raise CannotReadAgain(f"{REDACTED}, and its item cannot be read again: {self.why_not}")
        try:
            return await self.items.item(primary_key(newest) or {})
        except (PermissionDenied, ResourceMissing, ValueError) as error:
            raise CannotReadAgain(f"{REDACTED}, and its item cannot be read again: {error}") from error


@dataclass(frozen=True, slots=True)
class LetterEvents:
    """What the handler gets for letters of a parked key, in their order. ``ends`` says of each letter how many of the
    ``records`` have to be handled before it is; it has fewer entries than there are letters when one cannot be read
    again, for the reason ``problem``."""

    records: list[StreamRecord]
    ends: list[int]
    problem: str = ""


async def events_of(letters: Sequence[Sequence[ParkedLetter]], again: ReadingAgain) -> LetterEvents:
    """``letters``: all readable copies of each. Of a record that comes whole and redacted the whole one counts.
    Unavailable."""
    records: dict[int, Marked] = {}
    upto: list[int] = []
    for copies in letters:
        own: dict[int, Marked] = {}
        for letter in sorted(copies, key=lambda copy: bool(copy.redacted)):
            own |= {int(one.number): (one, letter.redacted) for one in letter.records if int(one.number) not in own}
        records |= {number: own[number] for number in sorted(own) if number not in records}
        upto.append(len(records))
    marked = list(records.values())
    found: list[StreamRecord] = []
    event_of: list[int] = []  # the events up to that of each record
    for begin, end in in_runs(marked):
        run = marked[begin:end]
        if run[0][1]:
            try:
                found.append(await again.event(run))
            except CannotReadAgain as error:
                ends = [event_of[count - 1] if count else 0 for count in upto if count <= begin]
                return LetterEvents(found, ends, str(error))
            event_of += [len(found)] * len(run)
        else:
            event_of += range(len(found) + 1, len(found) + 1 + len(run))
            found += [record for record, _ in run]
    return LetterEvents(found, [event_of[count - 1] if count else 0 for count in upto])
