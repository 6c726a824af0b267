"""The first reads of a process: whether its credentials may read the stream at all.

No call before the first GetShardIterator and GetRecords needs these permissions, so a start cannot ask for them by
itself. A worker that was never allowed to read holds leases that others could work on, and only a person can help it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from consumer.domain.errors import PermissionDenied
from consumer.ports.time import Clock
from consumer.worker.shard.reader import ReaderState

REFUSED_FOR = 20.0  # seconds: a permission that was just given takes a while to spread
LOOK = 0.5  # seconds between two looks


async def first_reads(states: Callable[[], Collection[ReaderState]], clock: Clock) -> PermissionDenied | None:
    """Look at the readers of this worker until one of its reads is answered (None), or until all of them have been
    refused for ``REFUSED_FOR`` seconds (the last refusal). A worker that owns nothing yet is looked at later."""
    refused_since: float | None = None
    while True:
        now, readers = clock.monotonic(), list(states())
        if any(state.answered for state in readers):
            return None
        refusals = [state.refusal for state in readers if state.refusal is not None]
        if not refusals or len(refusals) < len(readers):
            refused_since = None
        elif refused_since is None:
            refused_since = now
        elif now - refused_since >= REFUSED_FOR:
            return refusals[0]
        await asyncio.sleep(LOOK)
