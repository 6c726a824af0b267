"""The fault proxy of Kinesis itself: what the tests of the source and of the daemon rely on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from consumer.aws.session import AwsSession
from tests.support.kinesis_proxy import READS_A_SECOND, KinesisProxy
from tests.support.kinesis_servers import KinesisServer
from tests.support.kinesis_streams import REGION, KinesisStream, StreamMaker


@pytest.fixture
async def proxy(kinesalite: KinesisServer) -> AsyncIterator[KinesisProxy]:
    async with KinesisProxy(kinesalite.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def stream(kinesalite_streams: StreamMaker, proxy: KinesisProxy) -> AsyncIterator[KinesisStream]:
    """A stream whose reader is behind the proxy."""
    made = await kinesalite_streams(1)
    async with AwsSession(REGION, {"kinesis": proxy.endpoint}) as session:
        yield KinesisStream(made.name, await session.client("kinesis"), made.owner)


SHARD = "shardId-000000000000"


async def refused(call: Any) -> str:
    """The error code of a call that is refused."""
    with pytest.raises(ClientError) as caught:
        await call
    code: str = caught.value.response["Error"]["Code"]
    return code


async def test_everything_passes_through(stream: KinesisStream) -> None:
    placed = await stream.put(b"a", b"b", b"c")
    for kind, position, expected in (
        ("TRIM_HORIZON", {}, [b"a", b"b", b"c"]),
        ("AFTER_SEQUENCE_NUMBER", {"StartingSequenceNumber": placed[0].sequence_number}, [b"b", b"c"]),
        ("AT_SEQUENCE_NUMBER", {"StartingSequenceNumber": placed[2].sequence_number}, [b"c"]),
    ):
        found = await stream.read(SHARD, kind, **position)
        assert [record["Data"] for record in found.records] == expected
    children = await stream.split(SHARD)
    assert [shard["ShardId"] for shard in await stream.shards()] == [SHARD, *children]


async def test_from_a_time_on(stream: KinesisStream) -> None:
    """Also when there is nothing so late, which the server behind it does not answer."""
    now = int(time.time())
    assert (await stream.read(SHARD, "AT_TIMESTAMP", Timestamp=now - 10)).records == []
    await stream.put(b"a")
    for moment, expected in ((now - 60, [b"a"]), (int(time.time()) - 1, [b"a"])):
        found = await stream.read(SHARD, "AT_TIMESTAMP", Timestamp=moment)
        assert [record["Data"] for record in found.records] == expected
    first = await stream.page(SHARD)
    arrival = first["Records"][0]["ApproximateArrivalTimestamp"].timestamp()
    while time.time() < arrival + 2:
        await stream.summary()
    iterator = await stream.iterator(SHARD, "AT_TIMESTAMP", Timestamp=int(arrival) + 1)
    await stream.put(b"b")
    page = await stream.reader.get_records(ShardIterator=iterator)
    assert [record["Data"] for record in page["Records"]] == [b"b"]


async def test_trimmed_in_three_modes(stream: KinesisStream, proxy: KinesisProxy) -> None:
    placed = await stream.put(b"a", b"b", b"c")
    await proxy.trim(stream.name, SHARD, placed[1].sequence_number)
    at = {"StartingSequenceNumber": placed[0].sequence_number}
    for kind, position in (("TRIM_HORIZON", {}), ("AT_SEQUENCE_NUMBER", at), ("AFTER_SEQUENCE_NUMBER", at)):
        assert [one["Data"] for one in (await stream.read(SHARD, kind, **position)).records] == [b"c"]
    await proxy.trim(stream.name, SHARD, placed[1].sequence_number, mode="empty")
    page = await stream.page(SHARD, "AT_SEQUENCE_NUMBER", **at)
    for _ in range(3):
        assert (page["Records"], page["MillisBehindLatest"]) == ([], 24 * 3600 * 1000)
        page = await stream.reader.get_records(ShardIterator=page["NextShardIterator"])
    await proxy.trim(stream.name, SHARD, placed[1].sequence_number, mode="refused")
    assert await refused(stream.iterator(SHARD, "AT_SEQUENCE_NUMBER", **at)) == "InvalidArgumentException"
    kept = {"StartingSequenceNumber": placed[2].sequence_number}
    assert [one["Data"] for one in (await stream.read(SHARD, "AT_SEQUENCE_NUMBER", **kept)).records] == [b"c"]


async def test_iterators_expire(stream: KinesisStream, proxy: KinesisProxy) -> None:
    iterator = await stream.iterator(SHARD)
    await proxy.expire_iterators()
    assert await refused(stream.reader.get_records(ShardIterator=iterator)) == "ExpiredIteratorException"
    iterator = await stream.iterator(SHARD)
    await stream.reader.get_records(ShardIterator=iterator)
    proxy.iterator_life = 0.0
    assert await refused(stream.reader.get_records(ShardIterator=iterator)) == "ExpiredIteratorException"


async def test_a_shard_that_has_expired(stream: KinesisStream, proxy: KinesisProxy) -> None:
    iterator = await stream.iterator(SHARD)
    await proxy.vanish(stream.name, SHARD)
    assert await stream.shards() == []
    assert await refused(stream.iterator(SHARD)) == "ResourceNotFoundException"
    assert await refused(stream.reader.get_records(ShardIterator=iterator)) == "ResourceNotFoundException"


async def test_quotas(stream: KinesisStream, proxy: KinesisProxy) -> None:
    proxy.throttles = True
    iterator = await stream.iterator(SHARD)
    taken: list[str] = []
    for _ in range(3 * READS_A_SECOND):
        try:
            await stream.reader.get_records(ShardIterator=iterator)
        except ClientError as error:
            taken.append(error.response["Error"]["Code"])
    assert set(taken) == {"ProvisionedThroughputExceededException"}
    assert proxy.throttled["GetRecords"] == len(taken)
    proxy.throttles = False
    large = [{"Data": b"x" * 100_000, "PartitionKey": str(number)} for number in range(30)]
    await stream.owner.put_records(StreamName=stream.name, Records=large)
    until = time.monotonic() + 1.1  # then the reads so far do not count any more
    while time.monotonic() < until:
        await stream.summary()
    proxy.throttles = True
    assert len((await stream.reader.get_records(ShardIterator=iterator))["Records"]) == 30
    code = await refused(stream.reader.get_records(ShardIterator=iterator))
    assert code == "ProvisionedThroughputExceededException", "4 MB on the wire are paid for with two seconds"


async def test_pages_of_a_listing(kinesalite_streams: StreamMaker, proxy: KinesisProxy) -> None:
    made = await kinesalite_streams(5)
    proxy.most_listed = 2
    async with AwsSession(REGION, {"kinesis": proxy.endpoint}) as session:
        reader = await session.client("kinesis")
        answer = await reader.list_shards(StreamName=made.name)
        pages = [[shard["ShardId"] for shard in answer["Shards"]]]
        while "NextToken" in answer:
            answer = await reader.list_shards(NextToken=answer["NextToken"])
            pages.append([shard["ShardId"] for shard in answer["Shards"]])
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [one for page in pages for one in page] == [shard["ShardId"] for shard in await made.shards()]


async def test_answers_that_are_not_valid(stream: KinesisStream, proxy: KinesisProxy) -> None:
    await stream.put(b"a")
    await proxy.end_without_children(stream.name, SHARD)
    page = await stream.page(SHARD)
    assert (len(page["Records"]), page.get("NextShardIterator"), page.get("ChildShards")) == (1, None, None)
    await proxy.without_records()
    assert "Records" not in await stream.page(SHARD)
    assert len((await stream.page(SHARD))["Records"]) == 1
    proxy.retention_hours[stream.name] = 168
    assert (await stream.summary())["RetentionPeriodHours"] == 168
