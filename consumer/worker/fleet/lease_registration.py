"""Gives every listed shard its lease row: some at a time, and one that fails holds up no other.

Rows are created with ``attribute_not_exists``, so any number of workers may do this at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import structlog

from consumer.domain.lease import LeaseRow
from consumer.domain.shards import ShardInfo, settled_before
from consumer.ports.leases import Registration
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.change_feed import ChangeFeed
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.retrying import Backoff
from consumer.worker.tasks import each

log = structlog.get_logger()

AGAIN = Backoff(0.2, 5.0)
MOST_VAIN_ROUNDS = 4  # in which no row at all got through, until the failure is told
OUTDATED = 600.0  # seconds after which no row is made from a listing: less than a shard is kept in mind when it is done
STEP = 250  # rows of a round: what is registered by then is taken meanwhile, and what has failed is tried again


class LeaseRegistration:
    """``changed`` is called when there are new rows, so that the coordinator looks again."""

    def __init__(
        self,
        context: WorkerContext,
        registration: Registration,
        memory: LeaseMemory,
        feed: ChangeFeed,
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._registration = registration
        self._memory = memory
        self._feed = feed
        self._changed = changed

    def is_outdated(self, asked_at: float) -> bool:
        """The process slept over what the service had listed, asked at ``asked_at``, or took too long with it: shards
        of then may be finished and forgotten by now."""
        return self._context.ports.clock.monotonic() - asked_at > OUTDATED

    async def add(self, shards: Collection[ShardInfo], rows: Mapping[str, LeaseRow], asked_at: float) -> list[LeaseRow]:
        """Create rows for ``shards``, which have none in ``rows``, in about this order. Returns those that were created
        here; there are no more of them once ``asked_at``, when the service was asked for the shards, is outdated.
        Unavailable when none gets through any more."""
        settled = settled_before(rows.values()) | self._registration.skip_shards
        settled |= {shard.shard_id for shard in shards if self._memory.was_finished(shard.shard_id)}
        # One that was deleted is not new: the memory puts it back.
        left = [shard for shard in shards if not self._memory.is_deleted(shard.shard_id)]
        to_do, vain, added = len(left), 0, list[LeaseRow]()

        async def add(shard: ShardInfo) -> None:
            if self.is_outdated(asked_at):
                return
            row = await self._add(shard, skipped=shard.shard_id in settled)
            if row is not None:
                added.append(row)
                self._feed.tell([row])

        while left:
            now, later = left[:STEP], left[STEP:]
            failed = await each(now, add)
            left = [*(shard for shard, _ in failed), *later]
            if added:
                self._changed()
            if to_do > STEP:
                log.info("shards.registering", done=to_do - len(left), to_do=to_do, failed=len(failed))
            if failed:
                error = failed[0][1]
                log.warning("shards.register_failed", failed=len(failed), error=str(error))
                vain = vain + 1 if len(failed) == len(now) else 0
                if vain >= MOST_VAIN_ROUNDS:
                    raise error
                await asyncio.sleep(AGAIN.after(vain + 1) * (0.5 + self._context.ports.random.random()))
        return added

    async def bury(self, shard_id: str) -> None:
        """A tombstone for a shard that left the stream before it had a row. Unavailable."""
        row = LeaseRow(shard_id, state="done", note="left the stream before it was registered")
        if await self._create(row):
            log.info("shard.parent_gone", shard_id=shard_id)
            self._feed.tell([row])
            self._changed()

    async def _create(self, row: LeaseRow) -> bool:
        """False when there is such a row. Unavailable."""
        created = await self._context.ports.store.add_lease(self._context.stream.label, row)
        if created:
            self._memory.note(row)
        else:
            self._memory.doubtful.add(row.shard_id)
        return created

    async def _add(self, shard: ShardInfo, *, skipped: bool) -> LeaseRow | None:
        """The new row; None when there was one already. Unavailable."""
        row = LeaseRow(shard.shard_id, parents=shard.parents, starting_sequence_number=shard.starting_sequence_number)
        if skipped:
            row = replace(row, state="done")
        if not await self._create(row):
            return None
        log.info("shard.discovered", shard_id=row.shard_id, parents=list(row.parents), skipped=skipped)
        return row
