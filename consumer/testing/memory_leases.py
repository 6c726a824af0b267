"""The lease table in memory, with the semantics of the real one.

``MemoryTable`` is the table; every worker opens its own ``MemoryLeaseStore`` on it, so several workers can be run
against each other in one process. Reads and conditional writes are atomic, as DynamoDB's are; before and after each of
them lies a point where other tasks run, so interleavings exist. A ``Link`` decides what happens on the way: it can
delay a request or its response (by sleeping) or lose either (by raising ``DependencyError``). A lost response leaves
the write applied, which is what makes the ambiguous cases real; the store then resolves them as the DynamoDB one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from consumer.domain.errors import (
    DependencyError,
    LeaseDeleted,
    LeaseLost,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
    SessionFenced,
    Throttled,
)
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.windows import WindowState
from consumer.ports.leases import Loss, Registration
from consumer.testing.links import DirectLink, LateRequest, Link, travel
from consumer.testing.memory_table import HeldLease, HeldSession, MemoryTable

T = TypeVar("T")
Applied = tuple[bool, Any]  # whether the condition held, and what the write returns

ATTEMPTS = 3  # of one write when no answer comes, as in the DynamoDB store


class MemoryLeaseStore:
    """``ports.LeaseTable`` on a ``MemoryTable``.

    Args:
        table: shared by all workers.
        application: namespaces every row.
        clock_wall: Unix time, for ``updated_at`` only.
        link: this worker's network; without one nothing is ever lost.
    """

    def __init__(
        self, table: MemoryTable, application: str, clock_wall: Callable[[], float], link: Link | None = None
    ) -> None:
        self._table = table
        self._application = application
        self._wall = clock_wall
        self._link: Link = link if link is not None else DirectLink()
        self._revision = 0

    # --- table and application ---------------------------------------------------------------------

    async def prepare(self, *, create: bool) -> bool:
        await asyncio.sleep(0)
        if self._table.exists:
            return False
        if not create:
            raise ResourceMissing(f"lease table {self._table.name}")
        self._table.exists = True
        return True

    async def pin_application(self, table_name: str) -> None:
        def apply() -> Applied:
            return True, self._table.applications.setdefault(self._application, table_name)

        found = (await self._write("pin_application", apply))[1]
        if found != table_name:
            raise MisconfiguredResource(
                f"application {self._application} in lease table {self._table.name}: "
                f"it reads the table {found}, not {table_name}: choose another application name"
            )

    async def switch_stream(self, seen: str | None, stream_arn: str) -> str:
        def apply() -> Applied:
            if self._application not in self._table.applications:
                raise ResourceMissing(f"the row of application {self._application}")
            if self._table.streams.get(self._application) == seen:
                self._table.streams[self._application] = stream_arn
            return True, self._table.streams[self._application]

        found: str = (await self._write("switch_stream", apply))[1]
        return found

    async def register(self, label: str, registration: Registration) -> Registration:
        def apply() -> Applied:
            known = self._table.registrations.setdefault((self._application, label), registration)
            if known is registration and self._table.on_register is not None:
                self._table.on_register(registration)
            return True, known

        found: Registration = (await self._write("register", apply))[1]
        return found

    async def registration(self, label: str) -> Registration | None:
        return await self._read("registration", lambda: self._table.registrations.get((self._application, label)))

    # --- sessions ----------------------------------------------------------------------------------

    async def open_session(self, session: SessionRow) -> None:
        mine = object()

        def apply() -> Applied:
            found = self._sessions.setdefault(session.incarnation, HeldSession(session, mine))
            return found.opened_by is mine, None

        if not (await self._write("open_session", apply))[0]:
            raise SessionFenced(f"the incarnation {session.incarnation} was used before")

    async def bump_session(self, incarnation: str, counter: int) -> None:
        written_here = False

        def apply() -> Applied:
            nonlocal written_here
            session = self._live(incarnation)
            if session.row.counter < counter:
                session.row = replace(session.row, counter=counter)
                written_here = True
            return written_here and session.row.counter == counter, session.row.counter

        advanced, found = await self._write("bump_session", apply)
        if not advanced:
            raise DependencyError("UpdateItem", "CounterNotAdvanced", f"{counter} after {found}")

    async def announce(self, incarnation: str, *, handoffs: int, leaving: bool) -> None:
        def apply() -> Applied:
            session = self._live(incarnation)
            session.row = replace(session.row, handoffs=handoffs, leaving=leaving)
            return True, None

        await self._write("announce", apply)

    async def close_session(self, incarnation: str) -> None:
        def apply() -> Applied:
            return self._sessions.pop(incarnation, None) is not None, None

        await self._write("close_session", apply)

    async def sessions(self) -> list[SessionRow]:
        return await self._read("sessions", lambda: [session.row for session in self._sessions.values()])

    async def fence_session(self, incarnation: str, counter: int) -> bool:
        def apply() -> Applied:
            session = self._sessions.get(incarnation)
            if session is not None and session.row.counter == counter:
                session.row = replace(session.row, fenced=True)
            return session is not None and session.row.fenced, None

        return (await self._write("fence_session", apply))[0]

    # --- leases ------------------------------------------------------------------------------------

    async def add_lease(self, label: str, row: LeaseRow) -> bool:
        revision = row.revision if row.owner is None else self._next_revision(row)

        def apply() -> Applied:
            leases = self._leases(label)
            if row.shard_id in leases:
                return False, None
            self._table.put(leases, replace(row, revision=revision, updated_at=self._wall()), "add_lease")
            return True, None

        return (await self._write("add_lease", apply))[0]

    async def leases(self, label: str) -> list[LeaseRow]:
        return await self._read("leases", lambda: [lease.row for _, lease in sorted(self._leases(label).items())])

    async def lease(self, label: str, shard_id: str) -> LeaseRow | None:
        def read() -> LeaseRow | None:
            lease = self._leases(label).get(shard_id)
            return lease.row if lease is not None else None

        return await self._read("lease", read)

    async def take(self, label: str, seen: LeaseRow, owner: str, nonce: str) -> LeaseRow | None:
        def apply() -> Applied:
            lease = self._leases(label).get(seen.shard_id)
            if lease is None:
                return False, None
            if (lease.row.owner, lease.row.epoch) == (seen.owner, seen.epoch):
                row = replace(lease.row, owner=owner, epoch=seen.epoch + 1, revision=0, updated_at=self._wall())
                self._table.put(self._leases(label), row, "take").take_nonce = nonce
            return lease.take_nonce == nonce, lease.row

        try:
            taken, row = await self._write("take", apply)
        except DependencyError as error:
            if isinstance(error, Throttled):
                raise

            def look() -> Applied:
                lease = self._leases(label).get(seen.shard_id)
                return (lease.take_nonce == nonce, lease.row) if lease is not None else (False, None)

            taken, row = await travel(self._link, "lease", look)
        return row if taken else None

    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        revision = self._next_revision(held)

        def apply() -> Applied:
            lease = self._held(label, held)
            if lease.row.revision < revision:
                row = replace(self._progress(lease.row, held), revision=revision)
                self._table.put(self._leases(label), row, "save")
                self._keep(label, held, window)
            return True, None

        await self._write("save", apply)

    async def release(
        self, label: str, held: LeaseRow, to: str | None = None, window: WindowState | None = None
    ) -> None:
        revision = self._next_revision(held)
        by = (held.owner, held.epoch)

        def apply() -> Applied:
            lease = self._leases(label).get(held.shard_id)
            if lease is not None and lease.passed_on_by == by:
                return True, None  # an attempt whose answer was lost did succeed
            lease = self._held(label, held)
            if lease.row.revision >= revision:
                raise LeaseLost(held.shard_id, held.epoch, _holder(lease.row))
            row = replace(self._progress(lease.row, held), owner=to)
            row = replace(row, revision=revision) if to is None else replace(row, epoch=held.epoch + 1, revision=0)
            self._table.put(self._leases(label), row, "release").passed_on_by = by
            self._keep(label, held, window)
            return True, None

        await self._write("release", apply)

    async def window_state(self, label: str, shard_id: str) -> WindowState:
        key = (self._application, label, shard_id)
        return await self._read("window_state", lambda: self._table.windows.get(key, WindowState()))

    async def remove_lease(self, label: str, seen: LeaseRow) -> bool:
        removed = False

        def apply() -> Applied:
            nonlocal removed
            lease = self._leases(label).get(seen.shard_id)
            if lease is not None and _same(lease.row, seen):
                del self._leases(label)[seen.shard_id]
                removed = True
                if self._table.on_remove is not None:
                    self._table.on_remove(lease.row)
            return removed, None

        return (await self._write("remove_lease", apply))[0]

    # --- losses ------------------------------------------------------------------------------------

    async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
        def apply() -> Applied:
            self._held(label, held)
            key = (loss.kind, loss.shard_id, loss.first_sequence_number or f"{loss.detected_at:.6f}")
            self._table.losses.setdefault((self._application, label), {})[key] = loss
            return True, None

        await self._write("record_loss", apply)

    # --- the table ---------------------------------------------------------------------------------

    @property
    def _sessions(self) -> dict[str, HeldSession]:
        return self._table.sessions.setdefault(self._application, {})

    def _leases(self, label: str) -> dict[str, HeldLease]:
        return self._table.leases.setdefault((self._application, label), {})

    def _keep(self, label: str, held: LeaseRow, window: WindowState | None) -> None:
        if window is not None:
            self._table.windows[self._application, label, held.shard_id] = window

    def _live(self, incarnation: str) -> HeldSession:
        session = self._sessions.get(incarnation)
        if session is None:
            raise SessionFenced(f"the session {incarnation} was deleted")
        if session.row.fenced:
            raise SessionFenced(f"the session {incarnation} was fenced")
        return session

    def _held(self, label: str, held: LeaseRow) -> HeldLease:
        if held.owner is None:
            raise ValueError(f"the lease of {held.shard_id} is not held by anybody")
        lease = self._leases(label).get(held.shard_id)
        if lease is None:
            raise LeaseDeleted(held.shard_id, held.epoch)
        row = lease.row
        if (row.owner, row.epoch) != (held.owner, held.epoch):
            raise LeaseLost(held.shard_id, held.epoch, _holder(row))
        return lease

    def _next_revision(self, held: LeaseRow) -> int:
        self._revision = max(self._revision, held.revision) + 1
        return self._revision

    def _progress(self, stored: LeaseRow, held: LeaseRow) -> LeaseRow:
        """What an owner may change. The frontier of a corrupt row is evidence and stays."""
        row = replace(stored, state=held.state, note=held.note, updated_at=self._wall())
        return row if held.corrupt else replace(row, frontier=held.frontier, corrupt="")

    async def _read(self, operation: str, read: Callable[[], T]) -> T:
        def look() -> T:
            self._require_table()
            return read()

        return await travel(self._link, operation, look)

    async def _write(self, operation: str, apply: Callable[[], Applied]) -> Applied:
        """Apply a write atomically; apply it again when its answer was lost."""

        def change() -> Applied | Exception:
            self._require_table()
            try:
                return apply()
            except (LeaseLost, SessionFenced, ResourceMissing) as refusal:
                return refusal  # an answer like any other: it may get lost, too

        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await travel(self._link, operation, change)
                if isinstance(answer, Exception):
                    raise answer
                return answer
            except (Throttled, PermissionDenied):
                raise
            except DependencyError as error:
                if isinstance(error, LateRequest):
                    error.hold(apply)
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _require_table(self) -> None:
        if not self._table.exists:
            raise ResourceMissing(f"lease table {self._table.name}")


def _holder(row: LeaseRow) -> str:
    return f"owner {row.owner or 'nobody'}, epoch {row.epoch}"


def _same(row: LeaseRow, seen: LeaseRow) -> bool:
    return (row.owner, row.epoch, row.state, row.updated_at) == (seen.owner, seen.epoch, seen.state, seen.updated_at)
