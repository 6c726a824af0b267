"""Sets the rows of a stopped application back, as a member of the fleet that takes every lease it changes first.

While it holds them no worker can start on one of these shards, and nothing is taken from the living; so a worker that
starts meanwhile either has a lease before, and the replay changes nothing, or waits until all is written. Children are
written before their parents: whatever interrupts it leaves a smaller replay, and no parent behind its child.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from consumer.domain.errors import DependencyError, MisconfiguredResource, StreamConsumerError
from consumer.domain.lease import LeaseRow
from consumer.domain.replay import ReplayPlan, SetBack, levels
from consumer.domain.windows import WindowState
from consumer.ports.leases import LeaseTable, ReplayTrace
from consumer.ports.time import Clock
from consumer.redrive.session import RedriveSession
from consumer.worker.tasks import each

log = structlog.get_logger()

_AGAIN = "run the same command again"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """``label`` is that of the stream, ``position`` in words for the trace. ``token`` never gives the same twice."""

    store: LeaseTable
    session: RedriveSession
    clock: Clock
    label: str
    position: str
    token: Callable[[], str]


async def require_nothing_parked(store: LeaseTable) -> None:
    """MisconfiguredResource while a key is parked: its older records are dead letters, and would come after those that
    a replay repeats."""
    parked = await store.parked()
    if parked:
        raise MisconfiguredResource(
            f"{len(parked)} keys are parked: their older records are dead letters, and a replay would handle newer "
            "ones before those. Bring them back first, with `stream-consumer dlq redrive`"
        )


async def set_back(work: Rewrite, plan: ReplayPlan) -> int:
    """Write the plan; returns how many rows were set back. The session must be open, and nobody else.

    Raises:
        MisconfiguredResource: a worker has started meanwhile, or a key is parked; or a damaged row cannot be taken, or
            still cannot be read: then all others are written.
        LeaseLost, SessionFenced: this command was silent for too long; what is written is a smaller replay.
        Unavailable: the table cannot be reached; the same command completes what was begun.
    """
    store, label = work.store, work.label
    for row in plan.finished:
        await store.add_lease(label, row)
    held: dict[str, LeaseRow] = {}
    try:
        await _all(plan.rows, lambda one: _take(work, one, held))
        await require_nothing_parked(store)
        await store.record_replay(
            label, ReplayTrace(work.session.incarnation, work.clock.wall(), work.position, plan.shards)
        )
        for level in levels(plan):
            await _all(level, lambda one: _write(work, one, held))
        by = work.session.incarnation
        log.warning("replay.written", stream=label, position=work.position, shards=len(plan.rows), by=by)
        await _all([one for one in plan.rows if one.before and one.before.corrupt], lambda one: _look(work, one))
    finally:
        await each(list(held.values()), lambda row: _release(work, row))
    return len(plan.rows)


async def _all(rows: Sequence[SetBack], do: Callable[[SetBack], Awaitable[None]]) -> None:
    failed = await each(rows, do)
    if failed:
        one, error = failed[0]
        raise DependencyError("replay", "Incomplete", f"{one.shard_id}: {error}; {_AGAIN}") from error


async def _take(work: Rewrite, one: SetBack, held: dict[str, LeaseRow]) -> None:
    before = one.before
    if before is None:
        await work.store.add_lease(work.label, one.after)
        before = await work.store.lease(work.label, one.shard_id) or one.after
    work.session.require()
    taken = await work.store.take(work.label, before, work.session.incarnation, work.token())
    if taken is None and before.corrupt:
        raise _unreadable(one.shard_id, before.corrupt)
    if taken is not None:
        held[one.shard_id] = taken
    if taken is None or (one.before is not None and _work(taken) != _work(one.before)):
        raise MisconfiguredResource(
            f"a worker has gone on with {one.shard_id} meanwhile, and nothing was changed: stop the workers of this "
            f"application, then {_AGAIN}"
        )


def _work(row: LeaseRow) -> object:
    return row.state, row.frontier, row.replay


async def _write(work: Rewrite, one: SetBack, held: dict[str, LeaseRow]) -> None:
    taken = held[one.shard_id]
    after = replace(one.after, owner=taken.owner, epoch=taken.epoch)
    window = WindowState() if taken.window_open else None
    work.session.require()
    await work.store.save(work.label, after, window)
    held[one.shard_id] = after


async def _look(work: Rewrite, one: SetBack) -> None:
    """A row is repaired by what is written into it, unless the damage is in what stays: who its parents are."""
    found = await work.store.lease(work.label, one.shard_id)
    if found is not None and found.corrupt:
        raise _unreadable(one.shard_id, found.corrupt)


def _unreadable(shard_id: str, problem: str) -> MisconfiguredResource:
    return MisconfiguredResource(
        f"the row of {shard_id} stays quarantined, because what cannot be read is nothing that is set back: {problem}; "
        f"put that right in the table, then {_AGAIN}"
    )


async def _release(work: Rewrite, row: LeaseRow) -> None:
    """Best effort: without it workers wait until this session has expired."""
    with suppress(StreamConsumerError):
        await work.store.release(work.label, row)
