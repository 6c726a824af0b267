"""Streams with the controls that tests need, in memory and on the local server, and how to read them."""

from contextlib import asynccontextmanager

from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller
from consumer.aws.session import AwsSession
from consumer.ports.source import Position
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.worker.clock import SystemClock
from tests.conftest import REGION, SERVICES, create_source_table
from tests.support.reshard_proxy import ReshardProxy

HORIZON = Position("TRIM_HORIZON")
LATEST = Position("LATEST")


class MemoryWorld:
    """The controls that tests use, over a stream in memory."""

    def __init__(self, shards):
        self.stream = MemoryStream(SystemClock(), shards=shards)
        self.table = self.stream.table

    def source(self):
        return MemoryStreamSource(self.stream)

    async def write(self, *ids, **attributes):
        for one in ids:
            self.stream.put({"id": one, **attributes})

    async def delete(self, one):
        self.stream.delete({"id": one})

    async def disable(self):
        self.stream.disable()

    async def split(self, shard_id):
        return list(self.stream.split(shard_id))

    async def roll(self, shard_id):
        return [self.stream.roll(shard_id)]

    async def hide_children(self, seconds):
        self.stream.hide_children(seconds)

    async def trim(self, shard_id, upto):
        self.stream.trim(shard_id, upto)

    async def vanish(self, shard_id):
        self.stream.vanish(shard_id)

    async def expire_iterators(self):
        self.stream.expire_iterators()

    async def empty_pages(self, shard_id, count):
        self.stream.empty_pages(shard_id, count)


class ServerWorld:
    """The same over a table on the local server; re-sharding needs the proxy."""

    def __init__(self, session, table, proxy=None):
        self.session = session
        self.source_table = table
        self.table = table.name
        self.proxy = proxy
        self.streams = self.dynamodb = None

    def source(self, **options):
        options = options or {"table": self.table}
        caller = ApiCaller()
        return DynamoDBStreamSource(
            self.streams, self.dynamodb, caller, **{"table": None, "stream_arn": None, **options}
        )

    async def write(self, *ids, **attributes):
        extra = {name: {"S": value} for name, value in attributes.items()}
        await self.source_table.put(*({"id": {"S": one}, **extra} for one in ids))

    async def delete(self, one):
        await self.source_table.delete(one)

    async def disable(self):
        await self.dynamodb.update_table(TableName=self.table, StreamSpecification={"StreamEnabled": False})

    def __getattr__(self, name):
        return getattr(self.proxy, name)


@asynccontextmanager
async def world_of(kind, local_aws, shards=1):
    if kind == "memory":
        yield MemoryWorld(shards)
        return
    async with ReshardProxy(local_aws.endpoint, shards=shards) as proxy:
        url = local_aws.endpoint if kind == "server" else proxy.endpoint
        async with AwsSession(REGION, dict.fromkeys(SERVICES, url)) as session:
            world = ServerWorld(session, await create_source_table(session), proxy if kind == "proxy" else None)
            world.streams, world.dynamodb = await session.client("dynamodbstreams"), await session.client("dynamodb")
            yield world


async def only_shard(source):
    [shard] = await source.list_shards()
    return shard.shard_id


async def read(source, shard_id, position=HORIZON, *, limit=1000, most=30):
    """Records up to the end of the shard, or until three pages in a row are empty; and whether it ended."""
    iterator, found, empty = await source.iterator(shard_id, position), [], 0
    for _ in range(most):
        page = await source.get_records(shard_id, iterator, limit)
        found += page.records
        empty = 0 if page.records else empty + 1
        iterator = page.next_iterator
        if iterator is None or empty == 3:
            break
    return found, iterator is None


def ids(records):
    return [record.keys["id"] for record in records]
