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
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.fleet.membership import Membership
from consumer.worker.shard.held_lease import release_idle
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.shard_worker import LeaseEnd, ShardWorker
from consumer.worker.tasks import was_cancelled

log = structlog.get_logger()

RESTART_PAUSE = 2.0  # seconds before a shard worker that failed with a bug is started again
MAX_MEMORY_ERRORS = 2  # failures of shards for want of memory until the process makes room for another one


class ShardSupervisor:
    """The shard workers of one incarnation, as tasks of ``tasks``. ``wake`` is set when one has ended."""

    def __init__(
        self, context: WorkerContext, lineage: Lineage, memory: LeaseMemory, membership: Membership, wake: asyncio.Event
    ) -> None:
        self._context = context
        self._me = context.incarnation
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._lineage = lineage
        self._memory = memory
        self._membership = membership
        self._wake = wake
        self._workers: dict[str, ShardWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
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
        try:
            return await self._store.leases(self._context.stream.label)
        except BaseException:
            self._outdated |= outdated
            raise

    async def take(self, seen: LeaseRow, tasks: asyncio.TaskGroup) -> None:
        """Take a free lease and start its shard worker, unless another worker was quicker. Unavailable."""
        if self.stopping or self._memory.remembered.is_behind(seen):
            return
        row = await self._store.take(self._context.stream.label, seen, self._me, self._context.ports.random.token())
        if row is None:
            return
        self._outdated.discard(row.shard_id)
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
            if end != "released":  # its next owner knows more
                self._memory.remember(worker.lease.row)
            self._outdated.add(shard_id)  # the row as last read is out of date: only a new reading may start it again
            if end == "released":
                self._membership.gave_away()
            self._wake.set()

    async def watch_memory(self) -> None:
        """Raises MemoryError when shards failed more than once for want of memory. Once may have been one huge page;
        twice, the process itself has grown too large, and only a new one helps."""
        await self._out_of_memory.wait()
        raise MemoryError(f"shards failed {self._memory_errors} times for want of memory")

    # --- edited rows -------------------------------------------------------------------------------------

    async def put_back_deleted(self) -> None:
        """A row of a shard that is being worked on was deleted; an idle shard would not notice by itself.
        Unavailable."""
        for shard_id, worker in list(self._workers.items()):
            if shard_id not in self._memory.rows:
                with suppress(LeaseDeleted):  # not sure of its leases at this moment
                    await worker.lease.put_back()
                    self._wake.set()

    async def stop_dispossessed(self) -> None:
        """Stop working on shards whose row names another owner: the protocol does not allow it, so the row was edited
        by hand. A busy shard would learn it from its next write; an idle one would start the next record first.
        Unavailable."""
        for shard_id, worker in list(self._workers.items()):
            mine, row = (self._me, worker.lease.epoch), self._memory.rows.get(shard_id)
            if worker.releasing or row is None or (row.owner, row.epoch) == mine:
                continue
            row = await self._store.lease(
                self._context.stream.label, shard_id
            )  # the reading may be older than the take
            current, task = self._workers.get(shard_id), self._tasks.get(shard_id)
            if row is None or (row.owner, row.epoch) == mine or task is None or current is None or current.releasing:
                continue
            reason = f"owner {row.owner or 'nobody'}, epoch {row.epoch}"
            log.warning("lease.lost", shard_id=shard_id, epoch=worker.lease.epoch, reason=reason)
            self._context.metrics.lease_events("lost").inc()
            task.cancel()

    async def raise_epochs(self) -> None:
        """Raise epochs that went back (a row that was made anew, a backup that was restored), before anybody works with
        them. Who does already has not seen the higher one; its next owner has another one. Unavailable."""
        remembered, dead = self._memory.remembered, self._membership.dead
        for row in [row for row in self._memory.rows.values() if remembered.is_behind(row)]:
            is_idle = row.shard_id not in self._tasks if row.owner == self._me else row.owner in (None, *dead)
            seen = remembered.highest(row.shard_id)
            if is_idle and await self._store.raise_epoch(self._context.stream.label, row, seen):
                log.error("lease.epoch_went_back", shard_id=row.shard_id, epoch=row.epoch, seen=seen)
                self._wake.set()

    # --- releasing ---------------------------------------------------------------------------------------

    def release(self, shard_id: str, to: str) -> None:
        """Hand a lease over to another worker, once its shard is drained."""
        worker = self._workers.get(shard_id)
        if worker is not None:
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
        try:
            for row in await self._store.leases(self._context.stream.label):
                if row.owner != self._me or row.finished or row.corrupt:
                    continue
                with suppress(LeaseLost):  # another worker has it by now
                    await release_idle(self._context, row)
                    self._membership.gave_away()
                    self._context.metrics.lease_events("released").inc()
                    log.info("lease.passed_on", shard_id=row.shard_id, epoch=row.epoch, target=None)
        except Unavailable as error:
            log.warning("leases.release_failed", error=str(error))  # peers take them when the session is gone


def _has_memory_error(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has_memory_error(one) for one in error.exceptions)
    return isinstance(error, MemoryError)
