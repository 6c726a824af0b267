"""The dead letters of one key on their way through the handler again, as far as they may still be handled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumer.domain.filters.filters import Filters
from consumer.domain.keys import item_key
from consumer.domain.read_again import Marked, in_runs
from consumer.domain.record import Record
from consumer.domain.redrive_plan import KeyWork, Place, RecordId
from consumer.domain.staleness import primary_key, why_stale
from consumer.domain.stream_record import StreamRecord
from consumer.ports.items import SourceItems
from consumer.redrive.attempts import Attempts
from consumer.redrive.reading_again import CannotReadAgain, ReadingAgain

FILTERED = "does not pass the filters, so no handler would get it"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of a record before the handler gets it. ``items`` is None when the source is not compared with.
    ``again`` reads the items of redacted letters."""

    filters: Filters
    items: SourceItems | None = None
    again: ReadingAgain = ReadingAgain(None)

    def lets_pass(self, record: StreamRecord) -> bool:
        """Whether the handler would get it from the stream."""
        return not self.filters or self.filters.matches(record)


class KeyRun:
    """Works through one key. ``settled`` are the records that were handled; ``left`` those that were not, and why.

    Without ``attempts`` nothing is called: what would be is settled (a dry run).
    """

    def __init__(self, work: KeyWork, rules: Rules, attempts: Attempts | None) -> None:
        self._work = work
        self._rules = rules
        self._attempts = attempts
        self.settled: set[RecordId] = set()
        self.left: dict[RecordId, str] = {}

    async def run(self, records: Mapping[RecordId, Marked]) -> None:
        """``records`` of all places of the work. Unavailable when the source cannot be asked."""
        wanted = await self._wanted(records)
        failure = ""
        for part in KeyWork(
            self._work.digest, tuple(place for place in self._work.places if place.id in wanted)
        ).shards():
            marked = [records[place.id] for place in part]
            for begin, end in in_runs(marked):
                places, run = part[begin:end], marked[begin:end]
                if failure:
                    self._leave(places, failure)
                elif run[0][1]:
                    failure = await self._read_again(places, run)
                else:
                    failure = await self._whole(places, [record for record, _ in run])

    async def _whole(self, places: Sequence[Place], records: Sequence[StreamRecord]) -> str:
        """Handle records of one shard. Why not all of them were; empty when they were."""
        if self._attempts is None:
            self.settled.update(place.id for place in places)
            return ""
        ended = await self._attempts.run(records, places[0].id.shard_id)
        ids = {record.number: place.id for record, place in zip(records, places, strict=True)}
        self.settled.update(ids[number] for number in ended.handled)
        self.left |= {ids[number]: why for number, why in ended.failed.items()}
        if ended.reason:
            self._leave(places, ended.reason)
        return ended.reason

    async def _read_again(self, places: Sequence[Place], run: Sequence[Marked]) -> str:
        """The same for redacted records of one item: it is read right before the call, and settles all of them."""
        try:
            event = await self._rules.again.event(run, newest_only=self._rules.items is not None)
        except CannotReadAgain as error:
            self._leave(places, str(error))
            return ""
        if not self._rules.lets_pass(event):
            self._leave(places, FILTERED)
            return ""
        ended = None if self._attempts is None else await self._attempts.run([event], places[0].id.shard_id)
        if ended is None or event.number in ended.handled:
            self.settled.update(place.id for place in places)
            return ""
        self._leave(places, ended.failed.get(event.number, ended.reason))
        return ended.reason

    def _leave(self, places: Sequence[Place], reason: str) -> None:
        untouched = {place.id for place in places} - self.settled - self.left.keys()
        self.left |= dict.fromkeys(untouched, reason)

    async def _wanted(self, records: Mapping[RecordId, Marked]) -> set[RecordId]:
        """The records that may be handled. The whole ones of one item stand or fall together: when the item is as the
        newest of them left it, nothing newer can have been handled. Redacted ones are asked about when they are read
        again."""
        wanted = set()
        by_item: dict[bytes, list[Place]] = {}
        for place in self._work.places:
            record, lacks = records[place.id]
            if not lacks and not self._rules.lets_pass(record):
                self.left[place.id] = FILTERED
                continue
            wanted.add(place.id)
            if lacks:
                continue
            item = item_key(record.dynamodb.Keys) if isinstance(record, Record) else b""
            by_item.setdefault(item, []).append(place)
        if self._rules.items is None:
            return wanted
        for places in by_item.values():
            reason = await self._why_stale(records[places[-1].id][0], self._rules.items)
            if reason:
                self.left |= {place.id: reason for place in places}
                wanted -= {place.id for place in places}
        return wanted

    @staticmethod
    async def _why_stale(newest: StreamRecord, items: SourceItems) -> str:
        keys = primary_key(newest)
        if keys is None:
            return "is no change of an item, so nothing says whether it still counts (--force handles it)"
        try:
            item = await items.item(keys)
        except ValueError as error:
            return f"cannot be compared with its item: {error}"
        return why_stale(newest, item)
