"""Reads the rows of an application, for commands."""

from __future__ import annotations

import datetime as dt

from consumer.cli.reach import Reach
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.fleet_rows import FleetRows
from consumer.ports.source import StreamSource
from consumer.worker.fleet.stream_replacement import label_of


async def fleet_rows(reach: Reach) -> FleetRows:
    """From the lease table alone. MisconfiguredResource when the application was never started there."""
    stream_id = await _stream_id(reach)
    label, store = label_of(stream_id), reach.store
    rows = {row.shard_id: row for row in await store.leases(label)}
    return FleetRows(reach.settings.application, stream_id, label, rows, await store.sessions(), await store.parked())


async def the_source(reach: Reach, stream_id: str) -> StreamSource:
    """The source on the stream that the application reads, which may be an older one of its table."""
    stream = await reach.source.describe()
    return reach.source if stream.stream_id == stream_id else reach.source.of(stream_id)


async def _stream_id(reach: Reach) -> str:
    pinned = await reach.store.pinned()
    if pinned is None:
        settings = reach.settings
        raise MisconfiguredResource(
            f"the application {settings.application} has no rows in the lease table {settings.leases.table}: no worker "
            "of it was ever started there (check application, leases.table and aws.region)"
        )
    return pinned.stream_id or (await reach.source.describe()).stream_id


def utc(seconds: float) -> str:
    """A time (Unix seconds) to the second; "-" when it is unknown."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else "-"


def short_owner(incarnation: str | None) -> str:
    """An incarnation without the rest of its token and its duration, for columns; "-" without one."""
    if incarnation is None:
        return "-"
    process, _, token = incarnation.rpartition("/")[0].rpartition("/")
    return f"{process}/{token[:8]}" if process else incarnation
