"""What every Kinesis stream promises as a source: two real servers of its API."""

from __future__ import annotations

import time

import pytest

from consumer.aws.errors import ApiCaller
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.aws.kinesis_page_reader import KinesisPageReader
from consumer.aws.kinesis_streams import KinesisStreamSource
from consumer.domain.errors import DependencyError, ResourceMissing, TrimmedData
from consumer.domain.kinesis_numbers import book_number
from consumer.ports.source import Position
from tests.support.kinesis_changes import generate, put_changes
from tests.support.kinesis_streams import KinesisStream

HORIZON = Position("TRIM_HORIZON")


def source_of(stream: KinesisStream) -> KinesisStreamSource:
    """By its name: one of the servers knows no ARNs."""
    pages = KinesisPageReader(stream.reader)
    return KinesisStreamSource(KinesisCalls(stream.reader, ApiCaller(), pages, stream=stream.name, stream_arn=None))


async def read(source, shard_id, position=HORIZON, *, limit=1000):
    """Records up to the end of the shard, or until three pages in a row are empty; and whether it ended."""
    iterator, found, empty = await source.iterator(shard_id, position), [], 0
    for _ in range(100):
        page = await source.get_records(shard_id, iterator, limit)
        found += page.records
        iterator = page.next_iterator
        empty = 0 if page.records else empty + 1
        if iterator is None or empty == 3:
            break
    return found, iterator is None


def data_of(records):
    return [record.data for record in records]


@pytest.fixture
async def stream(kinesis_streams):
    return await kinesis_streams(1)


class TestDescription:
    async def test_what_is_described(self, stream):
        found = await source_of(stream).describe()
        created = int((await stream.summary())["StreamCreationTimestamp"].timestamp())
        assert found.stream_arn.endswith(f":stream/{stream.name}")
        assert found.name == stream.name
        assert (found.label, found.stream_id) == (f"{stream.name}@{created}", f"{found.stream_arn}@{created}")
        assert (found.status, found.view_type, found.format.ordered_by) == ("ENABLED", "NEW_AND_OLD_IMAGES", "item")
        assert abs(found.server_time - time.time()) < 5
        assert found.source_id == found.stream_arn

    async def test_retention_is_read_from_the_stream(self, stream):
        source = source_of(stream)
        await source.describe()
        assert source.retention == 24 * 3600
        await stream.owner.increase_stream_retention_period(StreamName=stream.name, RetentionPeriodHours=72)
        await stream.active()
        assert await source.latest_stream() == (await source.describe()).stream_id
        assert source.retention == 72 * 3600

    async def test_a_stream_that_is_not_there(self, stream):
        missing = KinesisStream("no-such-stream", stream.reader, stream.owner)
        with pytest.raises(ResourceMissing, match=r"no-such-stream.*source\.stream"):
            await source_of(missing).describe()

    async def test_a_stream_made_anew_is_another_one(self, kinesis_streams, stream):
        """Under the same name, with the same ids of shards: what is pinned to the old one reads nothing of it."""
        source = source_of(stream)
        old = await source.describe()
        await stream.put(b"old")
        await stream.delete()
        await _gone(stream)
        # The second of the creation tells them apart; kinesalite says two seconds less.
        while int(time.time()) - 2 <= int(old.stream_id.rpartition("@")[2]):
            await _gone(stream)
        await stream.create(1)
        await stream.put(b"new")
        fresh = source_of(stream)
        assert (await fresh.describe()).stream_id != old.stream_id
        pinned = fresh.of(old.stream_id)
        for asking in (pinned.describe(), pinned.list_shards(), pinned.iterator("shardId-000000000000", HORIZON)):
            with pytest.raises(ResourceMissing, match="has its name now"):
                await asking


async def _gone(stream):
    while True:
        try:
            await stream.summary()
        except stream.reader.exceptions.ResourceNotFoundException:
            return


