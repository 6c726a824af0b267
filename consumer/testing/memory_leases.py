"""The lease table in memory, with the semantics of the real one.

``MemoryTable`` is the table; every worker opens its own ``MemoryLeaseStore`` on it, so several workers can be run
against each other in one process. Reads and conditional writes are atomic, as DynamoDB's are; before and after each of
them lies a point where other tasks run, so interleavings exist. A ``Link`` decides what happens on the way. A lost
response leaves the write applied, which is what makes the ambiguous cases real; the store then resolves them as the
DynamoDB one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from consumer.domain.dead_letter import PayloadPart
from consumer.domain.errors import (
    DependencyError,
    LeaseDeleted,
    LeaseLost,
    MisconfiguredResource,
    ResourceMissing,
    SessionFenced,
    Throttled,
)
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.windows import WindowState
from consumer.ports.leases import Loss, Pinned, Registration, ReplayTrace
from consumer.testing.memory_bulletins import MemoryBulletins
from consumer.testing.memory_client import MemoryClient
from consumer.testing.memory_parking import MemoryParking
from consumer.testing.memory_table import HeldLease, HeldSession, bytes_of

SESSION_BYTES = 120  # of a session row without its name


class MemoryRegistry(MemoryClient):
    """``ports.Registry``: the table itself, and what holds for the whole application."""

    async def prepare(self, *, create: bool) -> bool:
        await asyncio.sleep(0)
        if self._table.exists:
            return False
        if not create:
            raise ResourceMissing(f"lease table {self._table.name}")
        self._table.exists = True
        return True

    async def pin_application(self, table_arn: str) -> bool:
        applications = self._table.applications
        found = await self._write("pin_application", lambda: applications.setdefault(self._application, table_arn))
        if found != table_arn:
            raise MisconfiguredResource(
                f"application {self._application} in lease table {self._table.name}: "
                f"it reads {found}, not {table_arn}: choose another application name"
            )
        return False

    async def pinned(self) -> Pinned | None:
        def read() -> Pinned | None:
            table_arn = self._table.applications.get(self._application)
            return None if table_arn is None else Pinned(table_arn, self._table.streams.get(self._application))

        return await self._read("pinned", read)

    async def switch_stream(self, seen: str | None, stream_arn: str) -> str:
        def apply() -> str:
            if self._application not in self._table.applications:
                raise ResourceMissing(f"the row of application {self._application}")
            if self._table.streams.get(self._application) == seen:
                self._table.streams[self._application] = stream_arn
            return self._table.streams[self._application]

        return await self._write("switch_stream", apply)

    async def register(self, label: str, registration: Registration) -> Registration:
        def apply() -> Registration:
            known = self._table.registrations.setdefault((self._application, label), registration)
            if known is registration and self._table.on_register is not None:
                self._table.on_register(registration)
            return known

        return await self._write("register", apply)

    async def registration(self, label: str) -> Registration | None:
        return await self._read("registration", lambda: self._table.registrations.get((self._application, label)))

    async def record_replay(self, label: str, trace: ReplayTrace) -> None:
        def apply() -> None:
            traces = self._table.replays.setdefault((self._application, label), [])
            if trace not in traces:
                traces.append(trace)

        await self._write("record_replay", apply)


class MemorySessions(MemoryClient):
    """``ports.SessionStore``."""

    async def open_session(self, session: SessionRow) -> None:
        mine = object()

        def apply() -> bool:
            return self._sessions.setdefault(session.incarnation, HeldSession(session, mine)).opened_by is mine

        if not await self._write("open_session", apply):
            raise SessionFenced(f"the incarnation {session.incarnation} was used before")

    async def bump_session(self, incarnation: str, counter: int) -> None:
        written_here = False

        def apply() -> tuple[bool, int]:
            nonlocal written_here
            session = self._live(incarnation)
            if session.row.counter < counter:
                session.row = replace(session.row, counter=counter)
                written_here = True
            return written_here and session.row.counter == counter, session.row.counter

        advanced, found = await self._write("bump_session", apply)
        if not advanced:
            raise DependencyError("UpdateItem", "CounterNotAdvanced", f"{counter} after {found}")

    async def announce(
        self,
        incarnation: str,
        *,
        handoffs: int,
        leaving: bool,
        capacity: int | None = None,
        failing: Sequence[str] = (),
    ) -> None:
        def apply() -> None:
            session = self._live(incarnation)
            most = session.row.capacity if capacity is None else capacity
            session.row = replace(
                session.row, handoffs=handoffs, leaving=leaving, capacity=most, failing=tuple(failing)
            )

        await self._write("announce", apply)

    async def close_session(self, incarnation: str) -> None:
        await self._write("close_session", lambda: self._sessions.pop(incarnation, None))

    async def sessions(self) -> list[SessionRow]:
        def read() -> list[SessionRow]:
            rows = [session.row for session in self._sessions.values()]
            self._table.read("sessions", [SESSION_BYTES + len(row.incarnation) for row in rows])
            return rows

        return await self._read("sessions", read)

    async def fence_session(self, incarnation: str, counter: int) -> bool:
        def apply() -> bool:
            session = self._sessions.get(incarnation)
            if session is not None and session.row.counter == counter:
                session.row = replace(session.row, fenced=True)
            return session is not None and session.row.fenced

        return await self._write("fence_session", apply)

    @property
    def _sessions(self) -> dict[str, HeldSession]:
        return self._table.sessions.setdefault(self._application, {})

    def _live(self, incarnation: str) -> HeldSession:
        session = self._sessions.get(incarnation)
        if session is None:
            raise SessionFenced(f"the session {incarnation} was deleted")
        if session.row.fenced:
            raise SessionFenced(f"the session {incarnation} was fenced")
        return session


class MemoryLeaseStore(MemoryRegistry, MemorySessions, MemoryBulletins, MemoryParking):
    """``ports.LeaseTable`` on a ``MemoryTable``.

    Args:
        table: shared by all workers.
        application: namespaces every row.
        clock_wall: Unix time, for ``updated_at``.
        link: this worker's network; without one nothing is ever lost.
    """

    _revision = 0  # of this worker's newest write to any lease row

    async def add_lease(self, label: str, row: LeaseRow) -> bool:
        def apply() -> bool:
            leases = self._leases(label)
            if row.shard_id in leases:
                return False
            self._table.put(leases, replace(row, updated_at=self._wall()), "add_lease")
            return True

        return await self._write("add_lease", apply)

    async def put_back(self, label: str, row: LeaseRow, by: str) -> LeaseRow | None:
        if row.owner is None:
            row = replace(row, epoch=await self._read("lease", lambda: self._table.epoch_beyond(row.epoch)))
        else:
            row = replace(row, revision=self._next_revision(row))

        def apply() -> LeaseRow | None:
            session = self._sessions.get(by)
            if row.shard_id in self._leases(label) or session is None or session.row.fenced:
                return None
            return self._table.put(self._leases(label), replace(row, updated_at=self._wall()), "put_back").row

        return await self._write("put_back", apply)

    async def raise_epoch(self, label: str, seen: LeaseRow, highest: int) -> bool:
        epoch = await self._read("lease", lambda: self._table.epoch_beyond(highest))

        def apply() -> bool:
            lease = self._leases(label).get(seen.shard_id)
            if lease is not None and (lease.row.owner, lease.row.epoch) == (seen.owner, seen.epoch):
                row = replace(lease.row, epoch=epoch, revision=0, updated_at=self._wall())
                lease = self._table.put(self._leases(label), row, "raise_epoch")
            return lease is not None and lease.row.epoch == epoch

        return await self._write("raise_epoch", apply)

    async def leases(self, label: str) -> list[LeaseRow]:
        def read() -> list[LeaseRow]:
            rows = [lease.row for _, lease in sorted(self._leases(label).items())]
            self._table.read("leases", map(bytes_of, rows))
            return rows

        return await self._read("leases", read)

    async def lease(self, label: str, shard_id: str) -> LeaseRow | None:
        def read() -> LeaseRow | None:
            lease = self._leases(label).get(shard_id)
            self._table.read("leases", [bytes_of(lease.row)] if lease is not None else [])
            return lease.row if lease is not None else None

        return await self._read("lease", read)

    async def take(self, label: str, seen: LeaseRow, owner: str, nonce: str) -> LeaseRow | None:
        def mine() -> LeaseRow | None:
            lease = self._leases(label).get(seen.shard_id)
            return lease.row if lease is not None and lease.take_nonce == nonce else None

        def apply() -> LeaseRow | None:
            lease = self._leases(label).get(seen.shard_id)
            if lease is not None and (lease.row.owner, lease.row.epoch) == (seen.owner, seen.epoch):
                row = replace(lease.row, owner=owner, epoch=seen.epoch + 1, revision=0, updated_at=self._wall())
                self._table.put(self._leases(label), row, "take").take_nonce = nonce
            return mine()

        try:
            return await self._write("take", apply)
        except Throttled:
            raise
        except DependencyError:
            return await self._read("lease", mine)

    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        revision = self._asked_to_save("save", held)

        def apply() -> None:
            lease = self._held(label, held)
            if lease.row.revision < revision:
                row = replace(self._progress(lease.row, held), revision=revision)
                self._table.put(self._leases(label), row, "save")
                self._keep(label, held, window)

        await self._write("save", apply)

    async def release(
        self, label: str, held: LeaseRow, to: str | None = None, window: WindowState | None = None
    ) -> None:
        revision = self._asked_to_save("release", held)
        by = (held.owner, held.epoch)

        def apply() -> None:
            lease = self._leases(label).get(held.shard_id)
            if lease is not None and lease.passed_on_by == by:
                return  # an attempt whose answer was lost did succeed
            lease = self._held(label, held)
            if lease.row.revision >= revision:
                raise LeaseLost(held.shard_id, held.epoch, _holder(lease.row))
            row = replace(self._progress(lease.row, held), owner=to)
            row = replace(row, revision=revision) if to is None else replace(row, epoch=held.epoch + 1, revision=0)
            self._table.put(self._leases(label), row, "release").passed_on_by = by
            self._keep(label, held, window)

        await self._write("release", apply)

    async def window_state(self, label: str, shard_id: str) -> WindowState:
        key = (self._application, label, shard_id)
        return await self._read("window_state", lambda: self._table.windows.get(key, WindowState()))

    async def remove_lease(self, label: str, seen: LeaseRow) -> bool:
        removed = False

        def apply() -> bool:
            nonlocal removed
            lease = self._leases(label).get(seen.shard_id)
            if lease is not None and _same(lease.row, seen):
                del self._leases(label)[seen.shard_id]
                removed = True
                if self._table.on_remove is not None:
                    self._table.on_remove(lease.row)
            return removed

        return await self._write("remove_lease", apply)

    async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
        def apply() -> None:
            self._held(label, held)
            key = (loss.kind, loss.shard_id, loss.first_sequence_number or f"{loss.detected_at:.6f}")
            losses = self._table.losses.setdefault((self._application, label), {})
            losses[key] = loss
            if self._table.on_loss is not None:
                self._table.on_loss(label, loss)

        await self._write("record_loss", apply)

    async def store_part(self, label: str, held: LeaseRow, part: PayloadPart) -> None:
        def apply() -> None:
            self._held(label, held)
            self._table.letters.setdefault((self._application, label, part.key), {})[part.number] = part

        await self._write("store_part", apply)

    def _leases(self, label: str) -> dict[str, HeldLease]:
        return self._table.leases.setdefault((self._application, label), {})

    def _keep(self, label: str, held: LeaseRow, window: WindowState | None) -> None:
        if window is not None:
            self._table.windows[self._application, label, held.shard_id] = window

    def _held(self, label: str, held: LeaseRow) -> HeldLease:
        if held.owner is None:
            raise ValueError(f"the lease of {held.shard_id} is not held")
        lease = self._leases(label).get(held.shard_id)
        if lease is None:
            raise LeaseDeleted(held.shard_id, held.epoch)
        row = lease.row
        if (row.owner, row.epoch) != (held.owner, held.epoch):
            raise LeaseLost(held.shard_id, held.epoch, _holder(row))
        return lease

    def _asked_to_save(self, operation: str, held: LeaseRow) -> int:
        if self._table.on_save is not None:
            self._table.on_save(operation, held)
        return self._next_revision(held)

    def _next_revision(self, held: LeaseRow) -> int:
        self._revision = max(self._revision, held.revision) + 1
        return self._revision

    def _progress(self, stored: LeaseRow, held: LeaseRow) -> LeaseRow:
        """What an owner may change. The frontier of a corrupt row is evidence and stays."""
        row = replace(stored, state=held.state, note=held.note, updated_at=self._wall())
        if held.corrupt:
            return row
        return replace(row, frontier=held.frontier, window_open=held.window_open, replay=held.replay, corrupt="")


def _holder(row: LeaseRow) -> str:
    return f"owner {row.owner or 'nobody'}, epoch {row.epoch}"


def _same(row: LeaseRow, seen: LeaseRow) -> bool:
    return (row.owner, row.epoch, row.state, row.updated_at) == (seen.owner, seen.epoch, seen.state, seen.updated_at)
