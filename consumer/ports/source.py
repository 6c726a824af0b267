"""A change stream: its shards and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from consumer.domain.record import Record
from consumer.domain.shards import ShardInfo


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """What ``StreamSource.describe`` found. ``server_time`` is the service's own wall clock (Unix seconds); ``keys``
    names all key attributes, none when they are not known."""

    stream_arn: str
    label: str
    table_name: str
    status: Literal["ENABLING", "ENABLED", "DISABLING", "DISABLED"]
    view_type: str
    partition_key: str
    server_time: float
    keys: tuple[str, ...] = ()

    @property
    def table_arn(self) -> str:
        """Names the table with its region and account: a name alone may be that of several tables."""
        return self.stream_arn.partition("/stream/")[0]


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
        """Resolve the configured table or ARN. MisconfiguredResource when the table has no stream. The newest stream of
        a table needs no DescribeStream: any number of workers may ask at once."""

    async def latest_stream(self) -> str | None:
        """The ARN of the table's newest stream, asked anew; None when the stream is configured by its ARN."""

    def of(self, stream_arn: str) -> StreamSource:
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