class TestPositions:
    async def test_horizon_and_records(self, stream):
        source = source_of(stream)
        description = await source.describe()
        placed = await stream.put(b"a", b"b", b'{"json": true}')
        [shard] = await source.list_shards()
        records, ended = await read(source, shard.shard_id)
        assert (data_of(records), ended) == ([b"a", b"b", b'{"json": true}'], False)
        assert [record.sequence_number for record in records] == [one.sequence_number for one in placed]
        assert [record.number for record in records] == [book_number(one.sequence_number) for one in placed]
        assert [record.event_id for record in records] == [f"{shard.shard_id}:{one.sequence_number}" for one in placed]
        assert {record.event_source_arn for record in records} == {description.stream_arn}
        assert all(abs(record.created - time.time()) < 60 for record in records)

    async def test_at_and_after_every_number(self, stream):
        source = source_of(stream)
        await stream.put(*(b"%d" % number for number in range(8)))
        [shard] = await source.list_shards()
        records, _ = await read(source, shard.shard_id)
        for index, record in enumerate(records):
            at, _ = await read(source, shard.shard_id, Position("AT_SEQUENCE_NUMBER", record.number))
            after, _ = await read(source, shard.shard_id, Position("AFTER_SEQUENCE_NUMBER", record.number))
            assert data_of(at) == data_of(records[index:])
            assert data_of(after) == data_of(records[index + 1 :])

    async def test_a_page_behind_the_last_record_is_the_tip(self, stream):
        source = source_of(stream)
        await stream.put(b"a")
        [shard] = await source.list_shards()
        [record], _ = await read(source, shard.shard_id)
        iterator = await source.iterator(shard.shard_id, Position("AFTER_SEQUENCE_NUMBER", record.number))
        page = await source.get_records(shard.shard_id, iterator, 10)
        assert (list(page.records), page.at_tip, page.behind) == ([], True, 0.0)
        await stream.put(b"b")
        assert data_of((await source.get_records(shard.shard_id, page.next_iterator, 10)).records) == [b"b"]

    async def test_a_number_that_never_was_is_a_gap(self, stream):
        """As of a record that was trimmed: whatever the server says, nothing is skipped without a word."""
        source = source_of(stream)
        [placed] = await stream.put(b"a")
        [shard] = await source.list_shards()
        other = book_number(str(int(placed.sequence_number) - 16))
        with pytest.raises(TrimmedData):
            await read(source, shard.shard_id, Position("AFTER_SEQUENCE_NUMBER", other))

    async def test_from_a_time_on(self, stream):
        source = source_of(stream)
        await stream.put(b"old")
        [shard] = await source.list_shards()
        [record], _ = await read(source, shard.shard_id)
        since = int(record.created) + 2.0
        while time.time() < since + 0.2:
            await stream.summary()
        await stream.put(b"new")
        for position in (
            Position("AT_TIMESTAMP", timestamp=since),
            Position("TRIM_HORIZON", not_before=since),
        ):
            assert data_of((await read(source, shard.shard_id, position))[0]) == [b"new"]
        assert len((await read(source, shard.shard_id, Position("TRIM_HORIZON", not_before=1.0)))[0]) == 2

    async def test_a_time_to_come_is_the_tip(self, kinesis_local_streams):
        """The other server never answers when there is nothing from that time on."""
        stream = await kinesis_local_streams(1)
        source = source_of(stream)
        [shard] = await source.list_shards()
        iterator = await source.iterator(shard.shard_id, Position("TRIM_HORIZON", not_before=time.time() + 3600))
        await stream.put(b"a")
        assert data_of((await source.get_records(shard.shard_id, iterator, 10)).records) == [b"a"]

    async def test_what_is_no_iterator(self, stream):
        source = source_of(stream)
        [shard] = await source.list_shards()
        with pytest.raises(DependencyError):
            await source.get_records(shard.shard_id, "|not an iterator", 10)


class TestShards:
    async def test_a_split(self, stream):
        source = source_of(stream)
        [parent] = await source.list_shards()
        await stream.put(b"before")
        children = await stream.split(parent.shard_id)
        records, ended = await read(source, parent.shard_id)
        assert (data_of(records), ended) == ([b"before"], True)
        found = await source.child_shards(parent.shard_id)
        assert sorted(shard.shard_id for shard in found) == sorted(children)
        assert all(shard.parents == (parent.shard_id,) for shard in found)
        listed = {shard.shard_id: shard for shard in await source.list_shards()}
        assert listed[parent.shard_id].ending_sequence_number is not None
        assert all(listed[child].ending_sequence_number is None for child in children)

    async def test_a_merge_has_two_parents(self, kinesis_streams):
        stream = await kinesis_streams(2)
        source = source_of(stream)
        one, two = [shard.shard_id for shard in await source.list_shards()]
        await stream.put(b"one", into=one)
        await stream.put(b"two", into=two)
        child = await stream.merge(one, two)
        await stream.put(b"after")
        for shard_id in (one, two):
            _, ended = await read(source, shard_id)
            assert ended
            [found] = await source.child_shards(shard_id)
            assert (found.shard_id, found.parents) == (child, (one, two))
        assert data_of((await read(source, child))[0]) == [b"after"]

    async def test_children_without_having_read_the_parent(self, stream):
        """As a worker that takes over a shard which was read to its end."""
        [parent] = await source_of(stream).list_shards()
        children = await stream.split(parent.shard_id)
        found = await source_of(stream).child_shards(parent.shard_id)
        assert sorted(shard.shard_id for shard in found) == sorted(children)

    async def test_an_open_shard_has_no_children(self, stream):
        source = source_of(stream)
        [shard] = await source.list_shards()
        assert await source.child_shards(shard.shard_id) == []

    async def test_behind_the_last_record_of_a_shard_that_ended(self, stream):
        source = source_of(stream)
        [parent] = await source.list_shards()
        await stream.put(b"a")
        await stream.split(parent.shard_id)
        [record], _ = await read(source, parent.shard_id)
        assert await read(source, parent.shard_id, Position("AFTER_SEQUENCE_NUMBER", record.number)) == ([], True)

    async def test_a_missing_shard_is_named(self, stream):
        with pytest.raises((ResourceMissing, DependencyError), match="shardId-000000000099"):
            await source_of(stream).iterator("shardId-000000000099", HORIZON)


class TestChanges:
    async def test_changes_of_a_table(self, stream):
        """Doubles and swaps included, as they were put; images, keys and times as DynamoDB wrote them."""
        source = source_of(stream)
        log = generate(seed=1, changes=300, items=20, doubled=0.1, swapped=0.1, precision="both")
        await put_changes(stream.owner, stream.name, log.puts)
        [shard] = await source.list_shards()
        records, _ = await read(source, shard.shard_id, limit=70)
        assert len(records) == len(log.puts)
        for record, change in zip(records, log.puts, strict=True):
            assert record.event_id == change.event_id
            assert record.event_name == change.event_name
            assert record.table_name == "orders"
            exact = change.precision == "MICROSECOND"
            assert round(record.created * 1_000_000) == (
                change.created_us if exact else change.created_us // 1000 * 1000
            )
            assert record.in_micros is exact
            assert record.keys == {"id": change.keys["id"]["S"]}
            assert record.as_event()["dynamodb"].get("NewImage") == change.new_image
            assert record.as_event()["dynamodb"].get("OldImage") == change.old_image
