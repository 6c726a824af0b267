"""ERROR events by their kind: how often, first, last, where. Pure.

A handler's error text may hold data of an item, so texts are kept only where that is allowed; what an operator needs
first is the kind, the place and the number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

MOST_GROUPS: Final = 20
MOST_SHARDS: Final = 1000  # that are told apart
TEXT_LENGTH: Final = 512  # characters
NAME_LENGTH: Final = 120  # of types and places


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One ERROR event. ``type`` of the error, and the ``place`` in the code where it came from: empty when unknown.
    ``text`` may hold data of items; the others never do."""

    event: str
    type: str = ""
    place: str = ""
    shard_id: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """All errors of one ``event`` and ``type``; ``first`` and ``last`` are Unix seconds. The rest is of the last one;
    ``shards`` are so many different ones."""

    event: str
    type: str
    count: int
    first: float
    last: float
    place: str = ""
    shard_id: str = ""
    shards: int = 0
    text: str = ""


class ErrorGroups:
    """The kinds of errors that were seen of late. Not thread-safe."""

    def __init__(self, *, keep_texts: bool = False) -> None:
        self._keep_texts = keep_texts
        self._groups: dict[tuple[str, str], ErrorGroup] = {}  # the last one last
        self._shards: dict[tuple[str, str], set[str]] = {}

    def add(self, report: ErrorReport, at: float) -> None:
        """Count one more, at Unix time ``at``. The kind that was silent for longest is forgotten when there are too
        many."""
        kind = (_cut(report.event), _cut(report.type))
        before = self._groups.pop(kind, None)
        shards = self._shards.setdefault(kind, set())
        if report.shard_id and len(shards) < MOST_SHARDS:
            shards.add(report.shard_id)
        self._groups[kind] = replace(
            before or ErrorGroup(*kind, count=0, first=at, last=at),
            count=1 + (before.count if before is not None else 0),
            last=at,
            place=_cut(report.place),
            shard_id=report.shard_id,
            shards=len(shards),
            text=_cut(report.text, TEXT_LENGTH) if self._keep_texts else "",
        )
        if len(self._groups) > MOST_GROUPS:
            oldest = next(iter(self._groups))
            del self._groups[oldest], self._shards[oldest]

    @property
    def groups(self) -> tuple[ErrorGroup, ...]:
        """The last one first."""
        return tuple(reversed(self._groups.values()))


def _cut(text: str, limit: int = NAME_LENGTH) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
