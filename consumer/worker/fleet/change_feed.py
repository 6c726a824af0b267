"""What workers tell each other about lease rows, by the bulletin, so that nobody has to read all of them for a few."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import structlog

from consumer.domain.bulletin import Bulletin, Change
from consumer.domain.errors import Unavailable
from consumer.domain.lease import LeaseRow
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.lease_memory import LeaseMemory

log = structlog.get_logger()

POST_PAUSE = 0.05  # seconds: many changes make one post
FAILED_PAUSE = 1.0


class ChangeFeed:
    """Posts what this worker has changed, and applies to ``memory`` what others have."""

    def __init__(self, context: WorkerContext, memory: LeaseMemory) -> None:
        self._store = context.ports.store
        self._label = context.stream.label
        self._me = context.incarnation
        self._memory = memory
        self._waiting: list[Change] = []
        self._told = asyncio.Event()
        self._number: int | None = None

    def tell(self, rows: Iterable[LeaseRow]) -> None:
        """These rows were changed by this worker."""
        self._waiting += map(Change.of, rows)
        self._told.set()

    async def post_for_ever(self) -> None:
        """Post what was told. Peers find out by their next complete reading what cannot be posted."""
        while True:
            await self._told.wait()
            await asyncio.sleep(POST_PAUSE)
            self._told.clear()
            now, self._waiting = self._waiting, []
            try:
                await self._store.post(self._label, now)
            except Unavailable as error:
                log.warning("leases.announce_failed", error=str(error))
                await asyncio.sleep(FAILED_PAUSE)

    def follow(self, bulletin: Bulletin) -> bool:
        """Apply what is new in the bulletin. False when it does not say everything: then the rows are to be read."""
        number, self._number = self._number, bulletin.number
        changes = bulletin.since(number) if number is not None else None
        if not self._memory.rows:  # all there is to know comes with the first reading
            return changes == ()
        for change in changes or ():
            self._apply(change)
        return changes is not None

    def _apply(self, change: Change) -> None:
        known = self._memory.rows.get(change.shard_id)
        if known is not None and (known.epoch > change.epoch or Change.of(known) == change):
            return
        # What this worker is to start, what is new or may be gone, and deferred keys are read from the row itself.
        if change.owner == self._me:
            self._memory.changed_here.add(change.shard_id)
        elif known is None or change.state == "deferred" or self._memory.is_deleted(change.shard_id):
            self._memory.doubtful.add(change.shard_id)
        else:
            self._memory.hear(replace(known, owner=change.owner, epoch=change.epoch, state=change.state))
