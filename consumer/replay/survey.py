"""Finds out what a replay would change, by reading alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from consumer.domain.errors import MisconfiguredResource, ResourceMissing, TrimmedData
from consumer.domain.lease import LeaseRow
from consumer.domain.replay import Position, ReplayPlan, plan_for_another, plan_in_place
from consumer.domain.stream_record import StreamRecord
from consumer.ports import source as ports
from consumer.ports.leases import LeaseTable
from consumer.ports.source import StreamDescription, StreamSource
from consumer.worker.fleet.registration import belongs_to

MOST_READS: Final = 50  # pages until a record must have come


@dataclass(frozen=True, slots=True)
class Survey:
    """``rows`` are the lease rows as they were read; none of another application."""

    source: StreamSource
    stream: StreamDescription
    position: Position
    plan: ReplayPlan
    rows: dict[str, LeaseRow]


async def stream_of(source: StreamSource, store: LeaseTable) -> tuple[StreamSource, StreamDescription]:
    """The stream that the application reads now. MisconfiguredResource when it has never been started."""
    stream = await source.describe()
    pinned = await store.pinned()
    if pinned is None:
        raise MisconfiguredResource(
            "this application has no rows yet, so nothing can be set back: start it with source.starting_position, or "
            "replay with --as NAME"
        )
    if pinned.source_id != stream.source_id:
        raise MisconfiguredResource(f"this application reads {pinned.source_id}, not {stream.source_id}")
    if pinned.stream_id is None or pinned.stream_id == stream.stream_id:
        return source, stream
    older = source.of(pinned.stream_id)
    return older, await older.describe()


async def survey_in_place(source: StreamSource, store: LeaseTable, wanted: Position, chosen: Collection[str]) -> Survey:
    """Raises what source and table raise, and MisconfiguredResource for a position that is not there any more."""
    source, stream = await stream_of(source, store)
    registration = await store.registration(stream.label)
    if registration is not None:
        belongs_to(stream, registration)
    position = await resolved(source, stream, wanted)
    rows = {row.shard_id: row for row in await store.leases(stream.label)}
    listed = await source.list_shards()
    return Survey(source, stream, position, plan_in_place(position, chosen, listed, rows, stream.format.created), rows)


async def survey_for_another(source: StreamSource, wanted: Position, chosen: Collection[str]) -> Survey:
    """The same for an application that has no rows: it reads the newest stream."""
    stream = await source.describe()
    if await source.latest_stream() is not None:
        source = source.of(stream.stream_id)
    position = await resolved(source, stream, wanted)
    listed = await source.list_shards()
    plan = plan_for_another(position, chosen, listed, float(int(stream.server_time)), stream.format.created)
    return Survey(source, stream, position, plan, {})


async def resolved(source: StreamSource, stream: StreamDescription, wanted: Position) -> Position:
    """The position, if its records are there; of a number with the time of its record."""
    if wanted.number is not None:
        record = await _first_at(source, stream, wanted)
        return replace(wanted, since=float(int(record.created)))
    now, oldest = stream.server_time, stream.server_time - source.retention
    if wanted.since > now:
        raise MisconfiguredResource(f"--from is {wanted.since - now:.0f} s in the future: there is nothing to replay")
    if 0 < wanted.since < oldest:
        raise MisconfiguredResource(
            f"--from is older than what the stream keeps ({source.retention / 3600:g} hours): records exist from "
            f"{_utc(oldest)} on; --from trim_horizon replays all that is left"
        )
    return wanted


async def _first_at(source: StreamSource, stream: StreamDescription, wanted: Position) -> StreamRecord:
    what = f"record {wanted.number} of {wanted.shard_id}"
    try:
        iterator: str | None = await source.iterator(
            wanted.shard_id, ports.Position("AT_SEQUENCE_NUMBER", wanted.number)
        )
        for _ in range(MOST_READS):
            if iterator is None:
                break
            page = await source.get_records(wanted.shard_id, iterator, 1)
            if page.records:
                if page.records[0].number != wanted.number:
                    raise _gone(stream, source, what, f"the next one is {page.records[0].number}")
                return page.records[0]
            iterator = page.next_iterator
    except TrimmedData as error:
        raise _gone(stream, source, what, "it was trimmed") from error
    except ResourceMissing as error:
        raise MisconfiguredResource(f"{what}: the stream has no such shard (any more)") from error
    raise _gone(stream, source, what, "nothing is shown there")


def _gone(stream: StreamDescription, source: StreamSource, what: str, found: str) -> MisconfiguredResource:
    oldest = _utc(stream.server_time - source.retention)
    return MisconfiguredResource(f"{what} is not there: {found}; records exist from {oldest} on")


def _utc(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
