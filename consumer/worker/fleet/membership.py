"""The fleet as one worker sees it: which sessions live, which are dead for good, and what this one announces.

A session that was silent for too long is fenced first: from then on it can never renew, so its leases are safe to take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

import structlog

from consumer.domain.errors import SessionFenced, Unavailable
from consumer.domain.lease import MOST_FAILING, Observer, SessionRow
from consumer.domain.reading_pace import between_readings_of_sessions
from consumer.worker.context import WorkerContext
from consumer.worker.tasks import each

log = structlog.get_logger()

KEPT_FENCED = (
    6  # of its durations that a fenced session's row stays after its last sign of life: longer than a request is late
)
ANNOUNCE_PAUSE = 0.05  # seconds: many releases make one announcement


class Membership:
    """Reads the sessions of the fleet, fences the dead ones, and announces what this worker gives away.

    ``sessions`` are all rows as last read; ``dead`` are incarnations that can never renew again; ``handoffs`` counts
    the leases that this worker gave away.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._me = context.incarnation
        self._stream_id = context.stream.stream_id
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._metrics = context.metrics
        self._observer = Observer(context.settings.leases.duration)
        self._read_at = 0.0
        self._members: frozenset[str] = frozenset()
        self._members_since = float("-inf")
        self._has_news = asyncio.Event()
        self._leaving = False
        self._failing: tuple[str, ...] = ()
        self.sessions: list[SessionRow] = []
        self.dead: frozenset[str] = frozenset()
        self.handoffs = 0

    # --- what the sessions show ------------------------------------------------------------------------

    async def read(self) -> bool:
        """Read all sessions; False when the fleet is so large that it is not this worker's time yet. Unavailable."""
        if self._clock.monotonic() - self._read_at < between_readings_of_sessions(self.sessions):
            return False
        self.sessions = await self._store.sessions()
        self._read_at = self._clock.monotonic()
        announced = (self._capacity, self._failing)
        if any((one.capacity, one.failing) != announced for one in self.sessions if one.incarnation == self._me):
            self._has_news.set()
        return True

    @property
    def _capacity(self) -> int:
        return int(self._context.settings.limits.max_shards)

    @property
    def digest(self) -> object:
        """Changes when leases may have moved: a worker came or went, gave leases away, or is leaving."""
        return tuple(sorted((s.incarnation, s.handoffs, s.leaving, s.fenced) for s in self.sessions))

    def observe(self, owners: Iterable[str]) -> None:
        """Note the counters as they were read. ``owners`` of unfinished leases are watched also without a session."""
        self._observer.observe(self.sessions, owners, self._read_at)

    @property
    def live(self) -> list[SessionRow]:
        """The sessions that share the leases of this stream. While a stream replaces another, some workers are on the
        other one."""
        return [
            session
            for session in self.sessions
            if session.readable
            and not session.fenced
            and session.incarnation not in self.dead
            and session.stream_id in ("", self._stream_id)
        ]

    def is_first(self) -> bool:
        """Whether this worker does what one worker should do for the fleet, so that DescribeStream stays below its
        limit: the first live one by name does it."""
        live = [s.incarnation for s in self.live if not s.leaving]
        return bool(live) and min(live) == self._me

    def is_steady(self, seconds: float) -> bool:
        """No worker has come or gone for so long. Workers that are started together are not seen together; a plan for
        half of them would move shards twice."""
        members = frozenset(s.incarnation for s in self.live if not s.leaving)
        if members != self._members:
            self._members, self._members_since = members, self._read_at
        return self._read_at - self._members_since >= seconds

    # --- the dead --------------------------------------------------------------------------------------

    async def fence_expired(self) -> list[Unavailable]:
        """Fence the sessions that did not move for so long that none of them can still be valid. Returns what
        failed."""
        by_id = {s.incarnation: s for s in self.sessions}
        dead = {s.incarnation for s in self.sessions if s.fenced}

        async def fence(incarnation: str) -> None:
            session = by_id.get(incarnation)
            if session is not None and not session.readable:
                return
            if session is None or await self._store.fence_session(incarnation, session.counter):
                dead.add(incarnation)
                if incarnation not in self.dead:
                    self._metrics.lease_events("peer_fenced").inc()
                    log.warning("session.expired", incarnation=incarnation, fenced=session is not None)

        expired = self._observer.expired(self._read_at)
        failed = await each([who for who in expired if who != self._me and who not in dead], fence)
        self.dead = frozenset(dead)
        return [error for _, error in failed]

    async def remove_fenced(self, owners: Collection[str]) -> list[Unavailable]:
        """Remove fenced sessions that own nothing any more (``owners`` of unfinished leases stay). Not soon: while the
        row is there, a late request to open that session cannot make it anew, without the fence. Returns what
        failed."""
        now = self._clock.monotonic()

        def is_over(session: SessionRow) -> bool:
            who = session.incarnation
            if not session.fenced or not session.readable or who in owners:
                return False
            return self._observer.unchanged_for(who, now) >= KEPT_FENCED * self._observer.duration(who)

        over = [session.incarnation for session in self.sessions if is_over(session)]
        return [error for _, error in await each(over, self._store.close_session)]

    # --- announcements ---------------------------------------------------------------------------------

    def gave_away(self) -> None:
        """A lease was released: peers look at the leases at once when they see it announced."""
        self.handoffs += 1
        self._has_news.set()

    def tell_failing(self, shard_ids: Iterable[str]) -> None:
        """In these shards a key fails again and again: the status pages of the other workers say so, too. Those that
        were named before come first: where many shards fail in turns, others would be announced every second."""
        named = sorted(shard_ids, key=lambda shard_id: (shard_id not in self._failing, shard_id))[:MOST_FAILING]
        found = tuple(sorted(named))
        if found != self._failing:
            self._failing = found
            self._has_news.set()

    async def leave(self) -> None:
        """Announce that this worker is shutting down and gets no new leases."""
        self._leaving = True
        await self.announce()

    async def announce_for_ever(self) -> None:
        """Announce what was given away, and how many shards this worker takes and in which a key fails when that has
        changed."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            await self.announce()
            await asyncio.sleep(ANNOUNCE_PAUSE)

    async def announce(self) -> None:
        """One attempt; without it peers find out by their regular reading."""
        try:
            await self._store.announce(
                self._me,
                handoffs=self.handoffs,
                leaving=self._leaving,
                capacity=self._capacity,
                failing=self._failing,
            )
        except (Unavailable, SessionFenced) as error:
            log.warning("session.announce_failed", error=str(error))
