"""A table with a stream, a queue and a fleet of daemon processes, one of each per test."""

import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.e2e.fleet import Fleet, closing
from tests.support.reshard_proxy import ProxyThread


@cache
def client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(max_pool_connections=4),
    )


class Aws:
    """Synchronous clients for the tests themselves."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.dynamodb = client("dynamodb", endpoint)
        self.sqs = client("sqs", endpoint)

    def table(self, *, stream: bool = True, view: str = "NEW_AND_OLD_IMAGES") -> str:
        name = f"t-{uuid.uuid4().hex[:12]}"
        self.dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            **({"StreamSpecification": {"StreamEnabled": True, "StreamViewType": view}} if stream else {}),
        )
        return name

    def queue(self) -> tuple[str, str]:
        """URL and ARN of a new queue."""
        url = self.sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex[:12]}")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, attributes["Attributes"]["QueueArn"]

    def messages(self, url: str) -> list[str]:
        bodies = []
        while answer := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in answer:
                bodies.append(message["Body"])
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def write(self, table: str, keys: int, versions: range, *, size: int = 20) -> set[tuple[str, int]]:
        """Every key gets every version, in order; returns what must come out."""
        written = set()
        for version in versions:
            puts = []
            for n in range(keys):
                key = f"k{n:04d}"
                item = {"pk": {"S": key}, "version": {"N": str(version)}, "text": {"S": "x" * size}}
                puts.append({"PutRequest": {"Item": item}})
                written.add((key, version))
            for start in range(0, len(puts), 25):
                self.dynamodb.batch_write_item(RequestItems={table: puts[start : start + 25]})
        return written

    def poison(self, table: str, key: str, version: int) -> None:
        item = {"pk": {"S": key}, "version": {"N": str(version)}, "poison": {"BOOL": True}}
        self.dynamodb.put_item(TableName=table, Item=item)


@pytest.fixture
def aws(local_aws: Any) -> Aws:
    return Aws(local_aws.endpoint)


@pytest.fixture
def proxy(aws: Aws, request: pytest.FixtureRequest) -> Iterator[ProxyThread]:
    """The way to everything. The mark ``behind_proxy`` leads the fleet over it; with its argument ``shards`` the stream
    has so many."""
    mark = request.node.get_closest_marker("behind_proxy")
    with ProxyThread(aws.endpoint, **(mark.kwargs if mark else {})) as proxy:
        yield proxy


@pytest.fixture
def lease_proxy(aws: Aws) -> Iterator[ProxyThread]:
    """The way of one worker to the lease table, and to nothing else that matters while it works."""
    with ProxyThread(aws.endpoint) as proxy:
        yield proxy


@pytest.fixture
def fleet(aws: Aws, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    is_behind = request.node.get_closest_marker("behind_proxy") is not None
    endpoint = request.getfixturevalue("proxy").endpoint if is_behind else aws.endpoint
    with closing(Fleet(endpoint, tmp_path, aws.table())) as fleet:
        yield fleet
