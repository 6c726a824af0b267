"""Renews this worker's session: the only heartbeat of everything that the worker owns.

It runs beside the main loop (on a thread of its own in production), because a handler that blocks the main loop must
not cost the leases. The reverse is guarded as well: a wedged main loop must not keep its leases for ever, so the
watchdog forbids renewals (``may_renew``) before it ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from consumer.domain.errors import SessionFenced, StreamConsumerError, Unavailable
from consumer.domain.lease import SessionRow, SessionValidity
from consumer.ports.leases import SessionStore
from consumer.ports.time import Clock

log = structlog.get_logger()

RENEWALS_PER_DURATION = 4


class SessionRenewal:
    """Opens the session row, then bumps it every quarter of its duration, until it is fenced or cancelled. It alone
    extends or ends ``validity``, by the duration that observers read in the name of the session."""

    def __init__(
        self,
        store: SessionStore,
        clock: Clock,
        session: SessionRow,
        validity: SessionValidity,
        may_renew: Callable[[], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._session = session
        self._incarnation = session.incarnation
        self._validity = validity
        self._duration = session.duration
        self._may_renew = may_renew

    async def open(self) -> None:
        """Write the row of a new incarnation. Unavailable."""
        sent_at = self._clock.monotonic()
        await self._store.open_session(self._session)
        self._validity.renewed(sent_at, self._duration)

    async def run(self) -> None:
        """Renew until fenced. The validity counts from *before* the send: a slow answer never stretches it."""
        counter = 0
        interval = self._duration / RENEWALS_PER_DURATION
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
                    return
                except Unavailable as error:
                    log.warning("session.renew_failed", incarnation=self._incarnation, error=str(error))
                    pause = interval / 4
                else:
                    self._validity.renewed(sent_at, self._duration)
                    pause = max(0.0, interval - (self._clock.monotonic() - sent_at))
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Delete the row. Without it the session expires by itself."""
        try:
            await self._store.close_session(self._incarnation)
        except StreamConsumerError as error:
            log.warning("session.close_failed", error=str(error))
