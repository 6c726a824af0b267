"""Going on in a shard of Kinesis, which never says that records were trimmed before they were read.

A position that was trimmed is not refused: reading begins with what is left, or gives empty pages for ever, or the
number is called invalid. So a reader goes on AT the last record it knows, not AFTER it, and looks whether that comes
back. When it does not, records may be lost, unless nothing was left to read while they would still be there
(``domain/completeness.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from .completeness import SLACK, lost_nothing
from .kinesis_numbers import service_number

# Empty answers in a row until the record counts as gone: from the tip of the shard, or from as far behind as records
# are kept; and from anywhere between, where a reader on its way comes nearer to the tip and one that is stuck does not.
LOOKS: Final = 3
STUCK: Final = 100  # half a minute of reads, at five in 1.5 s


@dataclass(frozen=True, slots=True)
class Resume:
    """A place at a record. ``wanted``: the record itself is to be read, not only what follows it. ``complete_at`` as in
    ``FrontierSnapshot``. ``found``: it was seen, or is not expected; then it only says what is too old to be read.
    ``looks`` are the empty answers in a row that came no nearer to the tip than ``least`` seconds."""

    number: str
    wanted: bool = False
    complete_at: float = 0.0
    found: bool = False
    looks: int = 0
    least: float = math.inf

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
        if ended:
            return "gone", self
        left = behind or 0.0
        came_nearer = left < self.least - 1.0
        again = replace(self, looks=1 if came_nearer else self.looks + 1, least=min(left, self.least))
        on_the_way = 0.0 < left < retention - SLACK
        return ("gone" if again.looks >= (STUCK if on_the_way else LOOKS) else "wait"), again

    def beyond(self, last: str | None) -> Self | None:
        """What is to be expected behind a page whose last record has this number (None: it has none): nothing more when
        that is newer than the record, which older ones may precede where reading goes on from the horizon."""
        return None if last is not None and int(last) >= int(self.number) else self

    def lost_nothing(self, now: float, retention: float) -> bool:
        """Whether nothing can have been trimmed unread although the record is gone; Unix seconds."""
        return lost_nothing(self.complete_at, now, retention)


def encoded(resume: Resume | None, iterator: str) -> str:
    """An iterator of the service, with what is to be expected there, as one text."""
    if resume is None:
        return f"|{iterator}"
    flags = f"{int(resume.wanted)}{int(resume.found)}{resume.looks}"
    return f"{resume.number},{flags},{resume.complete_at!r},{resume.least!r}|{iterator}"


def decoded(token: str) -> tuple[Resume | None, str]:
    """The inverse. ValueError for what is none."""
    head, bar, iterator = token.partition("|")
    if not bar:
        raise ValueError("no iterator of this source")
    if not head:
        return None, iterator
    number, flags, complete_at, least = head.split(",")
    wanted, found = flags[0] == "1", flags[1] == "1"
    return Resume(number, wanted, float(complete_at), found, int(flags[2:]), float(least)), iterator
