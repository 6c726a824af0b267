"""One replay in place, from the question whether workers run to the last row."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from consumer.domain.errors import StreamConsumerError, first_error
from consumer.ports.leases import LeaseTable, ReplayTrace
from consumer.ports.time import Clock
from consumer.redrive.session import RedriveSession
from consumer.replay.in_place import Rewrite, require_nothing_parked, set_back
from consumer.replay.survey import Survey
from consumer.worker.fleet.stopped_fleet import require_stopped
from consumer.worker.process_name import process_name


async def in_place(
    store: LeaseTable,
    clock: Clock,
    duration: float,
    found: Survey,
    words: str,
    waiting: Callable[[float], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    *,
    purpose: str = "replay",
) -> int:
    """Set the rows of ``found`` back; returns how many. ``duration``: ``leases.duration`` (seconds); ``words``: the
    position, for the trace; ``waiting`` is told how many seconds it takes to see whether workers run, and people for
    what ``purpose`` they are to be stopped.

    Raises what ``require_stopped`` and ``set_back`` raise.
    """
    await require_nothing_parked(store)
    owners = {row.owner for row in found.rows.values() if row.owner is not None and not row.finished}
    await require_stopped(store, clock, duration, owners, purpose, waiting, sleep)
    session = RedriveSession(store, clock, process_name(), uuid.uuid4().hex, duration)
    try:
        async with session.opened():
            work = Rewrite(store, session, clock, found.stream.label, words, lambda: uuid.uuid4().hex)
            return await set_back(work, found.plan)
    except BaseExceptionGroup as group:
        error = first_error(group)
        if isinstance(error, StreamConsumerError):
            raise error from group
        raise


def trace_of(found: Survey, clock: Clock, words: str) -> ReplayTrace:
    """The trace of a replay as another application, which needs no session."""
    return ReplayTrace(f"{process_name()}/{uuid.uuid4().hex}", clock.wall(), words, found.plan.shards)
