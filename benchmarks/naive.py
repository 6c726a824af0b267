"""What a user would write by hand: an aioboto3 loop per shard, as it comes, calling a plain function with the records.

No leases, no checkpoints, no order across batches, no retries. Every comparison in the results is against this loop.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import Callable
from typing import Any

import aioboto3
from boto3.dynamodb.types import TypeDeserializer

from benchmarks.handlers import on_lambda
from benchmarks.measure import Meter
from benchmarks.stub_stream import STREAM_ARN

Records = list[dict[str, Any]]
_deserialize = TypeDeserializer().deserialize


def nothing(records: Records) -> None:
    pass


def keys(records: Records) -> None:
    for record in records:
        _ = _deserialize(record["dynamodb"]["Keys"]["pk"])


def two_fields(records: Records) -> None:
    for record in records:
        image = record["dynamodb"]["NewImage"]
        _ = int(_deserialize(image["version"])), _deserialize(image["paid"])


def both_images(records: Records) -> None:
    for record in records:
        for image in ("NewImage", "OldImage"):
            _ = {name: _deserialize(value) for name, value in record["dynamodb"][image].items()}


def call_lambda(records: Records) -> None:
    """The same function as the daemon's, with an equal event: what the SDK decoded is put back into Lambda's form."""
    for start in range(0, len(records), 100):
        on_lambda({"Records": [lambda_record(record) for record in records[start : start + 100]]}, None)


def lambda_record(record: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = _as_json(record)
    event["eventSourceARN"] = STREAM_ARN
    return event


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.timestamp() if isinstance(value, dt.datetime) else value


async def consume(endpoint: str, shards: int, handler: Callable[[Records], None], meter: Meter) -> None:
    """Read all shards at the same time until the meter has seen enough."""
    stop = asyncio.Event()
    meter.on_end = stop.set
    async with aioboto3.Session().client("dynamodbstreams", endpoint_url=endpoint) as client:
        answer = await client.describe_stream(StreamArn=STREAM_ARN)
        listed = answer["StreamDescription"]["Shards"][:shards]

        async def read(shard_id: str) -> None:
            answer = await client.get_shard_iterator(
                StreamArn=STREAM_ARN, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON"
            )
            iterator = answer["ShardIterator"]
            while not stop.is_set():
                page = await client.get_records(ShardIterator=iterator)
                handler(page["Records"])
                meter.count(len(page["Records"]))
                iterator = page["NextShardIterator"]

        await asyncio.gather(*(read(shard["ShardId"]) for shard in listed))
