"""Where parked keys are kept (``ports.ParkingStore``) on DynamoDB: in one partition of the lease table.

Every write is one transaction, conditional on the lease of the owner or on the claim of the redrive. Owners and
redrives write to the same rows, so transactions meet: ``TableRows`` repeats them a little, then it is a
DependencyError, and the caller's to repeat. A refusal does not say which condition refused, and may be the echo of a
success whose answer was lost: reading tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from consumer.aws import lease_items as items
from consumer.aws import parked_items
from consumer.aws.errors import Unanswered
from consumer.aws.held_leases import HeldLeases, as_seen, held_by_owner
from consumer.aws.table_rows import NEW, PRESENT, AttributeMap, Changes, Clause, Written, expressions
from consumer.aws.table_rows import key as place_of
from consumer.domain.errors import DependencyError
from consumer.domain.lease import LeaseRow
from consumer.domain.parking import Parked, ParkedKey, ParkedShard
from consumer.ports.parking import MOST_COUNTED, MOST_DROPPED, MOST_FREED

Part = dict[str, dict[str, Any]]  # of a transaction


class ParkedRows(HeldLeases):
    """Reads, and what the writes have in common."""

    async def parked(self) -> list[Parked]:
        return parked_items.parked_rows(await self._rows.query(self._parked_pk))

    async def parked_key(self, digest: str) -> Parked:
        found = parked_items.parked_rows(await self._rows.query_between(self._parked_pk, *parked_items.between(digest)))
        return found[0] if found else Parked(None)

    async def parked_changes(self) -> int:
        """MisconfiguredResource when the row was damaged."""
        found = await self._rows.get(self._parked_pk, parked_items.CHANGES)
        return parked_items.changes(found) if found else 0

    @property
    def _parked_pk(self) -> str:
        return self._pk(parked_items.PARTITION)

    async def _parked_key(self, digest: str) -> ParkedKey | None:
        found = await self._rows.get(self._parked_pk, digest)
        return parked_items.parked_key(found) if found else None

    async def _parked_shard(self, shard: ParkedShard) -> ParkedShard | None:
        found = await self._rows.get(self._parked_pk, parked_items.shard_sk(shard))
        return parked_items.parked_shard(found) if found else None

    def _check_key(self, digest: str, where: Iterable[Clause]) -> Part:
        return {"ConditionCheck": {"Key": place_of(self._parked_pk, digest), **expressions(where)}}

    def _update(self, sk: str, where: Iterable[Clause], changes: Changes, added: Changes | None = None) -> Part:
        return {"Update": {"Key": place_of(self._parked_pk, sk), **expressions(where, changes, added)}}

    def _put(self, item: AttributeMap, where: Iterable[Clause]) -> Part:
        return {"Put": {"Item": item, **expressions(where)}}

    def _delete(self, sk: str, where: Iterable[Clause]) -> Part:
        return {"Delete": {"Key": place_of(self._parked_pk, sk), **expressions(where)}}

    async def _transact_held(self, label: str, held: LeaseRow, *parts: Part) -> Written:
        """LeaseLost, LeaseDeleted when it is the lease that refused."""
        written = await self._rows.transact([self._if_held(label, held), *parts])
        if written.refused:
            await self._require_held(label, held)
        return written

    async def _transact_noticed(self, *parts: Part) -> Written:
        """With owners noticing: the counter is part of the transaction, so none of them can miss it. A step whose
        answer was lost may count twice, which costs them a look. MisconfiguredResource when the counter was damaged."""
        version = {items.VERSION: items.number(items.SCHEMA_VERSION)}
        noticed = self._update(parked_items.CHANGES, parked_items.COUNTS, version, {"changes": items.number(1)})
        written = await self._rows.transact([*parts, noticed])
        if written.refused:
            await self.parked_changes()
        return written


class DynamoDBParking(ParkedRows):
    """``ports.ParkingStore`` on DynamoDB."""

    # --- owners of shards ------------------------------------------------------------------------------

    async def park(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        row = self._put(parked_items.key_item(self._parked_pk, key), [NEW])
        first = self._put(parked_items.shard_item(self._parked_pk, shard), [items.READABLE])
        if not (await self._transact_held(label, held, row, first)).refused:
            return True
        found = await self.parked_key(key.digest)
        return found.key is not None and found.key.park_id == key.park_id and shard in found.shards

    async def join_parked(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        more = self._update(key.digest, parked_items.is_parked(key), {}, {parked_items.SHARDS: items.number(1)})
        row = self._put(parked_items.shard_item(self._parked_pk, shard), parked_items.has_other_park_id(shard))
        reads_on = self._check_lease(label, held.shard_id, [*held_by_owner(held), *parked_items.IS_READ])
        written = await self._rows.transact([reads_on, more, row])
        if written.refused:
            await self._require_held(label, held)
        return not written.refused or shard in (await self.parked_key(key.digest)).shards

    async def count_letters(self, label: str, held: LeaseRow, shards: Sequence[ParkedShard]) -> list[str]:
        """One transaction. When it is refused, the rows are read, and those that are still behind make another one.
        DependencyError when that leads nowhere."""
        if len(shards) > MOST_COUNTED:
            raise ValueError(f"{len(shards)} rows in one write, {MOST_COUNTED} at most")
        gone: list[str] = []
        left = list(shards)
        while left:
            parts = (
                self._update(parked_items.shard_sk(one), parked_items.has_fewer_letters(one), parked_items.counted(one))
                for one in left
            )
            if not (await self._transact_held(label, held, *parts)).refused:
                break
            stored = list(zip(left, await asyncio.gather(*map(self._letters, left)), strict=True))
            gone += [one.digest for one, letters in stored if letters is None]
            behind = [one for one, letters in stored if letters is not None and letters < one.letters]
            if behind == left:
                what = f"the letters of {len(left)} parked keys of {held.shard_id}, and no row says why"
                raise DependencyError("TransactWriteItems", "NotCounted", what)
            left = behind
        return gone

    async def _letters(self, shard: ParkedShard) -> int | None:
        """How many letters the row of a shard counts; None when it is gone, or cannot be read."""
        row = (await self.parked_key(shard.digest)).of(shard.label, shard.shard_id)
        return row.letters if row is not None and row.park_id == shard.park_id else None

    async def close_parked(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        closing = self._check_key(key.digest, parked_items.is_closing(key))
        no_more: Clause = ("letters", "<=", items.number(shard.letters))
        closed = {**parked_items.counted(shard), "closed": items.text(key.nonce)}
        row = self._update(parked_items.shard_sk(shard), [*parked_items.is_parked_as(key.park_id), no_more], closed)
        return not (await self._transact_held(label, held, closing, row)).refused

    async def end_closing(self, label: str, held: LeaseRow, key: ParkedKey) -> bool:
        row = self._update(key.digest, parked_items.is_closing(key), parked_items.PARKED_AGAIN)
        written = await self._transact_held(label, held, row)
        if not (written.refused and written.doubtful):
            return not written.refused
        known = (await self.parked_key(key.digest)).key
        return known is not None and (known.park_id, known.state) == (key.park_id, "parked")

    # --- redrives --------------------------------------------------------------------------------------

    async def claim_parked(self, seen: ParkedKey, redriver: str) -> ParkedKey | None:
        claim = {**parked_items.PARKED_AGAIN, "redriver": items.text(redriver), "claim": items.number(seen.claim + 1)}
        try:
            written = await self._transact_noticed(self._update(seen.digest, parked_items.is_claimed(seen), claim))
        except Unanswered:
            known = await self._parked_key(seen.digest)
            if known is not None and known.redriver == redriver:
                return known
            raise
        if not written.refused:
            return replace(seen, state="parked", nonce="", redriver=redriver, claim=seen.claim + 1)
        known = await self._parked_key(seen.digest)
        return known if known is not None and known.redriver == redriver else None

    async def redriven(self, key: ParkedKey, shard: ParkedShard) -> bool:
        claimed = self._check_key(key.digest, parked_items.is_claimed(key))
        done = items.number(shard.done)
        where: list[Clause] = [*parked_items.is_parked_as(key.park_id), ("done", "<=", done)]
        written = await self._rows.transact(
            [claimed, self._update(parked_items.shard_sk(shard), where, {"done": done})]
        )
        if not written.refused:
            return True
        known, mine = await asyncio.gather(self._parked_key(key.digest), self._parked_shard(shard))
        ahead = mine is not None and mine.park_id == key.park_id and mine.done > shard.done
        return ahead and known is not None and _claim_of(known) == _claim_of(key)

    async def begin_closing(self, key: ParkedKey, nonce: str) -> ParkedKey | None:
        closing = {"state": items.text("closing"), "nonce": items.text(nonce)}
        written = await self._transact_noticed(self._update(key.digest, parked_items.is_claimed(key), closing))
        return None if written.refused else replace(key, state="closing", nonce=nonce)

    async def close_for_owner(self, key: ParkedKey, shard: ParkedShard, lease: LeaseRow | None) -> bool:
        seen = [NEW] if lease is None else [*as_seen(lease), ("state", "=", items.text(lease.state))]
        closed = {"closed": items.text(key.nonce)}
        written = await self._rows.transact(
            [
                self._check_lease(shard.label, shard.shard_id, seen),
                self._check_key(key.digest, parked_items.is_claimed_and_closing(key)),
                self._update(parked_items.shard_sk(shard), parked_items.is_parked_as(key.park_id), closed),
            ]
        )
        return not written.refused

    async def drop_finished(self, key: ParkedKey, shards: Sequence[tuple[ParkedShard, LeaseRow | None]]) -> bool:
        if len(shards) > MOST_DROPPED:
            raise ValueError(f"{len(shards)} shard rows in one transaction, {MOST_DROPPED} at most")
        parts = []
        for row, lease in shards:
            if lease is not None and not lease.settled:
                raise ValueError(f"{row.shard_id} is not settled to its end")
            seen = [NEW] if lease is None else [PRESENT, items.READABLE, ("state", "=", items.text(lease.state))]
            parts.append(self._check_lease(row.label, row.shard_id, seen))
            parts.append(self._delete(parked_items.shard_sk(row), parked_items.has_all_done(row)))
        where = [*parked_items.is_claimed(key), *parked_items.is_parked(key)]
        fewer = self._update(key.digest, where, {}, {parked_items.SHARDS: items.number(-len(shards))})
        written = await self._rows.transact([fewer, *parts])
        if not (written.refused and written.doubtful):
            return not written.refused
        known = await self.parked_key(key.digest)  # nobody else drops them as long as the claim holds
        gone = all(known.of(row.label, row.shard_id) is None for row, _ in shards)
        return gone and known.key is not None and _claim_of(known.key) == _claim_of(key)

    async def free_parked(self, key: ParkedKey, shards: Sequence[ParkedShard]) -> bool:
        if len(shards) > MOST_FREED:
            raise ValueError(f"{len(shards)} shard rows in one transaction, {MOST_FREED} at most")
        no_others: Clause = (parked_items.SHARDS, "=", items.number(len(shards)))
        where = [*parked_items.is_claimed_and_closing(key), no_others]
        rows = (self._delete(parked_items.shard_sk(one), parked_items.is_done(one, key.nonce)) for one in shards)
        written = await self._transact_noticed(self._delete(key.digest, where), *rows)
        if not (written.refused and written.doubtful):
            return not written.refused
        known = await self._parked_key(key.digest)  # nobody else frees it as long as the claim holds
        return known is None or known.park_id != key.park_id

    async def release_parked(self, key: ParkedKey) -> None:
        await self._transact_noticed(self._update(key.digest, parked_items.is_claimed(key), parked_items.LEFT))


def _claim_of(row: ParkedKey) -> tuple[str, str | None, int]:
    return row.park_id, row.redriver, row.claim
