"""Fixtures that any test may use: a local AWS, clients for it, and lease tables in memory and on a server.

The local AWS is started once per test process. When its interpreter is missing the tests that need it fail: a suite
that skips its only real server would be green for the wrong reason.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from consumer.aws import letter_queue
from consumer.aws.errors import ApiCaller
from consumer.aws.lease_table import DynamoDBLeaseStore
from consumer.aws.session import AwsSession
from consumer.domain.errors import DependencyError
from consumer.ports.leases import LeaseTable, Loss
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import Fault, Link
from consumer.worker import gc_tuning
from demo.local_aws import LocalAws, find_local_aws_python, free_port

# What is imported and collected stays, as what a daemon imports: to look for garbage in it took a sixth of collecting.
gc_tuning.spare_the_start()

# How long an example takes says nothing on a shared machine.
hypothesis_settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("shared")

pytest_plugins = ("tests.support.kinesis_fixtures", "tests.support.order_of_tests", "tests.support.speedups")

LONG_POLL = letter_queue.LONG_POLL  # as it is on AWS, whatever local_aws makes of it
REGION = "us-east-1"
SERVICES = ("dynamodb", "dynamodb_streams", "sqs", "sns", "s3")
DYNAMODB_LOCAL = "STREAM_CONSUMER_TEST_DYNAMODB_LOCAL"  # directory of the user's own copy of DynamoDB Local
DYNAMODB_SERVERS = ["ministack", *(["dynamodb-local"] if os.environ.get(DYNAMODB_LOCAL) else [])]


# --- servers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def local_aws() -> Iterator[LocalAws]:
    """A running local AWS; ``local_aws.endpoint`` is its URL for every service. It is one server, so an answer without
    a message means that there is none: this process does not wait for what the other servers of a queue might show."""
    with LocalAws(find_local_aws_python()) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(letter_queue, "LONG_POLL", 0)
        yield server


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[str]:
    """The URL of the user's own DynamoDB Local. It has no option for the address and listens on every interface."""
    port = free_port()
    home = Path(os.environ[DYNAMODB_LOCAL])
    java = ["java", "-Xmx512m", f"-Djava.library.path={home / 'DynamoDBLocal_lib'}", "-jar", "DynamoDBLocal.jar"]
    options = ["-disableTelemetry", "-sharedDb", "-inMemory", "-port", str(port)]
    process = subprocess.Popen([*java, *options], cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _endpoints(kind: str, request: pytest.FixtureRequest) -> dict[str, str]:
    endpoints = dict.fromkeys(SERVICES, request.getfixturevalue("local_aws").endpoint)
    if kind == "dynamodb-local":
        url = request.getfixturevalue("dynamodb_local")
        endpoints |= {"dynamodb": url, "dynamodb_streams": url}
    return endpoints


@pytest.fixture(scope="session", params=DYNAMODB_SERVERS)
def dynamodb_endpoints(request: pytest.FixtureRequest) -> dict[str, str]:
    """Endpoints by service, once for each DynamoDB there is: for contracts that must hold on all of them."""
    return _endpoints(request.param, request)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"DynamoDB Local in {os.environ[DYNAMODB_LOCAL]} did not start (exit code {process.poll()})")


# --- clients ---------------------------------------------------------------------------------------


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dummy credentials and nothing of the user's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
async def local_clients(local_aws: LocalAws, aws_environment: None) -> AsyncIterator[AwsSession]:
    """A session whose clients all talk to the local AWS."""
    async with AwsSession(REGION, dict.fromkeys(SERVICES, local_aws.endpoint)) as session:
        yield session


@pytest.fixture
async def dynamodb_clients(dynamodb_endpoints: dict[str, str], aws_environment: None) -> AsyncIterator[AwsSession]:
    """The same, repeated for every DynamoDB of ``dynamodb_endpoints``."""
    async with AwsSession(REGION, dynamodb_endpoints) as session:
        yield session


# --- tables, items, queues -------------------------------------------------------------------------


