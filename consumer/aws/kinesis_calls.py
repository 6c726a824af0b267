"""The calls of one Kinesis stream: by its name or its ARN, bounded and translated, with errors that name the shard."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol, TypeVar

from consumer.aws.errors import ApiCaller
from consumer.aws.kinesis_pages import KinesisPage, KinesisShard
from consumer.domain.errors import DependencyError, ExpiredIterator, ResourceMissing

T = TypeVar("T")

CALL_TIMEOUT: Final = 10.0  # seconds for any one call
PAGE_TIMEOUT: Final = 20.0  # seconds for a page, which may have 10 MiB


class Pages(Protocol):
    """GetRecords of a stream."""

    async def prepare(self) -> None:
        """Find out how pages are read, without a request that leaves the process."""

    async def read(self, iterator: str, limit: int, shard: KinesisShard) -> KinesisPage:
        """One page."""


class KinesisCalls:
    """Of the stream with this name or with this ARN: exactly one of the two is given."""

    def __init__(
        self, client: Any, caller: ApiCaller, pages: Pages, *, stream: str | None, stream_arn: str | None
    ) -> None:
        if (stream is None) == (stream_arn is None):
            raise ValueError("exactly one of stream and stream_arn must be given")
        self._client = client
        self._caller = caller
        self._pages = pages
        self._stream = {"StreamName": stream} if stream_arn is None else {"StreamARN": stream_arn}
        self.resource = stream_arn or f"Kinesis stream {stream}"

    async def prepare_pages(self) -> None:
        """Find out how pages are read. By a caller that counts nothing: no request leaves the process."""
        await ApiCaller().call("GetRecords", self.resource, self._pages.prepare(), CALL_TIMEOUT)

    async def summary(self) -> dict[str, Any]:
        """DescribeStreamSummary; an account has twenty a second."""
        answer: dict[str, Any] = await self._call(
            "DescribeStreamSummary", self._client.describe_stream_summary(**self._stream)
        )
        if answer["StreamDescriptionSummary"].get("StreamStatus") == "CREATING":
            raise DependencyError("DescribeStreamSummary", "StreamCreating", f"{self.resource} is being created")
        return answer

    async def list_shards(self, most: int, token: str | None = None) -> dict[str, Any]:
        """One page of the listing; a token stands for the stream, too."""
        which = self._stream if token is None else {"NextToken": token}
        answer: dict[str, Any] = await self._call("ListShards", self._client.list_shards(**which, MaxResults=most))
        return answer

    async def iterator(self, shard_id: str, kind: str, **more: Any) -> str:
        """GetShardIterator; a shard has five a second."""
        call = self._client.get_shard_iterator(**self._stream, ShardId=shard_id, ShardIteratorType=kind, **more)
        answer = await self._shard_call("GetShardIterator", shard_id, call, CALL_TIMEOUT)
        return str(answer["ShardIterator"])

    async def read(self, shard: KinesisShard, iterator: str, limit: int) -> KinesisPage:
        """GetRecords."""
        reading = self._pages.read(iterator, limit, shard)
        return await self._shard_call("GetRecords", shard.shard_id, reading, PAGE_TIMEOUT)

    async def _call(self, operation: str, awaitable: Awaitable[T]) -> T:
        try:
            return await self._caller.call(operation, self.resource, awaitable, CALL_TIMEOUT)
        except ResourceMissing as error:
            hint = "check source.stream or source.stream_arn, the region and the account"
            raise ResourceMissing(self.resource, hint) from error

    async def _shard_call(self, operation: str, shard_id: str, awaitable: Awaitable[T], seconds: float) -> T:
        try:
            return await self._caller.call(operation, self.resource, awaitable, seconds)
        except ResourceMissing as error:
            raise ResourceMissing(f"shard {shard_id} of {self.resource}", f"{operation} says so") from error
        except ExpiredIterator as error:
            raise ExpiredIterator(f"{operation} on {shard_id}: the shard iterator has expired") from error
