"""What one worker sees of a Kinesis stream in memory: the SDK's client, and the real source on top of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, TypeVar

from consumer.aws.errors import ApiCaller
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.aws.kinesis_pages import KinesisPage, KinesisShard, convert_page
from consumer.aws.kinesis_streams import KinesisStreamSource
from consumer.domain.errors import ResourceMissing
from consumer.testing.memory_kinesis import MemoryKinesis
from consumer.testing.network import Link

T = TypeVar("T")


class MemoryKinesisClient:
    """The calls that the source makes, on whichever stream has the name now.

    Args:
        stream: the first stream of the name.
        link: the network in between; without one nothing is ever lost.
    """

    def __init__(self, stream: MemoryKinesis, link: Link | None = None) -> None:
        self._first = stream
        self._link = link or Link()

    async def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        return await self._ask("describe", lambda stream: stream.summary())

    async def list_shards(self, *, MaxResults: int, NextToken: str | None = None, **_: Any) -> dict[str, Any]:  # noqa: N803 - the SDK's names
        return await self._ask("list_shards", lambda stream: stream.page_of_shards(MaxResults, NextToken))

    async def get_shard_iterator(
        self,
        *,
        ShardId: str,  # noqa: N803 - the SDK's name
        ShardIteratorType: str,  # noqa: N803 - the SDK's name
        StartingSequenceNumber: str | None = None,  # noqa: N803 - the SDK's name
        Timestamp: dt.datetime | None = None,  # noqa: N803 - the SDK's name
        **_: Any,
    ) -> dict[str, Any]:
        at = None if Timestamp is None else float(int(Timestamp.timestamp()))  # the SDK cuts off the rest
        number = StartingSequenceNumber

        def find(stream: MemoryKinesis) -> dict[str, Any]:
            return {"ShardIterator": stream.iterator(ShardId, ShardIteratorType, number, at)}

        return await self._ask("iterator", find)

    async def prepare(self) -> None:
        """Nothing has to be found out."""

    async def read(self, iterator: str, limit: int, shard: KinesisShard) -> KinesisPage:
        """GetRecords, as botocore's parser returns it."""
        answer = await self._ask("get_records", lambda stream: stream.page(iterator, limit))
        return convert_page(answer, shard)

    async def _ask(self, operation: str, answer: Callable[[MemoryKinesis], T]) -> T:
        def find() -> T:
            stream = self._first
            while stream.successor is not None:
                stream = stream.successor
            if stream.gone:
                raise ResourceMissing(f"stream {stream.name}")
            if stream.refuses is not None:
                raise stream.refuses
            return answer(stream)

        return await self._link.carry(operation, find)


def kinesis_source(stream: MemoryKinesis, wall: Callable[[], float], link: Link | None = None) -> KinesisStreamSource:
    """The source of one worker; ``wall`` is its clock of the service (Unix seconds)."""
    client = MemoryKinesisClient(stream, link)
    calls = KinesisCalls(client, ApiCaller(), client, stream=stream.name, stream_arn=None)
    return KinesisStreamSource(calls, wall=wall)
