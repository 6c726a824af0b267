"""The lease table: how the fleet agrees, as conditional writes on one DynamoDB table.

Writes on a lease are conditional on owner and epoch, which the write itself keeps or which only its own success can
have changed. Where a refusal after a lost response could be this worker's own success, a nonce tells the two apart. A
request that was given up may still arrive later; the revision in its condition keeps it from undoing a newer write of
the same owner.

Only ``GetItem``, ``PutItem``, ``UpdateItem``, ``DeleteItem``, ``Query``, ``DescribeTable`` and, in transactions,
``ConditionCheckItem`` are needed; ``CreateTable`` only when the table is to be created. No index, no Scan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from consumer.aws import lease_items as items
from consumer.aws import meta_items, window_items
from consumer.aws.bulletins import DynamoDBBulletins
from consumer.aws.errors import Unanswered
from consumer.aws.held_leases import as_seen, held_by_owner
from consumer.aws.made_again import MadeAgain
from consumer.aws.parking import DynamoDBParking
from consumer.aws.registry_and_sessions import DynamoDBRegistry, DynamoDBSessions
from consumer.aws.table_rows import WRITES, AttributeMap, Changes, Clause, Written, expressions, key
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.errors import LeaseLost, MisconfiguredResource
from consumer.domain.lease import LeaseRow
from consumer.domain.windows import WindowState
from consumer.ports.leases import Loss


class DynamoDBLeaseStore(DynamoDBRegistry, DynamoDBSessions, DynamoDBBulletins, DynamoDBParking, MadeAgain):
    """``ports.LeaseTable`` on DynamoDB: the leases here, all else by inheritance."""

    def rehearsals(self, table_arn: str | None) -> list[Callable[[], Awaitable[object]]]:
        """All that the daemon does to its rows, as questions that change nothing: whether the application belongs to
        ``table_arn`` (MisconfiguredResource; not asked with None), and one for each permission (PermissionDenied)."""

        async def belongs() -> None:
            found = await self._rows.get(self._application, items.META)
            self._require(meta_items.application_problem(found, table_arn) if found and table_arn else "")

        return [belongs, self.sessions, *(partial(self._rows.rehearse, write, self._sessions_pk) for write in WRITES)]

    async def add_lease(self, label: str, row: LeaseRow) -> bool:
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
            "epoch": items.number(max(seen.epoch + 1, self._least_epoch)),
            "revision": items.number(0),
            "take_nonce": items.text(nonce),
            "updated_at": self._now(),
        }
        sk = items.SHARD + seen.shard_id
        try:
            written = await self._rows.update(self._pk(label), sk, changes, as_seen(seen), answer="ALL_NEW")
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
        found = await self._require_held(label, held, written)
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
        where = [*held_by_owner(held), _newer_than_stored(revision)]
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
        where = [*as_seen(seen), ("state", "=", items.text(seen.state))]
        where.append(
            ("updated_at", "=", items.number(float(seen.updated_at)))
            if seen.updated_at
            else ("updated_at", "absent", None)
        )
        written = await self._rows.delete(self._pk(label), items.SHARD + seen.shard_id, where)
        if not written.refused:
            return True
        return written.doubtful and not written.found and await self.lease(label, seen.shard_id) is None

    # --- losses, letters ---------------------------------------------------------------------------

    async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
        await self._put_if_held(label, held, items.loss_item(self._pk(label), loss))

    async def store_part(self, label: str, held: LeaseRow, part: PayloadPart) -> None:
        """In a partition of their own, so that the listing of the leases stays small."""
        await self._put_if_held(label, held, items.part_item(f"{self._pk(label)}#{items.LETTERS}", part))

    async def _put_if_held(self, label: str, held: LeaseRow, item: AttributeMap) -> None:
        """One transaction, so that a worker that lost the shard cannot leave a trace of what the new owner handles."""
        written = await self._rows.transact([self._if_held(label, held), {"Put": {"Item": item}}])
        if written.refused:
            raise await self._lost(label, held, written)

    # --- requests ----------------------------------------------------------------------------------

    def _windows_pk(self, label: str) -> str:
        return f"{self._pk(label)}#{window_items.PARTITION}"


def _newer_than_stored(revision: int) -> Clause:
    return ("revision", "absent or <", items.number(revision))
