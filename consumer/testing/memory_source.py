"""What one worker sees of a change stream in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from consumer.domain.errors import ResourceMissing
from consumer.domain.shards import DAY, ShardInfo
from consumer.domain.source_format import dynamodb_format
from consumer.ports.source import Page, Position, StreamDescription
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.network import Link

SHARDS_PER_PAGE = 100  # of DescribeStream
PAGE_PAUSE = 0.15  # seconds that the adapter leaves between two of them

T = TypeVar("T")


class MemoryStreamSource:
    """The ``StreamSource`` of one worker on a ``MemoryStream``.

    Args:
        stream: the stream, shared by any number of sources.
        link: the network in between; without one nothing is ever lost.
    """

    retention: float = DAY

    def __init__(self, stream: MemoryStream, link: Link | None = None) -> None:
        self._first = stream
        self._stream = stream
        self._pinned = False
        self._link = link or Link()

    async def latest_stream(self) -> str | None:
        def find() -> str:
            latest = self._first
            while latest.successor is not None:
                latest = latest.successor
            return latest.arn

        return await self._link.carry("latest_stream", find)

    def of(self, stream_id: str) -> MemoryStreamSource:
        stream: MemoryStream | None = self._first
        while stream is not None and stream.arn != stream_id:
            stream = stream.successor
        if stream is None:
            raise ValueError(f"no stream {stream_id}")
        other = MemoryStreamSource(self._first, self._link)
        other._stream, other._pinned = stream, True
        return other

    async def describe(self) -> StreamDescription:
        """Of one stream it is what DescribeStream says; of the table's newest one DescribeTable does."""
        return await self._ask("describe", self._pinned_description if self._pinned else self._description)

    async def check_listing(self) -> None:
        await self._ask("check_listing", self._stream.listed)

    async def list_shards(self) -> list[ShardInfo]:
        listed = await self._ask("list_shards", self._stream.listed)
        if further := (len(listed) - 1) // SHARDS_PER_PAGE:
            await asyncio.sleep(further * PAGE_PAUSE)
        return listed

    async def child_shards(self, shard_id: str) -> list[ShardInfo]:
        def children() -> list[ShardInfo]:
            return [shard for shard in self._stream.listed() if shard_id in shard.parents]

        return await self._ask("child_shards", children)

    async def iterator(self, shard_id: str, position: Position) -> str:
        return await self._ask("iterator", lambda: self._stream.iterator(shard_id, position))

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        return await self._ask("get_records", lambda: self._stream.page(shard_id, iterator, limit))

    async def _ask(self, operation: str, answer: Callable[[], T]) -> T:
        def find() -> T:
            if self._stream.gone:
                raise ResourceMissing(f"stream {self._stream.arn}")
            return answer()

        return await self._link.carry(operation, find)

    def _pinned_description(self) -> StreamDescription:
        if self._stream.missing:
            raise ResourceMissing(self._stream.arn, "DescribeStream says so")
        return self._description()

    def _description(self) -> StreamDescription:
        stream = self._stream
        return StreamDescription(
            stream.arn,
            stream.label,
            stream.table,
            stream.status,
            stream.view_type,
            dynamodb_format(stream.partition_key),
            float(int(stream.clock.wall())),  # whole seconds, as an HTTP date
            tuple(stream.key_names),
        )
