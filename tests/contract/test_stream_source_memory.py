"""What the stream in memory adds for tests: its own time, growing numbers, odd records, exact repetition."""

import decimal

import pytest

from consumer.domain.errors import DependencyError, ExpiredIterator
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.network import Link
from consumer.testing.wire import to_wire
from tests.support.stream_worlds import HORIZON, ids, only_shard, read


class StoppedClock:
    def __init__(self):
        self.now = 1_000_000.5

    def monotonic(self):
        return self.now

    def wall(self):
        return self.now + 1e9


@pytest.fixture
def clock():
    return StoppedClock()


async def test_numbers_grow_in_length_and_text_order_is_not_their_order(clock):
    stream = MemoryStream(clock, jump_every=3)
    texts = [stream.put({"id": "a", "n": n}) for n in range(80)]
    assert [int(text) for text in texts] == sorted(int(text) for text in texts)
    assert {len(text) for text in texts} >= {21, 30, 40}
    assert max(map(len, texts)) == 40
    assert sorted(texts) != texts


async def test_a_run_can_be_repeated_exactly(clock):
    async def run():
        stream = MemoryStream(StoppedClock(), shards=3)
        for n in range(50):
            stream.put({"id": f"key-{n % 7}", "n": n})
            if n % 10 == 0:
                stream.split(stream.shard_of("key-1"))
        source = MemoryStreamSource(stream)
        shards = await source.list_shards()
        return shards, [[r.as_event() for r in (await read(source, s.shard_id))[0]] for s in shards]

    assert await run() == await run()


async def test_the_end_may_come_on_an_empty_page(clock):
    stream = MemoryStream(clock, last_page="empty")
    stream.put({"id": "a"})
    source = MemoryStreamSource(stream)
    shard_id = await only_shard(source)
    stream.roll(shard_id)
    first = await source.get_records(shard_id, await source.iterator(shard_id, HORIZON), 10)
    last = await source.get_records(shard_id, first.next_iterator, 10)
    assert (ids(first.records), list(last.records), last.next_iterator) == (["a"], [], None)


async def test_time_comes_from_the_clock(clock):
    stream = MemoryStream(clock)
    source = MemoryStreamSource(stream)
    shard_id = await only_shard(source)
    stream.put({"id": "a"})
    iterator = await source.iterator(shard_id, HORIZON)
    clock.now += 899
    page = await source.get_records(shard_id, iterator, 10)
    assert page.records[0].dynamodb.ApproximateCreationDateTime == 1_001_000_000
    clock.now += 2
    with pytest.raises(ExpiredIterator):
        await source.get_records(shard_id, iterator, 10)
    assert list((await source.get_records(shard_id, page.next_iterator, 10)).records) == []
    stream.hide_children(30)
    stream.roll(shard_id)
    assert await source.child_shards(shard_id) == []
    clock.now += 30
    assert len(await source.child_shards(shard_id)) == 1


async def test_odd_records_can_be_appended(clock):
    stream = MemoryStream(clock)
    stream.append("a", {"NewImage": {"id": {"X": "?"}}}, "UNKNOWN_TO_SDK_VERSION", awsRegion="moon")
    stream.put({"id": "b"})
    stream.delete({"id": "b"}, by_ttl=True)
    assert stream.delete({"id": "b"}) is None
    source = MemoryStreamSource(stream)
    (odd, _, gone), _ = await read(source, await only_shard(source))
    assert (odd.event_name, odd.aws_region, odd.keys) == ("UNKNOWN_TO_SDK_VERSION", "moon", {"id": "a"})
    with pytest.raises(ValueError, match="attribute value"):
        _ = odd.new_image
    assert gone.user_identity == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


async def test_the_link_can_lose_a_request(clock):
    link = Link()
    lost = link.lose_request()
    source = MemoryStreamSource(MemoryStream(clock), link)
    for call in (source.describe(), source.list_shards(), source.child_shards("s"), source.iterator("s", HORIZON)):
        with pytest.raises(DependencyError):
            await call
    with pytest.raises(DependencyError):
        await source.get_records("s", "i", 1)
    assert lost.taken == 5


async def test_values_come_back_as_they_were_put(clock):
    item = {
        "id": "a",
        "sort": 1,
        "values": [None, True, "\x00", decimal.Decimal("1.50"), {"x": {"y"}}, {1, 2}],
        "data": b"\x00\xff",
    }
    stream = MemoryStream(clock, sort_key="sort")
    stream.put(item)
    source = MemoryStreamSource(stream)
    [record], _ = await read(source, await only_shard(source))
    assert record.keys == {"id": "a", "sort": 1}
    assert {**record.new_image, "data": record.new_image["data"].value} == item
    with pytest.raises(TypeError, match="no type"):
        to_wire(object())


def test_misuse_is_an_error_of_the_test(clock):
    stream = MemoryStream(clock)
    [shard_id] = stream.open_shards()
    stream.split(shard_id)
    with pytest.raises(ValueError, match="closed already"):
        stream.roll(shard_id)
    stream.disable()
    with pytest.raises(ValueError, match="DISABLED"):
        stream.put({"id": "a"})
