"""Where the application starts on a stream: resolved once for the whole fleet, and written down."""

from __future__ import annotations

import datetime as dt

from consumer.domain.errors import MisconfiguredResource
from consumer.ports.leases import Registration, Registry
from consumer.ports.source import StreamDescription, StreamSource


async def register_start(
    source: StreamSource, registry: Registry, stream: StreamDescription, starting_position: str | dt.datetime
) -> Registration:
    """Write down where the application starts, once and for all workers, and return what holds.

    ``latest`` is resolved here, durably: shards closed by now hold only older records, open ones are read from the
    horizon and older records are dropped, shards that appear later are read whole. It is never resolved again.
    Raises what the source and the registry raise.
    """
    known = await registry.registration(stream.label)
    if known is not None:
        return belongs_to(stream, known)
    if starting_position == "latest":
        start = await _latest(source, stream.stream_arn)
    elif isinstance(starting_position, dt.datetime):
        start = Registration(stream.stream_arn, starting_position.timestamp())
    else:
        start = Registration(stream.stream_arn, None)
    return belongs_to(stream, await registry.register(stream.label, start))


def belongs_to(stream: StreamDescription, registration: Registration) -> Registration:
    """The registration, if it is that of this stream: rows are found by its label, which is only a time.
    MisconfiguredResource when it is that of another one."""
    if registration.stream_arn != stream.stream_arn:
        raise MisconfiguredResource(
            f"the lease rows of {stream.label} belong to the stream {registration.stream_arn}, not to"
            f" {stream.stream_arn}: choose another application name"
        )
    return registration


async def _latest(source: StreamSource, stream_arn: str) -> Registration:
    """The registration for ``starting_position: latest``: closed shards first, then the service's own time, so that
    whatever is written after this call is neither in a skipped shard nor dropped as older."""
    closed = frozenset(s.shard_id for s in await source.list_shards() if s.ending_sequence_number is not None)
    now = (await source.describe()).server_time
    return Registration(stream_arn, float(int(now)), closed)
