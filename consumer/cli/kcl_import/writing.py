"""The writes of an import: first where the application starts, then the rows, so that whatever interrupts them costs
repetitions and never a record. Written twice, they change nothing."""

from __future__ import annotations

from consumer.cli.kcl_import.survey import Reach, Request, Survey, says_the_same
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.kcl_plan import PlannedRow
from consumer.ports.leases import Registration
from consumer.worker.fleet.registration import belongs_to
from consumer.worker.fleet.stream_replacement import current_stream
from consumer.worker.start import prepare_table
from consumer.worker.tasks import each

_AGAIN = "run the same command again before any worker starts"


async def write(request: Request, reach: Reach, found: Survey) -> int:
    """Write what ``found`` has planned; returns how many rows were written.

    Raises:
        MisconfiguredResource: somebody else has written meanwhile.
        Unavailable: a table cannot be reached. The same command completes what was begun.
    """
    store, stream = reach.store, found.stream
    await prepare_table(request.settings, store, stream)
    _, current = await current_stream(reach.source, store, stream)
    if current.stream_id != stream.stream_id:
        raise MisconfiguredResource(f"the application has begun to read {current.stream_id} meanwhile: {_AGAIN}")
    # Where the configuration says to start does not count: nothing may be dropped as too old.
    start = Registration(stream.stream_id, None)
    if belongs_to(stream, await store.register(stream.label, start)) != start:
        raise MisconfiguredResource("a worker has registered another start meanwhile: choose another application name")

    async def add(one: PlannedRow) -> None:
        if await store.add_lease(stream.label, one.row):
            return
        there = await store.lease(stream.label, one.row.shard_id)
        if there is None or not says_the_same(there, one.row):
            raise MisconfiguredResource(
                f"a worker has made the row of {one.row.shard_id} meanwhile: stop the workers of this application, "
                "and choose another application name"
            )

    missing = found.missing
    first = {one.row.shard_id for one in found.plan.rows[: found.plan.first]}
    for one in [one for one in missing if one.row.shard_id in first]:
        await add(one)
    failed = await each([one for one in missing if one.row.shard_id not in first], add)
    if failed:
        raise failed[0][1]
    return len(missing)
