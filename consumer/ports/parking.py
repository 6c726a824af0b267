"""Where parked keys are kept: in the lease table, in one partition for each application (``domain/parking.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from consumer.domain.lease import LeaseRow
from consumer.domain.parking import Parked, ParkedKey, ParkedShard

MOST_COUNTED: Final = 50  # rows in one write
MOST_FREED: Final = 98  # shard rows in one write, which has the key and the number of changes in it, too

MOST_DROPPED: Final = 45  # shard rows in one write, which has the lease of each and the key in it, too


class ParkedReads(Protocol):
    """Consistent reads. A listing may run while a write is being applied, and then sees a part of it: rows that do not
    have the ``park_id`` of their key, or are not there yet. No write rests on a listing being complete.

    A row that was damaged is told with its key: a key is never taken for free by guessing."""

    async def parked(self) -> list[Parked]:
        """All parked keys of the application with their shard rows, in the order of their digests."""

    async def parked_key(self, digest: str) -> Parked:
        """One key."""

    async def parked_changes(self) -> int:
        """A number that grows with every step of a redrive that owners of shards have to notice; 0 at first.
        MisconfiguredResource when it was damaged."""


class ParkedLetters(ParkedReads, Protocol):
    """What owners of shards write. Every write is conditional on the lease of ``held``: LeaseLost, LeaseDeleted."""

    async def park(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        """Create the rows of a key and of its first shard, IF there is no row of the key. False when there is one,
        whether it can be read or not.
        Writing the same rows once more is a success."""

    async def join_parked(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        """Create the row of a shard (or replace one of another ``park_id``), IF the key is ``parked`` with the park id
        of ``key``, the shard has no row of that, and it is not settled to its end: a row that was dropped does not come
        back with a request that arrives late. False when refused; writing the same row once more is a success."""

    async def count_letters(self, label: str, held: LeaseRow, shards: Sequence[ParkedShard]) -> list[str]:
        """Write ``letters`` and ``last`` of at most MOST_COUNTED rows of one shard, each IF it is there with its
        ``park_id`` and has fewer letters: a request that arrives late changes nothing. Returns the digests of rows that
        are gone, or cannot be read; a row that has as many letters already is a success."""

    async def close_parked(self, label: str, held: LeaseRow, key: ParkedKey, shard: ParkedShard) -> bool:
        """Write the nonce of ``key`` into the row of a shard as ``closed``, with its counts, IF the key is ``closing``
        with that nonce, and the row does not count more letters. False when refused."""

    async def end_closing(self, label: str, held: LeaseRow, key: ParkedKey) -> bool:
        """Set a key back to ``parked``, IF it is ``closing`` with the nonce of ``key``. False when refused."""


class ParkedRedrives(ParkedReads, Protocol):
    """What a redrive writes. Every write but the first is conditional on its ``claim`` of the key. Steps that owners
    have to notice are not taken while the number of changes is damaged: MisconfiguredResource."""

    async def claim_parked(self, seen: ParkedKey, redriver: str) -> ParkedKey | None:
        """Become the redrive of a key that is as ``seen`` (park id, redriver and claim), which sets it back to
        ``parked``. Returns the row as it is then; None when refused. A claim whose answer was lost is recognised by
        ``redriver``, which must be new for every call."""

    async def redriven(self, key: ParkedKey, shard: ParkedShard) -> bool:
        """Write ``done`` of a shard row. False when the claim is lost."""

    async def begin_closing(self, key: ParkedKey, nonce: str) -> ParkedKey | None:
        """Set the key ``closing`` with this nonce. None when the claim is lost."""

    async def close_for_owner(self, key: ParkedKey, shard: ParkedShard, lease: LeaseRow | None) -> bool:
        """Write the nonce of a ``closing`` key into a shard row as ``closed``, in the place of an owner, IF the lease
        is as it was seen: settled to its end, not owned, or owned by an incarnation that is fenced (the caller knows);
        None: there is no lease row. False when refused."""

    async def drop_finished(self, key: ParkedKey, shards: Sequence[tuple[ParkedShard, LeaseRow | None]]) -> bool:
        """Delete rows of shards that get no further letters, IF the key is ``parked``, each lease still is settled to
        its end (None: absent), and each row has ``done`` as many as ``letters``, as given. All or nothing: False when
        refused. At most MOST_DROPPED. ValueError for a lease that is not settled."""

    async def free_parked(self, key: ParkedKey, shards: Sequence[ParkedShard]) -> bool:
        """Delete the key row, IF it is ``closing`` with its nonce and has no other shards than these, and all
        ``shards``, IF each is closed with it and has ``done`` as many as ``letters``, as given. Both or nothing: False
        when refused. At most MOST_FREED shards."""

    async def release_parked(self, key: ParkedKey) -> None:
        """Leave the key ``parked``, and to any redrive. Nothing happens when the claim is lost."""


class ParkingStore(ParkedLetters, ParkedRedrives, Protocol):
    """All of it, as the adapters of the lease table implement it."""
