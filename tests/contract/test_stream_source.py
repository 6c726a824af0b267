"""What every stream source promises: the one in memory, a real local server, and the re-sharding proxy before it."""

import time

import pytest

from consumer.domain.errors import DependencyError, ExpiredIterator, ResourceMissing, TrimmedData
from consumer.ports.source import Position
from tests.support.stream_worlds import HORIZON, LATEST, ids, only_shard, read, world_of


@pytest.fixture(params=["memory", "server", "proxy"])
async def world(request, local_aws, aws_environment):
    """A stream with one open shard."""
    async with world_of(request.param, local_aws) as world:
        yield world


@pytest.fixture(params=["memory", "proxy"])
async def shifting(request, local_aws, aws_environment):
    """A stream with one open shard that can be re-sharded, trimmed and so on."""
    async with world_of(request.param, local_aws) as world:
        yield world


@pytest.fixture(params=["memory", "proxy"])
def wide(request, local_aws, aws_environment):
    """``async with wide(250) as world``: a stream with so many open shards."""
    return lambda shards: world_of(request.param, local_aws, shards)


class TestDescription:
    async def test_what_is_described(self, world):
        found = await world.source().describe()
        assert found.table_name == world.table
        assert found.stream_arn.endswith(found.label)
        assert (found.status, found.view_type, found.format.ordered_by) == ("ENABLED", "NEW_AND_OLD_IMAGES", "id")
        assert abs(found.server_time - time.time()) < 5

    async def test_a_disabled_stream_is_described_and_drains(self, world):
        source = world.source()
        shard_id = await only_shard(source)
        await world.write("a", "b")
        await world.disable()
        assert (await source.describe()).status == "DISABLED"
        [shard] = await source.list_shards()
        assert shard.ending_sequence_number is not None
        records, ended = await read(source, shard_id)
        assert (ids(records), ended) == (["a", "b"], True)
        assert await source.child_shards(shard_id) == []


class TestPositions:
    async def test_horizon_and_records(self, world):
        source = world.source()
        await world.write("a")
        await world.write("a", total="3")
        await world.delete("a")
        records, ended = await read(source, await only_shard(source))
        assert not ended
        assert [record.event_name for record in records] == ["INSERT", "MODIFY", "REMOVE"]
        assert [record.new_image for record in records] == [{"id": "a"}, {"id": "a", "total": "3"}, None]
        assert [record.old_image for record in records] == [None, {"id": "a"}, {"id": "a", "total": "3"}]
        numbers = [int(record.sequence_number) for record in records]
        assert numbers == sorted(set(numbers))
        assert all(21 <= len(record.sequence_number) <= 40 for record in records)
        arn = (await source.describe()).stream_arn
        assert {record.event_source_arn for record in records} == {arn}
        assert all(abs(record.approximate_creation_time.timestamp() - time.time()) < 60 for record in records)

    async def test_a_write_that_changes_nothing_makes_no_record(self, world):
        source = world.source()
        await world.write("a", "a", "b", "a")
        assert ids((await read(source, await only_shard(source)))[0]) == ["a", "b"]

    async def test_at_and_after_every_number(self, world):
        source = world.source()
        await world.write(*"abcdefgh")
        shard_id = await only_shard(source)
        records, _ = await read(source, shard_id)
        for index, record in enumerate(records):
            at, _ = await read(source, shard_id, Position("AT_SEQUENCE_NUMBER", record.sequence_number))
            after, _ = await read(source, shard_id, Position("AFTER_SEQUENCE_NUMBER", record.sequence_number))
            assert (ids(at), ids(after)) == (ids(records[index:]), ids(records[index + 1 :]))

    async def test_latest_is_pinned_when_the_iterator_is_made(self, world):
        source = world.source()
        await world.write("old")
        shard_id = await only_shard(source)
        iterator = await source.iterator(shard_id, LATEST)
        await world.write("new")
        page = await source.get_records(shard_id, iterator, 1000)
        assert ids(page.records) == ["new"]

    async def test_an_iterator_can_be_used_again(self, world):
        source = world.source()
        await world.write("a", "b")
        shard_id = await only_shard(source)
        iterator = await source.iterator(shard_id, HORIZON)
        pages = [await source.get_records(shard_id, iterator, 1) for _ in range(2)]
        assert [ids(page.records) for page in pages] == [["a"], ["a"]]

    async def test_two_sources_do_not_share_records(self, world):
        await world.write("a")
        one, two = world.source(), world.source()
        [first], _ = await read(one, await only_shard(one))
        [second], _ = await read(two, await only_shard(two))
        first.new_image["id"] = "changed"
        assert second.new_image == {"id": "a"}


