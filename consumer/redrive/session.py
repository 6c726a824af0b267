"""A redrive as a fenced member of the fleet: one session row, like a worker's, and claims in its name.

The row is opened as one that is leaving, so no worker gives it a lease. Whoever sees it silent for too long fences it,
a worker or the next redrive; from then on ``holds`` is False here for good. It was False before: the session relies on
itself for less time than others wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from consumer.domain.errors import SessionFenced, StreamConsumerError, Unavailable
from consumer.domain.lease import Observer, SessionRow, SessionValidity, name_of
from consumer.domain.redrive_claim import Claim, verdict
from consumer.ports.leases import SessionStore
from consumer.ports.redrive_claims import RedriveClaims
from consumer.ports.time import Clock
from consumer.worker.fleet.session_renewal import SessionRenewal

log = structlog.get_logger()

LOOK: Final = 0.25  # of the other's duration, between two looks at a session that may be dead


class RedriveUnderWay(Unavailable):
    """Another redrive works on the same place, and lives."""

    exit_code = 69

    def __init__(self, claim: Claim) -> None:
        super().__init__(
            f"{claim.place} is being redriven by {claim.owner}: wait for its end, or end that process; "
            "one that died is noticed by itself"
        )
        self.claim = claim


class RedriveFenced(SessionFenced, Unavailable):
    """This redrive was silent for too long, or others say so: they may go on where it was, and it must not."""

    exit_code = 69

    def __init__(self, incarnation: str) -> None:
        super().__init__(
            f"the session {incarnation} was not renewed in time (leases.duration), so another process may go on: "
            "nothing is deleted that was not handled; run it again, it goes on with what is left"
        )


class RedriveSession:
    """One session, from ``open`` to its end. ``incarnation`` names it in rows that are written in its name.

    Every step that others could not undo asks ``holds`` (or ``require``) right before it, with nothing awaited in
    between.
    """

    def __init__(self, store: SessionStore, clock: Clock, process: str, token: str, duration: float) -> None:
        """``process`` and ``token`` make a name that is used once; ``duration`` is ``leases.duration`` (seconds)."""
        self.incarnation = name_of(process, token, duration)
        self.lost = asyncio.Event()  # set when it was fenced
        self._store = store
        self._clock = clock
        self.duration = duration
        self._others = Observer(duration)
        self._asked_about: set[str] = set()
        self._announced = 0
        self._validity = SessionValidity()
        row = SessionRow(self.incarnation, leaving=True, started_at=clock.wall())
        self._renewal = SessionRenewal(store, clock, row, self._validity, may_renew=lambda: True)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[RedriveSession]:
        """The session while it is open and renewed. Unavailable when it cannot be opened."""
        await self._renewal.open()
        renewing = asyncio.create_task(self._renew(), name="session renewal")
        try:
            yield self
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            await self._renewal.close()

    async def _renew(self) -> None:
        try:
            await self._renewal.run()
        finally:
            if self._validity.fenced:
                self.lost.set()

    def holds(self) -> bool:
        """Whether this session is sure that nobody has taken its place."""
        return self._validity.holds(self._clock.monotonic())

    def left(self) -> float:
        """Seconds for which it still is; 0 or less when it is not. What starts user code later asks there again."""
        return self._validity.left(self._clock.monotonic())

    def require(self) -> None:
        """RedriveFenced when it does not hold: stop, and leave everything as it is."""
        if not self.holds():
            raise RedriveFenced(self.incarnation)

    async def is_dead(self, incarnation: str) -> bool:
        """Whether another member can never renew again. One that was silent for 1.1 of its durations, from the first
        time that it was asked about, is fenced. Unavailable."""
        sessions = await self._store.sessions()
        now = self._clock.monotonic()
        self._asked_about.add(incarnation)
        self._others.observe(sessions, self._asked_about, now)
        row = next((one for one in sessions if one.incarnation == incarnation), None)
        if row is not None and (row.fenced or not row.readable):
            return row.fenced
        if incarnation not in self._others.expired(now):
            return False
        return await self._fence([] if row is None else [row])

    async def ask_owners_to_look(self) -> None:
        """Workers that see the counter of this session move read their rows at once, as after a release. Unavailable,
        SessionFenced."""
        self._announced += 1
        await self._store.announce(self.incarnation, handoffs=self._announced, leaving=True)

    # --- claims ------------------------------------------------------------------------------------------

    async def take(self, claims: RedriveClaims, place: str) -> Claim:
        """Claim a place, from a dead session if need be: that takes 1.1 of its durations. RedriveUnderWay when a living
        one has it; Unavailable."""
        observer, counters = Observer(self.duration), set[int]()
        while True:
            seen = await claims.claim(place)
            owners = [seen.owner] if seen is not None else []
            sessions = [one for one in await self._store.sessions() if one.incarnation in owners]
            now = self._clock.monotonic()
            observer.observe(sessions, owners, now)
            counters.update(one.counter for one in sessions)
            found = verdict(seen, sessions, observer, now)
            if seen is not None and (found == "held" or len(counters) > 1):
                raise RedriveUnderWay(seen)
            if found == "silent" and seen is not None:
                found = "free" if await self._fence(sessions) else "unknown"
            if found == "free":
                self.require()
                taken = await claims.take_claim(place, seen, self.incarnation)
                if taken is not None:
                    return taken
                counters.clear()  # somebody was faster: look at that one
                continue
            await asyncio.sleep(LOOK * observer.duration(owners[0]))

    async def _fence(self, sessions: list[SessionRow]) -> bool:
        """True when the session can never renew again; one whose row is gone cannot either."""
        for session in sessions:
            if not await self._store.fence_session(session.incarnation, session.counter):
                return False
            log.warning("session.expired", incarnation=session.incarnation, fenced=True)
        return True

    async def give_back(self, claims: RedriveClaims, claim: Claim) -> None:
        """Best effort: without it the claim ends with the session."""
        with suppress(StreamConsumerError):
            await claims.drop_claim(claim)
