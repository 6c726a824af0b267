"""How fast a shard may be read, and what a source's ids say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.kinesis_format import READING
from consumer.domain.source_format import ReadingLimits, created_by_id, dynamodb_format
from tests.unit.domain.support import record

STREAMS = ReadingLimits()


class TestPauses:
    @pytest.mark.parametrize(
        ("limits", "wire_bytes", "records", "full"),
        [
            (STREAMS, 100, 999, False),
            (STREAMS, 100, 1000, True),
            (STREAMS, 699_999, 1, False),
            (STREAMS, 700_000, 1, True),
            (READING, 2_000_000, 999, False),
            (READING, 4_000_000, 1, True),
        ],
    )
    def test_a_full_page_leaves_more(self, limits: ReadingLimits, wire_bytes: int, records: int, full: bool) -> None:
        assert limits.is_full(wire_bytes, records, 1000) == full

    @pytest.mark.parametrize(
        ("limits", "wire_bytes", "pause"),
        [
            (STREAMS, 100, 0.0),
            (STREAMS, 1_000_000, 0.0),
            (READING, 100, 0.3),
            (READING, 1_000_000, 0.5),
            (READING, 10 * 1024 * 1024, 5.24288),
        ],
    )
    def test_while_behind(self, limits: ReadingLimits, wire_bytes: int, pause: float) -> None:
        """At once, but never before the bytes of a page are paid for."""
        assert limits.pause_behind(wire_bytes) == pause

    @given(st.integers(0, 10 * 1024 * 1024))
    def test_what_kinesis_allows_of_a_shard(self, wire_bytes: int) -> None:
        """Five calls and 2 MB a second, of which a second consumer needs its part."""
        pause = READING.pause_behind(wire_bytes)
        assert pause >= 0.3
        assert wire_bytes - pause * 2_000_000 < 1

    def test_a_reader_that_catches_up_leaves_room_for_the_main_one(self) -> None:
        assert 1 / READING.interval + 1 / READING.second_reader <= 5


class TestDynamoDBStreams:
    def test_is_ordered_by_the_partition_key(self) -> None:
        one = dynamodb_format("pk")
        assert one.ordered_by == "pk"
        assert one.key_of(record(1, keys=b'{"pk":{"S":"a"},"sk":{"S":"1"}}')) == b'{"S":"a"}'
        assert one.shown("42") == "42"
        assert one.arrival_text(1794616686.9) == "2026-11-14T00:38:06Z"

    @pytest.mark.parametrize(
        ("shard_id", "created"),
        [
            ("shardId-00000001789651619772-2a9e5aad", 1789651619.772),
            ("shardId-00000000000000000000-x", 0.0),
            ("shardId-000000000042", None),
            ("shard-1", None),
            ("", None),
            ("x-shardId-00000001789651619772-2a9e5aad", None),
        ],
    )
    def test_shard_ids_say_when_they_were_made(self, shard_id: str, created: float | None) -> None:
        assert created_by_id(shard_id) == created