class TestPages:
    async def test_the_limit_is_kept_and_nothing_is_lost(self, world):
        source = world.source()
        names = [f"key-{number}" for number in range(25)]
        await world.write(*names)
        shard_id = await only_shard(source)
        records, _ = await read(source, shard_id, limit=4)
        assert ids(records) == names
        page = await source.get_records(shard_id, await source.iterator(shard_id, HORIZON), 4)
        assert len(page.records) == 4
        assert page.wire_bytes > 100

    async def test_a_page_ends_at_a_megabyte(self, world):
        source = world.source()
        await world.write(*"abcdefgh", note="x" * 300_000)
        shard_id = await only_shard(source)
        page = await source.get_records(shard_id, await source.iterator(shard_id, HORIZON), 1000)
        assert 1 <= len(page.records) < 8
        assert len((await read(source, shard_id))[0]) == 8

    async def test_an_empty_page_is_not_the_end(self, world):
        source = world.source()
        shard_id = await only_shard(source)
        page = await source.get_records(shard_id, await source.iterator(shard_id, HORIZON), 10)
        assert list(page.records) == []
        await world.write("a")
        assert page.next_iterator is not None
        assert ids((await source.get_records(shard_id, page.next_iterator, 10)).records) == ["a"]

    async def test_empty_pages_in_the_middle(self, shifting):
        source = shifting.source()
        await shifting.write("a", "b", "c")
        shard_id = await only_shard(source)
        first = await source.get_records(shard_id, await source.iterator(shard_id, HORIZON), 1)
        await shifting.empty_pages(shard_id, 2)
        iterator, found = first.next_iterator, []
        for _ in range(4):
            page = await source.get_records(shard_id, iterator, 1)
            found.append(ids(page.records))
            iterator = page.next_iterator
        assert found == [[], [], ["b"], ["c"]]


class TestErrors:
    async def test_a_foreign_iterator(self, world):
        source = world.source()
        with pytest.raises(DependencyError):
            await source.get_records(await only_shard(source), "not an iterator", 10)

    async def test_a_missing_shard_is_named(self, world):
        missing = "shardId-00000001700000000000-deadbeef"
        with pytest.raises(ResourceMissing, match=missing):
            await world.source().iterator(missing, HORIZON)

    async def test_a_shard_that_vanishes(self, shifting):
        source = shifting.source()
        shard_id = await only_shard(source)
        [child] = await shifting.roll(shard_id)
        iterator = await source.iterator(shard_id, HORIZON)
        await shifting.vanish(shard_id)
        with pytest.raises(ResourceMissing, match=shard_id):
            await source.iterator(shard_id, HORIZON)
        with pytest.raises(ResourceMissing, match=shard_id):
            await source.get_records(shard_id, iterator, 10)
        [shard] = await source.list_shards()
        assert (shard.shard_id, shard.parents) == (child, (shard_id,))

    async def test_expired_iterators(self, shifting):
        source = shifting.source()
        await shifting.write("a", "b")
        shard_id = await only_shard(source)
        page = await source.get_records(shard_id, await source.iterator(shard_id, HORIZON), 1)
        await shifting.expire_iterators()
        with pytest.raises(ExpiredIterator):
            await source.get_records(shard_id, page.next_iterator, 1)
        after = Position("AFTER_SEQUENCE_NUMBER", page.records[-1].sequence_number)
        assert ids((await read(source, shard_id, after))[0]) == ["b"]

    async def test_trimmed_records(self, shifting):
        source = shifting.source()
        await shifting.write(*"abcd")
        shard_id = await only_shard(source)
        records, _ = await read(source, shard_id)
        early = await source.iterator(shard_id, Position("AFTER_SEQUENCE_NUMBER", records[0].sequence_number))
        late = await source.iterator(shard_id, Position("AFTER_SEQUENCE_NUMBER", records[1].sequence_number))
        await shifting.trim(shard_id, records[1].sequence_number)
        for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            with pytest.raises(TrimmedData):
                await source.iterator(shard_id, Position(kind, records[0].sequence_number))
        with pytest.raises(TrimmedData):
            await source.get_records(shard_id, early, 10)
        assert ids((await source.get_records(shard_id, late, 10)).records) == ["c", "d"]
        assert ids((await read(source, shard_id))[0]) == ["c", "d"]
        at = Position("AT_SEQUENCE_NUMBER", records[2].sequence_number)
        assert ids((await read(source, shard_id, at))[0]) == ["c", "d"]


