"""This worker's part in sharing the leases: look at the fleet and its leases, plan, act.

No leader, and nothing is taken from the living: every worker computes the same plan (``domain/planner.py``) from the
same rows and carries out its own part. One incarnation has one coordinator; when the session is fenced, everything here
is dropped at once and the application starts a new incarnation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

import structlog

from consumer.domain.errors import ResourceMissing, StreamConsumerError, Unavailable
from consumer.domain.lease import LeaseRow, SessionRow, free_leases
from consumer.domain.planner import plan
from consumer.domain.remembered import Remembered
from consumer.domain.shards import may_start
from consumer.ports.leases import Registration
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.lease_memory import LeaseMemory
from consumer.worker.fleet.membership import Membership
from consumer.worker.fleet.shard_discovery import ShardDiscovery
from consumer.worker.fleet.shard_supervisor import ShardSupervisor
from consumer.worker.shard.shard_worker import ShardWorker
from consumer.worker.tasks import never_ending

log = structlog.get_logger()

OVERDUE_CYCLES = 3  # planning cycles that a startable lease may stay free until any worker takes it


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
        self._discovery = ShardDiscovery(context, registration, self._memory, self._wake.set)
        self._supervisor = ShardSupervisor(context, self._discovery, self._memory, self._membership, self._wake)
        self._digest: object = None
        self._read_at = float("-inf")
        self._free_since: dict[str, float] = {}
        self._quarantined: set[str] = set()
        self.planned = asyncio.Event()

    @property
    def workers(self) -> Collection[ShardWorker]:
        return self._supervisor.workers

    @property
    def rows(self) -> Collection[LeaseRow]:
        """The lease rows as last read."""
        return self._memory.rows.values()

    @property
    def remembered(self) -> Remembered:
        """What this process knows of the rows: for the next incarnation, should they be deleted."""
        return self._memory.remembered

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
                ("memory watch", self._supervisor.watch_memory()),
                ("shard sync", self._discovery.run(self.is_first)),
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
            try:
                async with asyncio.timeout(self._cycle * (0.8 + 0.4 * self._random.random())):
                    await self._wake.wait()
                self._digest = None  # woken: something changed that the sessions do not show
            except TimeoutError:
                pass

    async def _look(self) -> None:
        """Read the sessions; read the leases when the sessions changed, and every half ``duration`` anyway."""
        await self._membership.read()
        digest = self._membership.digest
        if digest != self._digest or self._clock.monotonic() - self._read_at >= self._duration / 2:
            asked_at = self._clock.monotonic()
            self._memory.observe(await self._supervisor.read_rows(), asked_at)
            self._digest, self._read_at = digest, self._clock.monotonic()
        self._membership.observe(self._memory.owners())

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
        await membership.fence_expired()
        await supervisor.put_back_deleted()
        await self._memory.restore()
        await supervisor.stop_dispossessed()
        await supervisor.raise_epochs()
        rows = self._memory.rows
        self._log_quarantined(rows.values())
        supervisor.adopt(rows.values(), tasks)
        todo = plan(self._context.incarnation, membership.live, membership.dead, rows, self._overdue())
        if todo.take:
            # All of them end here, also when one fails: nothing may be taken behind the back of a later plan or stop.
            takes = (supervisor.take(row, tasks) for row in todo.take)
            ends = await asyncio.gather(*takes, return_exceptions=True)
            self._wake.set()
            for error in ends:
                if error is not None:
                    raise error
        if membership.is_steady(self._cycle) and not supervisor.stopping:
            for shard_id, to in todo.hand_over:
                supervisor.release(shard_id, to)
        await membership.remove_fenced(self._memory.owners())

    def _log_quarantined(self, rows: Iterable[LeaseRow]) -> None:
        """No worker takes a lease whose checkpoint cannot be read. Every worker says so, once."""
        corrupt = {row.shard_id: row.corrupt for row in rows if row.corrupt}
        for shard_id in corrupt.keys() - self._quarantined:
            log.error("shard.quarantined", shard_id=shard_id, found=corrupt[shard_id])
        self._quarantined = set(corrupt)

    def _overdue(self) -> set[str]:
        """Startable leases that stayed free for several planning cycles of every worker."""
        now, rows = self._clock.monotonic(), self._memory.rows
        free = [row for row in free_leases(rows, self._membership.dead) if not row.finished and may_start(row, rows)]
        self._free_since = {row.shard_id: self._free_since.get(row.shard_id, now) for row in free}
        return {shard_id for shard_id, since in self._free_since.items() if now - since > OVERDUE_CYCLES * self._cycle}
