"""Reading as far behind as records are kept: an iterator goes on behind what was trimmed, and AWS says nothing."""

from __future__ import annotations

import pytest

from consumer.aws.kinesis_streams import KinesisStreamSource
from consumer.domain.errors import DependencyError, Throttled, TrimmedData
from consumer.domain.kinesis_records import KinesisRecord
from consumer.ports.source import Position
from consumer.testing.memory_kinesis import MemoryKinesis
from consumer.testing.memory_kinesis_client import kinesis_source
from consumer.testing.network import Link

DAY = 86400.0


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        """Stands still: nothing is limited."""
        return 0.0


async def reading(
    kept_back: float, link: Link | None = None
) -> tuple[ManualClock, MemoryKinesis, KinesisStreamSource, str, str]:
    """A stream with a record every 20 seconds of the last day but ``kept_back`` seconds, read up to its second page."""
    clock = ManualClock()
    stream = MemoryKinesis(clock)
    stream.limited = False
    for number in range(4320):
        stream.put(b"%d" % number, "key")
        clock.now += 20.0
    clock.now -= kept_back
    source = kinesis_source(stream, clock.wall, link)
    await source.describe()
    [shard] = await source.list_shards()
    iterator = await source.iterator(shard.shard_id, Position("TRIM_HORIZON"))
    page = await source.get_records(shard.shard_id, iterator, 5)
    assert [record.data for record in page.records] == [b"%d" % number for number in range(5)]
    assert page.next_iterator is not None
    return clock, stream, source, shard.shard_id, page.next_iterator


async def test_what_is_trimmed_between_two_pages_is_a_gap() -> None:
    clock, stream, source, shard_id, iterator = await reading(0.0)
    clock.now += 290.0
    stream.expire()
    with pytest.raises(TrimmedData):
        await source.get_records(shard_id, iterator, 5)


async def test_nothing_is_repeated_while_nothing_is_lost() -> None:
    _, stream, source, shard_id, iterator = await reading(0.0)
    stream.expire()
    found: list[bytes] = []
    while len(found) < 100:
        page = await source.get_records(shard_id, iterator, 7)
        found += [record.data for record in page.records]
        iterator = page.next_iterator
    assert found[:100] == [b"%d" % number for number in range(5, 105)]


async def test_a_check_that_cannot_be_made_is_no_gap() -> None:
    """The iterator that the check needs is throttled: the page is read again, and nothing is missing."""
    link = Link()
    _, _, source, shard_id, iterator = await reading(0.0, link)
    refusal = link.refuse(Throttled("GetShardIterator", "ProvisionedThroughputExceededException"), "iterator", times=2)
    found: list[bytes] = []
    while len(found) < 20:
        try:
            page = await source.get_records(shard_id, iterator, 5)
        except Throttled:
            continue
        found += [record.data for record in page.records]
        assert page.next_iterator is not None
        iterator = page.next_iterator
    assert refusal.taken == 2
    assert found == [b"%d" % number for number in range(5, 5 + len(found))]


async def test_older_records_stay_left_out_on_the_way_from_the_horizon() -> None:
    """The number is refused and its record is there, behind many pages as old as records are kept."""
    link = Link()
    clock, _, source, shard_id, iterator = await reading(0.0, link)
    last = (await source.get_records(shard_id, iterator, 26)).records[-1]
    assert isinstance(last, KinesisRecord)
    text = "StartingSequenceNumber is invalid"
    link.refuse(DependencyError("GetShardIterator", "InvalidArgumentException", text), "iterator", times=1)
    position = Position("AFTER_SEQUENCE_NUMBER", last.number, complete_at=clock.wall() - 60.0)
    iterator = await source.iterator(shard_id, position)
    found: list[bytes] = []
    for _ in range(12):
        page = await source.get_records(shard_id, iterator, 5)
        found += [record.data for record in page.records]
        assert page.next_iterator is not None
        iterator = page.next_iterator
    first = int(last.data) + 1
    assert found == [b"%d" % number for number in range(first, first + len(found))]
    assert len(found) > 20


async def test_one_record_at_a_time_comes_forward() -> None:
    """Each page begins with the last record of the one before."""
    _, stream, source, shard_id, iterator = await reading(0.0)
    stream.expire()
    found: list[bytes] = []
    for _ in range(10):
        page = await source.get_records(shard_id, iterator, 1)
        found += [record.data for record in page.records]
        assert page.next_iterator is not None
        iterator = page.next_iterator
    assert found == [b"%d" % number for number in range(5, 15)]
