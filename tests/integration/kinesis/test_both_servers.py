"""What the tests of the Kinesis source rely on in both local servers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.kinesis_changes import generate, put_changes
from tests.support.kinesis_streams import KinesisStream, StreamMaker


def data(records: list[dict[str, Any]]) -> list[bytes]:
    return [record["Data"] for record in records]


async def only_shard(stream: KinesisStream) -> str:
    [shard] = await stream.shards()
    return str(shard["ShardId"])


async def test_every_answer_has_a_request_id(kinesis_streams: StreamMaker) -> None:
    """Or ``consumer.aws.inspection`` would take it for that of a proxy."""
    stream = await kinesis_streams()
    shard = await only_shard(stream)
    iterator = await stream.reader.get_shard_iterator(
        StreamName=stream.name, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )
    answers = [
        await stream.reader.describe_stream_summary(StreamName=stream.name),
        await stream.reader.list_shards(StreamName=stream.name),
        iterator,
        await stream.reader.get_records(ShardIterator=iterator["ShardIterator"]),
    ]
    with pytest.raises(ClientError) as refused:
        await stream.reader.describe_stream_summary(StreamName="nobody-made-this")
    assert refused.value.response["Error"]["Code"] == "ResourceNotFoundException"
    for answer in (*answers, refused.value.response):
        assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]


async def test_the_summary_names_the_stream_and_its_age(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams(2)
    summary = await stream.summary()
    assert summary["StreamARN"] == f"arn:aws:kinesis:us-east-1:000000000000:stream/{stream.name}"
    assert (summary["OpenShardCount"], summary["RetentionPeriodHours"]) == (2, 24)
    assert abs(summary["StreamCreationTimestamp"].timestamp() - time.time()) < 60


async def test_records_come_in_the_order_of_their_numbers(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams()
    shard = await only_shard(stream)
    placed = await stream.put(b"1", b"2") + await stream.put(b"3")
    records = (await stream.read(shard)).records
    assert data(records) == [b"1", b"2", b"3"]
    numbers = [record["SequenceNumber"] for record in records]
    assert numbers == [each.sequence_number for each in placed]
    assert [int(number) for number in numbers] == sorted(map(int, numbers))
    assert {len(number) for number in numbers} == {56}


async def test_at_a_number_gives_that_record_and_after_it_the_next(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams()
    shard = await only_shard(stream)
    _, second, third = await stream.put(b"1", b"2", b"3")
    at = {"StartingSequenceNumber": second.sequence_number}
    assert data((await stream.read(shard, "AT_SEQUENCE_NUMBER", **at)).records) == [b"2", b"3"]
    assert data((await stream.read(shard, "AFTER_SEQUENCE_NUMBER", **at)).records) == [b"3"]
    end = {"StartingSequenceNumber": third.sequence_number}
    assert data((await stream.read(shard, "AFTER_SEQUENCE_NUMBER", **end)).records) == []


async def test_latest_gives_only_what_comes_later(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams()
    shard = await only_shard(stream)
    await stream.put(b"1")
    iterator = await stream.iterator(shard, "LATEST")
    await stream.put(b"2")
    assert data((await stream.reader.get_records(ShardIterator=iterator))["Records"]) == [b"2"]


async def test_at_a_time_gives_the_records_of_its_millisecond_and_later_ones(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams()
    shard = await only_shard(stream)
    await stream.put(b"first")
    arrived = [record["ApproximateArrivalTimestamp"] for record in (await stream.read(shard)).records]
    while arrived[-1] == arrived[0]:
        await stream.put(b"later")
        arrived = [record["ApproximateArrivalTimestamp"] for record in (await stream.read(shard)).records]

    async def read_at(at: Any) -> list[bytes]:
        answer = await stream.owner.get_shard_iterator(
            StreamName=stream.name, ShardId=shard, ShardIteratorType="AT_TIMESTAMP", Timestamp=at
        )
        return data((await stream.reader.get_records(ShardIterator=answer["ShardIterator"]))["Records"])

    assert len(await read_at(arrived[0])) == len(arrived)
    assert len(await read_at(arrived[-1])) == arrived.count(arrived[-1])
    assert len(await read_at(arrived[0].timestamp() - 3600)) == len(arrived), "older than the stream"


async def test_the_future_and_pages_above_ten_thousand_are_refused(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams()
    shard = await only_shard(stream)
    await stream.put(b"1")  # kinesis-local compares the time with that of the records
    iterator = await stream.iterator(shard)
    with pytest.raises(ClientError, match=r"(?i)future|greater than the current"):
        await stream.iterator(shard, "AT_TIMESTAMP", Timestamp=time.time() + 3600)
    with pytest.raises(ClientError, match=r"(?i)limit"):
        await stream.reader.get_records(ShardIterator=iterator, Limit=10_001)
    assert len((await stream.reader.get_records(ShardIterator=iterator, Limit=10_000))["Records"]) == 1


async def test_a_stream_is_readable_while_it_changes(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams(2)
    left, right = [shard["ShardId"] for shard in await stream.shards()]
    await stream.put(b"1", into=left)
    await stream.owner.merge_shards(StreamName=stream.name, ShardToMerge=left, AdjacentShardToMerge=right)
    assert (await stream.summary())["StreamStatus"] == "UPDATING"
    assert data((await stream.page(left))["Records"]) == [b"1"]
    await stream.active()
    [child] = [shard for shard in await stream.shards() if shard.get("ParentShardId")]
    assert (child["ParentShardId"], child["AdjacentParentShardId"]) == (left, right)


async def test_a_closed_shard_keeps_its_records_and_ends(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams()
    parent = await only_shard(stream)
    await stream.put(b"1", b"2")
    assert (await stream.read(parent)).children is None, "it is open"
    children = await stream.split(parent)
    assert len(children) == 2
    reading = await stream.read(parent)
    assert data(reading.records) == [b"1", b"2"]
    assert reading.children is not None, "it has ended"


async def test_table_changes_arrive_as_they_were_put(kinesis_streams: StreamMaker) -> None:
    stream = await kinesis_streams(2)
    log = generate(5, changes=300, items=30, doubled=0.1, swapped=0.1, precision="both")
    numbers = await put_changes(stream.owner, stream.name, log.puts)
    put = dict(zip(numbers, log.puts, strict=True))
    shards_of: dict[str, set[str]] = {}
    for shard in [shard["ShardId"] for shard in await stream.shards()]:
        records = (await stream.read(shard)).records
        found = [record["SequenceNumber"] for record in records]
        assert found == [number for number in numbers if number in found], "the order of the puts"
        for record in records:
            change = put.pop(record["SequenceNumber"])
            assert (record["Data"], record["PartitionKey"]) == (change.data(), change.partition_key)
            shards_of.setdefault(change.partition_key, set()).add(shard)
    assert not put
    assert len(shards_of) == 30
    assert all(len(shards) == 1 for shards in shards_of.values())
    assert len(set().union(*shards_of.values())) == 2
