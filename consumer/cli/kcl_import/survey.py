"""Everything that an import has to know, found by reading alone: what would be written, and what forbids it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from consumer.cli.kcl_import.starting_positions import starts_of
from consumer.cli.kcl_import.trimmed import trimmed
from consumer.domain.errors import MisconfiguredResource, ResourceMissing
from consumer.domain.kcl_leases import UNCHECKED, KclReading, OwnLeases, leases_of, movement, some
from consumer.domain.kcl_plan import ImportPlan, PlannedRow, plan_import
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.shards import ShardInfo
from consumer.ports.leases import LeaseTable, Registration
from consumer.ports.source import StreamDescription, StreamSource
from consumer.ports.time import Clock
from consumer.settings.kinds import StartingPosition
from consumer.settings.model import Settings
from consumer.worker.fleet.registration import belongs_to
from consumer.worker.fleet.stopped_fleet import FleetWatch, still_running


class KclLeases(Protocol):
    """The KCL's lease table."""

    async def check(self) -> None:
        """ResourceMissing, MisconfiguredResource."""

    async def read(self) -> KclReading:
        """All rows, read consistently. Unavailable."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. ``failover_time`` (seconds) is the KCL's, ``start`` for shards without a checkpoint.
    ``caught_up``: the old fleet had processed everything when it was stopped."""

    settings: Settings
    table: str
    failover_time: float
    start: StartingPosition | None = None
    caught_up: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """What it reads and writes. ``waiting`` is told how many seconds it takes to see whether a fleet lives."""

    source: StreamSource
    store: LeaseTable
    kcl: KclLeases
    clock: Clock
    waiting: Callable[[float], None] = lambda seconds: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Own:
    """What this application has already: its lease table, where it started on the stream, its rows and its workers."""

    has_table: bool = False
    registration: Registration | None = None
    rows: dict[str, LeaseRow] = field(default_factory=dict)
    sessions: tuple[SessionRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """``refusals``: why nothing may be written. ``there``: shards whose rows are there already, as they are planned."""

    stream: StreamDescription
    reading: KclReading
    own_leases: OwnLeases
    plan: ImportPlan
    there: frozenset[str]
    notes: tuple[str, ...]
    refusals: tuple[str, ...]

    @property
    def missing(self) -> list[PlannedRow]:
        """The rows that are still to be written, in their order."""
        return [one for one in self.plan.rows if one.row.shard_id not in self.there]


async def survey(request: Request, reach: Reach) -> Survey:
    """Raises what the source and the tables raise. Writes nothing."""
    await reach.kcl.check()
    source, stream = await _stream(request, reach)
    before, sessions = await reach.kcl.read(), await _own(request, reach, stream)
    if not before.leases and not before.problems:
        raise MisconfiguredResource(f"table {request.table} holds no leases: there is nothing to import")
    watch = FleetWatch(request.settings.leases.duration)
    watch.look(sessions.sessions, (), reach.clock.monotonic())
    pause = max(request.failover_time, watch.pause(sessions.sessions))
    reach.waiting(pause)
    await reach.sleep(pause)
    after = await reach.kcl.read()
    own = await _own(request, reach, stream)
    now = reach.clock.monotonic()
    watch.look(own.sessions, (), now)
    alive = watch.alive(own.sessions, now)

    mine = leases_of(after.leases, stream.stream_arn, stream.label)
    listed = await source.list_shards()
    plan, trims = await _plan(request, reach, source, stream, mine, listed)
    there = _there(plan, own)
    refusals = (
        *after.problems,
        *mine.problems,
        *plan.problems,
        "" if mine.leases else f"table {request.table} has no lease of this stream, but of {some(mine.foreign)}",
        _undecided(plan),
        _old_fleet(before, after, request),
        f"{still_running(alive)}; stop them, then import" if alive else "",
        _started(own, stream),
        _contradicted(plan, own, there),
    )
    notes = (*mine.notes, *plan.notes, trims)
    return Survey(stream, after, mine, plan, there, tuple(filter(None, notes)), tuple(filter(None, refusals)))


# --- looks -------------------------------------------------------------------------------------------


async def _stream(request: Request, reach: Reach) -> tuple[StreamSource, StreamDescription]:
    """The stream that the rows are for: the one that the application would start on."""
    stream = await reach.source.describe()
    followed = await reach.source.latest_stream() is not None
    source = reach.source.of(stream.stream_id) if followed else reach.source
    if not await _has_lease_table(request, reach):
        return source, stream
    pinned = await reach.store.pinned()
    if pinned is not None and pinned.source_id != stream.source_id:
        raise MisconfiguredResource(
            f"application {request.settings.application} reads {pinned.source_id}, not {stream.source_id}: choose "
            "another application name"
        )
    if pinned is not None and followed and pinned.stream_id not in (None, stream.stream_id):
        raise MisconfiguredResource(
            f"application {request.settings.application} still reads {pinned.stream_id}, and {stream.stream_id} after "
            "it: choose another application name for what the KCL has read"
        )
    return source, stream


async def _has_lease_table(request: Request, reach: Reach) -> bool:
    """ResourceMissing when there is none and nothing would create it."""
    try:
        await reach.store.prepare(create=False)
    except ResourceMissing:
        if not request.settings.leases.create_table:
            raise
        return False
    return True


async def _own(request: Request, reach: Reach, stream: StreamDescription) -> Own:
    if not await _has_lease_table(request, reach):
        return Own()
    store = reach.store
    registration = await store.registration(stream.label)
    rows = {row.shard_id: row for row in await store.leases(stream.label)}
    return Own(True, registration, rows, tuple(await store.sessions()))


async def _plan(
    request: Request,
    reach: Reach,
    source: StreamSource,
    stream: StreamDescription,
    mine: OwnLeases,
    listed: list[ShardInfo],
) -> tuple[ImportPlan, str]:
    """The rows, and what is to be known of records that were trimmed."""
    unchecked = [lease for lease in mine.leases if lease.checkpoint in UNCHECKED]
    decided = await starts_of(unchecked, listed, request.start, source, stream, request.settings, reach.clock)
    plan = partial(
        plan_import,
        mine.leases,
        listed,
        stream.format.book_number,
        starts=decided,
        closing=stream.status in ("DISABLING", "DISABLED"),
    )
    made, known = plan(), {shard.shard_id for shard in listed}
    gone = await trimmed((one for one in made.rows if one.row.shard_id in known), source, stream)
    if not gone:
        return made, ""
    found = f"{some(gone)}: the record of the checkpoint is not there any more"
    if request.caught_up:
        return plan(
            caught_up=gone
        ), f"{found}; as you say that nothing was left to process, the oldest record left is next"
    return made, (
        f"{found}, and nothing says whether others behind it were trimmed, too: run leaves a gap row for each, and "
        f"source.on_gap ({request.settings.source.on_gap}) decides. Had the old fleet processed everything when it was "
        "stopped, say so with --caught-up"
    )


# --- judgements: empty when all is well --------------------------------------------------------------


def _undecided(plan: ImportPlan) -> str:
    if not plan.undecided:
        return ""
    return (
        f"{some(lease.key for lease in plan.undecided)}: at LATEST or AT_TIMESTAMP, and never checkpointed, so nothing "
        "says what of it was processed. Decide with --without-checkpoint: trim_horizon reads these shards from their "
        "beginning (nothing is missed, what was processed is repeated), a time such as that of the old fleet's start "
        "leaves out what is older, and latest what is older than this command (as the KCL would at its next start)"
    )


def _old_fleet(before: KclReading, after: KclReading, request: Request) -> str:
    moved = movement(before, after)
    if not moved:
        return ""
    return (
        f"the old fleet lives: within {request.failover_time:g} s {moved}; stop it, then import (two fleets would "
        "process the same records)"
    )


def _started(own: Own, stream: StreamDescription) -> str:
    registration = own.registration
    if registration is None:
        return ""
    belongs_to(stream, registration)
    if registration.start_at is None and not registration.skip_shards:
        return ""
    return (
        "the application has started on this stream at a later position than its oldest record, and drops what is "
        "older, also what the KCL has not processed: choose another application name"
    )


def _contradicted(plan: ImportPlan, own: Own, there: frozenset[str]) -> str:
    """Why rows that are there must not be written over."""
    planned = {one.row.shard_id for one in plan.rows}
    others = {i: row for i, row in own.rows.items() if i not in there and (i in planned or not _is_new(row))}
    if not others:
        return ""
    shard_id, row = min(others.items())
    example = f"{shard_id} is {row.state} at {row.frontier.low or 'no number'}, owner {row.owner or 'nobody'}"
    return (
        f"the application has {len(others)} lease rows that say something else ({example}): it has gone on since, or "
        "started otherwise; choose another application name to import once more"
    )


def _there(plan: ImportPlan, own: Own) -> frozenset[str]:
    """Shards whose rows are there as planned."""
    planned = {one.row.shard_id: one.row for one in plan.rows}
    return frozenset(i for i, row in own.rows.items() if i in planned and says_the_same(row, planned[i]))


def says_the_same(row: LeaseRow, planned: LeaseRow) -> bool:
    """Whether a row is as it would be written."""
    return (row.owner, row.epoch, row.corrupt) == (None, 0, "") and (row.state, row.frontier) == (
        planned.state,
        planned.frontier,
    )


def _is_new(row: LeaseRow) -> bool:
    """Nobody has ever worked on the shard: discovery has made its row, or an import."""
    return row.owner is None and row.epoch == 0 and row.frontier.untouched and not row.corrupt
