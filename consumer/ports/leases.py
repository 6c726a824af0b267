"""The one table the fleet agrees through, as three small stores: the application's registry, sessions and leases.

Reads of a single row are consistent. One adapter implements all three (``LeaseTable``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from consumer.domain.bulletin import Bulletin, Change, Post
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.windows import WindowState
from consumer.ports.parking import ParkingStore


@dataclass(frozen=True, slots=True)
class Registration:
    """The application's durable start, written once: ``pk = application#label, sk = meta``.

    ``start_at`` (Unix seconds, service clock) drops older records; None reads from the horizon.
    ``skip_shards`` were closed when ``latest`` was resolved, so all their records are older than the start.
    """

    stream_id: str
    start_at: float | None
    skip_shards: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Loss:
    """The durable trace of records that no handler will settle: a trim gap, a discard without destination, or records
    that are kept at ``location`` because their destination can never take them."""

    kind: Literal["gap", "discarded", "kept"]
    shard_id: str
    first_sequence_number: str | None
    last_sequence_number: str | None
    reason: str
    detected_at: float
    location: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayTrace:
    """The durable trace of a replay: who (an incarnation) has set which shards back to which position, and when (Unix
    seconds)."""

    by: str
    at: float
    position: str
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the application's row says: its source (``StreamDescription.source_id``), and the stream of it that it reads
    now (None: not noted, as where another one can never follow)."""

    source_id: str
    stream_id: str | None = None


class Registry(Protocol):
    """The table itself, and what the application wrote down once: its source table, its stream, its start.

    Rows of another schema version are refused wherever they are met: MisconfiguredResource here, a ``corrupt`` lease
    row, a session that is not ``readable``.
    """

    async def prepare(self, *, create: bool) -> bool:
        """Check the table's key schema, and that it is no global table (create the table if allowed). True when it was
        created. ResourceMissing, MisconfiguredResource."""

    async def pin_application(self, table_arn: str) -> bool:
        """Write or check the ``pk = application, sk = meta`` row: one application reads one source table, of one region
        and account. True when the rows were written in another lease table, as after the restore of a backup: from now
        on every epoch is above all that were handed out until then. MisconfiguredResource when the application belongs
        to another source table or schema."""

    async def pinned(self) -> Pinned | None:
        """What the application's row says; None when it has none. MisconfiguredResource when it cannot be used."""

    async def switch_stream(self, seen: str | None, stream_arn: str) -> str:
        """Note in the application's row that it reads ``stream_arn`` now, IF it noted ``seen`` (None: nothing) before.
        Returns the ARN that holds. ResourceMissing when the application has no row (``pin_application``)."""

    async def register(self, label: str, registration: Registration) -> Registration:
        """Write the registration if there is none; return the one that holds."""

    async def registration(self, label: str) -> Registration | None: ...
    async def record_replay(self, label: str, trace: ReplayTrace) -> None:
        """Write the trace of a replay; the same one may be written again."""


class SessionStore(Protocol):
    """The heartbeats of the fleet: one row for each worker incarnation."""

    async def open_session(self, session: SessionRow) -> None: ...
    async def bump_session(self, incarnation: str, counter: int) -> None:
        """SET counter IF the row exists and is not fenced. SessionFenced otherwise."""

    async def announce(
        self,
        incarnation: str,
        *,
        handoffs: int,
        leaving: bool,
        capacity: int | None = None,
        failing: Sequence[str] = (),
    ) -> None:
        """Tell peers that leases were released or handed over (they then look at once), how many this worker takes at
        most (None: as before), and shards in which a key fails again and again. SessionFenced."""

    async def close_session(self, incarnation: str) -> None:
        """Delete the row (own, or a fenced one that owns nothing any more)."""

    async def sessions(self) -> list[SessionRow]: ...
    async def fence_session(self, incarnation: str, counter: int) -> bool:
        """SET fenced IF counter is still ``counter``; False when it moved. Already fenced is True."""


