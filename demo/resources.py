"""What the demo and ``make local`` create on the local AWS, and the settings that its clients need."""

from __future__ import annotations

import os
from typing import Any, Final

from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller

REGION: Final = "eu-west-1"
# The local AWS accepts any credentials, but the SDK insists on some.
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


def forget_real_aws() -> None:
    """Give this process and its children dummy credentials, and nothing of the user's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(CREDENTIALS)
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)


async def create_table(dynamodb: Any, name: str) -> None:
    """A table with the key ``pk`` (string) and a stream with both images."""
    await dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )


async def create_stream(kinesis: Any, name: str) -> None:
    """A Kinesis stream with two shards, ready to be used."""
    await kinesis.create_stream(StreamName=name, ShardCount=2)
    await kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})


def table_stream(streams: Any, dynamodb: Any, table: str) -> DynamoDBStreamSource:
    """The table's own stream, to be read by the demo itself."""
    return DynamoDBStreamSource(streams, dynamodb, ApiCaller(), table=table, stream_arn=None)


async def create_queue(sqs: Any, name: str) -> tuple[str, str]:
    """The URL and the ARN of a new queue."""
    url = (await sqs.create_queue(QueueName=name))["QueueUrl"]
    attributes = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, attributes["Attributes"]["QueueArn"]


async def create_bucket(s3: Any, name: str) -> None:
    """A bucket in ``REGION``."""
    await s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
