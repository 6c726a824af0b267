"""The rows of the lease table in memory, and what a person with access to the table can do to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from consumer.domain.bulletin import Bulletin, Post
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.lease import LeaseRow, SessionRow, epoch_beyond
from consumer.domain.parking import ParkedKey, ParkedShard
from consumer.domain.windows import WindowState
from consumer.ports.leases import Loss, Registration, ReplayTrace

UNIT_BYTES = 4096  # of a consistent read


def bytes_of(row: LeaseRow) -> int:
    """About what a lease row weighs: keys, names, nonces, and what is in it."""
    frontier = 45 * len(row.frontier.runs) + 60 * len(row.frontier.deferred)
    parents = sum(map(len, row.parents))
    return 220 + 3 * len(row.owner or "") + len(row.shard_id) + parents + frontier + len(row.note)


@dataclass(slots=True)
class HeldLease:
    """A lease row, and the nonces of the writes that changed its owner."""

    row: LeaseRow
    take_nonce: str = ""
    passed_on_by: tuple[str | None, int] | None = None


@dataclass(slots=True)
class HeldSession:
    """A session row; ``opened_by`` tells a repeated write from another worker's."""

    row: SessionRow
    opened_by: object


@dataclass
class MemoryTable:
    """The rows. Public so that tests can look at them and damage them.

    Leases and sessions are keyed by application first; what ``leases`` holds besides the row are the nonces.
    """

    name: str = "memory-leases"
    exists: bool = True
    applications: dict[str, str] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    registrations: dict[tuple[str, str], Registration] = field(default_factory=dict)
    leases: dict[tuple[str, str], dict[str, HeldLease]] = field(default_factory=dict)
    sessions: dict[str, dict[str, HeldSession]] = field(default_factory=dict)
    losses: dict[tuple[str, str], dict[tuple[str, str, str], Loss]] = field(default_factory=dict)
    windows: dict[tuple[str, str, str], WindowState] = field(default_factory=dict)
    letters: dict[tuple[str, str, str], dict[int, PayloadPart]] = field(default_factory=dict)
    parked: dict[tuple[str, str], ParkedKey] = field(default_factory=dict)  # by application and digest
    parked_shards: dict[tuple[str, str, str, str], ParkedShard] = field(default_factory=dict)  # and label and shard
    parked_damage: dict[tuple[str, str, str, str], str] = field(default_factory=dict)  # problems of rows; "" of the key
    parked_changes: dict[str, int] = field(default_factory=dict)
    service_time: Callable[[], float] = time.time  # Unix seconds, by the clock of the service
    replays: dict[tuple[str, str], list[ReplayTrace]] = field(default_factory=dict)
    bulletins: dict[tuple[str, str], Bulletin] = field(default_factory=dict)
    posts: dict[tuple[str, str], dict[int, Post]] = field(default_factory=dict)
    on_write: Callable[[str, LeaseRow | None, LeaseRow], None] | None = None  # operation, lease row before and after
    # Operation, and what an owner is about to write, before the table judges it.
    on_save: Callable[[str, LeaseRow], None] | None = None
    on_register: Callable[[Registration], None] | None = None
    on_read: Callable[[str, float], None] | None = None  # partition, read units of a consistent read
    on_remove: Callable[[LeaseRow], None] | None = None  # by a worker, not by hand
    on_loss: Callable[[str, Loss], None] | None = None  # label
    on_park: Callable[[str], None] | None = None  # the digest of a key whose rows were changed
    _raised: int = 0

    def epoch_beyond(self, seen: int) -> int:
        """Above all epochs that were ever handed out."""
        self._raised += 1
        return epoch_beyond(seen, self.service_time(), self._raised)

    def put(self, leases: dict[str, HeldLease], row: LeaseRow, operation: str) -> HeldLease:
        """Store a lease row, and call ``on_write``."""
        lease = leases.get(row.shard_id)
        before = lease.row if lease is not None else None
        if lease is None:
            lease = leases[row.shard_id] = HeldLease(row)
        lease.row = row
        if self.on_write is not None:
            self.on_write(operation, before, row)
        return lease

    def read(self, partition: str, sizes: Iterable[int]) -> None:
        """Count a consistent read of rows with so many bytes each."""
        if self.on_read is not None:
            self.on_read(partition, max(1.0, float(-(-sum(sizes) // UNIT_BYTES))))

    def payload(self, location: str) -> bytes:
        """The payload that a dead letter's ``payloadLocation`` names, put together from its parts. ValueError when one
        is missing."""
        _, application, label, key = location.removeprefix("dynamodb://").split("/")
        parts = self.letters.get((application, label, key), {})
        if not parts or len(parts) != parts[min(parts)].count:
            raise ValueError(f"{location} is not complete")
        return b"".join(part.payload for _, part in sorted(parts.items()))

    def edit(self, application: str, label: str, shard_id: str, **changes: Any) -> None:
        """Change fields of a lease row by hand: no worker knows of it."""
        lease = self.leases[application, label][shard_id]
        lease.row = replace(lease.row, **changes)

    def drop_lease(self, application: str, label: str, shard_id: str) -> None:
        """Delete a lease row by hand."""
        del self.leases[application, label][shard_id]

    def drop_session(self, application: str, incarnation: str) -> None:
        """Delete a session row by hand."""
        del self.sessions[application][incarnation]

    def drop_rows(self) -> None:
        """What remains of a table that was deleted and made anew: nothing. Set ``exists`` for the time in between."""
        first = ("applications", "streams", "registrations", "leases", "sessions")
        parked = ("parked", "parked_shards", "parked_changes")
        for name in (*first, *parked, "losses", "windows", "letters", "replays", "bulletins", "posts"):
            getattr(self, name).clear()
