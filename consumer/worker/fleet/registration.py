"""Where the application starts on a stream: resolved once for the whole fleet, and written down."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import suppress

from consumer.domain.bulletin import ListingTurns
from consumer.domain.errors import MisconfiguredResource, StreamConsumerError, Unavailable
from consumer.ports.leases import LeaseTable, Registration
from consumer.ports.source import StreamDescription, StreamSource
from consumer.ports.time import Clock

PATIENCE = 15.0  # seconds that another worker may take to resolve ``latest``: 5,000 shards take eight
SHORT_PATIENCE = 3.0  # the same for a start that needs no listing
PAUSE = 1.0  # seconds between looks whether it has


async def register_start(
    source: StreamSource,
    store: LeaseTable,
    stream: StreamDescription,
    starting_position: str | dt.datetime,
    me: str,
    clock: Clock,
) -> Registration:
    """Write down where the application starts, once and for all workers, and return what holds. Of many that start
    together one, by the bulletin, asks DescribeStream for it; ``me`` is its name there.

    ``latest`` is resolved here, durably: shards closed by now hold only older records, open ones are read from the
    horizon and older records are dropped, shards that appear later are read whole. It is never resolved again.
    Raises what the source, the store and ``belongs_to`` raise.
    """
    patience = PATIENCE if starting_position == "latest" else SHORT_PATIENCE
    label, turns = stream.label, ListingTurns(me, regular=0.0, soon=0.0, patience=patience)
    while (known := await store.registration(label)) is None:
        turns.observe(seen := await store.bulletin(label), clock.monotonic(), 1.0)
        if turns.is_quiet(clock.monotonic()) and await store.begin_listing(label, seen, me):
            found: Registration | StreamConsumerError
            try:
                found = await _resolve(source, store, stream, starting_position)
            except StreamConsumerError as error:
                found = error
            with suppress(Unavailable):  # without it others wait a little longer
                await store.end_listing(label, seen.turn + 1, me)
            if isinstance(found, StreamConsumerError):
                raise found
            return belongs_to(stream, found)
        await asyncio.sleep(PAUSE)
    return belongs_to(stream, known)


async def _resolve(
    source: StreamSource, store: LeaseTable, stream: StreamDescription, starting_position: str | dt.datetime
) -> Registration:
    known = await store.registration(stream.label)  # another worker may have had a turn just before
    if known is not None:
        return known
    if starting_position == "latest":
        start = await _latest(source, stream.stream_id)
    elif isinstance(starting_position, dt.datetime):
        start = Registration(stream.stream_id, starting_position.timestamp())
    else:
        start = Registration(stream.stream_id, None)
    await source.check_listing()
    return await store.register(stream.label, start)


def belongs_to(stream: StreamDescription, registration: Registration) -> Registration:
    """The registration, if it is that of this stream: rows are found by its label, which is only a time.
    MisconfiguredResource when it is that of another one."""
    if registration.stream_id != stream.stream_id:
        raise MisconfiguredResource(
            f"the lease rows of {stream.label} belong to the stream {registration.stream_id}, not to"
            f" {stream.stream_id}: choose another application name"
        )
    return registration


async def _latest(source: StreamSource, stream_id: str) -> Registration:
    """The registration for ``starting_position: latest``: closed shards first, then the service's own time, so that
    whatever is written after this call is neither in a skipped shard nor dropped as older."""
    closed = frozenset(s.shard_id for s in await source.list_shards() if s.ending_sequence_number is not None)
    now = (await source.describe()).server_time
    return Registration(stream_id, float(int(now)), closed)
