"""Letters of parked keys in a queue, which shows them in any order and one reader at a time.

All that the queue shows are taken and kept hidden, and found in memory by their place. A letter that is not among them
is looked for in the whole queue once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import NamedTuple

from consumer.domain.letter_reading import ReadLetter
from consumer.domain.parking import ParkedShard
from consumer.ports.letter_store import PayloadStore
from consumer.ports.parked_letters import ParkedLetter
from consumer.redrive.gathering import GatheredLetter, Gathering
from consumer.redrive.held_letters import HeldLetters


class Place(NamedTuple):
    """Of a letter among those of its key."""

    park_id: str
    label: str
    shard_id: str
    ordinal: int


class ParkedInQueue:
    """``ports.ParkedLetterBox`` over letters that are held.

    Args:
        gathering: takes what the queue shows, and has the payloads.
        held: deletes letters.
        payloads: deletes payloads that lie apart.
        seen: letters that were taken so far.
    """

    def __init__(
        self, gathering: Gathering, held: HeldLetters, payloads: PayloadStore, seen: Iterable[GatheredLetter]
    ) -> None:
        self._gathering = gathering
        self._held = held
        self._payloads = payloads
        self._found: dict[Place, dict[str, GatheredLetter]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._rounds_begun = 0
        self._last_whole_round = 0
        for one in seen:
            self._keep(one)

    async def find(self, shard: ParkedShard, ordinal: int) -> list[ParkedLetter]:
        place = Place(shard.park_id, shard.label, shard.shard_id, ordinal)
        if place not in self._found:
            await self._look_for(place)
        return [await self._parked(one) for one in list(self._found.get(place, {}).values())]

    async def remove(self, letter: ParkedLetter) -> None:
        """A letter that is not hidden any more may be in other hands by now, and stays: it is done, so whoever finds it
        only deletes it."""
        found = letter.handle
        if not isinstance(found, GatheredLetter):
            raise TypeError(f"not a letter of this box: {found!r}")
        of_place = self._found.get(_place(found.letter), {})
        of_place.pop(found.name, None)
        if not of_place:
            self._found.pop(_place(found.letter), None)
        if not self._held.holds(found.name):
            return
        await self._held.delete(found.name)
        if found.letter.location:
            await self._payloads.delete(found.letter.location)

    def others(self, park_ids: Iterable[str]) -> list[GatheredLetter]:
        """Letters that are of none of these times that keys are parked for."""
        known = set(park_ids)
        return [one for place, found in self._found.items() if place.park_id not in known for one in found.values()]

    async def _look_for(self, place: Place) -> None:
        """In the whole queue, until it is there; once for all who ask while they wait for their turn."""
        asked_after = self._rounds_begun
        async with self._one_at_a_time:
            if place in self._found or self._last_whole_round > asked_after:
                return
            self._rounds_begun += 1
            async with aclosing(self._gathering.more_parked()) as more:
                async for one in more:
                    self._keep(one)
                    if place in self._found:
                        return
            self._last_whole_round = self._rounds_begun

    def _keep(self, one: GatheredLetter) -> None:
        self._found.setdefault(_place(one.letter), {})[one.name] = one

    async def _parked(self, one: GatheredLetter) -> ParkedLetter:
        try:
            return ParkedLetter(await self._gathering.fetched(one), one, one.letter.redacted)
        except ValueError as error:
            return ParkedLetter((), one, problem=f"{one.name}: {error}")


def _place(letter: ReadLetter) -> Place:
    if letter.parked is None:
        raise ValueError("not a letter of a parked key")
    return Place(letter.parked.park_id, letter.stream_label, letter.shard_id, letter.parked.ordinal)
