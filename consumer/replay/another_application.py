"""Registers another application that begins at the position of a replay, beside the one that goes on."""

from __future__ import annotations

from consumer.domain.errors import MisconfiguredResource
from consumer.ports.leases import LeaseTable, Registration, ReplayTrace
from consumer.replay.survey import Survey
from consumer.settings.model import Settings
from consumer.worker.fleet.stream_replacement import current_stream
from consumer.worker.start import prepare_table
from consumer.worker.tasks import each


async def require_unused(store: LeaseTable, name: str) -> None:
    """MisconfiguredResource when the application has rows."""
    if await store.pinned() is not None:
        raise MisconfiguredResource(f"the application {name} has rows already: give --as another name")


async def register_at(settings: Settings, store: LeaseTable, found: Survey, trace: ReplayTrace) -> int:
    """Write the rows of the application of ``settings``, and where it starts last; returns how many rows.

    Raises:
        MisconfiguredResource: it has rows already, or a worker of it was started meanwhile.
        Unavailable: the table cannot be reached; begin again under another name.
    """
    name, stream = settings.application, found.stream
    await require_unused(store, name)
    await prepare_table(settings, store, stream)
    await current_stream(found.source, store, stream)
    taken: list[str] = []

    async def add(shard_id: str) -> None:
        if not await store.add_lease(stream.label, rows[shard_id]):
            taken.append(shard_id)

    rows = {one.shard_id: one.after for one in found.plan.rows}
    failed = await each(list(rows), add)
    if failed:
        raise failed[0][1]
    await store.record_replay(stream.label, trace)
    # Every shard has its own start in its row; those that are discovered later come after them, and are read whole.
    start = Registration(stream.stream_id, None)
    if taken or await store.register(stream.label, start) != start:
        raise MisconfiguredResource(
            f"a worker of {name} was started meanwhile, and begins elsewhere: stop it, and give --as another name"
        )
    return len(rows)
