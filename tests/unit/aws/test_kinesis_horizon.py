"""Reading as far behind as records are kept: an iterator goes on behind what was trimmed, and AWS says nothing."""

from __future__ import annotations

import pytest

from consumer.domain.errors import TrimmedData
from consumer.ports.source import Position
from consumer.testing.memory_kinesis import MemoryKinesis
from consumer.testing.memory_kinesis_client import kinesis_source

DAY = 86400.0


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        """Stands still: iterators live."""
        return 0.0


async def reading(kept_back: float) -> tuple[ManualClock, MemoryKinesis, object, str, str]:
    """A stream with a record every minute of the last day but ``kept_back`` seconds, read up to its second page."""
    clock = ManualClock()
    stream = MemoryKinesis(clock)
    stream.limited = False
    for number in range(1440):
        stream.put(b"%d" % number, "key")
        clock.now += 60.0
    clock.now -= kept_back
    source = kinesis_source(stream, clock.wall)
    await source.describe()
    [shard] = await source.list_shards()
    iterator = await source.iterator(shard.shard_id, Position("TRIM_HORIZON"))
    page = await source.get_records(shard.shard_id, iterator, 5)
    assert [record.data for record in page.records] == [b"%d" % number for number in range(5)]
    assert page.next_iterator is not None
    return clock, stream, source, shard.shard_id, page.next_iterator


async def test_what_is_trimmed_between_two_pages_is_a_gap() -> None:
    clock, stream, source, shard_id, iterator = await reading(0.0)
    clock.now += 20 * 60.0
    stream.expire()
    with pytest.raises(TrimmedData):
        await source.get_records(shard_id, iterator, 5)  # type: ignore[attr-defined]  # the source


async def test_nothing_is_repeated_while_nothing_is_lost() -> None:
    _, stream, source, shard_id, iterator = await reading(0.0)
    stream.expire()
    found: list[bytes] = []
    while len(found) < 100:
        page = await source.get_records(shard_id, iterator, 7)  # type: ignore[attr-defined]  # the source
        found += [record.data for record in page.records]
        iterator = page.next_iterator
    assert found[:100] == [b"%d" % number for number in range(5, 105)]