class TestReSharding:
    async def test_more_shards_than_a_page_of_descriptions(self, wide):
        async with wide(250) as world:
            shards = await world.source().list_shards()
            assert len({shard.shard_id for shard in shards}) == 250
            assert all(shard.parents == () and shard.ending_sequence_number is None for shard in shards)

    @pytest.mark.parametrize("after_close", [[], ["later"]], ids=["alone", "with later records"])
    async def test_the_last_page_may_hold_records(self, shifting, after_close):
        source = shifting.source()
        shard_id = await only_shard(source)
        await shifting.write("a", "b")
        iterator = await source.iterator(shard_id, HORIZON)
        await shifting.roll(shard_id)
        await shifting.write(*after_close)
        records, ended = await read(source, shard_id)
        assert (ids(records), ended) == (["a", "b"], True)
        if after_close:
            page = await source.get_records(shard_id, iterator, 10)
            assert (ids(page.records), page.next_iterator) == (["a", "b"], None)
        past = Position("AFTER_SEQUENCE_NUMBER", records[-1].sequence_number)
        assert await read(source, shard_id, past) == ([], True)

    async def test_a_shard_without_records_ends_too(self, shifting):
        source = shifting.source()
        shard_id = await only_shard(source)
        left, right = await shifting.split(shard_id)
        await shifting.write(*"abcdefgh")
        assert await read(source, shard_id) == ([], True)
        halves = [ids((await read(source, child))[0]) for child in (left, right)]
        assert sorted(halves[0] + halves[1]) == sorted("abcdefgh")
        assert all(halves)

    async def test_every_record_once_and_keys_in_order_over_splits_and_rolls(self, wide):
        async with wide(2) as world:
            source = world.source()
            shards = [shard.shard_id for shard in await source.list_shards()]
            names = [f"key-{number}" for number in range(12)]
            for step in range(4):
                await world.write(*names, step=str(step))
                chosen = shards.pop(0)
                shards += await (world.split(chosen) if step % 2 == 0 else world.roll(chosen))
            await world.write(*names, step="4")
            listed = await source.list_shards()
            assert len(listed) == 2 + 2 + 1 + 2 + 1
            assert [shard.ending_sequence_number is None for shard in listed].count(True) == 4
            steps = {name: [] for name in names}
            for shard in listed:  # parents are listed before their children
                records, ended = await read(source, shard.shard_id)
                assert ended is (shard.ending_sequence_number is not None)
                for record in records:
                    steps[record.keys["id"]].append(record.new_image["step"])
            assert steps == {name: ["0", "1", "2", "3", "4"] for name in names}

    async def test_children_are_found_by_their_parent(self, shifting):
        source = shifting.source()
        parent = await only_shard(source)
        assert await source.child_shards(parent) == []
        left, right = await shifting.split(parent)
        [single] = await shifting.roll(right)
        children = await source.child_shards(parent)
        assert [child.shard_id for child in children] == [left, right]
        assert all(child.parents == (parent,) for child in children)
        assert [child.shard_id for child in await source.child_shards(right)] == [single]
        assert await source.child_shards(left) == []

    async def test_children_may_be_visible_late(self, shifting):
        source = shifting.source()
        parent = await only_shard(source)
        await shifting.hide_children(3600)
        [child] = await shifting.roll(parent)
        await shifting.write("a")
        assert await source.child_shards(parent) == []
        assert [shard.shard_id for shard in await source.list_shards()] == [parent]
        with pytest.raises(ResourceMissing):
            await source.iterator(child, HORIZON)
        assert await read(source, parent) == ([], True)
        await shifting.hide_children(0)
        assert [shard.shard_id for shard in await source.child_shards(parent)] == [child]
        assert ids((await read(source, child))[0]) == ["a"]

    async def test_a_listed_start_is_a_position(self, shifting):
        source = shifting.source()
        await shifting.write("a")
        [child] = await shifting.roll(await only_shard(source))
        await shifting.write("b")
        [shard] = await source.child_shards((await source.list_shards())[0].shard_id)
        records, _ = await read(source, child, Position("AT_SEQUENCE_NUMBER", shard.starting_sequence_number))
        assert ids(records) == ["b"]
