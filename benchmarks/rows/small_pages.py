"""CPU of one GetRecords call when a page holds ten records: what a worker near the tip of a stream mostly does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aioboto3

from benchmarks.stub_stream import STREAM_ARN, shard_id
from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller
from consumer.aws.session import AwsSession
from consumer.ports.source import Position

WARM_UP = 50


def sdk(stream: str, calls: int) -> dict[str, float]:
    """aioboto3 as it comes."""

    async def run() -> dict[str, float]:
        async with aioboto3.Session().client("dynamodbstreams", endpoint_url=stream) as client:
            answer = await client.get_shard_iterator(
                StreamArn=STREAM_ARN, ShardId=shard_id(0), ShardIteratorType="TRIM_HORIZON"
            )

            async def read(iterator: str) -> tuple[str, int]:
                page = await client.get_records(ShardIterator=iterator)
                return page["NextShardIterator"], len(page["Records"])

            return await _timed(read, answer["ShardIterator"], calls)

    return asyncio.run(run())


def source(stream: str, calls: int) -> dict[str, float]:
    """The daemon's stream source."""

    async def run() -> dict[str, float]:
        async with AwsSession("eu-west-1", {"dynamodb_streams": stream}) as session:
            client = await session.client("dynamodbstreams")
            reader = DynamoDBStreamSource(client, None, ApiCaller(lambda *_: None), table=None, stream_arn=STREAM_ARN)
            await reader.describe()

            async def read(iterator: str) -> tuple[str, int]:
                page = await reader.get_records(shard_id(0), iterator, 1000)
                return str(page.next_iterator), len(page.records)

            return await _timed(read, await reader.iterator(shard_id(0), Position("TRIM_HORIZON")), calls)

    return asyncio.run(run())


async def _timed(read: Callable[[str], Awaitable[tuple[str, int]]], iterator: str, calls: int) -> dict[str, float]:
    records = 0
    for number in range(calls + WARM_UP):
        if number == WARM_UP:
            cpu, records = time.process_time(), 0
        iterator, count = await read(iterator)
        records += count
    spent = time.process_time() - cpu
    return {"calls": calls, "records": records, "us_per_call": 1e6 * spent / calls}
