"""Where shards begin that the KCL leased at LATEST or AT_TIMESTAMP, and of which it has no checkpoint."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import Final

from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.kcl_leases import KclLease
from consumer.domain.kcl_plan import Starts
from consumer.domain.shards import ShardInfo
from consumer.ports.source import Page, Position, StreamDescription, StreamSource
from consumer.ports.time import Clock
from consumer.settings.kinds import StartingPosition
from consumer.settings.model import Settings
from consumer.worker.retrying import at_start

# Pages at the tip in a row after which nothing older is expected, for an empty one proves nothing where the service
# does not say how far behind it is. To be wrong costs repetitions only.
_QUIET: Final = 3
# Seconds before the moment from which on older records are looked for, one after the other, where a source can begin at
# a time; others read from the horizon at once.
_BACK: Final = (60.0, 3600.0, 86_400.0, math.inf)


async def starts_of(
    leases: Collection[KclLease],
    listed: Collection[ShardInfo],
    decision: StartingPosition | None,
    source: StreamSource,
    stream: StreamDescription,
    settings: Settings,
    clock: Clock,
) -> Starts:
    """One for each of ``leases``; none without a ``decision``.

    What is older than the decision is found by reading. Raises what the source raises.
    """
    if decision is None:
        return {}
    if decision == "trim_horizon":
        return {lease.shard_id: FrontierSnapshot() for lease in leases}
    moment = stream.server_time if decision == "latest" else decision.timestamp()
    known = {shard.shard_id for shard in listed}
    reader = _Reader(source, stream, settings.source.poll.max_records, clock)
    return {
        lease.shard_id: await reader.before(moment, lease.shard_id)
        if lease.shard_id in known
        else FrontierSnapshot()  # it was trimmed: whoever reads it says so
        for lease in leases
    }


class _Reader:
    def __init__(self, source: StreamSource, stream: StreamDescription, limit: int, clock: Clock) -> None:
        self._source = source
        self._pace = stream.format.reading
        self._limit = limit
        self._clock = clock

    async def before(self, moment: float, shard_id: str) -> FrontierSnapshot | None:
        """Everything of a shard that was created before ``moment`` (Unix seconds); None when it has ended with that."""
        for back in _BACK:
            since = None if math.isinf(back) else moment - back
            found = await self._read(shard_id, Position("TRIM_HORIZON", not_before=since), moment)
            if found != FrontierSnapshot():
                break
        return found

    async def _read(self, shard_id: str, start: Position, moment: float) -> FrontierSnapshot | None:
        """The same, as far as it is seen from ``start`` on: nothing when there is no older record."""
        iterator: str | None = await self._source.iterator(shard_id, start)
        low: str | None = None
        quiet = 0
        while iterator is not None and quiet < _QUIET:
            page = await self._page(shard_id, iterator)
            for record in page.records:
                if not 0 < record.created < moment:  # 0: unknown, so it may be wanted
                    # Without an older one: reading goes on at this one.
                    return FrontierSnapshot(low=low) if low else FrontierSnapshot(first=record.number)
                low = record.number
            quiet = quiet + 1 if page.at_tip else 0
            iterator = page.next_iterator
        return None if iterator is None else FrontierSnapshot(low=low)

    async def _page(self, shard_id: str, iterator: str) -> Page:
        page = await at_start(
            self._clock,
            f"shard {shard_id}",
            lambda: self._source.get_records(shard_id, iterator, self._limit),
        )
        await asyncio.sleep(self._pace.pause_behind(page.wire_bytes))
        return page
