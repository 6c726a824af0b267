"""Follows the table to the stream that replaces this one: disabled and enabled again, it gets one with a new ARN.

The stream that the application reads is written down in its ``meta`` row, so the whole fleet reads one stream and goes
on together. The old one is read to its end first (it stays readable for 24 hours): only when every lease of it is
settled, and has been for a while, does the pointer move. An old stream that is gone before it was read to its end
leaves a gap row for each of its unfinished shards, by the same rule as any vanished shard, and ``on_gap: halt`` keeps
the pointer where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from consumer.domain.errors import MisconfiguredResource, ResourceMissing, Unavailable
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import all_settled
from consumer.ports.leases import Registration, Registry
from consumer.ports.source import StreamDescription, StreamSource, arn_of
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.shard_listing import SECOND_LOOK, STREAM_LOOKS

log = structlog.get_logger()

FOLLOW_INTERVAL = 60.0  # seconds between looks at the table; one DescribeTable and one GetItem each
DRAIN_INTERVAL = 5.0  # the same while shards end without children: so ends a stream that was disabled
# Seconds that the old stream must look finished before the pointer moves: the service shows children late, and one that
# was made shortly before the stream was disabled would be left behind with its records.
FINISHED_FOR = 30.0
GONE_FOR = STREAM_LOOKS * SECOND_LOOK  # seconds of errors and empty listings until the old stream has no more shards


def label_of(stream_id: str) -> str:
    """The label of a stream: what follows ``stream/`` in its id."""
    return stream_id.rpartition("stream/")[2]


async def current_stream(
    source: StreamSource, registry: Registry, latest: StreamDescription
) -> tuple[StreamSource, StreamDescription]:
    """The stream that the application reads now: ``latest``, unless it has not finished an older one.

    Raises what the source and the registry raise. An older stream that is gone is described as disabled, with what is
    known of it: its shards must leave their traces.
    """
    if await source.latest_stream() is None:  # configured by ARN: exactly that one
        return source, latest
    holds = await registry.switch_stream(None, latest.stream_id)
    if holds == latest.stream_id:
        return source.of(holds), latest
    log.warning("stream.replaced", old=holds, new=latest.stream_id)
    return source.of(holds), await describe_older(source, holds, latest)


async def describe_older(source: StreamSource, stream_id: str, latest: StreamDescription) -> StreamDescription:
    try:
        return await source.of(stream_id).describe()
    except ResourceMissing:
        log.error("stream.missing", shard_id=None, error=f"{stream_id} is gone before it was finished")
        return replace(
            latest,
            stream_arn=arn_of(stream_id),
            stream_id=stream_id,
            label=label_of(stream_id),
            status="DISABLED",
        )


class StreamReplacement:
    """Beside one incarnation on one stream. ``run`` ends when the application goes on with another stream.
    ``rows`` are the lease rows as the coordinator last read them; ``is_first`` names one worker of the fleet, whose
    part it is to look often whether the stream is finished: a listing may take many calls."""

    def __init__(
        self,
        context: WorkerContext,
        registration: Registration,
        rows: Callable[[], Iterable[LeaseRow]],
        is_first: Callable[[], bool],
    ) -> None:
        self._context = context
        self._registration = registration
        self._rows = rows
        self._is_first = is_first
        self._looked_at = float("-inf")
        self._told = False
        self._finished_since: float | None = None
        self._unlisted_since: float | None = None

    async def run(self) -> str:
        """Returns the id of the stream to go on with. Never, if the stream is configured by its ARN."""
        while True:
            try:
                successor = await self._successor()
                if successor is not None and (holds := await self._try_to_switch(successor)) is not None:
                    return holds
            except ResourceMissing as error:
                # Only an operator can say whether that is meant. What the stream still holds is read meanwhile.
                log.error("stream.table_missing", error=str(error))
            except (Unavailable, MisconfiguredResource) as error:
                log.warning("stream.follow_failed", error=str(error))
            await self._pause()

    async def _pause(self) -> None:
        clock, random = self._context.ports.clock, self._context.ports.random
        until = clock.monotonic() + FOLLOW_INTERVAL * (0.8 + 0.4 * random.random())
        while clock.monotonic() < until:
            await asyncio.sleep(DRAIN_INTERVAL * (0.8 + 0.4 * random.random()))
            if self._told or any(row.state == "draining" for row in self._rows()):
                return

    async def _successor(self) -> str | None:
        """The newest stream of the table, if it is another one than ours."""
        latest = await self._context.ports.source.latest_stream()
        if latest in (None, self._context.stream.stream_id):
            return None
        if not self._told:
            self._told = True
            log.warning("stream.replaced", old=self._context.stream.stream_id, new=latest)
        return latest

    async def _try_to_switch(self, successor: str) -> str | None:
        """The stream the application reads from now on, or None while ours is not finished."""
        store, mine = self._context.ports.store, self._context.stream.stream_id
        holds = await store.switch_stream(None, mine)
        if holds == mine:
            if not self._is_time_to_look() or not await self._finished_for_good():
                return None
            # First the start, then the pointer: a worker that follows the pointer must find the whole stream
            # registered. ``latest`` was resolved once, for the first stream; a stream that follows another is read
            # whole.
            start = Registration(successor, self._registration.start_at)
            await store.register(label_of(successor), start)
            holds = await store.switch_stream(mine, successor)
        log.info("stream.switched", old=mine, new=holds)
        return holds

    def _is_time_to_look(self) -> bool:
        """Workers that are not the first look, too, but rarely: the first one may be cut off from the stream."""
        now = self._context.ports.clock.monotonic()
        if not self._is_first() and (
            now - self._looked_at < FOLLOW_INTERVAL or not all(row.settled for row in self._rows())
        ):
            return False
        self._looked_at = now
        return True

    async def _finished_for_good(self) -> bool:
        """Every shard of the stream is settled to its end, and has been for a while. An error or an empty listing may
        hide a shard that has no row yet; only after a long time it means that there are none left, or never were any
        that this application has seen."""
        ports, stream = self._context.ports, self._context.stream
        try:
            listed = await ports.source.list_shards()
        except ResourceMissing:  # gone, with a successor: what was not finished has its gap row before it is settled
            listed = []
        rows = {row.shard_id: row for row in await ports.store.leases(stream.label)}
        now = ports.clock.monotonic()
        self._unlisted_since = None if listed else _since(self._unlisted_since, now)
        gone = self._unlisted_since is not None and now - self._unlisted_since >= GONE_FOR
        settled = all_settled(listed, rows) or (gone and not rows)
        self._finished_since = _since(self._finished_since, now) if settled else None
        if self._finished_since is None or now - self._finished_since < FINISHED_FOR:
            return False
        return gone or self._unlisted_since is None


def _since(before: float | None, now: float) -> float:
    return now if before is None else before
