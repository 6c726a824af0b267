"""Lease rows that are made again: deleted ones from memory, and such whose epoch went back."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from consumer.aws import lease_items as items
from consumer.aws.held_leases import as_seen
from consumer.aws.registry_and_sessions import ApplicationRows
from consumer.aws.table_rows import NEW, NOT_FENCED, PRESENT, expressions, key
from consumer.domain.lease import LeaseRow, epoch_beyond


class MadeAgain(ApplicationRows):
    """Part of ``ports.LeaseStore`` on DynamoDB."""

    _revision = 0  # of the newest write that this store was asked for

    async def put_back(self, label: str, row: LeaseRow, by: str) -> LeaseRow | None:
        """One transaction with the session of ``by``."""
        pk, sk = self._pk(label), items.SHARD + row.shard_id
        if row.owner is None:
            row = replace(row, epoch=await self._epoch_beyond(pk, sk, row.epoch))
        else:  # what that owner gave up before may still arrive, too
            row = replace(row, revision=self._next_revision(row))
        item = items.lease_item(pk, row) | {"updated_at": self._now()}
        alive = {"Key": key(self._sessions_pk, by), **expressions([PRESENT, NOT_FENCED])}
        written = await self._rows.transact([{"ConditionCheck": alive}, {"Put": {"Item": item, **expressions([NEW])}}])
        return None if written.refused else row

    async def raise_epoch(self, label: str, seen: LeaseRow, highest: int) -> bool:
        pk, sk = self._pk(label), items.SHARD + seen.shard_id
        epoch = items.number(await self._epoch_beyond(pk, sk, highest))
        changes = {"epoch": epoch, "revision": items.number(0), "updated_at": self._now()}
        written = await self._rows.update(pk, sk, changes, as_seen(seen))
        return not written.refused or (written.doubtful and (written.found or {}).get("epoch") == epoch)

    async def _epoch_beyond(self, pk: str, sk: str, seen: int) -> int:
        _, service_time = await self._rows.get_with_time(pk, sk)
        return epoch_beyond(seen, self._wall() if service_time is None else service_time, secrets.randbits(16))

    def _now(self) -> dict[str, Any]:
        return items.number(float(self._wall()))

    def _next_revision(self, held: LeaseRow) -> int:
        """Higher than that of every write this store was asked for before, and than what the row showed when read."""
        self._revision = max(self._revision, held.revision) + 1
        return self._revision
