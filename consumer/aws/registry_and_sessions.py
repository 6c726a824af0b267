"""What one application has in the lease table besides leases: its registry and the sessions of its workers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from consumer.aws import lease_items as items
from consumer.aws import meta_items
from consumer.aws.errors import ApiCaller
from consumer.aws.table_rows import NOT_FENCED, PRESENT, Clause, TableRows, Written
from consumer.domain.errors import DependencyError, MisconfiguredResource, ResourceMissing, SessionFenced
from consumer.domain.lease import SessionRow, epoch_beyond
from consumer.ports.leases import Pinned, Registration, ReplayTrace


class ApplicationRows:
    """What the stores of one application share.

    Args:
        client: a dynamodb client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        table: name of the lease table; several applications may share it.
        application: namespaces every row. Must not contain ``#``, which separates the parts of a key.
        clock_wall: Unix time at the services, for ``updated_at``: rows of finished shards go days after that.
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

    def _pk(self, label: str) -> str:
        return items.partition(self._application, label)


class DynamoDBRegistry(ApplicationRows):
    """``ports.Registry`` on DynamoDB."""

    _least_epoch = 0

    async def prepare(self, *, create: bool) -> bool:
        """``TableRows.prepare``: check or create the table; True when it was created here. Raises what that raises."""
        return await self._rows.prepare(create=create)

    async def pin_application(self, table_arn: str) -> bool:
        """Claim the application name for one source table. MisconfiguredResource when another one has it. True when the
        rows were written in another lease table: a restored one is made anew, under whatever name."""
        item = meta_items.application_item(self._application, table_arn, self._rows.table_id)
        written = await self._rows.put_new(item)
        if not written.refused:
            return False
        found = written.found or await self._rows.get(self._application, items.META)
        self._require(meta_items.application_problem(found, table_arn) if found else "its meta row was just deleted")
        seen = meta_items.lease_table_id(found or {})
        self._least_epoch = meta_items.least_epoch(found or {})
        if not seen or self._rows.table_id in ("", seen):
            return False
        self._least_epoch = epoch_beyond(self._least_epoch, self._rows.created_at, 0)
        changes = {"lease_table_id": item["lease_table_id"], "least_epoch": items.number(self._least_epoch)}
        await self._rows.update(self._application, items.META, changes, [("lease_table_id", "=", items.text(seen))])
        return True

    async def pinned(self) -> Pinned | None:
        found = await self._rows.get(self._application, items.META)
        if not found:
            return None
        self._require(meta_items.application_problem(found))
        return meta_items.pinned(found)

    def _require(self, problem: str) -> None:
        if problem:
            raise MisconfiguredResource(f"application {self._application} in {self._resource}: {problem}")

    async def switch_stream(self, seen: str | None, stream_arn: str) -> str:
        """Move the application's pointer to the stream it reads, if it still is ``seen``; returns what holds."""
        held: Clause = ("stream_arn", "absent", None) if seen is None else ("stream_arn", "=", items.text(seen))
        changes = {"stream_arn": items.text(stream_arn)}
        version: Clause = ("schema_version", "=", items.number(items.SCHEMA_VERSION))
        written = await self._rows.update(self._application, items.META, changes, [PRESENT, version, held])
        if not written.refused:
            return stream_arn
        found = written.found or await self._rows.get(self._application, items.META)
        if not found:
            raise ResourceMissing(f"the meta row of application {self._application} in {self._resource}")
        self._require(meta_items.application_problem(found))
        return meta_items.current_stream(found)

    async def register(self, label: str, registration: Registration) -> Registration:
        """Write the start of the application once; a later call gets what was written."""
        written = await self._rows.put_new(meta_items.registration_item(self._pk(label), registration))
        if not written.refused:
            return registration
        found = meta_items.registration(written.found) if written.found else await self.registration(label)
        if found is None:
            raise DependencyError("PutItem", "RegistrationDeleted", f"the registration of {label} was just deleted")
        return found

    async def registration(self, label: str) -> Registration | None:
        found = await self._rows.get(self._pk(label), items.META)
        return meta_items.registration(found) if found else None

    async def record_replay(self, label: str, trace: ReplayTrace) -> None:
        """One row of its own; refused means that it is there already."""
        await self._rows.put_new(items.replay_item(self._pk(label), trace))


class DynamoDBSessions(ApplicationRows):
    """``ports.SessionStore`` on DynamoDB."""

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
        where: list[Clause] = [PRESENT, NOT_FENCED, ("counter", "<", items.number(counter))]
        written = await self._rows.update(self._sessions_pk, incarnation, {"counter": items.number(counter)}, where)
        if not written.refused:
            return
        row = await self._live_session(written, incarnation)
        if not (written.doubtful and row.counter == counter):
            raise DependencyError("UpdateItem", "CounterNotAdvanced", f"{counter} after {row.counter}")

    async def announce(
        self,
        incarnation: str,
        *,
        handoffs: int,
        leaving: bool,
        capacity: int | None = None,
        failing: Sequence[str] = (),
    ) -> None:
        changes: dict[str, Any] = {
            "handoffs": items.number(handoffs),
            "leaving": {"BOOL": leaving},
            "failing": items.text(" ".join(failing)),
        }
        if capacity is not None:
            changes["capacity"] = items.number(capacity)
        written = await self._rows.update(self._sessions_pk, incarnation, changes, [PRESENT, NOT_FENCED])
        if written.refused:
            await self._live_session(written, incarnation)

    async def close_session(self, incarnation: str) -> None:
        await self._rows.delete(self._sessions_pk, incarnation)

    async def sessions(self) -> list[SessionRow]:
        found = await self._rows.query(self._sessions_pk)
        return [row for row in map(items.session_row, found) if row is not None]

    async def fence_session(self, incarnation: str, counter: int) -> bool:
        """Fence the session if it has not moved. A row that is gone is False: it may have moved before it went."""
        where: list[Clause] = [PRESENT, items.READABLE, ("counter", "=", items.number(counter))]
        written = await self._rows.update(self._sessions_pk, incarnation, {"fenced": {"BOOL": True}}, where)
        if not written.refused:
            return True
        found = written.found or await self._rows.get(self._sessions_pk, incarnation)
        return found is not None and "fenced" in found and not items.newer_version(found)

    async def _live_session(self, written: Written, incarnation: str) -> SessionRow:
        """The row that refused a write, when it is not a fence that refused."""
        found = written.found or await self._rows.get(self._sessions_pk, incarnation)
        if not found:
            raise SessionFenced(f"the session {incarnation} was deleted")
        row = items.session_row(found)
        if row is None or row.fenced:
            raise SessionFenced(f"the session {incarnation} was {'fenced' if row else 'damaged'}")
        return row
