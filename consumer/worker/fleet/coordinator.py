"""This worker's part in sharing the leases: look at the fleet and its leases, plan, act.

No leader, and nothing is taken from the living: every worker computes the same plan (``domain/planner.py``) from the
same rows and carries out its own part. One incarnation has one coordinator; when the session is fenced, everything here
is dropped at once and the application starts a new incarnation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

import structlog

from consumer.domain.bulletin import Bulletin
from consumer.domain.errors import ResourceMissing, StreamConsumerError, Unavailable
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.planner import Plan, distance, plan
from consumer.domain.reading_pace import Place, ReadingPace
from consumer.domain.remembered import Remembered
from consumer.domain.shards import startable
from consumer.ports.leases import Registration
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.change_feed import ChangeFeed
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.fleet.lease_registration import LeaseRegistration
from consumer.worker.fleet.membership import Membership
from consumer.worker.fleet.shard_discovery import ShardDiscovery
from consumer.worker.fleet.shard_supervisor import ShardSupervisor
from consumer.worker.shard.shard_worker import ShardWorker
from consumer.worker.tasks import each, never_ending

log = structlog.get_logger()

MOST_OVERDUE = 50  # leases of one plan that any worker takes: others may take them, too
MOST_TAKES = 500  # of one plan: then it is time to look who has come or gone
OVERDUE_CYCLES = 2  # that a startable lease may stay free until it is read again; if it still is, any worker takes it


class Coordinator:
    """Plans for one incarnation. ``run`` ends by cancellation, after ``drain`` if there is time for it.

    ``remembered``: what an earlier incarnation of this process knew of the rows, in case they are deleted.
    """

    def __init__(
        self, context: WorkerContext, registration: Registration, remembered: Remembered | None = None
    ) -> None:
        self._context = context
        self._clock = context.ports.clock
        self._random = context.ports.random
        self._duration: float = context.settings.leases.duration
        self._cycle = min(1.0, self._duration / 10)
        self._wake = asyncio.Event()
        self._acting = asyncio.Lock()
        self._membership = Membership(context)
        self._memory = LeaseMemory(context, self._wake.set, remembered)
        self._feed = feed = ChangeFeed(context, self._memory)
        rows = LeaseRegistration(context, registration, self._memory, feed, self._wake.set)
        self._discovery = ShardDiscovery(context, rows, self._memory, self._wake.set)
        self._supervisor = ShardSupervisor(context, self._discovery, self._memory, feed, self._membership, self._wake)
        self.tell_failing = self._membership.tell_failing
        self._digest: object = None
        self._pace = ReadingPace(self._duration / 2, self._clock.monotonic())
        self._place = Place(0, 0, 1, 0.0)
        self._at_rest: object = None
        self._free_since: dict[str, float] = {}
        self._asked: set[str] = set()  # leases that are overdue, and were read again for that
        self._quarantined: set[str] = set()
        self.planned = asyncio.Event()

    @property
    def workers(self) -> Collection[ShardWorker]:
        return self._supervisor.workers

    @property
    def stands_by(self) -> bool:
        """Whether others have all there is to work on: it owns nothing, but not because it has found nothing yet, nor
        because it gives its leases back."""
        supervisor, rows = self._supervisor, self._memory.rows
        owns_nothing = bool(rows) and not supervisor.workers and not supervisor.stopping
        return owns_nothing and not startable(rows, self._membership.dead)

    @property
    def rows(self) -> Collection[LeaseRow]:
        """The lease rows as last read."""
        return self._memory.rows.values()

    @property
    def remembered(self) -> Remembered:
        """What this process knows of the rows: for the next incarnation, should they be deleted."""
        return self._memory.remembered

    @property
    def free_since(self) -> Mapping[str, float]:
        """Leases that have no owner although a worker could start on them: since when (monotonic seconds)."""
        return self._free_since

    @property
    def sessions(self) -> list[SessionRow]:
        return self._membership.sessions

    def is_first(self) -> bool:
        """Whether this worker does what one worker should do for the fleet."""
        return self._membership.is_first()

    async def run(self) -> None:
        """The planning loop with its helpers, until cancelled. A bug in any of them ends them all, loudly."""
        async with asyncio.TaskGroup() as tasks:
            for name, work in (
                ("announcements", self._membership.announce_for_ever()),
                ("posts", self._feed.post_for_ever()),
                ("memory watch", self._supervisor.watch_memory()),
                ("shard sync", self._discovery.run()),
            ):
                tasks.create_task(never_ending(name, work), name=name)
            await self._plan_for_ever(tasks)

    async def drain(self, grace: float) -> None:
        """Take nothing more, let every shard finish its calls under way, release every lease. Seconds of ``grace``."""
        self._supervisor.stopping = True
        await self._membership.leave()
        await self._supervisor.drain(grace)
        async with self._acting:  # a take under way must be seen
            await self._supervisor.release_the_rest()
        if self._membership.handoffs:
            await self._membership.announce()

    # --- look --------------------------------------------------------------------------------------------

    async def _plan_for_ever(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
                async with self._acting:
                    if not self._supervisor.stopping:
                        await self._act(tasks)
                        self.planned.set()
            except Unavailable as error:
                log.warning("leases.plan_failed", error=str(error))
                if isinstance(error, ResourceMissing):
                    await self._make_table()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._cycle * (0.8 + 0.4 * self._random.random())):
                    await self._wake.wait()

    async def _look(self) -> None:
        """Read the bulletin and the sessions, and those lease rows that are known to have changed. All of them when
        that is not known, and now and then anyway."""
        membership, clock = self._membership, self._clock
        looked_at = clock.monotonic()
        bulletin = await self._read_bulletin()
        read_at = clock.monotonic()
        has_read_sessions = await membership.read()
        if bulletin is not None:
            self._memory.remembered.look(looked_at)
            if has_read_sessions:
                self._discovery.observe(bulletin, read_at, {session.incarnation for session in membership.live})
        is_told = bulletin is not None and await self._feed.follow(bulletin, self._place.workers)
        if not is_told or self._memory.remembered.has_slept or membership.digest != self._digest:
            self._pace.want(read_at)
            self._digest = membership.digest
        rows = max(len(self._memory.rows) + self._feed.unread_changes, bulletin.rows if bulletin is not None else 0)
        self._place = Place.of(self._context.incarnation, membership.live, rows)
        await self._read_single_rows()
        if self._pace.is_due(clock.monotonic(), self._place):
            asked_at = clock.monotonic()
            self._memory.observe(await self._supervisor.read_rows(), asked_at)
            self._pace.has_read(asked_at)
        membership.observe(self._memory.overview.owners)

    async def _read_bulletin(self) -> Bulletin | None:
        """None when it cannot be read now: what it says is a hint, and holds up no plan."""
        try:
            return await self._context.ports.store.bulletin(self._context.stream.label)
        except ResourceMissing:
            raise
        except Unavailable as error:
            log.warning("leases.bulletin_unread", error=str(error))
            return None

    async def _read_single_rows(self) -> None:
        """Read the rows that are known to have changed: those that concern this worker, and some of the others."""
        memory, most = self._memory, self._place.single_rows
        if len(memory.doubtful) > most:
            self._pace.want(self._clock.monotonic())

        async def read(shard_id: str) -> None:
            if not await self._supervisor.read_row(shard_id):
                self._pace.want(self._clock.monotonic())

        others = sorted(memory.doubtful - memory.changed_here, reverse=True)[:most]  # the newest first
        self._tell(error for _, error in await each([*sorted(memory.changed_here), *others], read))

    async def _make_table(self) -> None:
        """The lease table was dropped: no worker works until it is back. It is made anew only if the settings allow
        it."""
        if not self._context.settings.leases.create_table:
            return
        try:
            if await self._context.ports.store.prepare(create=True):
                log.warning("lease_table.created", table=self._context.settings.leases.table)
        except StreamConsumerError as error:
            log.warning("leases.plan_failed", error=str(error))

    # --- plan and act ------------------------------------------------------------------------------------

    async def _act(self, tasks: asyncio.TaskGroup) -> None:
        membership, supervisor = self._membership, self._supervisor
        self._tell(await membership.fence_expired())
        self._tell(await supervisor.put_back_deleted())
        self._tell(await self._memory.restore())
        self._tell(await supervisor.stop_dispossessed())
        self._tell(await supervisor.raise_epochs())
        self._log_quarantined(self._memory.overview.corrupt)
        supervisor.adopt(self._memory.overview.mine, tasks)
        todo = self._plan()
        if todo.take:
            # All of them end here, also when one fails: nothing may be taken behind the back of a later plan or stop.
            doubtful = self._memory.doubtful  # another worker was faster: not again before the row was read
            takes = [row for row in todo.take if row.shard_id not in doubtful][:MOST_TAKES]
            before = len(supervisor.workers)
            self._tell(error for _, error in await each(takes, lambda row: supervisor.take(row, tasks)))
            if len(supervisor.workers) > before:
                self._wake.set()
        if membership.is_steady(self._cycle) and not supervisor.stopping:
            supervisor.hand_over(todo.hand_over)
        self._tell(await membership.remove_fenced(self._memory.overview.owners))

    def _tell(self, errors: Iterable[Unavailable]) -> None:
        """Say that some rows could not be read or written: each is tried again by the next plan."""
        failed = list(errors)
        if failed:
            log.warning("leases.plan_failed", error=str(failed[0]), rows=len(failed))

    def _plan(self) -> Plan:
        """What to do now: nothing, as long as nothing has changed since there was nothing to do."""
        membership, rows = self._membership, self._memory.rows
        live = membership.live
        members = tuple((session.incarnation, session.leaving, session.capacity) for session in live)
        seen = (self._memory.version, members, membership.dead)
        if seen == self._at_rest:
            return Plan()
        todo = plan(self._context.incarnation, live, membership.dead, rows, self._overdue())
        self._at_rest = None if todo != Plan() or self._free_since else seen
        return todo

    def _log_quarantined(self, corrupt: Mapping[str, str]) -> None:
        """No worker takes a lease whose checkpoint cannot be read. Every worker says so, once."""
        for shard_id in corrupt.keys() - self._quarantined:
            log.error("shard.quarantined", shard_id=shard_id, found=corrupt[shard_id])
        self._quarantined = set(corrupt)

    def _overdue(self) -> set[str]:
        """Startable leases that stayed free for several planning cycles of every worker, and still were free when their
        rows were read again after that."""
        now, memory = self._clock.monotonic(), self._memory
        free = startable(memory.rows, self._membership.dead)
        since = self._free_since = {row.shard_id: self._free_since.get(row.shard_id, now) for row in free}
        patience, read_at = OVERDUE_CYCLES * self._cycle, self._pace.read_at
        late = {shard_id for shard_id in since if now - since[shard_id] > patience}
        again = {shard_id for shard_id in late if read_at - since[shard_id] > patience}
        again |= (self._asked & late) - memory.doubtful
        me = self._context.incarnation  # begin where no other worker does
        asked = sorted(late - self._asked, key=lambda shard_id: distance(me, shard_id))[: self._place.single_rows]
        memory.doubtful.update(asked)
        self._asked = (self._asked & late).union(asked)
        return set(sorted(again, key=lambda shard_id: distance(me, shard_id))[:MOST_OVERDUE])
