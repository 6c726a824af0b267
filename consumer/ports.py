"""The seams: everything the worker needs from outside, as protocols.

Production adapters live in ``consumer.aws`` and ``consumer.handlers``; in-memory ones in ``consumer.testing``.
The same contract suite (``tests/contract``) runs on both. Adapters translate every failure into the errors
of ``consumer.domain.errors``; nothing above this line knows an SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.record import Record
from consumer.domain.shards import ShardInfo
from consumer.domain.windows import WindowState


class Clock(Protocol):
    """Time. Ownership uses ``monotonic`` only; ``wall`` is for lag, documents and logs."""

    def monotonic(self) -> float:
        """Seconds that never go back and count while the machine is suspended."""

    def wall(self) -> float:
        """Unix time in seconds."""

    async def sleep(self, seconds: float) -> None: ...


class Randomness(Protocol):
    def random(self) -> float:
        """Uniform in [0, 1): jitter only, never identity."""

    def token(self) -> str:
        """A fresh unique token (incarnations, take nonces, request ids)."""


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """What ``StreamSource.describe`` found. ``server_time`` is the service's own wall clock (Unix seconds)."""

    stream_arn: str
    label: str
    table_name: str
    status: Literal["ENABLING", "ENABLED", "DISABLING", "DISABLED"]
    view_type: str
    partition_key: str
    server_time: float


