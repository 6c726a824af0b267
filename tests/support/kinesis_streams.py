"""A Kinesis stream on a local server: what its owner does to it, and what a reader sees."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiobotocore.session
from botocore.handlers import enable_millisecond_timestamp_precision

from consumer.aws.session import AwsSession
from tests.support.kinesis_servers import KinesisServer

REGION = "us-east-1"


class Placed(NamedTuple):
    """Where a record came to stand."""

    shard_id: str
    sequence_number: str


class Reading(NamedTuple):
    """All records of a shard from a position on; ``children`` is None when the shard has not ended."""

    records: list[dict[str, Any]]
    children: list[dict[str, Any]] | None


class KinesisStream:
    """A stream of its own for one test.

    Args:
        reader: a client as the daemon makes it.
        owner: a client of the bare SDK that sends times with their milliseconds. Kinesis answers calls without output,
            such as SplitShard, with an empty body, which the daemon's clients take for no answer.
    """

    def __init__(self, name: str, reader: Any, owner: Any) -> None:
        self.name = name
        self.reader = reader
        self.owner = owner

    async def create(self, shards: int) -> None:
        await self.owner.create_stream(StreamName=self.name, ShardCount=shards)
        await self.active()

    async def delete(self) -> None:
        await self.owner.delete_stream(StreamName=self.name)

    async def active(self) -> dict[str, Any]:
        """The summary of the stream, once the change that is under way is done."""
        async with asyncio.timeout(30):
            while (summary := await self.summary())["StreamStatus"] != "ACTIVE":
                await asyncio.sleep(0.01)
        return summary

    async def summary(self) -> dict[str, Any]:
        answer = await self.reader.describe_stream_summary(StreamName=self.name)
        found: dict[str, Any] = answer["StreamDescriptionSummary"]
        return found

    # --- what the owner does ---

    async def put(self, *data: bytes, into: str | None = None) -> list[Placed]:
        """One record for each; partition keys are the data, in the shard ``into`` if it is given."""
        place = {"ExplicitHashKey": (await self.shard(into))["HashKeyRange"]["StartingHashKey"]} if into else {}
        records = [{"Data": each, "PartitionKey": each.decode() or "-", **place} for each in data]
        answer = await self.owner.put_records(StreamName=self.name, Records=records)
        assert not answer["FailedRecordCount"], answer
        return [Placed(each["ShardId"], each["SequenceNumber"]) for each in answer["Records"]]

    async def split(self, shard_id: str) -> list[str]:
        """Halve a shard; returns its children when the stream is active again."""
        hashes = (await self.shard(shard_id))["HashKeyRange"]
        middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"]) + 1) // 2
        await self.owner.split_shard(StreamName=self.name, ShardToSplit=shard_id, NewStartingHashKey=str(middle))
        await self.active()
        return [shard["ShardId"] for shard in await self.shards() if shard.get("ParentShardId") == shard_id]

    async def merge(self, shard_id: str, adjacent: str) -> str:
        """Make one shard of two neighbours; returns their child when the stream is active again."""
        await self.owner.merge_shards(StreamName=self.name, ShardToMerge=shard_id, AdjacentShardToMerge=adjacent)
        await self.active()
        [child] = [each["ShardId"] for each in await self.shards() if each.get("AdjacentParentShardId") == adjacent]
        return str(child)

    async def resize(self, count: int) -> None:
        await self.owner.update_shard_count(StreamName=self.name, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        await self.active()

    # --- what a reader sees ---

    async def shards(self, **options: Any) -> list[dict[str, Any]]:
        """One page of ListShards."""
        answer = await self.reader.list_shards(StreamName=self.name, **options)
        found: list[dict[str, Any]] = answer["Shards"]
        return found

    async def shard(self, shard_id: str) -> dict[str, Any]:
        [found] = [shard for shard in await self.shards() if shard["ShardId"] == shard_id]
        return found

    async def iterator(self, shard_id: str, kind: str = "TRIM_HORIZON", **position: Any) -> str:
        answer = await self.reader.get_shard_iterator(
            StreamName=self.name, ShardId=shard_id, ShardIteratorType=kind, **position
        )
        return str(answer["ShardIterator"])

    async def page(self, shard_id: str, kind: str = "TRIM_HORIZON", **position: Any) -> dict[str, Any]:
        """The first page from a position on."""
        iterator = await self.iterator(shard_id, kind, **position)
        found: dict[str, Any] = await self.reader.get_records(ShardIterator=iterator)
        return found

    async def read(self, shard_id: str, kind: str = "TRIM_HORIZON", **position: Any) -> Reading:
        """Page by page, until the shard ends or a page has no records."""
        page = await self.page(shard_id, kind, **position)
        records = list(page["Records"])
        while page["Records"] and page.get("NextShardIterator"):
            page = await self.reader.get_records(ShardIterator=page["NextShardIterator"])
            records += page["Records"]
        return Reading(records, None if page.get("NextShardIterator") else page.get("ChildShards", []))


StreamMaker = Callable[..., Awaitable[KinesisStream]]


@asynccontextmanager
async def streams_on(server: KinesisServer) -> AsyncIterator[StreamMaker]:
    """``await make(shards)``: streams that are deleted at the end. Credentials come from the environment."""
    bare = aiobotocore.session.get_session()
    bare.register("creating-serializer.kinesis", enable_millisecond_timestamp_precision)
    async with (
        AwsSession(REGION, {"kinesis": server.endpoint}) as session,
        bare.create_client("kinesis", region_name=REGION, endpoint_url=server.endpoint) as owner,
    ):
        reader = await session.client("kinesis")
        made: list[KinesisStream] = []

        async def make(shards: int = 1) -> KinesisStream:
            made.append(KinesisStream(f"changes-{uuid.uuid4().hex[:12]}", reader, owner))
            await made[-1].create(shards)
            return made[-1]

        yield make
        for stream in made:
            await stream.delete()
