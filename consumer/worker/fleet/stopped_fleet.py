"""Whether the workers of an application have stopped: nobody's counter moves for as long as its owner relies on it.

For commands that change rows which only a worker may change while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from consumer.domain.errors import MisconfiguredResource
from consumer.domain.kcl_leases import some
from consumer.domain.lease import TAKE_MARGIN, Observer, SessionRow
from consumer.ports.leases import SessionStore
from consumer.ports.time import Clock


class FleetWatch:
    """What two looks at the sessions say. ``default``: ``leases.duration`` (seconds), for owners whose name does not
    say how long they rely on their leases."""

    def __init__(self, default: float) -> None:
        self._observer = Observer(default)

    def look(self, sessions: Collection[SessionRow], owners: Collection[str], now: float) -> None:
        """Note the sessions, and the owners of leases, as they were read before ``now`` (monotonic seconds)."""
        self._observer.observe(sessions, owners, now)

    def pause(self, sessions: Collection[SessionRow], owners: Collection[str] = ()) -> float:
        """Seconds until the second look."""
        fenced = {session.incarnation for session in sessions if session.fenced}
        watched = {*owners, *(session.incarnation for session in sessions)} - fenced
        return max((TAKE_MARGIN * self._observer.duration(who) for who in watched), default=0.0)

    def alive(self, sessions: Collection[SessionRow], now: float) -> list[str]:
        """Sessions that may still work, after the second look."""
        dead = set(self._observer.expired(now))
        return [one.incarnation for one in sessions if not one.fenced and one.incarnation not in dead]


async def require_stopped(
    store: SessionStore,
    clock: Clock,
    default: float,
    owners: Collection[str],
    purpose: str,
    waiting: Callable[[float], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    *,
    only_owners: bool = False,
) -> None:
    """Returns when no session is left that could still renew: the silent ones are fenced. ``owners`` of leases are
    waited for also without a session. ``waiting`` is told for how many seconds. With ``only_owners`` no other session
    matters.

    Raises:
        MisconfiguredResource: some live. ``purpose`` is what they are to be stopped for.
        Unavailable: the table cannot be reached.
    """

    async def watched() -> list[SessionRow]:
        return [one for one in await store.sessions() if not only_owners or one.incarnation in owners]

    watch, sessions = FleetWatch(default), await watched()
    watch.look(sessions, owners, clock.monotonic())
    pause = watch.pause(sessions, owners)
    if pause:
        waiting(pause)
        await sleep(pause)
    sessions = await watched()
    now = clock.monotonic()
    watch.look(sessions, owners, now)
    alive = watch.alive(sessions, now)
    for session in sessions:
        silent = session.incarnation not in alive and not session.fenced
        if silent and not await store.fence_session(session.incarnation, session.counter):
            alive.append(session.incarnation)
    if alive:
        raise MisconfiguredResource(f"{still_running(alive)}; stop them, then {purpose}")


def still_running(alive: Collection[str]) -> str:
    """The words about workers that live."""
    return f"workers of this application are running: {some(alive)}"