class LeaseStore(Protocol):
    """Who owns which shard, and what of it is settled.

    Every write to a lease row is conditional on the owner's incarnation AND epoch and raises ``LeaseLost``
    when refused (``LeaseDeleted`` when the row is gone), so a retry after a lost response is harmless. Writes of
    one owner and epoch are numbered in the order in which they were asked for (``LeaseRow.revision``): one that
    arrives late, after a newer one, changes nothing.
    """

    async def add_lease(self, label: str, row: LeaseRow) -> bool:
        """Create the row of a new shard, which has no owner, if absent; False when it is there already."""

    async def put_back(self, label: str, row: LeaseRow, by: str) -> LeaseRow | None:
        """Create a row again that was deleted, IF it is absent and the session of the incarnation ``by`` is there and
        not fenced: so a request that its sender slept over, or that arrives late, changes nothing once others have gone
        on. Returns the row as written, None when refused.

        With an owner (``by``) it keeps its epoch and counts as newer than every write which this store was asked for
        before. Without one its epoch is raised above all that were ever handed out (``domain/lease.py``)."""

    async def raise_epoch(self, label: str, seen: LeaseRow, highest: int) -> bool:
        """Raise the epoch of a row that nobody works on, and that is behind (``highest`` was seen), above all that were
        ever handed out, IF owner and epoch are as ``seen``. The owner stays. False when refused."""

    async def leases(self, label: str) -> list[LeaseRow]: ...
    async def lease(self, label: str, shard_id: str) -> LeaseRow | None:
        """One row, read consistently."""

    async def take(self, label: str, seen: LeaseRow, owner: str, nonce: str) -> LeaseRow | None:
        """SET owner, epoch+1 IF owner and epoch are as seen. None when refused. An ambiguous answer is
        resolved by reading the row and comparing the nonce."""

    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        """Write state, frontier and replay IF owner and epoch are held. LeaseLost. ``window``, when given, is written
        with them or not at all. Returns as after a success when a newer write of the same owner and epoch is there
        already: that one holds everything this one does."""

    async def release(
        self, label: str, held: LeaseRow, to: str | None = None, window: WindowState | None = None
    ) -> None:
        """Write the frontier (and ``window``) and give the lease away: to the incarnation ``to`` (a hand-over,
        epoch+1), or to any worker that takes it (None). LeaseLost.

        An owner gives one epoch away only once. So when the row shows that this owner gave this epoch away, an
        earlier attempt without answer was applied, and the call returns as after a success (also if that attempt
        named another incarnation)."""

    async def window_state(self, label: str, shard_id: str) -> WindowState:
        """The window of a shard as it was saved last, read consistently; an empty one when there is none."""

    async def remove_lease(self, label: str, seen: LeaseRow) -> bool:
        """Delete a tombstone IF unchanged since seen."""

    async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
        """Write the durable trace IF the lease is held (one transaction or check-and-put). LeaseLost."""

    async def store_part(self, label: str, held: LeaseRow, part: PayloadPart) -> None:
        """Keep a piece of a dead letter's payload, at most 300 KiB, IF the lease is held; the same piece may be stored
        again. LeaseLost."""


class BulletinStore(Protocol):
    """The bulletin of a stream (``domain/bulletin.py``)."""

    async def bulletin(self, label: str) -> Bulletin:
        """As it stands; an empty one when nothing was written yet."""

    async def begin_listing(self, label: str, seen: Bulletin, lister: str) -> bool:
        """Take the next turn to list the stream IF none was taken since ``seen``. False when another worker has it."""

    async def expect_rows(self, label: str, turn: int, lister: str, rows: int) -> None:
        """The listing of this turn has found so many shards, which get rows now. Changes nothing when another one was
        begun."""

    async def end_listing(self, label: str, turn: int, lister: str, *, rows: int = 0, failed: bool = False) -> None:
        """The listing of this turn has ended, and there are so many lease rows now (0: not known). Changes nothing when
        another one was begun."""

    async def post(self, label: str, changes: Sequence[Change]) -> int:
        """Make a post of changes, oldest first; MOST_CHANGES at most. Returns its number."""

    async def posts(self, label: str, first: int, last: int) -> list[Post]:
        """Those of the posts with these numbers that are there, in any order."""


class LeaseTable(Registry, SessionStore, LeaseStore, BulletinStore, ParkingStore, Protocol):
    """All of the table, as its adapters implement it."""
