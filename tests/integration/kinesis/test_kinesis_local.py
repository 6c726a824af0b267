"""What the tests of the Kinesis source rely on in kinesis-local: the graph of shards as AWS shows it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.support.kinesis_streams import KinesisStream, StreamMaker


def data(records: list[dict[str, Any]]) -> list[bytes]:
    return [record["Data"] for record in records]


def names(shards: list[dict[str, Any]]) -> list[str]:
    return sorted(shard["ShardId"] for shard in shards)


async def everything(stream: KinesisStream) -> list[bytes]:
    readings = [await stream.read(shard) for shard in names(await stream.shards())]
    return sorted(data([record for reading in readings for record in reading.records]))


async def test_a_split_shard_ends_and_names_its_children(kinesis_local_streams: StreamMaker) -> None:
    stream = await kinesis_local_streams()
    [parent] = names(await stream.shards())
    await stream.put(b"1", b"2", into=parent)
    assert (await stream.read(parent)).children is None, "it is open"
    children = await stream.split(parent)
    await stream.put(b"3", into=children[0])
    records, found = await stream.read(parent)
    assert data(records) == [b"1", b"2"]
    assert found is not None
    assert names(found) == sorted(children)
    assert [child["ParentShards"] for child in found] == [[parent], [parent]]
    listed = {shard["ShardId"]: shard["HashKeyRange"] for shard in await stream.shards()}
    assert {child["ShardId"]: child["HashKeyRange"] for child in found} == {name: listed[name] for name in children}
    assert data((await stream.read(children[0])).records) == [b"3"]


async def test_a_merged_shard_has_two_parents_which_both_name_it(kinesis_local_streams: StreamMaker) -> None:
    stream = await kinesis_local_streams(2)
    left, right = names(await stream.shards())
    await stream.put(b"1", into=left)
    await stream.put(b"2", into=right)
    child = await stream.merge(left, right)
    shard = await stream.shard(child)
    assert (shard["ParentShardId"], shard["AdjacentParentShardId"]) == (left, right)
    for parent, records in ((left, [b"1"]), (right, [b"2"])):
        reading = await stream.read(parent)
        assert data(reading.records) == records
        assert reading.children is not None
        assert [(each["ShardId"], each["ParentShards"]) for each in reading.children] == [(child, [left, right])]


async def test_latest_on_a_closed_shard_gives_its_children_at_once(kinesis_local_streams: StreamMaker) -> None:
    stream = await kinesis_local_streams()
    [parent] = names(await stream.shards())
    await stream.put(b"1", into=parent)
    children = await stream.split(parent)
    page = await stream.page(parent, "LATEST")
    assert page["Records"] == []
    assert page.get("NextShardIterator") is None
    assert names(page["ChildShards"]) == sorted(children)


async def test_numbers_of_children_are_above_those_of_their_parents(kinesis_local_streams: StreamMaker) -> None:
    stream = await kinesis_local_streams()
    [shard] = names(await stream.shards())
    [before] = await stream.put(b"1", into=shard)
    left, right = await stream.split(shard)
    [between] = await stream.put(b"2", into=left)
    child = await stream.merge(left, right)
    [after] = await stream.put(b"3", into=child)
    assert int(before.sequence_number) < int(between.sequence_number) < int(after.sequence_number)


async def test_a_stream_that_grows_and_shrinks_keeps_its_records(kinesis_local_streams: StreamMaker) -> None:
    stream = await kinesis_local_streams(2)
    first = [b"first-%d" % number for number in range(40)]
    await stream.put(*first)
    await stream.resize(4)
    assert (await stream.summary())["OpenShardCount"] == 4
    second = [b"second-%d" % number for number in range(40)]
    await stream.put(*second)
    await stream.resize(2)
    third = [b"third-%d" % number for number in range(40)]
    await stream.put(*third)
    assert (await stream.summary())["OpenShardCount"] == 2
    assert await everything(stream) == sorted([*first, *second, *third])


async def test_filters_of_the_listing(kinesis_local_streams: StreamMaker) -> None:
    """Their times are whole seconds: in the second of a split, parent and children are listed."""
    stream = await kinesis_local_streams(2)
    left, right = names(await stream.shards())
    children = await stream.split(left)

    async def listed(kind: str, **rest: Any) -> list[str]:
        return names(await stream.shards(ShardFilter={"Type": kind, **rest}))

    assert await listed("AT_LATEST") == [right, *children]
    assert await listed("FROM_TRIM_HORIZON") == [left, right, *children]
    assert await listed("AFTER_SHARD_ID", ShardId=right) == children
    assert await listed("FROM_TIMESTAMP", Timestamp=time.time() - 60) == [left, right, *children]
    async with asyncio.timeout(10):
        while await listed("AT_TIMESTAMP", Timestamp=time.time()) != [right, *children]:
            await asyncio.sleep(0.05)
    assert await listed("FROM_TIMESTAMP", Timestamp=time.time()) == [right, *children]


async def test_a_listing_comes_in_pages(kinesis_local_streams: StreamMaker) -> None:
    stream = await kinesis_local_streams(5)
    answer = await stream.reader.list_shards(StreamName=stream.name, MaxResults=2)
    pages = [answer["Shards"]]
    while token := answer.get("NextToken"):
        answer = await stream.reader.list_shards(NextToken=token, MaxResults=2)
        pages.append(answer["Shards"])
    assert [len(page) for page in pages] == [2, 2, 1]
    assert names([shard for page in pages for shard in page]) == names(await stream.shards())
