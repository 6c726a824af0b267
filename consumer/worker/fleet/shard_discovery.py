"""Finds shards and gives each a lease row: a full listing at the start and as a slow repair, CHILD_SHARDS at shard end.

Rows are created with ``attribute_not_exists``, so any number of workers may do this at once; the repair is left to one
worker of the fleet only to keep DescribeStream far below its limit of 10 calls a second. Tombstones of shards that left
the stream days ago are the only rows that are ever deleted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog

from consumer.domain.errors import Unavailable
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import (
    ShardInfo,
    expired_tombstones,
    keys_held_back,
    missing_leases,
    unknown_parents,
    was_settled,
)
from consumer.ports.leases import Registration
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.fleet.shard_listing import SECOND_LOOK, ShardListing
from consumer.worker.retrying import Backoff, retrying

log = structlog.get_logger()

REPAIR_INTERVAL = 60.0  # seconds
OUTDATED = 600.0  # seconds after which no row is made from a listing: less than a shard is kept in mind when it is done
LOOK = 1.0  # seconds
CHILD_BACKOFF = Backoff(0.2, 15.0)
# Shards of the fleet that look for their children one by one. When more have ended, as all of them do when a stream is
# disabled, one worker's listing finds the children of all, and owners ask by themselves only every so many seconds.
MAX_LONE_SEARCHES = 3
SHARED_SEARCH_PAUSE = 300.0


class ShardDiscovery:
    """The lineage of the stream's shards (``worker/shard/lineage.py``), kept complete. ``changed`` is called when there
    are new rows or a shard has ended, so that the coordinator looks again."""

    def __init__(
        self, context: WorkerContext, registration: Registration, memory: LeaseMemory, changed: Callable[[], None]
    ) -> None:
        self._context = context
        self._source = context.ports.source
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._registration = registration
        self._memory = memory
        self._changed = changed
        self._listing = ShardListing(context)
        self._unlisted_since: dict[str, float] = {}
        self._look_again = False
        self._looked_for_old = False
        self._childless: set[str] = set()  # shards of this worker that have ended and show no children
        self._searched_at: deque[float] = deque(maxlen=MAX_LONE_SEARCHES)  # when this worker asked for one's children

    # --- what a shard worker asks ------------------------------------------------------------------------

    def has_children(self, shard_id: str) -> bool:
        """True when a child of this shard has a row: the shard is closed, or about to be."""
        return self._memory.has_children(shard_id)

    def keys_held_back(self, parents: Collection[str]) -> list[tuple[str, ...] | None]:
        """For each parent that is not settled, the digests of the keys that it has deferred."""
        return keys_held_back(parents, self._memory.known)

    async def is_gone(self, shard_id: str) -> bool:
        """True when complete listings of a stream that exists do not name the shard, over some time."""
        return await self._listing.is_gone(shard_id)

    def shard_settled(self, shard_id: str) -> None:
        """A shard reached its end durably: its children may start."""
        log.debug("shard.settled", shard_id=shard_id)
        self._changed()

    async def register_children(self, parent: LeaseRow) -> None:
        """Returns when every child of ``parent`` that the service shows has a row, and there is one at least. It shows
        children late; an empty answer means not yet, for ever if need be (a disabled stream has no more children)."""
        since, patience = self._clock.monotonic(), SHARED_SEARCH_PAUSE * (1.0 + self._random.random())
        searches = 0
        self._childless.add(parent.shard_id)
        try:
            while True:
                if not self._is_crowded or self._clock.monotonic() - since >= patience:
                    since = self._clock.monotonic()
                    if await self._children_registered(parent):
                        return
                elif self.has_children(parent.shard_id):
                    return
                searches += 1
                await asyncio.sleep(CHILD_BACKOFF.after(searches) * (0.8 + 0.4 * self._random.random()))
        finally:
            self._childless.discard(parent.shard_id)

    @property
    def _is_crowded(self) -> bool:
        """So many shards look for their children, or have just done so, that one listing is cheaper than asking."""
        asked, now = self._searched_at, self._clock.monotonic()
        lately = len(asked) == MAX_LONE_SEARCHES and now - asked[0] < SECOND_LOOK
        return lately or max(self._memory.draining, len(self._childless)) > MAX_LONE_SEARCHES

    async def _children_registered(self, parent: LeaseRow) -> bool:
        self._searched_at.append(self._clock.monotonic())
        try:
            asked_at = self._clock.monotonic()
            children = await self._source.child_shards(parent.shard_id)
            if self._is_outdated(asked_at):
                return False
            self._memory.named((child.shard_id for child in children), asked_at)
            await self._register(missing_leases(children, self._memory.rows), self._memory.rows)
        except Unavailable as error:
            log.warning("shard.children_failed", shard_id=parent.shard_id, error=str(error))
            return False
        return bool(children) or self.has_children(parent.shard_id)

    # --- complete listings -------------------------------------------------------------------------------

    async def run(self, is_my_turn: Callable[[], bool]) -> None:
        """List the stream once, as every worker does at its start, and keep repairing it then, until cancelled."""

        def failed(error: Exception, _: int) -> None:
            log.warning("shards.sync_failed", error=str(error))

        await retrying(self._sync, Backoff(0.5, 15.0), failed)
        while True:
            await self._until_repair(is_my_turn)
            try:
                await self._sync()
            except Unavailable as error:
                failed(error, 1)

    async def _until_repair(self, is_my_turn: Callable[[], bool]) -> None:
        """Soon, for one worker, while a shard is looked for; otherwise once per ``REPAIR_INTERVAL``. Another one
        repeats its own look then, too: the worker that has the turn may be cut off from the stream. At once, whoever
        it is, when only an old memory is left of a row: an owner knows more than the others, who put it back later."""
        regular = self._clock.monotonic() + REPAIR_INTERVAL * (1.0 + 0.2 * self._random.random())
        next_look = self._clock.monotonic() + SECOND_LOOK * (1.0 + 0.2 * self._random.random())
        while True:
            await asyncio.sleep(LOOK * (1.0 + 0.2 * self._random.random()))
            has_old = self._memory.remembered.has_old
            if has_old and not self._looked_for_old:
                self._looked_for_old = True
                return
            self._looked_for_old &= has_old
            now = self._clock.monotonic()
            if now < next_look:
                continue
            next_look = now + SECOND_LOOK * (1.0 + 0.2 * self._random.random())
            is_due, mine = now >= regular, is_my_turn()
            if has_old or (self._look_again and (mine or is_due)):
                return
            if mine and (is_due or self._is_crowded):
                return

    async def _sync(self) -> None:
        """One full listing; adds the missing rows, parents first. Raises what the source raises."""
        asked_at = self._clock.monotonic()
        listed = await self._source.list_shards()
        rows_asked_at = self._clock.monotonic()
        rows = await self._read_rows()
        self._memory.compare(rows, rows_asked_at)
        if listed:
            self._memory.listed({shard.shard_id for shard in listed}, asked_at, self._listing.patience)
        self._look_again = self._memory.remembered.has_old
        if self._is_outdated(asked_at):
            self._look_again = True
            return
        added = await self._register(missing_leases(listed, rows), rows)
        if listed:  # an empty list says nothing
            await self._look_for_gone(listed, await self._read_rows() if added else rows)

    def _is_outdated(self, asked_at: float) -> bool:
        """The process slept over what the service had listed: shards of then may be finished and forgotten by now."""
        return self._clock.monotonic() - asked_at > OUTDATED

    async def _read_rows(self) -> dict[str, LeaseRow]:
        return {row.shard_id: row for row in await self._store.leases(self._context.stream.label)}

    async def _look_for_gone(self, listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> None:
        """Parents that left the stream before they had a row get a tombstone; tombstones that are old enough go."""
        now, label = self._clock.monotonic(), self._context.stream.label
        unknown = unknown_parents(listed, rows)
        expired = {row.shard_id: row for row in expired_tombstones(listed, rows, self._clock.trusted())}
        self._unlisted_since = {i: self._unlisted_since.get(i, now) for i in (*unknown, *expired)}
        for shard_id in unknown:
            if now - self._unlisted_since[shard_id] < self._listing.patience(shard_id):
                self._look_again = True
                continue
            note = "left the stream before it was registered"
            if await self._store.add_lease(label, LeaseRow(shard_id, state="done", note=note)):
                log.info("shard.parent_gone", shard_id=shard_id)
                self._changed()
        for shard_id, row in expired.items():
            if now - self._unlisted_since[shard_id] < self._listing.patience(shard_id):
                continue  # the next repair
            if await self._store.remove_lease(label, row):
                log.info("shard.forgotten", shard_id=shard_id)

    async def _register(self, shards: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> int:
        added = 0
        for shard in shards:
            if self._memory.is_deleted(shard.shard_id):
                continue  # not new: the memory puts it back
            shard_id = shard.shard_id
            is_done = self._memory.was_finished(shard_id) or was_settled(shard_id, rows.values())
            skip = is_done or shard_id in self._registration.skip_shards
            row = LeaseRow(
                shard_id=shard_id,
                parents=shard.parents,
                state="done" if skip else "waiting",
                starting_sequence_number=shard.starting_sequence_number,
            )
            if await self._store.add_lease(self._context.stream.label, row):
                added += 1
                log.info("shard.discovered", shard_id=shard_id, parents=list(shard.parents), skipped=skip)
        if added:
            self._changed()
        return added
