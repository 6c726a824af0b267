"""Finds shards and gives each a lease row: a full listing at the start and as a slow repair, CHILD_SHARDS at shard end.

Rows are created with ``attribute_not_exists``, so any number of workers may do this at once; the repair is left to one
worker of the fleet only to keep DescribeStream far below its limit of 10 calls a second. Nothing here ever deletes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping

import structlog

from consumer.domain.errors import DependencyError, PermissionDenied, ResourceMissing
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import ShardInfo, children_of, missing_leases
from consumer.ports import LeaseStore, Registration, StreamDescription, StreamSource
from consumer.worker.context import WorkerContext

log = structlog.get_logger()

REPAIR_INTERVAL = 60.0
FIRST_CHILD_PAUSE = 0.2
CHILD_PAUSE_MAX = 15.0


async def register_start(
    source: StreamSource, store: LeaseStore, stream: StreamDescription, starting_position: str | dt.datetime
) -> Registration:
    """Write down where the application starts, once and for all workers, and return what holds.

    ``latest`` is resolved here, durably: shards closed by now hold only older records, open ones are read from the
    horizon and older records are dropped, shards that appear later are read whole. It is never resolved again.
    """
    known = await store.registration(stream.label)
    if known is not None:
        return known
    if starting_position == "latest":
        start = await _latest(source, stream.stream_arn)
    elif isinstance(starting_position, dt.datetime):
        start = Registration(stream.stream_arn, starting_position.timestamp())
    else:
        start = Registration(stream.stream_arn, None)
    return await store.register(stream.label, start)


async def _latest(source: StreamSource, stream_arn: str) -> Registration:
    """The registration for ``starting_position: latest``: closed shards first, then the service's own time, so that
    whatever is written after this call is neither in a skipped shard nor dropped as older."""
    closed = frozenset(s.shard_id for s in await source.list_shards() if s.ending_sequence_number is not None)
    now = (await source.describe()).server_time
    return Registration(stream_arn, float(int(now)), closed)


class Discovery:
    """What the fleet knows of the shards. ``rows`` is refreshed by the coordinator; ``wake`` makes it look again."""

    def __init__(self, context: WorkerContext, registration: Registration, wake: Callable[[], None]) -> None:
        self._context = context
        self._registration = registration
        self._wake = wake
        self.rows: Mapping[str, LeaseRow] = {}

    def known(self, parent: str) -> bool:
        """True when a child of this shard has a row: the shard is closed, or about to be."""
        return bool(children_of(parent, self.rows.values()))

    def parent_settled(self, shard_id: str) -> None:
        """A shard reached its end durably: its children may start."""
        log.debug("shard.settled", shard_id=shard_id)
        self._wake()

    async def sync(self) -> int:
        """One full listing; adds the missing rows, parents first. Returns how many. Raises what the source raises."""
        listed = await self._context.ports.source.list_shards()
        rows = await self._context.ports.store.leases(self._context.stream.label)
        return await self._register(missing_leases(listed, {row.shard_id for row in rows}))

    async def register_of(self, parent: LeaseRow) -> None:
        """Returns when every child of ``parent`` that the service shows has a row, and there is one at least. It shows
        children late; an empty answer means not yet, for ever if need be (a disabled stream has no more children)."""
        pause = FIRST_CHILD_PAUSE
        while True:
            try:
                children = await self._context.ports.source.child_shards(parent.shard_id)
                await self._register(missing_leases(children, self.rows))
                if children or self.known(parent.shard_id):
                    return
            except (DependencyError, PermissionDenied, ResourceMissing) as error:
                log.warning("shard.children_failed", shard_id=parent.shard_id, error=str(error))
            await self._context.ports.clock.sleep(pause * (0.8 + 0.4 * self._context.ports.random.random()))
            pause = min(CHILD_PAUSE_MAX, pause * 2)

    async def repair_for_ever(self, is_my_turn: Callable[[], bool]) -> None:
        """The slow full repair: finds what shard ends missed (late children, shards of another lineage)."""
        while True:
            await self._context.ports.clock.sleep(REPAIR_INTERVAL * (0.8 + 0.4 * self._context.ports.random.random()))
            if not is_my_turn():
                continue
            try:
                await self.sync()
            except (DependencyError, PermissionDenied, ResourceMissing) as error:
                log.warning("shards.sync_failed", error=str(error))

    async def _register(self, shards: Iterable[ShardInfo]) -> int:
        added = 0
        for shard in shards:
            skip = shard.shard_id in self._registration.skip_shards
            row = LeaseRow(
                shard_id=shard.shard_id,
                parents=shard.parents,
                state="done" if skip else "waiting",
                starting_sequence_number=shard.starting_sequence_number,
            )
            if await self._context.ports.store.add_lease(self._context.stream.label, row):
                added += 1
                log.info("shard.discovered", shard_id=shard.shard_id, parents=list(shard.parents), skipped=skip)
        if added:
            self._wake()
        return added