def unique(prefix: str) -> str:
    """A name no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class SourceTable:
    """A table with a stream, made for one test. Its key is ``id`` (string)."""

    name: str
    stream_arn: str
    session: AwsSession

    async def put(self, *items: Mapping[str, Any]) -> None:
        """Write items one by one, in order. Attributes are typed: ``{"id": {"S": "a"}}``."""
        client = await self.session.client("dynamodb")
        for item in items:
            await client.put_item(TableName=self.name, Item=dict(item))

    async def delete(self, *ids: str) -> None:
        client = await self.session.client("dynamodb")
        for one in ids:
            await client.delete_item(TableName=self.name, Key={"id": {"S": one}})


async def create_source_table(session: AwsSession, view_type: str = "NEW_AND_OLD_IMAGES") -> SourceTable:
    """A new table with a stream, under a name of its own."""
    client = await session.client("dynamodb")
    name = unique("orders")
    answer = await client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view_type},
    )
    return SourceTable(name, answer["TableDescription"]["LatestStreamArn"], session)


@pytest.fixture
def source_table(local_clients: AwsSession) -> Callable[..., Awaitable[SourceTable]]:
    """``await source_table(view_type=...)`` makes a table with a stream on the local AWS."""

    async def make(view_type: str = "NEW_AND_OLD_IMAGES") -> SourceTable:
        return await create_source_table(local_clients, view_type)

    return make


@dataclass(frozen=True)
class Queue:
    """An SQS queue, made for one test."""

    arn: str
    url: str
    session: AwsSession

    async def receive(self, at_least: int = 1, timeout: float = 10.0) -> list[dict[str, Any]]:
        """Take messages (with their attributes) until there are ``at_least`` or ``timeout`` seconds are over."""
        client = await self.session.client("sqs")
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout
        while len(found) < at_least and time.monotonic() < deadline:
            answer = await client.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
            )
            for message in answer.get("Messages", ()):
                found.append(message)
                await client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found


@pytest.fixture
def queue(local_clients: AwsSession) -> Callable[..., Awaitable[Queue]]:
    """``await queue(MaximumMessageSize="1024")`` makes a queue on the local AWS."""

    async def make(name: str | None = None, **attributes: str) -> Queue:
        client = await local_clients.client("sqs")
        url = (await client.create_queue(QueueName=name or unique("dlq"), Attributes=attributes))["QueueUrl"]
        answer = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return Queue(answer["Attributes"]["QueueArn"], url, local_clients)

    return make


# --- lease tables ----------------------------------------------------------------------------------


class FaultyClient:
    """The writes of a real client behind a ``Link``, whose operations are the client's methods: what is applied and not
    answered has been done by the server before the caller hears of the time-out."""

    WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")

    def __init__(self, client: Any, link: Link) -> None:
        self._client = client
        self._link = link
        self._sent: list[asyncio.Future[Any]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return partial(self._call, name, method) if name in self.WRITES else method

    async def _call(self, name: str, method: Callable[..., Awaitable[Any]], **request: Any) -> Any:
        sent: list[asyncio.Future[Any]] = []

        def send() -> asyncio.Future[Any]:
            self._sent.append(asyncio.ensure_future(method(**request)))
            sent.append(self._sent[-1])
            return sent[-1]

        try:
            return await (await self._link.carry(name, send))
        except DependencyError as error:
            await asyncio.gather(*sent, return_exceptions=True)  # a refusal can be lost as well
            raise ReadTimeoutError(endpoint_url="test") from error

    async def arrived(self) -> None:
        """Returns when the server has answered everything that was sent, held requests included."""
        await asyncio.gather(*self._sent, return_exceptions=True)


class MemoryLeases:
    """Lease stores on one table in memory, and a hand that reaches into the table behind their backs."""

    WRITES = (
        *("prepare", "pin_application", "switch_stream", "register", "open_session", "bump_session", "announce"),
        *("close_session", "fence_session", "add_lease", "take", "save", "release", "remove_lease", "record_loss"),
        *("store_part", "put_back", "raise_epoch", "begin_listing", "end_listing", "post"),
        *("park", "join_parked", "count_letters", "close_parked", "end_closing", "claim_parked", "redriven"),
        *("begin_closing", "close_for_owner", "drop_finished", "free_parked", "release_parked"),
    )

    def __init__(self) -> None:
        self.table = MemoryTable()
        self.link = Link()

    def store(self, application: str = "app") -> LeaseTable:
        return MemoryLeaseStore(self.table, application, time.time, self.link)

    async def deliver(self, held: Fault) -> None:
        """What was held back arrives now, in the order in which it was sent."""
        held.end()

    async def damage_frontier(self, label: str, shard_id: str, application: str = "app") -> None:
        self.table.edit(application, label, shard_id, corrupt="low is not a sequence number: 'rubbish'")

    async def losses(self, label: str, application: str = "app") -> list[Loss]:
        return list(self.table.losses.get((application, label), {}).values())

    async def payload(self, label: str, key: str, application: str = "app") -> bytes:
        parts = self.table.letters.get((application, label, key), {})
        return b"".join(part.payload for _, part in sorted(parts.items()))

    async def delete_lease(self, label: str, shard_id: str, application: str = "app") -> None:
        self.table.drop_lease(application, label, shard_id)

    async def delete_session(self, incarnation: str, application: str = "app") -> None:
        self.table.drop_session(application, incarnation)


class DynamoDBLeases:
    """The same on a DynamoDB table."""

    WRITES = FaultyClient.WRITES

    def __init__(self, client: Any) -> None:
        self.client = client
        self.table = unique("leases")
        self.link = Link()
        self.faulty = FaultyClient(client, self.link)
        self.calls: list[tuple[str, str]] = []

    def store(self, application: str = "app") -> DynamoDBLeaseStore:
        caller = ApiCaller(lambda operation, outcome, _: self.calls.append((operation, outcome)))
        return DynamoDBLeaseStore(self.faulty, caller, table=self.table, application=application, clock_wall=time.time)

    async def deliver(self, held: Fault) -> None:
        held.end()
        await self.faulty.arrived()

    async def set_attribute(self, pk: str, sk: str, name: str, value: dict[str, Any]) -> None:
        await self.client.update_item(
            TableName=self.table,
            Key={"pk": {"S": pk}, "sk": {"S": sk}},
            UpdateExpression="SET #a = :v",
            ExpressionAttributeNames={"#a": name},
            ExpressionAttributeValues={":v": value},
        )

    async def damage_frontier(self, label: str, shard_id: str, application: str = "app") -> None:
        await self.set_attribute(f"{application}#{label}", f"shard#{shard_id}", "low", {"S": "rubbish"})

    async def losses(self, label: str, application: str = "app") -> list[Loss]:
        """The rows that say which records no handler settled, as an operator reads them."""
        found = []
        for kind in ("gap", "discarded", "kept"):
            answer = await self.client.query(
                TableName=self.table,
                ConsistentRead=True,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :kind)",
                ExpressionAttributeValues={":pk": {"S": f"{application}#{label}"}, ":kind": {"S": f"{kind}#"}},
            )
            found += [_loss(kind, item) for item in answer["Items"]]
        return found

    async def payload(self, label: str, key: str, application: str = "app") -> bytes:
        """What is kept of a dead letter, put together as an operator does it."""
        answer = await self.client.query(
            TableName=self.table,
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :key)",
            ExpressionAttributeValues={":pk": {"S": f"{application}#{label}#letters"}, ":key": {"S": f"{key}#"}},
        )
        assert {int(item["parts"]["N"]) for item in answer["Items"]} <= {len(answer["Items"])}
        return b"".join(item["payload"]["B"] for item in answer["Items"])

    async def delete_lease(self, label: str, shard_id: str, application: str = "app") -> None:
        await self._delete(f"{application}#{label}", f"shard#{shard_id}")

    async def delete_session(self, incarnation: str, application: str = "app") -> None:
        await self._delete(f"{application}#sessions", incarnation)

    async def _delete(self, pk: str, sk: str) -> None:
        await self.client.delete_item(TableName=self.table, Key={"pk": {"S": pk}, "sk": {"S": sk}})


def _loss(kind: Any, item: Any) -> Loss:
    first, last, location = (item.get(name, {}).get("S") for name in ("first", "last", "location"))
    at = float(item["detected_at"]["N"])
    return Loss(kind, item["shard_id"]["S"], first, last, item["reason"]["S"], at, location)


@pytest.fixture(params=["memory", *DYNAMODB_SERVERS])
async def leases(request: pytest.FixtureRequest, aws_environment: None) -> AsyncIterator[MemoryLeases | DynamoDBLeases]:
    """A prepared lease table, once in memory and once on every DynamoDB there is."""
    if request.param == "memory":
        yield MemoryLeases()
        return
    async with AwsSession(REGION, _endpoints(request.param, request)) as session:
        world = DynamoDBLeases(await session.client("dynamodb"))
        await world.store().prepare(create=True)
        yield world


@pytest.fixture
async def dynamodb_leases(dynamodb_clients: AwsSession) -> DynamoDBLeases:
    """A lease table on DynamoDB only, not prepared: for what memory has no equivalent of."""
    return DynamoDBLeases(await dynamodb_clients.client("dynamodb"))
