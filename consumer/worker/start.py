"""The one start of a worker, for the daemon, the simulator and tests: each step needs what the one before it made.

Describe the stream, prepare the lease table, pin the application to its source table, choose the stream that the fleet
reads now, check the dead-letter destination, register where the application starts. The session is opened by the loop
of incarnations, which does it again for every further one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import structlog

from consumer.operate.metrics import Metrics
from consumer.ports.leases import LeaseTable, Registration, SessionStore
from consumer.ports.source import StreamDescription
from consumer.settings.model import Settings
from consumer.worker.context import Ports
from consumer.worker.fleet.incarnation import Host, IncarnationLoop
from consumer.worker.fleet.registration import register_start
from consumer.worker.fleet.stream_replacement import current_stream
from consumer.worker.retrying import at_start

log = structlog.get_logger()


async def start(
    host: Host,
    settings: Settings,
    ports: Ports,
    session_store: SessionStore,
    metrics: Metrics,
    reached: Callable[[Literal["lease_table"]], None] = lambda step: None,
) -> IncarnationLoop:
    """Returns the worker, ready to run.

    ``ports.source`` is the source as configured: by its table, or by the ARN of a stream. What passes by itself is
    waited for until the start deadline. ``reached`` is told of the step that the status page shows.

    Raises:
        Unavailable, MisconfiguredResource: a step cannot be done; the error names what is wrong.
    """
    clock, store, configured = ports.clock, ports.store, ports.source
    latest = await at_start(clock, "the stream", configured.describe)
    await at_start(clock, "the lease table", lambda: prepare_table(settings, store, latest))
    source, stream = await at_start(clock, "the stream", lambda: current_stream(configured, store, latest))
    reached("lease_table")
    if (redaction := settings.on_failure.redaction) is not None:
        redaction.require_no_keys(stream.keys, stream.name)
    if ports.dead_letters is not None:
        await at_start(clock, "the dead-letter destination", ports.dead_letters.prepare)
    position = settings.source.starting_position

    async def begin() -> Registration:
        return await register_start(source, store, stream, position, host.name, clock)

    registration = await at_start(clock, "the registration", begin)
    return IncarnationLoop(host, settings, replace(ports, source=source), session_store, metrics, stream, registration)


async def prepare_table(settings: Settings, store: LeaseTable, stream: StreamDescription) -> None:
    """Check the lease table, or create it if the settings allow it, and pin the application to its source table."""
    leases = settings.leases
    if await store.prepare(create=leases.create_table):
        log.info("lease_table.created", table=leases.table)
    if await store.pin_application(stream.source_id):
        log.warning("lease_table.restored", table=leases.table)
