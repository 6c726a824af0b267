"""Going on in a shard of Kinesis, which never says that records were trimmed before they were read.

A position that was trimmed is not refused: reading begins with what is left, or gives empty pages for ever, or the
number is called invalid. So a reader goes on AT the last record it knows, not AFTER it, and looks whether that comes
back. When it does not, records may be lost, unless nothing was left to read while they would still be there
(``domain/completeness.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from .completeness import SLACK, lost_nothing
from .kinesis_numbers import service_number

LOOKS: Final = 3  # empty answers from the tip of the shard, in a row, until the record counts as gone


@dataclass(frozen=True, slots=True)
class Resume:
    """A place at a record. ``wanted``: the record itself is to be read, not only what follows it. ``complete_at`` as in
    ``FrontierSnapshot``. ``found``: it was seen, or is not expected; then it only says what is too old to be read."""

    number: str
    wanted: bool = False
    complete_at: float = 0.0
    found: bool = False
    looks: int = 0

    @property
    def sequence_number(self) -> str:
        """That of the service."""
        return service_number(self.number)[0]

    def is_wanted(self, number: str) -> bool:
        """Whether a record with this number of the books is to be read."""
        return int(number) >= int(self.number) if self.wanted else int(number) > int(self.number)

    def after(
        self, first: str | None, *, behind: float | None, ended: bool, retention: float
    ) -> tuple[Literal["found", "wait", "gone"], Self]:
        """What an answer says of the record, and what is to be expected next.

        Args:
            first: number of the first record in the answer; None without any.
            behind: seconds behind the tip; None when the service does not say.
            ended: the shard is read to its end.
            retention: of the stream, in seconds.
        """
        if self.found:
            return "found", self
        if first is not None:
            same = service_number(first)[0] == self.sequence_number
            return ("found", replace(self, found=True)) if same else ("gone", self)
        if ended or (behind is not None and behind >= retention - SLACK):  # stuck at a place that was trimmed
            return "gone", self
        if behind:
            return "wait", self
        again = replace(self, looks=self.looks + 1)
        return ("gone" if again.looks >= LOOKS else "wait"), again

    def lost_nothing(self, now: float, retention: float) -> bool:
        """Whether nothing can have been trimmed unread although the record is gone; Unix seconds."""
        return lost_nothing(self.complete_at, now, retention)


def encoded(resume: Resume | None, iterator: str) -> str:
    """An iterator of the service, with what is to be expected there, as one text."""
    if resume is None:
        return f"|{iterator}"
    flags = f"{int(resume.wanted)}{int(resume.found)}{resume.looks}"
    return f"{resume.number},{flags},{resume.complete_at!r}|{iterator}"


def decoded(token: str) -> tuple[Resume | None, str]:
    """The inverse. ValueError for what is none."""
    head, bar, iterator = token.partition("|")
    if not bar:
        raise ValueError("no iterator of this source")
    if not head:
        return None, iterator
    number, flags, complete_at = head.split(",")
    return Resume(number, flags[0] == "1", float(complete_at), flags[1] == "1", int(flags[2:])), iterator
