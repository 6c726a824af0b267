"""Whether the record of a checkpoint is still there: if it is not, others behind it may have been trimmed unread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from consumer.domain.errors import ResourceMissing, TrimmedData
from consumer.domain.kcl_plan import PlannedRow
from consumer.ports.source import Position, StreamDescription, StreamSource
from consumer.worker.tasks import each

_MOST_READS: Final = 20  # of one shard; then its record counts as there, and the daemon finds out


async def trimmed(rows: Iterable[PlannedRow], source: StreamSource, stream: StreamDescription) -> set[str]:
    """Those of the rows' shards of which the service does not show the last processed record any more. The shards must
    be listed. Raises what the source raises."""
    found: set[str] = set()

    async def look(one: PlannedRow) -> None:
        try:
            await _look(one.row.shard_id, one.row.frontier.low, source, stream)
        except (TrimmedData, ResourceMissing):
            found.add(one.row.shard_id)

    failed = await each([one for one in rows if one.row.frontier.low is not None], look)
    if failed:
        raise failed[0][1]
    return found


async def _look(shard_id: str, low: str | None, source: StreamSource, stream: StreamDescription) -> None:
    """TrimmedData when the record is gone. Some services say so at once, others only by what they give."""
    iterator: str | None = await source.iterator(shard_id, Position("AFTER_SEQUENCE_NUMBER", low))
    if stream.format.names_trims:
        return
    for _ in range(_MOST_READS):
        if iterator is None:
            return
        page = await source.get_records(shard_id, iterator, 2)  # the record itself is left out of the page
        if page.records or page.at_tip:
            return
        iterator = page.next_iterator
        await asyncio.sleep(stream.format.reading.interval)
