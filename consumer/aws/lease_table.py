"""The lease table: how the fleet agrees, as conditional writes on one DynamoDB table.

Writes on a lease are conditional on owner and epoch, which the write itself keeps or which only its own success can
have changed. Where a refusal after a lost response could be this worker's own success, a nonce tells the two apart. A
request that was given up may still arrive later; the revision in its condition keeps it from undoing a newer write of
the same owner.

Only ``GetItem``, ``PutItem``, ``UpdateItem``, ``DeleteItem``, ``Query``, ``DescribeTable`` and, for losses,
``ConditionCheckItem`` are needed; ``CreateTable`` only when the table is to be created. No index, no Scan.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from consumer.aws import lease_items as items
from consumer.aws import window_items
from consumer.aws.errors import ApiCaller, Unanswered
from consumer.aws.table_rows import PRESENT, WRITES, Changes, Clause, TableRows, Written, expressions, key
from consumer.domain.errors import (
    DependencyError,
    LeaseDeleted,
    LeaseLost,
    MisconfiguredResource,
    ResourceMissing,
    SessionFenced,
)
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.windows import WindowState
from consumer.ports.leases import Loss, Registration


class DynamoDBLeaseStore:
    """``ports.LeaseTable`` on DynamoDB.

    Args:
        client: a dynamodb client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        table: name of the lease table; several applications may share it.
        application: namespaces every row. Must not contain ``#``, which separates the parts of a key.
        clock_wall: Unix time, for ``updated_at`` only; no decision depends on it.
        timeout: seconds for one operation including its repetitions.
    """

    def __init__(
        self,
        client: Any,
        caller: ApiCaller,
        *,
        table: str,
        application: str,
        clock_wall: Callable[[], float],
        timeout: float = 6.0,
    ) -> None:
        if "#" in application:
            raise MisconfiguredResource(f"the application name {application!r} must not contain '#'")
        self._rows = TableRows(client, caller, table=table, timeout=timeout)
        self._resource = f"lease table {table}"
        self._application = application
        self._sessions_pk = items.partition(application, items.SESSIONS)
        self._wall = clock_wall
        self._revision = 0

    # --- table and application ---------------------------------------------------------------------

    async def prepare(self, *, create: bool) -> bool:
        """Check the table, create it when allowed and missing, wait until it is active; True when created here.

        Raises:
            ResourceMissing: there is no such table and it may not be created.
            MisconfiguredResource: its keys are not ``pk`` and ``sk`` (strings), or it cannot become active.
        """
        return await self._rows.prepare(create=create)

    async def pin_application(self, table_name: str) -> None:
        """Claim the application name for one source table. MisconfiguredResource when another one has it."""
        item = items.application_item(self._application, table_name)
        written = await self._rows.put_new(item)
        if written.refused:
            found = written.found or await self._rows.get(self._application, items.META)
            self._require(items.application_problem(found, table_name) if found else "its meta row was just deleted")

    def rehearsals(self, table_name: str | None) -> list[Callable[[], Awaitable[object]]]:
        """All that the daemon does to its rows, as questions that change nothing: whether the application belongs to
        ``table_name`` (MisconfiguredResource; not asked with None), and one for each permission (PermissionDenied)."""

        async def belongs() -> None:
            found = await self._rows.get(self._application, items.META)
            self._require(items.application_problem(found, table_name) if found and table_name else "")

        return [belongs, self.sessions, *(partial(self._rows.rehearse, write, self._sessions_pk) for write in WRITES)]

    def _require(self, problem: str) -> None:
        if problem:
            raise MisconfiguredResource(f"application {self._application} in {self._resource}: {problem}")

    async def switch_stream(self, seen: str | None, stream_arn: str) -> str:
        """Move the application's pointer to the stream it reads, if it still is ``seen``; returns what holds."""
        held: Clause = ("stream_arn", "absent", None) if seen is None else ("stream_arn", "=", items.text(seen))
        changes = {"stream_arn": items.text(stream_arn)}
        written = await self._rows.update(self._application, items.META, changes, [PRESENT, held])
        if not written.refused:
            return stream_arn
        found = written.found or await self._rows.get(self._application, items.META)
        if not found:
            raise ResourceMissing(f"the meta row of application {self._application} in {self._resource}")
        return items.current_stream(found)

    async def register(self, label: str, registration: Registration) -> Registration:
        """Write the start of the application once; a later call gets what was written."""
        written = await self._rows.put_new(items.registration_item(self._pk(label), registration))
        if not written.refused:
            return registration
        found = items.registration(written.found) if written.found else await self.registration(label)
        if found is None:
            raise DependencyError("PutItem", "RegistrationDeleted", f"the registration of {label} was just deleted")
        return found

    async def registration(self, label: str) -> Registration | None:
        found = await self._rows.get(self._pk(label), items.META)
        return items.registration(found) if found else None

    # --- sessions ----------------------------------------------------------------------------------

    async def open_session(self, session: SessionRow) -> None:
        """Write a session row that was never there. SessionFenced when it was: an incarnation is used once only.

        After a DependencyError the row may exist; open another incarnation then. Reopening this one would renew the
        owner's validity while observers see the same counter as before.
        """
        nonce = items.text(uuid.uuid4().hex)
        written = await self._rows.put_new(items.session_item(self._sessions_pk, session) | {"open_nonce": nonce})
        if written.refused:
            found = written.found or await self._rows.get(self._sessions_pk, session.incarnation) or {}
            if found.get("open_nonce") != nonce:
                raise SessionFenced(f"the incarnation {session.incarnation} was used before")

    async def bump_session(self, incarnation: str, counter: int) -> None:
        """Set the counter, which must be higher than ever before, also after a bump that failed.

        A bump that arrives late must not turn the counter back: an observer could then see the same number twice and
        fence a live session. So the condition also asks for a lower counter.

        Raises:
            SessionFenced: the row is fenced or gone.
            DependencyError: no answer, or ``CounterNotAdvanced``.
        """
        where: list[Clause] = [PRESENT, ("fenced", "absent", None), ("counter", "<", items.number(counter))]
        written = await self._rows.update(self._sessions_pk, incarnation, {"counter": items.number(counter)}, where)
        if not written.refused:
            return
        row = await self._live_session(written, incarnation)
        if not (written.doubtful and row.counter == counter):
            raise DependencyError("UpdateItem", "CounterNotAdvanced", f"{counter} after {row.counter}")

    async def announce(self, incarnation: str, *, handoffs: int, leaving: bool) -> None:
        changes = {"handoffs": items.number(handoffs), "leaving": {"BOOL": leaving}}
        written = await self._rows.update(
            self._sessions_pk, incarnation, changes, [PRESENT, ("fenced", "absent", None)]
        )
        if written.refused:
            await self._live_session(written, incarnation)

    async def close_session(self, incarnation: str) -> None:
        await self._rows.delete(self._sessions_pk, incarnation)

    async def sessions(self) -> list[SessionRow]:
        found = await self._rows.query(self._sessions_pk)
        return [row for row in map(items.session_row, found) if row is not None]

    async def fence_session(self, incarnation: str, counter: int) -> bool:
        """Fence the session if it has not moved. A row that is gone is False: it may have moved before it went."""
        where: list[Clause] = [PRESENT, ("counter", "=", items.number(counter))]
        written = await self._rows.update(self._sessions_pk, incarnation, {"fenced": {"BOOL": True}}, where)
        if not written.refused:
            return True
        found = written.found or await self._rows.get(self._sessions_pk, incarnation)
        return found is not None and "fenced" in found

    async def _live_session(self, written: Written, incarnation: str) -> SessionRow:
        """The row that refused a write, when it is not a fence that refused."""
        found = written.found or await self._rows.get(self._sessions_pk, incarnation)
        if not found:
            raise SessionFenced(f"the session {incarnation} was deleted")
        row = items.session_row(found)
        if row is None or row.fenced:
            raise SessionFenced(f"the session {incarnation} was {'fenced' if row else 'damaged'}")
        return row

    # --- leases ------------------------------------------------------------------------------------

    async def add_lease(self, label: str, row: LeaseRow) -> bool:
        if row.owner is not None:  # put back by its owner: what that owner gave up before may still arrive, too
            row = replace(row, revision=self._next_revision(row))
        item = items.lease_item(self._pk(label), row) | {"updated_at": self._now()}
        return not (await self._rows.put_new(item)).refused

    async def leases(self, label: str) -> list[LeaseRow]:
        return [items.lease_row(item) for item in await self._rows.query(self._pk(label), items.SHARD)]

    async def lease(self, label: str, shard_id: str) -> LeaseRow | None:
        found = await self._rows.get(self._pk(label), items.SHARD + shard_id)
        return items.lease_row(found) if found else None

    async def take(self, label: str, seen: LeaseRow, owner: str, nonce: str) -> LeaseRow | None:
        """Become the owner of a lease that is still as ``seen``; None when another worker was faster.

        None also when no answer came and the row does not show ``nonce``: should the write still arrive, the row names
        ``owner``, which finds its lease at its next look at the table.
        """
        changes = {
            "owner": items.text(owner),
            "epoch": items.number(seen.epoch + 1),
            "revision": items.number(0),
            "take_nonce": items.text(nonce),
            "updated_at": self._now(),
        }
        sk = items.SHARD + seen.shard_id
        try:
            written = await self._rows.update(self._pk(label), sk, changes, _as_seen(seen), answer="ALL_NEW")
        except Unanswered:
            written = Written({}, refused=True)
        if not written.refused:
            return items.lease_row(written.attributes)
        found = written.found or await self._rows.get(self._pk(label), sk)
        return items.lease_row(found) if found and found.get("take_nonce") == changes["take_nonce"] else None

    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        revision = self._next_revision(held)
        changes = items.progress(held) | {"updated_at": self._now(), "revision": items.number(revision)}
        written = await self._update_held(label, held, changes, revision, window)
        if not written.refused:
            return
        found = await self._found(label, held, written)
        if (found.owner, found.epoch) != (held.owner, held.epoch):
            raise LeaseLost(held.shard_id, held.epoch, _holder(found))
        if found.revision < revision or (found.revision == revision and not written.doubtful):
            raise LeaseLost(held.shard_id, held.epoch, f"revision {found.revision} of the same owner")

    async def release(
        self, label: str, held: LeaseRow, to: str | None = None, window: WindowState | None = None
    ) -> None:
        """Pass the lease on with its frontier in one write. Releasing (None) leaves the epoch to the next take."""
        revision, by = self._next_revision(held), items.passed_on_by(held)
        changes = items.progress(held) | {"updated_at": self._now(), "passed_on_by": by}
        if to is None:
            changes |= {"owner": None, "revision": items.number(revision)}
        else:
            changes |= {"owner": items.text(to), "epoch": items.number(held.epoch + 1)}
            changes["revision"] = items.number(0)
        written = await self._update_held(label, held, changes, revision, window)
        if written.refused:
            found = written.found or await self._rows.get(self._pk(label), items.SHARD + held.shard_id) or {}
            if found.get("passed_on_by") != by:  # otherwise an attempt whose answer was lost did succeed
                raise await self._lost(label, held, written)

    async def _update_held(
        self, label: str, held: LeaseRow, changes: Changes, revision: int, window: WindowState | None
    ) -> Written:
        """Update a lease that is held; with a window, all rows of it in one transaction."""
        pk, sk = self._pk(label), items.SHARD + held.shard_id
        where = [*_held(held), _newer_than_stored(revision)]
        if window is None:
            return await self._rows.update(pk, sk, changes, where)
        update = {"Update": {"Key": key(pk, sk), **expressions(where, changes)}}
        return await self._rows.transact([update, *window_items.writes(self._windows_pk(label), held.shard_id, window)])

    async def window_state(self, label: str, shard_id: str) -> WindowState:
        """MisconfiguredResource when its rows were damaged."""
        found = await self._rows.query(self._windows_pk(label), f"{shard_id}#")
        try:
            return window_items.window_state(found)
        except ValueError as problem:
            raise MisconfiguredResource(f"tumbling window of {shard_id} in {self._resource}: {problem}") from problem

    async def remove_lease(self, label: str, seen: LeaseRow) -> bool:
        where = [*_as_seen(seen), ("state", "=", items.text(seen.state))]
        where.append(
            ("updated_at", "=", items.number(float(seen.updated_at)))
            if seen.updated_at
            else ("updated_at", "absent", None)
        )
        written = await self._rows.delete(self._pk(label), items.SHARD + seen.shard_id, where)
        if not written.refused:
            return True
        return written.doubtful and not written.found and await self.lease(label, seen.shard_id) is None

    # --- losses ------------------------------------------------------------------------------------

    async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
        """One transaction, so that a worker that lost the shard cannot leave a trace of what the new owner handles."""
        check = {"Key": key(self._pk(label), items.SHARD + held.shard_id), **expressions(_held(held))}
        put = {"Item": items.loss_item(self._pk(label), loss)}
        written = await self._rows.transact([{"ConditionCheck": check}, {"Put": put}])
        if written.refused:
            raise await self._lost(label, held, written)

    # --- requests ----------------------------------------------------------------------------------

    def _pk(self, label: str) -> str:
        return items.partition(self._application, label)

    def _windows_pk(self, label: str) -> str:
        return f"{self._pk(label)}#{window_items.PARTITION}"

    def _now(self) -> dict[str, Any]:
        return items.number(float(self._wall()))

    def _next_revision(self, held: LeaseRow) -> int:
        """Higher than that of every write this store was asked for before, and than what the row showed when read."""
        self._revision = max(self._revision, held.revision) + 1
        return self._revision

    async def _found(self, label: str, held: LeaseRow, written: Written) -> LeaseRow:
        """The row that refused a write. LeaseDeleted when there is none."""
        found = written.found or await self._rows.get(self._pk(label), items.SHARD + held.shard_id)
        if not found:
            raise LeaseDeleted(held.shard_id, held.epoch)
        return items.lease_row(found)

    async def _lost(self, label: str, held: LeaseRow, written: Written) -> LeaseLost:
        return LeaseLost(held.shard_id, held.epoch, _holder(await self._found(label, held, written)))


def _held(row: LeaseRow) -> list[Clause]:
    if row.owner is None:
        raise ValueError(f"the lease of {row.shard_id} is not held by anybody")
    return _as_seen(row)


def _newer_than_stored(revision: int) -> Clause:
    return ("revision", "absent or <", items.number(revision))


def _holder(row: LeaseRow) -> str:
    return f"owner {row.owner or 'nobody'}, epoch {row.epoch}"


def _as_seen(row: LeaseRow) -> list[Clause]:
    owner: Clause = ("owner", "absent", None) if row.owner is None else ("owner", "=", items.text(row.owner))
    return [PRESENT, owner, ("epoch", "=", items.number(row.epoch))]
