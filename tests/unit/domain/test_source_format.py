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
        ("limits", "wire_bytes", "full", "pause"),
        [
            (STREAMS, 100, True, 0.0),
            (STREAMS, 100, False, 0.2),
            (STREAMS, 700_000, False, 0.0),
            (STREAMS, 0, False, 0.2),
            (READING, 100, True, 0.3),
            (READING, 100, False, 1.0),
            (READING, 1_000_000, True, 0.5),
            (READING, 2_000_000, False, 1.0),
            (READING, 4_000_000, False, 2.0),
            (READING, 10 * 1024 * 1024, True, 5.24288),
        ],
    )
    def test_after_a_page(self, limits: ReadingLimits, wire_bytes: int, full: bool, pause: float) -> None:
        """At once while behind, seldom near the tip, and never before the bytes of a page are paid for."""
        assert limits.pause_after(wire_bytes, full=full, patience=10.0) == pause

    @pytest.mark.parametrize(
        ("patience", "streams", "kinesis"), [(0.0, 0.2, 0.3), (0.1, 0.2, 0.3), (0.5, 0.2, 0.5), (10.0, 0.2, 1.0)]
    )
    def test_who_is_less_patient_reads_more_often(self, patience: float, streams: float, kinesis: float) -> None:
        """But no more than five times a second, nor than the service allows."""
        assert STREAMS.pause_after(1, full=False, patience=patience) == streams
        assert READING.pause_after(1, full=False, patience=patience) == kinesis

    @given(st.integers(0, 10 * 1024 * 1024), st.booleans(), st.floats(0, 60))
    def test_what_kinesis_allows_of_a_shard(self, wire_bytes: int, full: bool, patience: float) -> None:
        """Five calls and 2 MB a second, of which a second consumer needs its part."""
        pause = READING.pause_after(wire_bytes, full=full, patience=patience)
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
