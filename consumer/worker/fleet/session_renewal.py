"""The keeper of this worker's session: the only heartbeat, and the only writer of the worker's validity.

It runs beside the main loop (on a thread of its own in production), because a handler that blocks the main loop must
not cost the leases. The reverse is guarded too: when the main loop makes no progress for ``wedged_after`` seconds the
keeper stops renewing and ends the process, because a wedged worker must not keep its leases for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from consumer.domain.errors import SessionFenced, Unavailable
from consumer.domain.lease import SessionValidity
from consumer.ports.leases import LeaseTable
from consumer.ports.time import Clock

log = structlog.get_logger()

BUMPS_PER_DURATION = 4


class SessionRenewal:
    """Bumps the session row every quarter of ``duration`` (seconds) until it is fenced or stopped."""

    def __init__(
        self,
        store: LeaseTable,
        clock: Clock,
        validity: SessionValidity,
        incarnation: str,
        duration: float,
        *,
        may_renew: Callable[[], bool],
        on_lost: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._validity = validity
        self._incarnation = incarnation
        self._duration = duration
        self._may_renew = may_renew
        self._on_lost = on_lost

    async def run(self) -> None:
        """Renew until fenced. The validity counts from *before* the send: a slow answer never stretches it."""
        counter = 0
        interval = self._duration / BUMPS_PER_DURATION
        while True:
            counter += 1
            pause = interval
            if self._may_renew():
                sent_at = self._clock.monotonic()
                try:
                    await self._store.bump_session(self._incarnation, counter)
                except SessionFenced as error:
                    self._validity.lost()
                    log.error("session.fenced", incarnation=self._incarnation, reason=str(error))
                    self._on_lost()
                    return
                except Unavailable as error:
                    log.warning("session.renew_failed", incarnation=self._incarnation, error=str(error))
                    pause = interval / 4
                else:
                    self._validity.renewed(sent_at, self._duration)
                    pause = max(0.0, interval - (self._clock.monotonic() - sent_at))
            await asyncio.sleep(pause)
