"""What the KCL's leases say: whether its fleet lives, and of which stream they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.domain.kcl_leases import (
    KclLease,
    KclReading,
    OtherRow,
    leases_of,
    movement,
    some,
    split_key,
)

LABEL = "2026-01-02T03:04:05.678"
DYNAMODB = f"arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/{LABEL}"
ADAPTER = "123456789012:eu-west-1$123456789012$orders$2026-01-02T03_04_05.678:1"  # as the adapter makes it of the ARN
KINESIS = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"


def reading(**rows: str) -> KclReading:
    """Rows by key, each with what it holds; their owner is the first letter of that."""
    leases = tuple(KclLease(key, key, "5", owner=content[0]) for key, content in rows.items())
    return KclReading(leases, contents=rows)


class TestMovement:
    def test_nothing_has_moved(self) -> None:
        assert movement(reading(s1="a1", s2="b7"), reading(s2="b7", s1="a1")) == ""

    @pytest.mark.parametrize(
        ("after", "says"),
        [
            ({"s1": "a2", "s2": "b7"}, "1 of 2 rows have moved, of the workers a"),
            ({"s1": "c2", "s2": "b7"}, "1 of 2 rows have moved, of the workers a, c"),
            ({"s1": "a1"}, "1 of 2 rows have moved, of the workers b"),
            ({"s1": "a1", "s2": "b7", "s3": "d1"}, "1 of 3 rows have moved, of the workers d"),
            ({"s1": "a2", "s2": "b8"}, "2 of 2 rows have moved, of the workers a, b"),
        ],
    )
    def test_a_row_that_has_changed_appeared_or_vanished(self, after: dict[str, str], says: str) -> None:
        assert movement(reading(s1="a1", s2="b7"), reading(**after)) == says

    def test_the_owner_that_is_about_to_give_a_lease_away_counts_too(self) -> None:
        """In a graceful hand-off of the KCL 3 the counter stands still."""
        before = reading(s1="a1")
        after = replace(reading(s1="a1 "), leases=(KclLease("s1", "s1", "5", owner="b", checkpoint_owner="a"),))
        assert movement(before, after) == "1 of 1 rows have moved, of the workers a, b"

    def test_other_rows_of_a_worker_count_too(self) -> None:
        """Its metrics, in single-table mode, also while it holds no lease."""
        before, after = (
            KclReading(others=(OtherRow("w-1", "metrics of a worker", "w-1"),), contents={"w-1": content})
            for content in ("lut 1", "lut 2")
        )
        assert movement(before, after) == "1 of 1 rows have moved, of the workers w-1"

    def test_a_row_that_names_nobody(self) -> None:
        before, after = (KclReading(contents={"s1": content}) for content in ("1", "2"))
        assert movement(before, after) == "1 of 1 rows have moved"


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("shardId-000000000042", ("", "shardId-000000000042")),
        ("1:orders:1700000000:shardId-000000000042", ("1:orders:1700000000", "shardId-000000000042")),
        (f"{ADAPTER}:shardId-00000001700000000000-abcdef01", (ADAPTER, "shardId-00000001700000000000-abcdef01")),
        ("orders:shardId-000000000042", ("", "orders:shardId-000000000042")),
    ],
)  # fmt: skip
def test_lease_keys(key: str, parts: tuple[str, str]) -> None:
    assert split_key(key) == parts


class TestWhoseStream:
    def leases(self, *streams: str) -> list[KclLease]:
        return [KclLease(f"{stream}:s{n}", f"s{n}", "5", stream=stream) for n, stream in enumerate(streams)]

    def test_a_table_of_one_stream_names_none(self) -> None:
        found = leases_of(self.leases("", ""), DYNAMODB, LABEL)
        assert ([lease.shard_id for lease in found.leases], found.foreign, found.problems) == (["s0", "s1"], {}, ())

    def test_other_streams_are_named_and_left_alone(self) -> None:
        others = ("123456789012:payments:1", "999999999999:orders:1700000000", "123456789012:payments:1")
        found = leases_of(self.leases("123456789012:orders:1700000000", *others), KINESIS, "orders@1700000000")
        assert [lease.shard_id for lease in found.leases] == ["s0"]
        assert found.foreign == {"123456789012:payments:1": 2, "999999999999:orders:1700000000": 1}
        assert (found.notes, found.problems) == ((), ())

    def test_the_adapter_has_the_whole_arn_in_its_keys(self) -> None:
        """With another label it is the stream before this one, of the same table."""
        older = ADAPTER.replace("2026-01-02", "2025-12-31")
        found = leases_of(self.leases(ADAPTER, older), DYNAMODB, LABEL)
        assert ([lease.stream for lease in found.leases], dict(found.foreign)) == ([ADAPTER], {older: 1})

    def test_of_two_streams_of_one_name_that_of_the_right_time(self) -> None:
        streams = ("123456789012:orders:1600000000", "123456789012:orders:1700000000")
        found = leases_of(self.leases(*streams), KINESIS, "orders@1700000000")
        assert [lease.stream for lease in found.leases] == [streams[1]]
        assert dict(found.foreign) == {streams[0]: 1}

    def test_a_creation_time_that_the_application_made_up(self) -> None:
        """The KCL never checks it, so one that is alone is taken, and said."""
        found = leases_of(self.leases("123456789012:orders:1"), KINESIS, "orders@1700000000")
        assert len(found.leases) == 1
        assert found.notes == (
            "the KCL's keys say 123456789012:orders:1; the stream was created at 1700000000: taken for the same",
        )

    def test_two_streams_of_one_name_and_of_no_known_time_are_not_guessed(self) -> None:
        found = leases_of(self.leases("123456789012:orders:1", "123456789012:orders:2"), KINESIS, "orders@1700000000")
        assert len(found.problems) == 1
        assert "only one of them can be this stream, which was created at 1700000000" in found.problems[0]

    def test_keys_with_and_without_a_stream_are_not_mixed(self) -> None:
        found = leases_of(self.leases("", "123456789012:orders:1700000000"), KINESIS, "orders@1700000000")
        assert len(found.problems) == 1
        assert "with their stream in the key, and without" in found.problems[0]


def test_the_owners_are_the_workers_that_leases_name() -> None:
    leases = (KclLease("a", "a", "1", owner="w2"), KclLease("b", "b", "1"), KclLease("c", "c", "1", owner="w1"))
    assert KclReading(leases).owners == ("w1", "w2")


def test_only_a_few_names_are_shown() -> None:
    assert some(["b", "a"]) == "a, b"
    assert some(str(n) for n in range(8)) == "0, 1, 2, 3, 4 and 3 more"
