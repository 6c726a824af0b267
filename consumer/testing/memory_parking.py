"""Parked keys in memory (``ports.parking.ParkingStore``), with the conditions of the real table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from consumer.domain.errors import DependencyError, LeaseDeleted, LeaseLost, Throttled
from consumer.domain.lease import LeaseRow
from consumer.domain.parking import Damage, Parked, ParkedKey, ParkedShard
from consumer.ports.parking import MOST_COUNTED, MOST_DROPPED, MOST_FREED
from consumer.testing.memory_client import MemoryClient


class MemoryParkedRows(MemoryClient):
    """Reads, and what the writes have in common."""

    async def parked(self) -> list[Parked]:
        def read() -> list[Parked]:
            mine = [key for app, key in self._table.parked if app == self._application]
            mine += [key for app, key, _, _ in self._table.parked_shards if app == self._application]
            found = [self._parked(digest) for digest in sorted(set(mine))]
            self._table.read("parked", [250 * (1 + len(one.shards)) for one in found])
            return found

        return await self._read("parked", read)

    async def parked_key(self, digest: str) -> Parked:
        return await self._read("parked_key", lambda: self._parked(digest))

    async def parked_changes(self) -> int:
        return await self._read("parked_changes", lambda: self._table.parked_changes.get(self._application, 0))

    def _parked(self, digest: str) -> Parked:
        rows = [
            row
            for (app, name, _, _), row in sorted(self._table.parked_shards.items())
            if app == self._application and name == digest
        ]
        damaged = [
            Damage(digest, problem, label, shard_id)
            for (app, name, label, shard_id), problem in self._table.parked_damage.items()
            if app == self._application and name == digest
        ]
        unreadable = {(one.label, one.shard_id) for one in damaged}
        rows = [row for row in rows if (row.label, row.shard_id) not in unreadable]
        return Parked(self._key(digest), tuple(rows), tuple(damaged))

    def _key(self, digest: str) -> ParkedKey | None:
        """As far as it can be read."""
        known = self._table.parked.get((self._application, digest))
        return None if (self._application, digest, "", "") in self._table.parked_damage else known

    def _shard(self, shard: ParkedShard) -> ParkedShard | None:
        """As far as it can be read."""
        place = self._place(shard)
        return None if place in self._table.parked_damage else self._table.parked_shards.get(place)

    def _place(self, shard: ParkedShard) -> tuple[str, str, str, str]:
        return self._application, shard.digest, shard.label, shard.shard_id

    def _put_key(self, key: ParkedKey) -> None:
        self._table.parked[self._application, key.digest] = key
        self._noted(key.digest)

    def _put_shard(self, shard: ParkedShard) -> None:
        self._table.parked_shards[self._place(shard)] = shard
        self._noted(shard.digest)

    def _noted(self, digest: str) -> None:
        noted: Callable[[str], None] | None = self._table.on_park
        if noted is not None:
            noted(digest)

    def _changed(self) -> None:
        self._table.parked_changes[self._application] = self._table.parked_changes.get(self._application, 0) + 1

    def _claimed(self, key: ParkedKey) -> ParkedKey | None:
        known = self._key(key.digest)
        if known is None or (known.park_id, known.redriver, known.claim) != (key.park_id, key.redriver, key.claim):
            return None
        return known

    def _all_done(self, key: ParkedKey, shard: ParkedShard) -> ParkedShard | None:
        """A row whose letters are as many as those of ``shard``, and all done."""
        mine = self._shard(shard)
        if mine is None or mine.park_id != key.park_id or not mine.done == mine.letters == shard.letters:
            return None
        return mine

    async def _write_once(self, operation: str, apply: Callable[[], bool]) -> bool:
        """A write that can succeed only once: sent again, because its answer was lost, it is a success all the same."""
        applied = False

        def again() -> bool:
            nonlocal applied
            applied = applied or apply()
            return applied

        return await self._write(operation, again)

    def _lease(self, label: str, shard_id: str) -> LeaseRow | None:
        found = self._table.leases.get((self._application, label), {}).get(shard_id)
        return found.row if found is not None else None

    def _require_held(self, label: str, held: LeaseRow) -> None:
        row = self._lease(label, held.shard_id)
        if row is None:
            raise LeaseDeleted(held.shard_id, held.epoch)
        if held.owner is None or (row.owner, row.epoch) != (held.owner, held.epoch):
            raise LeaseLost(held.shard_id, held.epoch, f"owner {row.owner or 'nobody'}, epoch {row.epoch}")


class MemoryParking(MemoryParkedRows):
    """On a ``MemoryTable``."""

    # --- owners of shards ------------------------------------------------------------------------------

    async def park(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        def apply() -> bool:
            self._require_held(label, held)
            known = self._table.parked.get((self._application, key.digest))
            if known is None:
                self._put_key(key)
                self._put_shard(shard)
            return known is None or (known.park_id == key.park_id and self._shard(shard) == shard)

        return await self._write("park", apply)

    async def join_parked(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        def apply() -> bool:
            self._require_held(label, held)
            known, mine = self._key(key.digest), self._shard(shard)
            if mine == shard:
                return True
            absent = self._place(shard) not in self._table.parked_damage
            absent = absent and (mine is None or mine.park_id != shard.park_id)
            lease = self._lease(label, held.shard_id)
            absent = absent and lease is not None and not lease.settled
            may_join = known is not None and known.state == "parked" and known.park_id == key.park_id and absent
            if may_join:
                self._put_shard(shard)
            return may_join

        return await self._write("join_parked", apply)

    async def count_letters(self, label: str, held: LeaseRow, shards: Sequence[ParkedShard]) -> list[str]:
        if len(shards) > MOST_COUNTED:
            raise ValueError(f"{len(shards)} rows in one write, {MOST_COUNTED} at most")

        def apply() -> list[str]:
            self._require_held(label, held)
            gone = []
            for shard in shards:
                mine = self._shard(shard)
                if mine is None or mine.park_id != shard.park_id:
                    gone.append(shard.digest)
                elif mine.letters < shard.letters:
                    self._put_shard(replace(mine, letters=shard.letters, last=shard.last))
            return gone

        return await self._write("count_letters", apply)

    async def close_parked(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        def apply() -> bool:
            self._require_held(label, held)
            known, mine = self._key(key.digest), self._shard(shard)
            if known is None or mine is None or not _is_closing(known, key) or mine.park_id != key.park_id:
                return False
            if mine.letters > shard.letters:
                return False
            self._put_shard(replace(mine, letters=shard.letters, last=shard.last, closed=key.nonce))
            return True

        return await self._write("close_parked", apply)

    async def end_closing(self, label: str, held: LeaseRow, key: ParkedKey) -> bool:
        ended = False

        def apply() -> bool:
            nonlocal ended
            self._require_held(label, held)
            known = self._key(key.digest)
            if known is not None and _is_closing(known, key):
                self._put_key(replace(known, state="parked", nonce=""))
                ended = True
            return ended

        return await self._write("end_closing", apply)

    # --- redrives --------------------------------------------------------------------------------------

    async def claim_parked(self, seen: ParkedKey, redriver: str) -> ParkedKey | None:
        def mine() -> ParkedKey | None:
            known = self._key(seen.digest)
            return known if known is not None and known.redriver == redriver else None

        def apply() -> ParkedKey | None:
            known = self._claimed(seen)
            if known is not None:
                self._put_key(replace(known, state="parked", nonce="", redriver=redriver, claim=seen.claim + 1))
                self._changed()
            return mine()

        try:
            return await self._write("claim_parked", apply)
        except Throttled:
            raise
        except DependencyError:
            if (known := await self._read("parked_key", mine)) is None:
                raise
            return known

    async def redriven(self, key: ParkedKey, shard: ParkedShard) -> bool:
        def apply() -> bool:
            mine = self._shard(shard)
            if self._claimed(key) is None or mine is None or mine.park_id != key.park_id:
                return False
            self._put_shard(replace(mine, done=max(mine.done, shard.done)))
            return True

        return await self._write("redriven", apply)

    async def begin_closing(self, key: ParkedKey, nonce: str) -> ParkedKey | None:
        def apply() -> ParkedKey | None:
            known = self._claimed(key)
            if known is None:
                return None
            closing = replace(known, state="closing", nonce=nonce)
            self._put_key(closing)
            self._changed()
            return closing

        return await self._write("begin_closing", apply)

    async def close_for_owner(self, key: ParkedKey, shard: ParkedShard, lease: LeaseRow | None) -> bool:
        def apply() -> bool:
            row = self._lease(shard.label, shard.shard_id)
            same = (row is None) == (lease is None)
            if row is not None and lease is not None:
                same = (row.owner, row.epoch, row.state) == (lease.owner, lease.epoch, lease.state)
            known, mine = self._claimed(key), self._shard(shard)
            if not same or known is None or not _is_closing(known, key):
                return False
            if mine is None or mine.park_id != key.park_id:
                return False
            self._put_shard(replace(mine, closed=key.nonce))
            return True

        return await self._write("close_for_owner", apply)

    async def drop_finished(self, key: ParkedKey, shards: Sequence[tuple[ParkedShard, LeaseRow | None]]) -> bool:
        if len(shards) > MOST_DROPPED:
            raise ValueError(f"{len(shards)} shard rows in one transaction, {MOST_DROPPED} at most")
        for row, lease in shards:
            if lease is not None and not lease.settled:
                raise ValueError(f"{row.shard_id} is not settled to its end")

        def apply() -> bool:
            known = self._claimed(key)
            if known is None or known.state != "parked":
                return False
            for row, lease in shards:
                now = self._lease(row.label, row.shard_id)
                if (now.state if now is not None else None) != (lease.state if lease is not None else None):
                    return False
                if self._all_done(key, row) is None:
                    return False
            for row, _ in shards:
                del self._table.parked_shards[self._place(row)]
            self._noted(key.digest)
            return True

        return await self._write_once("drop_finished", apply)

    async def free_parked(self, key: ParkedKey, shards: Sequence[ParkedShard]) -> bool:
        if len(shards) > MOST_FREED:
            raise ValueError(f"{len(shards)} shard rows in one transaction, {MOST_FREED} at most")

        def apply() -> bool:
            known = self._claimed(key)
            if known is None or not _is_closing(known, key):
                return False
            if len(shards) != sum(row.park_id == key.park_id for row in self._parked(key.digest).shards):
                return False
            for shard in shards:
                mine = self._all_done(key, shard)
                if mine is None or mine.closed != key.nonce:
                    return False
            del self._table.parked[self._application, key.digest]
            for shard in shards:
                del self._table.parked_shards[self._place(shard)]
            self._noted(key.digest)
            self._changed()
            return True

        return await self._write_once("free_parked", apply)

    async def release_parked(self, key: ParkedKey) -> None:
        def apply() -> None:
            known = self._claimed(key)
            if known is not None:
                self._put_key(replace(known, state="parked", nonce="", redriver=None))
                self._changed()

        await self._write("release_parked", apply)


def _is_closing(known: ParkedKey, key: ParkedKey) -> bool:
    return known.state == "closing" and (known.park_id, known.nonce) == (key.park_id, key.nonce)
