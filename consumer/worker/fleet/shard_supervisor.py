"""Runs one shard worker for every lease that this worker owns, and knows what must not be started again yet."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress

import structlog

from consumer.domain.errors import LeaseDeleted, LeaseLost, Unavailable
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import may_start
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.change_feed import ChangeFeed
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.fleet.membership import Membership
from consumer.worker.shard.held_lease import release_idle
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.shard_worker import LeaseEnd, ShardWorker
from consumer.worker.tasks import each, was_cancelled

log = structlog.get_logger()

RESTART_PAUSE = 2.0  # seconds before a shard worker that failed with a bug is started again
MAX_MEMORY_ERRORS = 2  # failures of shards for want of memory until the process makes room for another one


class ShardSupervisor:
    """The shard workers of one incarnation, as tasks of ``tasks``. ``wake`` is set when one has ended."""

    def __init__(
        self,
        context: WorkerContext,
        lineage: Lineage,
        memory: LeaseMemory,
        feed: ChangeFeed,
        membership: Membership,
        wake: asyncio.Event,
    ) -> None:
        self._context = context
        self._me = context.incarnation
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._lineage = lineage
        self._memory = memory
        self._feed = feed
        self._membership = membership
        self._wake = wake
        self._workers: dict[str, ShardWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._counted: set[str] = set()  # shards whose arrival was: it is not a new one after a bug
        self._outdated: set[str] = set()
        self._memory_errors = 0
        self._out_of_memory = asyncio.Event()
        self.stopping = False

    @property
    def workers(self) -> Collection[ShardWorker]:
        return self._workers.values()

    # --- starting ----------------------------------------------------------------------------------------

    async def read_rows(self) -> list[LeaseRow]:
        """All lease rows of the stream; shards that ended before this reading may start again then. Unavailable."""
        outdated, self._outdated = self._outdated, set()
        doubtful, self._memory.doubtful = self._memory.doubtful, set[str]()
        try:
            return await self._store.leases(self._context.stream.label)
        except BaseException:
            self._outdated |= outdated
            self._memory.doubtful |= doubtful
            raise

    async def read_row(self, shard_id: str) -> bool:
        """One row that is known to have changed as it stands, with the same effect for its shard; a change of this
        worker is told to the others. False when there is no such row. Unavailable."""
        memory = self._memory
        before = [ids for ids in (self._outdated, memory.doubtful, memory.changed_here) if shard_id in ids]
        is_ours = shard_id in memory.changed_here
        for ids in before:
            ids.discard(shard_id)
        asked_at = self._clock.monotonic()
        try:
            row = await self._store.lease(self._context.stream.label, shard_id)
        except BaseException:
            for ids in before:
                ids.add(shard_id)
            raise
        if row is not None:
            memory.note(row, asked_at)
            if is_ours:
                self._feed.tell([row])
        return row is not None

    async def take(self, seen: LeaseRow, tasks: asyncio.TaskGroup) -> None:
        """Take a free lease and start its shard worker, unless another worker was quicker. Unavailable."""
        if self.stopping or self._memory.remembered.is_behind(seen):
            return
        row = await self._store.take(self._context.stream.label, seen, self._me, self._context.ports.random.token())
        if row is None:
            self._memory.doubtful.add(seen.shard_id)
            return
        self._memory.note(row)
        self._feed.tell([row])
        self._outdated.discard(row.shard_id)
        self._counted.add(row.shard_id)
        self._context.metrics.lease_events("acquired").inc()
        log.info("lease.acquired", shard_id=row.shard_id, epoch=row.epoch, previous_owner=seen.owner)
        self.adopt([row], tasks)

    def adopt(self, rows: Iterable[LeaseRow], tasks: asyncio.TaskGroup) -> None:
        """Start a worker for every lease of ``rows`` that is ours and has none: taken, handed to us, or restarted after
        a bug."""
        now = self._clock.monotonic()
        for row in rows:
            shard_id = row.shard_id
            if row.owner != self._me or row.finished or row.corrupt or self.stopping:
                continue
            if self._memory.remembered.is_behind(row):
                continue
            if not may_start(row, self._memory.known):
                continue  # since the take a parent has lost its row, which says what this shard must hold back
            if shard_id in self._tasks or shard_id in self._outdated or now < self._not_before.get(shard_id, now):
                continue
            if shard_id not in self._counted:
                self._counted.add(shard_id)
                self._context.metrics.lease_events("received").inc()
                log.info("lease.received", shard_id=shard_id, epoch=row.epoch)
            worker = self._workers[shard_id] = ShardWorker(self._context, row, self._lineage)
            self._tasks[shard_id] = tasks.create_task(self._run(worker), name=f"shard {shard_id}")

    async def _run(self, worker: ShardWorker) -> None:
        shard_id = worker.shard_id
        end: LeaseEnd | None = None
        try:
            end = await worker.run()
        except (Exception, asyncio.CancelledError) as error:
            if was_cancelled(error):
                raise
            # A bug of ours: never silent, never fatal for the other shards. The row is read again before a restart.
            log.exception("shard.worker_failed", shard_id=shard_id)
            if _has_memory_error(error):
                self._memory_errors += 1
                if self._memory_errors >= MAX_MEMORY_ERRORS:
                    self._out_of_memory.set()
            self._not_before[shard_id] = self._clock.monotonic() + RESTART_PAUSE
        finally:
            del self._workers[shard_id], self._tasks[shard_id]
            self._context.metrics.forget_shard(shard_id)
            if end is not None:
                self._counted.discard(shard_id)
            if end != "released":  # its next owner knows more
                self._memory.remember(worker.lease.row)
            self._outdated.add(shard_id)  # the row as last read is out of date: only a new reading may start it again
            self._memory.changed_here.add(shard_id)
            if end == "released":
                self._membership.gave_away()
            self._wake.set()

    async def watch_memory(self) -> None:
        """Raises MemoryError when shards failed more than once for want of memory. Once may have been one huge page;
        twice, the process itself has grown too large, and only a new one helps."""
        await self._out_of_memory.wait()
        raise MemoryError(f"shards failed {self._memory_errors} times for want of memory")

    # --- edited rows -------------------------------------------------------------------------------------

    async def put_back_deleted(self) -> list[Unavailable]:
        """A row of a shard that is being worked on was deleted; an idle shard would not notice by itself. Returns what
        failed."""

        async def put_back(worker: ShardWorker) -> None:
            with suppress(LeaseDeleted):  # not sure of its leases at this moment
                await worker.lease.put_back()
                self._memory.changed_here.add(worker.shard_id)
                self._wake.set()

        deleted = [worker for shard_id, worker in self._workers.items() if shard_id not in self._memory.rows]
        return [error for _, error in await each(deleted, put_back)]

    async def stop_dispossessed(self) -> list[Unavailable]:
        """Stop working on shards whose row names another owner: the protocol does not allow it, so the row was edited
        by hand. A busy shard would learn it from its next write; an idle one would start the next record first. Returns
        what failed."""

        def is_mine(worker: ShardWorker, row: LeaseRow) -> bool:
            return (row.owner, row.epoch) == (self._me, worker.lease.epoch)

        async def stop(worker: ShardWorker) -> None:
            shard_id = worker.shard_id
            # What is known may be older than the take.
            asked_at = self._clock.monotonic()
            row = await self._store.lease(self._context.stream.label, shard_id)
            if row is not None:
                self._memory.note(row, asked_at)
            current, task = self._workers.get(shard_id), self._tasks.get(shard_id)
            if row is None or is_mine(worker, row) or task is None or current is not worker or worker.releasing:
                return
            reason = f"owner {row.owner or 'nobody'}, epoch {row.epoch}"
            log.warning("lease.lost", shard_id=shard_id, epoch=worker.lease.epoch, reason=reason)
            self._context.metrics.lease_events("lost").inc()
            task.cancel()

        rows = self._memory.rows
        odd = [
            worker
            for shard_id, worker in self._workers.items()
            if not worker.releasing and shard_id in rows and not is_mine(worker, rows[shard_id])
        ]
        return [error for _, error in await each(odd, stop)]

    async def raise_epochs(self) -> list[Unavailable]:
        """Raise epochs that went back (a row that was made anew, a backup that was restored), before anybody works with
        them. Who does already has not seen the higher one; its next owner has another one. Returns what failed."""
        memory, dead = self._memory, self._membership.dead

        def is_idle(row: LeaseRow) -> bool:
            return row.shard_id not in self._tasks if row.owner == self._me else row.owner in (None, *dead)

        async def above(row: LeaseRow) -> None:
            shard_id, seen = row.shard_id, memory.remembered.highest(row.shard_id)
            if await self._store.raise_epoch(self._context.stream.label, row, seen):
                log.error("lease.epoch_went_back", shard_id=shard_id, epoch=row.epoch, seen=seen)
                memory.changed_here.add(shard_id)
                self._wake.set()
            else:
                memory.doubtful.add(shard_id)

        behind = [row for row in memory.overview.behind if is_idle(row)]
        return [error for _, error in await each(behind, above)]

    # --- releasing ---------------------------------------------------------------------------------------

    def hand_over(self, moves: Iterable[tuple[str, str]]) -> None:
        """Hand leases over to other workers (shard, incarnation), once their shards are drained. One that is on its way
        goes where it goes, if it can: the plans in the middle of many hand-overs would deal again what is left, and
        move it twice. If it cannot, because that worker has left, any may take it."""
        takers = {session.incarnation for session in self._membership.live if not session.leaving}
        targets = dict(moves)
        for shard_id, worker in self._workers.items():
            before, to = worker.wish.to, targets.get(shard_id)
            if before in takers or before == to:
                continue
            log.info("lease.handing_over", shard_id=shard_id, target=to)
            worker.release(to)

    async def drain(self, grace: float) -> None:
        """Start nothing more, and release every lease once the calls of its shard have ended; after ``grace`` seconds
        they are cancelled."""
        self.stopping = True
        for worker in self._workers.values():
            worker.release(grace=grace)
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()), return_when=asyncio.FIRST_COMPLETED)

    async def release_the_rest(self) -> None:
        """Leases that are ours and have no worker: taken or handed to us while stopping, or waiting for a restart."""

        async def release(row: LeaseRow) -> None:
            with suppress(LeaseLost):  # another worker has it by now
                await release_idle(self._context, row)
                self._membership.gave_away()
                self._context.metrics.lease_events("released").inc()
                log.info("lease.passed_on", shard_id=row.shard_id, epoch=row.epoch, target=None)

        try:
            rows = await self._store.leases(self._context.stream.label)
            mine = [row for row in rows if row.owner == self._me and not row.finished and not row.corrupt]
            failed = [error for _, error in await each(mine, release)]
        except Unavailable as error:
            failed = [error]
        if failed:  # peers take them when the session is gone
            log.warning("leases.release_failed", error=str(failed[0]))


def _has_memory_error(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has_memory_error(one) for one in error.exceptions)
    return isinstance(error, MemoryError)
