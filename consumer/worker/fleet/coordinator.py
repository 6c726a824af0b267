"""This worker's part in sharing the leases: watch the sessions, fence the dead, take what is free, hand over surplus.

No leader and no theft from the living: every worker computes the same plan (``domain/planner.py``) from the same rows
and carries out its own part. One incarnation has one coordinator; when the session is fenced, everything here is
dropped at once and the application starts a new incarnation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress

import structlog

from consumer.domain.errors import (
    LeaseDeleted,
    LeaseLost,
    ResourceMissing,
    SessionFenced,
    StreamConsumerError,
    Unavailable,
)
from consumer.domain.lease import LeaseRow, Observer, SessionRow, free_leases
from consumer.domain.planner import plan
from consumer.domain.shards import may_start
from consumer.ports.leases import Registration
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.shard_discovery import Discovery
from consumer.worker.shard.shard_worker import How, LetGo, ShardWorker
from consumer.worker.tasks import never_ending, was_cancelled

log = structlog.get_logger()

OVERDUE_CYCLES = 3
BURIED_AFTER = 6  # durations that a session must be silent before its fenced row goes: longer than any request is late
MEMORY_ERRORS = 2  # so many times a shard may fail for want of memory before the process makes room for another
RESTART_PAUSE = 2.0  # seconds before a shard worker that failed with a bug is started again


class Coordinator:
    """Owns the shard workers of one incarnation. ``run`` ends by ``stop`` or by cancellation."""

    def __init__(
        self, context: WorkerContext, registration: Registration, remembered: Mapping[str, LeaseRow] | None = None
    ) -> None:
        """``remembered``: what an earlier incarnation of this process knew of the rows, in case they are deleted."""
        self._context = context
        self._duration: float = context.settings.leases.duration
        self._cycle = min(1.0, self._duration / 10)
        self._observer = Observer(self._duration)
        self._free_since: dict[str, float] = {}
        self._fleet: frozenset[str] = frozenset()
        self._fleet_since = float("-inf")
        self._wake = asyncio.Event()
        self._discovery = Discovery(context, registration, self._wake.set, remembered)
        self._workers: dict[str, ShardWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sessions: list[SessionRow] = []
        self._dead: set[str] = set()
        self._handoffs = 0
        self._announce = asyncio.Event()
        self._stopping = False
        self._acting = asyncio.Lock()
        self._digest: object = None
        self._scanned_at = float("-inf")
        self._not_before: dict[str, float] = {}
        self._stale: set[str] = set()
        self._quarantined: set[str] = set()
        self._memory_errors = 0
        self._out_of_memory = asyncio.Event()
        self.planned = asyncio.Event()

    @property
    def workers(self) -> Iterable[ShardWorker]:
        return self._workers.values()

    @property
    def rows(self) -> Iterable[LeaseRow]:
        return self._discovery.rows.values()

    @property
    def memory(self) -> Mapping[str, LeaseRow]:
        """The rows as this incarnation last knew them: for the next one, should they be deleted."""
        return self._discovery.memory

    @property
    def sessions(self) -> Iterable[SessionRow]:
        return self._sessions

    async def run(self) -> None:
        """The planning loop with its helpers, until cancelled. A bug in any of them ends them all, loudly."""
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in (
                    ("announcements", self._announce_for_ever()),
                    ("memory watch", self._fail_out_of_memory()),
                    ("shard sync", self._sync_for_ever()),
                ):
                    group.create_task(never_ending(work, name), name=name)
                await self._plan_for_ever()
        finally:
            await self._cancel_workers()

    async def drain(self, grace: float) -> None:
        """Take nothing more, let every shard finish its calls under way, release every lease. Seconds of ``grace``."""
        self._stopping = True
        await self._tell(leaving=True)
        for worker in self._workers.values():
            worker.let_go(LetGo(None, grace))
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()), return_when=asyncio.FIRST_COMPLETED)
        async with self._acting:  # a take under way must be seen
            await self._release_the_rest()

    async def _release_the_rest(self) -> None:
        """Leases that are ours and have no worker: taken or handed to us while stopping, or waiting for a restart."""
        store, label = self._context.ports.store, self._context.stream.label
        try:
            for row in await store.leases(label):
                if row.owner != self._context.incarnation or row.finished or row.corrupt:
                    continue
                with suppress(LeaseLost):  # somebody else has it by now
                    await store.release(label, row, None)
                    self._handoffs += 1
                    self._context.metrics.lease_events("released").inc()
                    log.info("lease.passed_on", shard_id=row.shard_id, epoch=row.epoch, target=None)
        except Unavailable as error:
            log.warning("leases.release_failed", error=str(error))  # peers take them when the session is gone
        if self._handoffs:
            await self._tell(leaving=True)

    # --- planning --------------------------------------------------------------------------------------

    async def _sync_for_ever(self) -> None:
        """Everybody lists the stream once at the start; afterwards the slow repair."""
        await self._first_sync()
        await self._discovery.repair_for_ever(self.is_first)

    async def _first_sync(self) -> None:
        pause = 0.5
        while True:
            try:
                await self._discovery.sync()
                return
            except Unavailable as error:
                log.warning("shards.sync_failed", error=str(error))
                await asyncio.sleep(pause)
                pause = min(15.0, pause * 2)

    async def _plan_for_ever(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
                async with self._acting:
                    if not self._stopping:
                        await self._act()
                        self.planned.set()
            except Unavailable as error:
                log.warning("leases.plan_failed", error=str(error))
                if isinstance(error, ResourceMissing):
                    await self._make_table()
            try:
                async with asyncio.timeout(self._cycle * (0.8 + 0.4 * self._context.ports.random.random())):
                    await self._wake.wait()
                self._digest = None  # woken: something changed that the sessions do not show
            except TimeoutError:
                pass

    async def _make_table(self) -> None:
        """The lease table was dropped: nobody works until it is back. It is made anew only if the settings allow it."""
        if not self._context.settings.leases.create_table:
            return
        try:
            if await self._context.ports.store.prepare(create=True):
                log.warning("lease_table.created", table=self._context.settings.leases.table)
        except StreamConsumerError as error:
            log.warning("leases.plan_failed", error=str(error))

    async def _look(self) -> None:
        """Read the sessions; read the leases when the sessions changed, and every half ``duration`` anyway."""
        store, clock = self._context.ports.store, self._context.ports.clock
        self._sessions = await store.sessions()
        now = clock.monotonic()
        digest = tuple(sorted((s.incarnation, s.handoffs, s.leaving, s.fenced) for s in self._sessions))
        if digest != self._digest or now - self._scanned_at >= self._duration / 2:
            stale, self._stale = self._stale, set()
            try:
                rows = await store.leases(self._context.stream.label)
            except BaseException:
                self._stale |= stale
                raise
            self._discovery.saw(rows)
            self._digest, self._scanned_at = digest, clock.monotonic()
        owners = [row.owner for row in self._discovery.rows.values() if row.owner is not None and not row.finished]
        self._observer.saw(self._sessions, owners, now)

    async def _act(self) -> None:
        await self._fence_the_dead()
        await self._put_back_deleted()
        await self._stop_dispossessed()
        rows = self._discovery.rows
        me = self._context.incarnation
        self._tell_quarantined(rows.values())
        self._adopt([row for row in rows.values() if row.owner == me])
        live = self._live()
        todo = plan(me, live, self._dead, rows, self._overdue())
        if todo.take:
            # All of them end here, also when one fails: nothing may be taken behind the back of a later plan or stop.
            ends = await asyncio.gather(*(self._take(row) for row in todo.take), return_exceptions=True)
            self._wake.set()
            for error in ends:
                if error is not None:
                    raise error
        for shard_id, target in todo.hand_over if self._fleet_is_steady(live) and not self._stopping else ():
            worker = self._workers.get(shard_id)
            if worker is not None:
                log.info("lease.handing_over", shard_id=shard_id, target=target)
                worker.let_go(LetGo(target))
        await self._bury_sessions()

    def _fleet_is_steady(self, live: Iterable[SessionRow]) -> bool:
        """Nobody has come or gone for a planning cycle. Workers that are started together are not seen together; a plan
        for half of them would move shards twice."""
        now, fleet = self._context.ports.clock.monotonic(), frozenset(s.incarnation for s in live if not s.leaving)
        if fleet != self._fleet:
            self._fleet, self._fleet_since = fleet, now
        return now - self._fleet_since >= self._cycle

    async def _put_back_deleted(self) -> None:
        """Somebody deleted the row of a shard that is being worked on; an idle shard would not notice by itself."""
        for shard_id, worker in list(self._workers.items()):
            if shard_id not in self._discovery.rows and worker.row.owner == self._context.incarnation:
                with suppress(LeaseDeleted):  # not sure of its leases at this moment
                    await self._discovery.put_back(worker.row)
                    self._wake.set()
        await self._discovery.restore()

    async def _stop_dispossessed(self) -> None:
        """Stop working on shards whose row names somebody else. By our rules that cannot be: somebody edited the table.
        A busy shard would learn it from its next write; an idle one would start the next record first."""
        ports, me = self._context.ports, self._context.incarnation
        for shard_id, worker in list(self._workers.items()):
            mine, row = (me, worker.epoch), self._discovery.rows.get(shard_id)
            if worker.letting_go or row is None or (row.owner, row.epoch) == mine:
                continue
            row = await ports.store.lease(
                self._context.stream.label, shard_id
            )  # the reading may be older than the take
            current, task = self._workers.get(shard_id), self._tasks.get(shard_id)
            if row is None or (row.owner, row.epoch) == mine or task is None or current is None or current.letting_go:
                continue
            reason = f"owner {row.owner or 'nobody'}, epoch {row.epoch}"
            log.warning("lease.lost", shard_id=shard_id, epoch=worker.epoch, reason=reason)
            self._context.metrics.lease_events("lost").inc()
            task.cancel()

    def _overdue(self) -> set[str]:
        """Startable leases that stayed free for several planning cycles of everybody."""
        now = self._context.ports.clock.monotonic()
        rows = self._discovery.rows
        free = [row for row in free_leases(rows, self._dead) if not row.finished and may_start(row, rows)]
        self._free_since = {row.shard_id: self._free_since.get(row.shard_id, now) for row in free}
        return {shard_id for shard_id, since in self._free_since.items() if now - since > OVERDUE_CYCLES * self._cycle}

    async def _fence_the_dead(self) -> None:
        """Fence first, take later: a fenced session can never renew, so its leases are safe to take."""
        clock = self._context.ports.clock
        by_id = {s.incarnation: s for s in self._sessions}
        dead = {s.incarnation for s in self._sessions if s.fenced}
        for incarnation in self._observer.expired(clock.monotonic()):
            if incarnation == self._context.incarnation or incarnation in dead:
                continue
            session = by_id.get(incarnation)
            if session is None or await self._context.ports.store.fence_session(incarnation, session.counter):
                dead.add(incarnation)
                if incarnation not in self._dead:
                    self._context.metrics.lease_events("fenced").inc()
                    log.warning("session.expired", incarnation=incarnation, fenced=session is not None)
        self._dead = dead

    async def _bury_sessions(self) -> None:
        """Remove fenced sessions that own nothing any more; a finished row names its last owner for ever. Not soon:
        while the row is there, a late request to open that session cannot make it anew, without the fence."""
        now = self._context.ports.clock.monotonic()
        owners = {row.owner for row in self._discovery.rows.values() if not row.finished}
        for session in self._sessions:
            quiet = self._observer.unchanged_for(session.incarnation, now) >= BURIED_AFTER * self._duration
            if session.fenced and quiet and session.incarnation not in owners:
                await self._context.ports.store.close_session(session.incarnation)

    def _live(self) -> list[SessionRow]:
        """Who shares the leases of this stream. While a stream replaces another, some workers are on the other one."""
        return [
            session
            for session in self._sessions
            if not session.fenced
            and session.incarnation not in self._dead
            and session.label in ("", self._context.stream.label)
        ]

    def is_first(self) -> bool:
        """What one worker should do for the fleet, so that DescribeStream stays below its limit, is done by the first
        live one by name."""
        live = [s.incarnation for s in self._live() if not s.leaving]
        return bool(live) and min(live) == self._context.incarnation

    # --- shard workers ---------------------------------------------------------------------------------

    async def _take(self, seen: LeaseRow) -> None:
        ports, label = self._context.ports, self._context.stream.label
        if self._stopping:
            return
        row = await ports.store.take(label, seen, self._context.incarnation, ports.random.token())
        if row is None:
            return
        self._stale.discard(row.shard_id)
        self._context.metrics.lease_events("acquired").inc()
        log.info("lease.acquired", shard_id=row.shard_id, epoch=row.epoch, previous_owner=seen.owner)
        self._adopt([row])

    def _tell_quarantined(self, rows: Iterable[LeaseRow]) -> None:
        """Nobody takes a lease whose checkpoint cannot be read. Every worker says so, once."""
        corrupt = {row.shard_id: row.corrupt for row in rows if row.corrupt}
        for shard_id in corrupt.keys() - self._quarantined:
            log.error("shard.quarantined", shard_id=shard_id, found=corrupt[shard_id])
        self._quarantined = set(corrupt)

    def _adopt(self, rows: Iterable[LeaseRow]) -> None:
        """Start a worker for every lease that is ours and has none: taken, handed to us, or restarted after a bug."""
        now = self._context.ports.clock.monotonic()
        for row in rows:
            if self._stopping or row.finished or row.shard_id in self._tasks or row.shard_id in self._stale:
                continue
            if row.corrupt:
                continue
            if now < self._not_before.get(row.shard_id, now):
                continue
            worker = ShardWorker(self._context, row, self._discovery)
            self._workers[row.shard_id] = worker
            task = asyncio.create_task(self._run_worker(worker), name=f"shard {row.shard_id}")
            self._tasks[row.shard_id] = task

    async def _run_worker(self, worker: ShardWorker) -> None:
        shard_id = worker.shard_id
        how: How = "failed"
        try:
            how = await worker.run()
        except (Exception, asyncio.CancelledError) as error:
            if was_cancelled(error):
                raise
            # A bug of ours: never silent, never fatal for the other shards. The row is read again before a restart.
            log.exception("shard.worker_failed", shard_id=shard_id)
            if _has_memory_error(error):
                self._memory_errors += 1
                if self._memory_errors >= MEMORY_ERRORS:
                    self._out_of_memory.set()
            self._not_before[shard_id] = self._context.ports.clock.monotonic() + RESTART_PAUSE
        finally:
            self._workers.pop(shard_id, None)
            self._tasks.pop(shard_id, None)
            self._context.metrics.shard(shard_id).close()
            if how not in ("done", "released"):
                self._discovery.remember(worker.row)
            self._stale.add(shard_id)  # what we saw of its row is out of date: only a new reading may start it again
            if how == "released":
                self._handoffs += 1
                self._announce.set()
            self._wake.set()

    async def _fail_out_of_memory(self) -> None:
        """Once may have been one huge page. Twice, the process itself has grown too large: only a new one helps."""
        await self._out_of_memory.wait()
        raise MemoryError(f"shards failed {self._memory_errors} times for want of memory")

    async def _announce_for_ever(self) -> None:
        """Peers look at the leases at once when our ``handoffs`` grows. Many releases make one announcement."""
        while True:
            await self._announce.wait()
            self._announce.clear()
            await self._tell(leaving=self._stopping)
            await asyncio.sleep(0.05)

    async def _tell(self, *, leaving: bool) -> None:
        try:
            await self._context.ports.store.announce(
                self._context.incarnation, handoffs=self._handoffs, leaving=leaving
            )
        except (Unavailable, SessionFenced) as error:
            log.warning("session.announce_failed", error=str(error))  # peers find out by their regular reading

    async def _cancel_workers(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))


def _has_memory_error(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has_memory_error(one) for one in error.exceptions)
    return isinstance(error, MemoryError)
