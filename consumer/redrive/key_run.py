"""The dead letters of one key on their way through the handler again, as far as they may still be handled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consumer.domain.filters.filters import Filters
from consumer.domain.keys import item_key
from consumer.domain.record import Record
from consumer.domain.redrive_plan import KeyWork, Place, RecordId
from consumer.domain.staleness import primary_key, why_stale
from consumer.domain.stream_record import StreamRecord
from consumer.ports.items import SourceItems
from consumer.redrive.attempts import Attempts


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of a record before the handler gets it. ``items`` is None when the source is not compared with."""

    filters: Filters
    items: SourceItems | None = None


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

    async def run(self, records: dict[RecordId, StreamRecord]) -> None:
        """``records`` of all places of the work. Unavailable when the source cannot be asked."""
        wanted = await self._wanted(records)
        failure = ""
        for part in KeyWork(
            self._work.digest, tuple(place for place in self._work.places if place.id in wanted)
        ).shards():
            failure = failure or await self._shard(part, records)
            if failure:
                untouched = {place.id for place in part} - self.settled - self.left.keys()
                self.left |= dict.fromkeys(untouched, failure)

    async def _shard(self, part: Sequence[Place], records: dict[RecordId, StreamRecord]) -> str:
        """Handle the records of one shard. Why not all of them were; empty when they were."""
        if self._attempts is None:
            self.settled.update(place.id for place in part)
            return ""
        ended = await self._attempts.run([records[place.id] for place in part], part[0].id.shard_id)
        ids = {records[place.id].number: place.id for place in part}
        self.settled.update(ids[number] for number in ended.handled)
        self.left |= {ids[number]: why for number, why in ended.failed.items()}
        return ended.reason

    async def _wanted(self, records: dict[RecordId, StreamRecord]) -> set[RecordId]:
        """The records that may be handled. Those of one item stand or fall together: when the item is as the newest
        of them left it, nothing newer can have been handled."""
        wanted = set()
        by_item: dict[bytes, list[Place]] = {}
        for place in self._work.places:
            record = records[place.id]
            if self._rules.filters and not self._rules.filters.matches(record):
                self.left[place.id] = "does not pass the filters, so no handler would get it"
                continue
            wanted.add(place.id)
            item = item_key(record.dynamodb.Keys) if isinstance(record, Record) else b""
            by_item.setdefault(item, []).append(place)
        if self._rules.items is None:
            return wanted
        for places in by_item.values():
            reason = await self._why_stale(records[places[-1].id], self._rules.items)
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
