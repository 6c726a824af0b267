"""Finds shards and gives each a lease row: a full listing at the start and as a slow repair, CHILD_SHARDS at shard end.

One worker of the fleet lists at a time (``domain/bulletin.py``), to keep DescribeStream below its limit of 10 calls a
second. Tombstones of shards that left the stream days ago are the only rows that are ever deleted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from contextlib import suppress

import structlog

from consumer.domain.bulletin import Bulletin, ListingTurns
from consumer.domain.errors import ResourceMissing, Unavailable
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import (
    ShardInfo,
    expired_tombstones,
    keys_held_back,
    missing_leases,
    unknown_parents,
)
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.fleet.lease_registration import LeaseRegistration
from consumer.worker.fleet.shard_listing import SECOND_LOOK, STREAM_LOOKS, ShardListing
from consumer.worker.retrying import Backoff
from consumer.worker.tasks import each

log = structlog.get_logger()

REPAIR_INTERVAL = 60.0  # seconds
LISTING_PATIENCE = 30.0  # seconds that a listing may take until another worker begins one; 5,000 shards take eight
LISTING_BACKOFF = Backoff(0.5, 15.0)
CHILD_BACKOFF = Backoff(0.2, 8.0)
CHILD_PATIENCE = 4.0  # seconds that CHILD_SHARDS may stay silent until a full listing is asked for as well
# Shards of the fleet that look for their children one by one. When more have ended, as all of them do when a stream is
# disabled, one worker's listing finds the children of all, and owners ask by themselves only every so many seconds.
MAX_LONE_SEARCHES = 3
MANY = 250  # new shards of one listing
SHARED_SEARCH_PAUSE = 300.0


class ShardDiscovery:
    """The lineage of the stream's shards (``worker/shard/lineage.py``), kept complete. ``changed`` is called when there
    are new rows or a shard has ended, so that the coordinator looks again."""

    def __init__(
        self,
        context: WorkerContext,
        registration: LeaseRegistration,
        memory: LeaseMemory,
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._source = context.ports.source
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._memory = memory
        self._changed = changed
        self._registration = registration
        self._listing = ShardListing(context)
        self._turns = ListingTurns(
            context.incarnation, regular=REPAIR_INTERVAL, soon=SECOND_LOOK, patience=LISTING_PATIENCE
        )
        self._live: Container[str] = ()
        self._observed = asyncio.Event()
        self._failures = 0
        self._unlisted_since: dict[str, float] = {}
        self._look_again = False
        self._missing_since: float | None = None  # the stream, which another one has replaced
        self._looked_for_old = False
        self._childless: set[str] = set()  # shards of this worker that have ended and show no children
        self._unanswered: set[str] = set()  # of them those for which CHILD_SHARDS does not work
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
        self._memory.changed_here.add(shard_id)
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
            self._unanswered.discard(parent.shard_id)

    @property
    def _is_crowded(self) -> bool:
        """So many shards look for their children, or have just done so, that one listing is cheaper than asking."""
        asked, now = self._searched_at, self._clock.monotonic()
        lately = len(asked) == MAX_LONE_SEARCHES and now - asked[0] < SECOND_LOOK
        return lately or max(self._memory.draining, len(self._childless)) > MAX_LONE_SEARCHES

    async def _children_registered(self, parent: LeaseRow) -> bool:
        shard_id, rows = parent.shard_id, self._memory.rows
        self._searched_at.append(self._clock.monotonic())
        silent = asyncio.get_running_loop().call_later(CHILD_PATIENCE, self._unanswered.add, shard_id)
        try:
            asked_at = self._clock.monotonic()
            children = await self._source.child_shards(shard_id)
            self._unanswered.discard(shard_id)
            self._memory.named((child.shard_id for child in children), asked_at)
            await self._registration.add(missing_leases(children, rows), rows, asked_at)
            if self._registration.is_outdated(asked_at):
                return False
        except Unavailable as error:
            log.warning("shard.children_failed", shard_id=shard_id, error=str(error))
            self._unanswered.add(shard_id)
            return self.has_children(shard_id)
        finally:
            silent.cancel()
        return bool(children) or self.has_children(shard_id)

    # --- complete listings -------------------------------------------------------------------------------

    def observe(self, bulletin: Bulletin, now: float, live: Container[str]) -> None:
        """The bulletin as read at ``now``, and the incarnations that work, as read after it."""
        self._turns.observe(bulletin, now, 1.0 + 0.2 * self._random.random())
        self._live = live
        self._observed.set()

    async def run(self) -> None:
        """List the stream whenever it is this worker's turn, until cancelled."""
        while True:
            await self._observed.wait()
            self._observed.clear()
            try:
                await self._list_in_turn()
            except Unavailable as error:
                log.warning("shards.sync_failed", error=str(error))

    async def _list_in_turn(self) -> None:
        """One full listing, if it is due and no other worker has begun it. At once when only an old memory is left of a
        row: an owner knows more than the others, who put it back later. Unavailable."""
        store, label, me = self._store, self._context.stream.label, self._context.incarnation
        has_old = self._memory.remembered.has_old
        self._looked_for_old &= has_old
        wanted = self._look_again or has_old or self._is_crowded or bool(self._unanswered)
        at_once = has_old and not self._looked_for_old
        seen, now = self._turns.seen, self._clock.monotonic()
        if seen is None or not self._turns.is_due(now, self._live, wanted=wanted, at_once=at_once):
            return
        if not await store.begin_listing(label, seen, me):
            return
        begun = Bulletin(seen.turn + 1, me, listing=True)
        self._turns.observe(begun, self._clock.monotonic(), 1.0 + 0.2 * self._random.random())
        error: Unavailable | None = None
        try:
            await self._sync(begun)
            self._failures, self._looked_for_old = 0, has_old
        except Unavailable as failure:
            error = failure
            self._failures += 1
            pause = LISTING_BACKOFF.after(self._failures) * (0.8 + 0.4 * self._random.random())
            self._turns.failed(self._clock.monotonic() + pause)
        with suppress(Unavailable):  # without it others wait a little longer
            await store.end_listing(label, begun.turn, me, rows=len(self._memory.rows), failed=error is not None)
        if error is not None:
            raise error

    async def _sync(self, turn: Bulletin) -> None:
        """One full listing; adds the missing rows. Raises what the source and the store raise."""
        asked_at = self._clock.monotonic()
        try:
            listed = await self._source.list_shards()
            self._missing_since = None
        except ResourceMissing:
            await self._look_for_gone_stream()
            raise
        rows_asked_at = self._clock.monotonic()
        rows = await self._read_rows()
        self._memory.compare(rows, rows_asked_at)
        if listed:  # an empty list says nothing
            self._memory.listed({shard.shard_id for shard in listed}, asked_at, self._listing.patience)
        missing = missing_leases(listed, rows)
        if len(missing) > MANY:  # workers that read them one after the other know how long that takes
            await self._store.expect_rows(self._context.stream.label, turn.turn, turn.lister, len(rows) + len(missing))
        added = await self._registration.add(missing, rows, asked_at)
        self._look_again = self._registration.is_outdated(asked_at)
        if listed and not self._look_again:
            await self._look_for_gone(listed, rows | {row.shard_id: row for row in added})

    async def _look_for_gone_stream(self) -> None:
        """The service does not know the stream. When it has another one instead, and has had for long, parents that
        were never registered will not be: they get a tombstone, so that what waits for them leaves its trace."""
        if await self._source.latest_stream() in (None, self._context.stream.stream_id):
            return
        now = self._clock.monotonic()
        self._missing_since = now if self._missing_since is None else self._missing_since
        if now - self._missing_since >= STREAM_LOOKS * SECOND_LOOK:
            for shard_id in sorted(unknown_parents([], await self._read_rows())):
                await self._registration.bury(shard_id)

    async def _read_rows(self) -> dict[str, LeaseRow]:
        return {row.shard_id: row for row in await self._store.leases(self._context.stream.label)}

    async def _look_for_gone(self, listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> None:
        """Parents that left the stream before they had a row get a tombstone; tombstones that are old enough go."""
        now, label = self._clock.monotonic(), self._context.stream.label
        unknown = unknown_parents(listed, rows)
        expired = {
            row.shard_id: row for row in expired_tombstones(listed, rows, self._clock.trusted(), self._source.retention)
        }
        since = self._unlisted_since = {i: self._unlisted_since.get(i, now) for i in (*unknown, *expired)}
        gone = {shard_id for shard_id in since if now - since[shard_id] >= self._listing.patience(shard_id)}
        self._look_again = bool(unknown - gone)  # expired ones wait for the next repair

        async def forget(shard_id: str) -> None:
            if await self._store.remove_lease(label, expired[shard_id]):
                log.info("shard.forgotten", shard_id=shard_id)

        failed = [
            *await each(sorted(unknown & gone), self._registration.bury),
            *await each(sorted(gone & expired.keys()), forget),
        ]
        if failed:
            raise failed[0][1]
