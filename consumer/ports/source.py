"""A change stream: its shards and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from consumer.domain.shards import ShardInfo
from consumer.domain.source_format import SourceFormat
from consumer.domain.stream_record import StreamRecord


def arn_of(stream_id: str) -> str:
    """The ARN in a ``stream_id``, behind which a stream of Kinesis has the second of its creation."""
    return stream_id.partition("@")[0]


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """What ``StreamSource.describe`` found. ``server_time`` is the service's own wall clock (Unix seconds); ``keys``
    names all key attributes, none when they are not known. ``stream_id`` names this very stream, also where an ARN is
    given to another one later; ``source_id`` what its application reads, whichever stream that is now. ``table_name``
    is empty where that is not one table.
    """

    stream_arn: str
    label: str
    table_name: str
    status: Literal["ENABLING", "ENABLED", "DISABLING", "DISABLED"]
    view_type: str
    format: SourceFormat
    server_time: float
    keys: tuple[str, ...] = ()
    stream_id: str = ""

    def __post_init__(self) -> None:
        if not self.stream_id:  # the ARN of a DynamoDB stream is given to no other one
            object.__setattr__(self, "stream_id", self.stream_arn)

    @property
    def name(self) -> str:
        """Of the table, or of the stream of Kinesis: for people."""
        return self.table_name or self.stream_arn.rpartition("stream/")[2]

    @property
    def source_id(self) -> str:
        """The table, or the stream of Kinesis, with its region and account: a name alone may be that of several."""
        return self.stream_arn.partition("/stream/")[0]


@dataclass(frozen=True, slots=True)
class Page:
    """One GetRecords answer. ``next_iterator is None`` means: the shard is closed and read to its end.

    ``wire_bytes`` is the size of the body; all records of a page share (and pin) that memory until detached.
    ``behind``: seconds that the page was behind the tip of the shard, where the service says so (None: it does not,
    then an empty page means the tip).

    0 where they are in proportion to ``wire_bytes`` and the records: ``held_bytes``, the memory of the records;
    ``event_bytes``, no less than the JSON of their Lambda event; ``count``, how many the service takes them for.
    ``arrived``: when the first record came to the stream (Unix seconds), where that is not when it was created.
    """

    records: Sequence[StreamRecord]
    next_iterator: str | None
    wire_bytes: int
    behind: float | None = None
    held_bytes: int = 0
    event_bytes: int = 0
    count: int = 0
    arrived: float = 0.0

    @property
    def at_tip(self) -> bool:
        """Nothing was left to read behind it."""
        return not self.records if self.behind is None else self.behind <= 0.0


@dataclass(frozen=True, slots=True)
class Position:
    """Where to start in a shard. ``sequence_number`` is a number of the books (``StreamRecord.number``).

    ``timestamp`` (Unix seconds) is that of AT_TIMESTAMP, which only sources know whose records may come twice
    (``SourceFormat.repeats``). From the horizon a source may leave out what is older than ``not_before``.
    ``complete_at``: as in ``FrontierSnapshot``, of a position behind a record, or of a shard without any so far.
    """

    kind: Literal["TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP"]
    sequence_number: str | None = None
    timestamp: float = 0.0
    not_before: float | None = None
    complete_at: float = 0.0


class StreamSource(Protocol):
    """A change stream. All methods may raise DependencyError, Throttled, PermissionDenied, ResourceMissing."""

    @property
    def retention(self) -> float:
        """Seconds for which the service keeps a record, as far as is known now."""

    async def describe(self) -> StreamDescription:
        """Resolve the configured table or ARN. MisconfiguredResource when the table has no stream. The newest stream of
        a table needs no DescribeStream: any number of workers may ask at once."""

    async def latest_stream(self) -> str | None:
        """The ``stream_id`` of the newest stream, asked anew; None when another one can never follow."""

    def of(self, stream_id: str) -> StreamSource:
        """The same source on this stream, whatever the table's newest one is. ``describe`` raises ResourceMissing when
        the stream is gone."""

    async def check_listing(self) -> None:
        """Whether shards may be listed, by one DescribeStream: raises what ``list_shards`` would."""

    async def list_shards(self) -> list[ShardInfo]:
        """All shards, every page of DescribeStream; an incomplete listing raises instead of returning."""

    async def child_shards(self, shard_id: str) -> list[ShardInfo]:
        """The children of one closed shard (ShardFilter CHILD_SHARDS); may be empty for a while."""

    async def iterator(self, shard_id: str, position: Position) -> str:
        """A shard iterator. TrimmedData when the position is gone, ResourceMissing when the shard is."""

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        """The next page. ExpiredIterator, TrimmedData. A body that does not decode is a DependencyError."""
