"""The condition that a lease row is as it was seen or held, and what is said when it is not."""

from __future__ import annotations

from typing import Any

from consumer.aws import lease_items as items
from consumer.aws.registry_and_sessions import ApplicationRows
from consumer.aws.table_rows import PRESENT, Clause, Written, expressions, key
from consumer.domain.errors import LeaseDeleted, LeaseLost
from consumer.domain.lease import LeaseRow


class HeldLeases(ApplicationRows):
    """What the writes of owners have in common, whichever rows they are about."""

    def _if_held(self, label: str, held: LeaseRow) -> dict[str, dict[str, Any]]:
        """The part of a transaction that refuses all of it once the lease is lost."""
        return self._check_lease(label, held.shard_id, held_by_owner(held))

    def _check_lease(self, label: str, shard_id: str, where: list[Clause]) -> dict[str, dict[str, Any]]:
        return {"ConditionCheck": {"Key": key(self._pk(label), items.SHARD + shard_id), **expressions(where)}}

    async def _require_held(self, label: str, held: LeaseRow, written: Written | None = None) -> LeaseRow:
        """The lease row that refused a write, read when the write does not show it. LeaseLost, or LeaseDeleted, when it
        is not held any more."""
        found = await self._found(label, held, written)
        if (found.owner, found.epoch) != (held.owner, held.epoch):
            raise _lost(held, found)
        return found

    async def _found(self, label: str, held: LeaseRow, written: Written | None) -> LeaseRow:
        shown = written.found if written is not None else None
        found = shown or await self._rows.get(self._pk(label), items.SHARD + held.shard_id)
        if not found:
            raise LeaseDeleted(held.shard_id, held.epoch)
        if version := items.newer_version(found):
            raise LeaseLost(held.shard_id, held.epoch, version)
        return items.lease_row(found)

    async def _lost(self, label: str, held: LeaseRow, written: Written) -> LeaseLost:
        """Why a write was refused that only asked for the lease to be held."""
        return _lost(held, await self._found(label, held, written))


def as_seen(row: LeaseRow) -> list[Clause]:
    """The condition that a row is there, with the owner and the epoch that were read, and not of a newer version."""
    owner: Clause = ("owner", "absent", None) if row.owner is None else ("owner", "=", items.text(row.owner))
    return [PRESENT, items.READABLE, owner, ("epoch", "=", items.number(row.epoch))]


def held_by_owner(row: LeaseRow) -> list[Clause]:
    """The same of a lease that somebody holds. ValueError when nobody does."""
    if row.owner is None:
        raise ValueError(f"the lease of {row.shard_id} is not held by anybody")
    return as_seen(row)


def _lost(held: LeaseRow, found: LeaseRow) -> LeaseLost:
    return LeaseLost(held.shard_id, held.epoch, f"owner {found.owner or 'nobody'}, epoch {found.epoch}")
