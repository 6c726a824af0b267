"""Finds shards and gives each a lease row: a full listing at the start and as a slow repair, CHILD_SHARDS at shard end.

Rows are created with ``attribute_not_exists``, so any number of workers may do this at once; the repair is left to one
worker of the fleet only to keep DescribeStream far below its limit of 10 calls a second. Tombstones of shards that left
the stream days ago are the only rows that are ever deleted.

What was read of the lease rows is remembered. When somebody deletes a row, or the whole table, it comes back as it was
last known: what was settled stays settled, so an old memory costs duplicates and never a record.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Literal

import structlog

from consumer.domain.errors import (
    LeaseDeleted,
    MisconfiguredResource,
    ResourceMissing,
    StreamConsumerError,
    Unavailable,
)
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import (
    ShardInfo,
    expired_tombstones,
    is_young,
    missing_leases,
    unknown_parents,
    was_settled,
)
from consumer.domain.windows import WindowState
from consumer.ports.leases import LeaseTable, Loss, Registration
from consumer.ports.source import StreamDescription, StreamSource
from consumer.worker.context import WorkerContext

log = structlog.get_logger()

Listed = list[ShardInfo] | StreamConsumerError | None  # None: there is no such stream, and the table has a new one

REPAIR_INTERVAL = 60.0
FIRST_CHILD_PAUSE = 0.2
CHILD_PAUSE_MAX = 15.0
# So many shards of the fleet may look for their children one by one. When more have ended, as all of them do when a
# stream is disabled, one worker's listing finds the children of all, and owners ask by themselves only this often.
FEW = 3
CROWD_PAUSE = 300.0
SECOND_LOOK = 5.0  # seconds a shard must stay out of complete listings until it counts as gone
SECOND_LOOK_YOUNG = 600.0  # the same for a shard that by its id is too young to have been trimmed
STREAM_LOOKS = 60  # so many SECOND_LOOKs a whole stream must be missing: that answer is an error first of all
OWNERS_TURN = 2.0  # durations that the owner of a deleted row has to put it back before others do


async def register_start(
    source: StreamSource, store: LeaseTable, stream: StreamDescription, starting_position: str | dt.datetime
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

    def __init__(
        self,
        context: WorkerContext,
        registration: Registration,
        wake: Callable[[], None],
        remembered: Mapping[str, LeaseRow] | None = None,
    ) -> None:
        self._context = context
        self._registration = registration
        self._wake = wake
        self._memory = dict(remembered or {})
        self._deleted_since: dict[str, float] = {}
        self._unlisted_since: dict[str, float] = {}
        self._look_again = False
        self._draining = 0  # shards of the fleet that have ended and show no children
        self._childless: set[str] = set()  # those of this worker
        self._asked_at: deque[float] = deque(maxlen=FEW)  # when this worker asked for the children of one shard
        self._listing = asyncio.Lock()
        self._listed: Listed = None
        self._listed_at = float("-inf")
        self.rows: Mapping[str, LeaseRow] = {}
        self._parents: set[str] = set()  # of these rows: every idle poll of every shard asks

    # --- what is remembered ------------------------------------------------------------------------------

    @property
    def memory(self) -> Mapping[str, LeaseRow]:
        """The rows as last known, those that have been deleted since included."""
        return self._memory

    def saw(self, rows: Iterable[LeaseRow]) -> None:
        """A complete reading of the lease rows."""
        self.rows = {row.shard_id: row for row in rows}
        self._parents = {parent for row in self.rows.values() for parent in row.parents}
        self._draining = sum(row.state == "draining" for row in self.rows.values())
        self._compare(self.rows)

    def remember(self, row: LeaseRow) -> None:
        """What an owner knew at its end. Counts only if its row turns out to be deleted, and then at once."""
        self._memory[row.shard_id] = replace(row, owner=None)

    def _compare(self, rows: Mapping[str, LeaseRow]) -> None:
        # A finished row that is missing was removed as a tombstone, or its children tell that it was finished.
        deleted = {i: row for i, row in self._memory.items() if i not in rows and not row.finished}
        now = self._context.ports.clock.monotonic()
        self._deleted_since = {i: self._deleted_since.get(i, now) for i in deleted}
        self._memory = deleted | dict(rows)

    async def put_back(self, row: LeaseRow) -> None:
        """Write a row that was deleted under this worker as its owner knows it; owner and epoch stay, so its next
        writes go on as if nothing had happened. LeaseDeleted when this worker may not believe in its leases now."""
        context = self._context
        if not context.validity.holds(context.ports.clock.monotonic()):
            raise LeaseDeleted(row.shard_id, row.epoch)
        if await context.ports.store.add_lease(context.stream.label, row):
            log.error("lease.put_back", shard_id=row.shard_id, epoch=row.epoch, low=row.frontier.low)

    async def restore(self) -> None:
        """Put back rows that were deleted and that nobody works on, free for the next owner. The epoch grows, so that
        it never repeats; whoever owned it may have known more than we do and gets the first turn."""
        context = self._context
        now, turn = context.ports.clock.monotonic(), OWNERS_TURN * context.settings.leases.duration
        for shard_id, since in list(self._deleted_since.items()):
            row = self._memory[shard_id]
            if row.owner is not None and now - since < turn:
                continue
            row = replace(row, owner=None, epoch=row.epoch + 1, corrupt="")
            if await context.ports.store.add_lease(context.stream.label, row):
                log.error("lease.put_back", shard_id=shard_id, epoch=row.epoch, low=row.frontier.low)
            self._wake()

    # --- an owner's writes -------------------------------------------------------------------------------

    async def save(self, row: LeaseRow, window: WindowState | None = None, whole: WindowState | None = None) -> None:
        """``LeaseTable.save``, also when the row was deleted meanwhile: the ``whole`` window is then put back, too,
        although it has not changed."""
        store, label = self._context.ports.store, self._context.stream.label
        try:
            await store.save(label, row, window)
        except LeaseDeleted:
            await self.put_back(row)
            await store.save(label, row, whole)

    async def hand_over(
        self,
        row: LeaseRow,
        target: str | None,
        window: WindowState | None = None,
        whole: WindowState | None = None,
    ) -> None:
        """``LeaseTable.hand_over``, also when the row was deleted meanwhile."""
        store, label = self._context.ports.store, self._context.stream.label
        try:
            await store.release(label, row, target, window)
        except LeaseDeleted:
            await self.put_back(row)
            await store.release(label, row, target, whole)

    async def record_loss(self, row: LeaseRow, loss: Loss) -> None:
        """``LeaseTable.record_loss``, also when the row was deleted meanwhile."""
        store, label = self._context.ports.store, self._context.stream.label
        try:
            await store.record_loss(label, row, loss)
        except LeaseDeleted:
            await self.put_back(row)
            await store.record_loss(label, row, loss)

    # --- the shards --------------------------------------------------------------------------------------

    def known(self, parent: str) -> bool:
        """True when a child of this shard has a row: the shard is closed, or about to be."""
        return parent in self._parents

    def parent_settled(self, shard_id: str) -> None:
        """A shard reached its end durably: its children may start."""
        log.debug("shard.settled", shard_id=shard_id)
        self._wake()

    async def sync(self) -> int:
        """One full listing; adds the missing rows, parents first. Returns how many. Raises what the source raises."""
        store, label = self._context.ports.store, self._context.stream.label
        listed = await self._context.ports.source.list_shards()
        rows = {row.shard_id: row for row in await store.leases(label)}
        self._compare(rows)
        self._look_again = False
        added = await self._register(missing_leases(listed, rows), rows)
        if listed:  # an empty list says nothing
            if added:
                rows = {row.shard_id: row for row in await store.leases(label)}
            await self._look_for_gone(listed, rows)
        return added

    async def _look_for_gone(self, listed: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> None:
        """Parents that left the stream before they had a row get a tombstone; tombstones that are old enough go."""
        clock, store, label = self._context.ports.clock, self._context.ports.store, self._context.stream.label
        now, wall = clock.monotonic(), clock.wall()
        unknown = unknown_parents(listed, rows)
        expired = {row.shard_id: row for row in expired_tombstones(listed, rows, wall)}
        self._unlisted_since = {i: self._unlisted_since.get(i, now) for i in (*unknown, *expired)}
        for shard_id in unknown:
            if now - self._unlisted_since[shard_id] < self._patience(shard_id):
                self._look_again = True
                continue
            note = "left the stream before it was registered"
            if await store.add_lease(label, LeaseRow(shard_id, state="done", note=note)):
                log.info("shard.parent_gone", shard_id=shard_id)
                self._wake()
        for shard_id, row in expired.items():
            if now - self._unlisted_since[shard_id] < self._patience(shard_id):
                continue  # the next repair
            if await store.remove_lease(label, row):
                log.info("shard.forgotten", shard_id=shard_id)

    def _patience(self, shard_id: str) -> float:
        return SECOND_LOOK_YOUNG if is_young(shard_id, self._context.ports.clock.wall()) else SECOND_LOOK

    async def is_gone(self, shard_id: str) -> bool:
        """True when complete listings of a stream that exists do not name the shard, over some time. An error or an
        empty list never means gone."""
        clock = self._context.ports.clock
        since = clock.monotonic()
        patience = self._patience(shard_id)
        try:
            while True:
                found = await self._look_for(shard_id)
                if found == "shard":
                    return False
                if found == "nothing":
                    patience = max(patience, STREAM_LOOKS * SECOND_LOOK)
                missing = max(0.0, self._listed_at - since)  # of a listing that may be shared, and older than this look
                if missing >= patience:
                    return True
                log.warning("shard.unlisted", shard_id=shard_id, seconds=missing, patience=patience)
                await asyncio.sleep(min(patience, 6 * SECOND_LOOK))
        except (Unavailable, MisconfiguredResource):
            return False

    async def _look_for(self, shard_id: str) -> Literal["shard", "others", "nothing"]:
        """What a listing shows. ``nothing``: the service knows no such stream, and the table has a new one."""
        listed = await self._list_all()
        if listed is None:
            return "nothing"
        may_exist = not listed or any(shard.shard_id == shard_id for shard in listed)
        return "shard" if may_exist else "others"

    async def _list_all(self) -> list[ShardInfo] | None:
        """A complete listing of now, one for all who ask at about the same time: when a stream is gone, all its shards
        do. None and errors: as for ``Listed``."""
        recent = self._context.ports.clock.monotonic() - SECOND_LOOK / 2  # two looks that decide stay two listings
        async with self._listing:
            if self._listed_at < recent:
                at = self._context.ports.clock.monotonic()
                try:
                    self._listed = await self._ask_for_all()
                except (Unavailable, MisconfiguredResource) as error:
                    self._listed = error
                self._listed_at = at
            listed = self._listed
        if isinstance(listed, StreamConsumerError):
            raise listed
        return listed

    async def _ask_for_all(self) -> list[ShardInfo] | None:
        source = self._context.ports.source
        try:
            return await source.list_shards()
        except ResourceMissing:
            if await source.latest_stream() in (None, self._context.stream.stream_arn):
                raise
            return None

    async def register_of(self, parent: LeaseRow) -> None:
        """Returns when every child of ``parent`` that the service shows has a row, and there is one at least. It shows
        children late; an empty answer means not yet, for ever if need be (a disabled stream has no more children)."""
        clock, random = self._context.ports.clock, self._context.ports.random
        since, patience = clock.monotonic(), CROWD_PAUSE * (1.0 + random.random())
        pause = FIRST_CHILD_PAUSE
        self._childless.add(parent.shard_id)
        try:
            while True:
                if not self._crowded or clock.monotonic() - since >= patience:
                    since = clock.monotonic()
                    if await self._children_registered(parent):
                        return
                elif self.known(parent.shard_id):
                    return
                await asyncio.sleep(pause * (0.8 + 0.4 * random.random()))
                pause = min(CHILD_PAUSE_MAX, pause * 2)
        finally:
            self._childless.discard(parent.shard_id)

    @property
    def _crowded(self) -> bool:
        """So many shards look for their children, or have just done so, that one listing is cheaper than asking."""
        asked, now = self._asked_at, self._context.ports.clock.monotonic()
        lately = len(asked) == FEW and now - asked[0] < SECOND_LOOK
        return lately or max(self._draining, len(self._childless)) > FEW

    async def _children_registered(self, parent: LeaseRow) -> bool:
        self._asked_at.append(self._context.ports.clock.monotonic())
        try:
            children = await self._context.ports.source.child_shards(parent.shard_id)
            await self._register(missing_leases(children, self.rows), self.rows)
        except Unavailable as error:
            log.warning("shard.children_failed", shard_id=parent.shard_id, error=str(error))
            return False
        return bool(children) or self.known(parent.shard_id)

    async def repair_for_ever(self, is_my_turn: Callable[[], bool]) -> None:
        """The slow full repair: finds what shard ends missed (late children, shards of another lineage)."""
        while True:
            await self._until_repair(is_my_turn)
            try:
                await self.sync()
            except Unavailable as error:
                log.warning("shards.sync_failed", error=str(error))

    async def _until_repair(self, is_my_turn: Callable[[], bool]) -> None:
        """Soon, for one worker, while a shard is looked for; otherwise once per ``REPAIR_INTERVAL``. Another one
        repeats its own look then, too: who has the turn may be cut off from the stream."""
        clock, random = self._context.ports.clock, self._context.ports.random
        regular = clock.monotonic() + REPAIR_INTERVAL * (1.0 + 0.2 * random.random())
        while True:
            await asyncio.sleep(min(SECOND_LOOK, REPAIR_INTERVAL) * (1.0 + 0.2 * random.random()))
            is_due, mine = clock.monotonic() >= regular, is_my_turn()
            if self._look_again and (mine or is_due):
                return
            if mine and (is_due or self._crowded):
                return

    async def _register(self, shards: Iterable[ShardInfo], rows: Mapping[str, LeaseRow]) -> int:
        added = 0
        for shard in shards:
            if shard.shard_id in self._deleted_since:
                continue  # not new: ``restore`` puts it back
            skip = shard.shard_id in self._registration.skip_shards or was_settled(shard.shard_id, rows.values())
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
