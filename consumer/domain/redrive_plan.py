"""In which order the records of dead letters are handled again: within a key as they were in the stream, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple


class RecordId(NamedTuple):
    """What makes two records one: a letter may lie there twice, and a record in two letters. ``stream`` is the label,
    so that the records of a stream come before those of the one that replaced it; ``number`` is that of the books."""

    stream: str
    number: int
    shard_id: str


@dataclass(frozen=True, slots=True)
class Place:
    """A record, and where it is: the ``index``-th record of the ``letter``-th letter. ``digest`` is of its key."""

    id: RecordId
    digest: str
    letter: int
    index: int


@dataclass(frozen=True, slots=True)
class KeyWork:
    """All records of one key, in the order in which they are to be handled."""

    digest: str
    places: tuple[Place, ...]

    def shards(self) -> Iterator[Sequence[Place]]:
        """One shard after the other, of a stream before those of the one that replaced it."""
        for _, group in groupby(self.places, lambda place: (place.id.stream, place.id.shard_id)):
            yield list(group)


def key_work(places: Iterable[Place]) -> list[KeyWork]:
    """The work of each key, in the order of their first records. A record that is in several letters comes once."""
    once = {place.id: place for place in places}
    by_key: dict[str, list[Place]] = {}
    for place in sorted(once.values(), key=lambda place: place.id):
        by_key.setdefault(place.digest, []).append(place)
    return [KeyWork(digest, tuple(found)) for digest, found in by_key.items()]