@dataclass(frozen=True, slots=True)
class Page:
    """One GetRecords answer. ``next_iterator is None`` means: the shard is closed and read to its end.

    ``wire_bytes`` is the size of the body; all records of a page share (and pin) that memory until detached.
    """

    records: Sequence[Record]
    next_iterator: str | None
    wire_bytes: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where to start in a shard. ``sequence_number`` is the service's text, never reformatted."""

    kind: Literal["TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]
    sequence_number: str | None = None


class StreamSource(Protocol):
    """A change stream. All methods may raise DependencyError, Throttled, PermissionDenied, ResourceMissing."""

    async def describe(self) -> StreamDescription:
        """Resolve the configured table or ARN. MisconfiguredResource when the table has no stream."""

    async def latest_stream(self) -> str | None:
        """The ARN of the table's newest stream, asked anew; None when the stream is configured by its ARN."""

    def of(self, stream_arn: str) -> StreamSource:
        """The same source on this stream, whatever the table's newest one is. ``describe`` raises ResourceMissing when
        the stream is gone."""

    async def list_shards(self) -> list[ShardInfo]:
        """All shards, every page of DescribeStream; an incomplete listing raises instead of returning."""

    async def child_shards(self, shard_id: str) -> list[ShardInfo]:
        """The children of one closed shard (ShardFilter CHILD_SHARDS); may be empty for a while."""

    async def iterator(self, shard_id: str, position: Position) -> str:
        """A shard iterator. TrimmedData when the position is gone, ResourceMissing when the shard is."""

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        """The next page. ExpiredIterator, TrimmedData. A body that does not decode is a DependencyError."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The application's durable start, written once: ``pk = application#label, sk = meta``.

    ``start_at`` (Unix seconds, service clock) drops older records; None reads from the horizon.
    ``skip_shards`` were closed when ``latest`` was resolved, so all their records are older than the start.
    """

    stream_arn: str
    start_at: float | None
    skip_shards: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Loss:
    """The durable trace of records that no handler will settle: a trim gap or a discard without destination."""

    kind: Literal["gap", "discarded"]
    shard_id: str
    first_sequence_number: str | None
    last_sequence_number: str | None
    reason: str
    detected_at: float


class LeaseStore(Protocol):
    """The one table the fleet agrees through. Reads of a single row are consistent.

    Every write to a lease row is conditional on the owner's incarnation AND epoch and raises ``LeaseLost``
    when refused (``LeaseDeleted`` when the row is gone), so a retry after a lost response is harmless. Writes of
    one owner and epoch are numbered in the order in which they were asked for (``LeaseRow.revision``): one that
    arrives late, after a newer one, changes nothing.
    """

    async def prepare(self, *, create: bool) -> bool:
        """Check the table's key schema (create the table if allowed). True when it was created.
        ResourceMissing, MisconfiguredResource."""

    async def pin_application(self, table_name: str) -> None:
        """Write or check the ``pk = application, sk = meta`` row: one application reads one source table.
        MisconfiguredResource when it belongs to another table or a newer schema."""

    async def switch_stream(self, seen: str | None, stream_arn: str) -> str:
        """Note in the application's row that it reads ``stream_arn`` now, IF it noted ``seen`` (None: nothing) before.
        Returns the ARN that holds. ResourceMissing when the application has no row (``pin_application``)."""

    async def register(self, label: str, registration: Registration) -> Registration:
        """Write the registration if there is none; return the one that holds."""

    async def registration(self, label: str) -> Registration | None: ...

    # sessions
    async def open_session(self, session: SessionRow) -> None: ...
    async def bump_session(self, incarnation: str, counter: int) -> None:
        """SET counter IF the row exists and is not fenced. SessionFenced otherwise."""

    async def announce(self, incarnation: str, *, handoffs: int, leaving: bool) -> None:
        """Tell peers that leases were released or handed over (they then look at once). SessionFenced."""

    async def close_session(self, incarnation: str) -> None:
        """Delete the row (own, or a fenced one that owns nothing any more)."""

    async def sessions(self) -> list[SessionRow]: ...
    async def fence_session(self, incarnation: str, counter: int) -> bool:
        """SET fenced IF counter is still ``counter``; False when it moved. Already fenced is True."""

    # leases
    async def add_lease(self, label: str, row: LeaseRow) -> bool:
        """Create the row if absent; False when it is there already. One with an owner is put back by that owner: it
        counts as newer than every write which this store was asked for before."""

    async def leases(self, label: str) -> list[LeaseRow]: ...
    async def lease(self, label: str, shard_id: str) -> LeaseRow | None:
        """One row, read consistently."""

    async def take(self, label: str, seen: LeaseRow, owner: str, nonce: str) -> LeaseRow | None:
        """SET owner, epoch+1 IF owner and epoch are as seen. None when refused. An ambiguous answer is
        resolved by reading the row and comparing the nonce."""

    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        """Write state and frontier IF owner and epoch are held. LeaseLost. ``window``, when given, is written with them
        or not at all. Returns as after a success when a newer write of the same owner and epoch is there already: that
        one holds everything this one does."""

    async def hand_over(
        self, label: str, held: LeaseRow, target: str | None, window: WindowState | None = None
    ) -> None:
        """Write the frontier (and ``window``) and pass the lease to ``target`` (epoch+1), or release it (None).
        LeaseLost.

        An owner passes one epoch on only once. So when the row shows that this owner passed this epoch on, an
        earlier attempt without answer was applied, and the call returns as after a success (also if that attempt
        named another target)."""

    async def window_state(self, label: str, shard_id: str) -> WindowState:
        """The window of a shard as it was saved last, read consistently; an empty one when there is none."""

    async def remove_lease(self, label: str, seen: LeaseRow) -> bool:
        """Delete a tombstone IF unchanged since seen."""

    async def record_loss(self, label: str, held: LeaseRow, loss: Loss) -> None:
        """Write the durable trace IF the lease is held (one transaction or check-and-put). LeaseLost."""

    async def losses(self, label: str) -> list[Loss]: ...


class DeadLetters(Protocol):
    """Where poison goes. ``send`` returns only when the document is durable at the destination."""

    destination: str

    async def prepare(self) -> None:
        """Check that the destination exists and may be used. ResourceMissing, PermissionDenied."""

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Raises DependencyError, PermissionDenied, ResourceMissing or PayloadTooLarge; the caller retries."""


class Handler(Protocol):
    """User code, however it is run. One instance serves the whole process."""

    @property
    def width(self) -> int:
        """How many calls can usefully run at the same time; 0 = no limit."""

    async def start(self) -> None:
        """Import the target. HandlerImportError."""

    async def invoke(self, call: HandlerCall) -> Outcome:
        """Run one batch. Never raises for what user code did: that is an Outcome. Must have really ended
        (or been killed) when it returns. Cancelling it kills or cancels the user code and waits for its end."""

    async def close(self) -> None:
        """End worker processes. Idempotent."""
