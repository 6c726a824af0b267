"""Counts the records that a replay would repeat, by reading them: no leases, nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consumer.domain.errors import DependencyError, ExpiredIterator, TrimmedData
from consumer.domain.filters.filters import Filters
from consumer.domain.lease import LeaseRow
from consumer.domain.replay_start import StartRule
from consumer.ports.source import Position, StreamDescription, StreamSource
from consumer.worker.retrying import Backoff
from consumer.worker.tasks import each

AT_ONCE: Final = 16  # shards that are read at a time
QUIET: Final = 3  # pages in a row without records at the tip, and a shard counts as read
ATTEMPTS: Final = 8  # of one read, with pauses
AGAIN: Final = Backoff(0.3, 5.0)


@dataclass(slots=True)
class Count:
    """Of one shard: records from the position on, and those of them that the filters let through."""

    shard_id: str
    records: int = 0
    matched: int = 0
    trimmed: bool = False  # the place where the shard would begin is gone


@dataclass(slots=True)
class Counts:
    """``read`` also counts what is older than the position."""

    shards: dict[str, Count] = field(default_factory=dict)
    read: int = 0

    @property
    def records(self) -> int:
        return sum(one.records for one in self.shards.values())

    @property
    def matched(self) -> int:
        return sum(one.matched for one in self.shards.values())


async def count(
    source: StreamSource,
    stream: StreamDescription,
    rows: list[LeaseRow],
    filters: Filters,
    most: int,
    progress: Callable[[Counts], None] = lambda counts: None,
) -> Counts:
    """Read the shards of ``rows``, as they will be after the replay, up to now. ``most``: records of a page.

    Raises what the source raises, when it has failed several times.
    """
    counts = Counts({row.shard_id: Count(row.shard_id) for row in rows})

    async def one(row: LeaseRow) -> None:
        await _count(source, stream, row, filters, most, counts, progress)

    failed = await each(rows, one, at_once=AT_ONCE)
    if failed:
        raise failed[0][1]
    return counts


async def _count(
    source: StreamSource,
    stream: StreamDescription,
    row: LeaseRow,
    filters: Filters,
    most: int,
    counts: Counts,
    progress: Callable[[Counts], None],
) -> None:
    rule, found = StartRule(None, row.replay), counts.shards[row.shard_id]
    place, first = place_of(row, rule), True
    iterator: str | None = None
    quiet = failures = 0
    while quiet < QUIET:
        try:
            if iterator is None:
                iterator = await source.iterator(row.shard_id, place)
            page = await source.get_records(row.shard_id, iterator, most)
        except TrimmedData:
            found.trimmed = first
            return
        except (DependencyError, ExpiredIterator) as error:
            failures += 1
            if failures == ATTEMPTS:
                raise
            iterator = None if isinstance(error, ExpiredIterator) else iterator
            await asyncio.sleep(AGAIN.after(failures))
            continue
        first, failures = False, 0
        for record in page.records:
            if record.created > stream.server_time:
                return  # it came since
            if not rule.leaves_out(record):
                found.records += 1
                found.matched += filters.matches(record)
        counts.read += len(page.records)
        if page.records:
            place = Position("AFTER_SEQUENCE_NUMBER", page.records[-1].number)
        progress(counts)
        if page.next_iterator is None:
            return
        iterator = page.next_iterator
        quiet = quiet + 1 if page.at_tip else 0
        await asyncio.sleep(stream.format.reading.pause_behind(page.wire_bytes))


def place_of(row: LeaseRow, rule: StartRule) -> Position:
    """Where an owner of the row would begin to read."""
    if row.frontier.low is not None:
        return Position("AFTER_SEQUENCE_NUMBER", row.frontier.low)
    if row.frontier.first is not None:
        return Position("AT_SEQUENCE_NUMBER", row.frontier.first)
    return Position("TRIM_HORIZON", not_before=rule.not_before)
