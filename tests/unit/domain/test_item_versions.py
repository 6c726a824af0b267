"""The newest version of each item: what is a repeat, what is late, and what nobody can tell."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.item_versions import BYTES_PER_ITEM, ItemVersions
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_records import KinesisChange
from consumer.domain.record import UNREADABLE, Change
from consumer.domain.stream_record import StreamRecord
from tests.support.kinesis_records import data_record
from tests.unit.domain.support import record

SECOND = 1_700_000_000
A, B, C = ({"id": {"S": "a"}, "n": {"N": text}} for text in "123")


def seen(
    number: int,
    micros: int = 0,
    event_id: str = "",
    *,
    old: Any = None,
    new: Any = None,
    name: str = "MODIFY",
    key: Any = None,
    table: str = "orders",
    exact: bool = True,
) -> KinesisChange:
    """A change, ``micros`` after the second; milliseconds when it is not exact."""
    since = micros if exact else micros // 1000 * 1000
    images = [Raw(b"") if image is None else image if isinstance(image, Raw) else raw(image) for image in (new, old)]
    change = Change(str(number), SECOND + since / 1_000_000, raw({"id": {"S": "a"}} if key is None else key), *images)
    return KinesisChange(change, event_id or f"e{number}", name, table_name=table, in_micros=exact)


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


def verdicts(*records: Any, most: int = 100) -> list[str]:
    versions = ItemVersions(most)
    return [judge(versions, one) for one in records]


def judge(versions: ItemVersions, one: StreamRecord) -> str:
    return versions.judge(one, KINESIS_FORMAT.key_of(one))


class TestByTime:
    def test_in_order(self) -> None:
        assert verdicts(seen(1, 10), seen(2, 20), seen(3, 21)) == ["new", "new", "new"]

    def test_out_of_order(self) -> None:
        assert verdicts(seen(1, 20), seen(2, 10), seen(3, 15), seen(4, 30)) == ["new", "older", "older", "new"]

    def test_put_twice(self) -> None:
        """Same time and event id, another number: also when others came in between, and more than once."""
        repeats = [seen(1, 10, "x"), seen(2, 10, "x"), seen(3, 10, "x")]
        assert verdicts(*repeats) == ["new", "double", "double"]

    def test_an_old_one_put_twice(self) -> None:
        assert verdicts(seen(1, 10, "x"), seen(2, 20, "y"), seen(3, 10, "x")) == ["new", "new", "older"]

    def test_one_event_id_at_two_times_is_no_repeat(self) -> None:
        assert verdicts(seen(1, 10, "x"), seen(2, 20, "x")) == ["new", "new"]

    def test_without_an_event_id_nothing_is_a_repeat(self) -> None:
        one, other = seen(1, 10), seen(2, 10)
        one.event_id = other.event_id = ""
        assert verdicts(one, other) == ["new", "tie"]

    def test_of_an_item_that_was_deleted_and_made_again(self) -> None:
        """What is late from before the deletion must not come back to life."""
        removed = seen(2, 20, name="REMOVE", old=A)
        made = seen(4, 30, name="INSERT", new=B)
        late = seen(3, 10, old=A, new=B)
        later = seen(5, 25, name="REMOVE", old=A)
        assert verdicts(seen(1, 5, new=A), removed, late, made, later) == ["new", "new", "older", "new", "older"]


class TestPrecision:
    @pytest.mark.parametrize(
        ("first", "second", "verdict"),
        [
            ((1999, True), (2000, False), "new"),
            ((1000, False), (2000, True), "new"),
            ((2000, True), (1999, False), "older"),
            ((2000, False), (1999, True), "older"),
            ((1500, True), (1999, False), "tie"),
            ((1500, False), (1001, True), "tie"),
            ((1500, False), (1999, False), "tie"),
            ((1500, True), (1499, True), "older"),
        ],
    )
    def test_a_time_that_is_cut_to_its_millisecond_is_compared_as_that(
        self, first: tuple[int, bool], second: tuple[int, bool], verdict: str
    ) -> None:
        """The setting can be changed on a live stream, so one item may have both."""
        records = [seen(place, micros, exact=exact) for place, (micros, exact) in enumerate((first, second), 1)]
        assert verdicts(*records) == ["new", verdict]

    def test_every_microsecond_counts(self) -> None:
        for micros in (1, 123_455, 999_998):
            assert verdicts(seen(1, micros), seen(2, micros + 1)) == ["new", "new"]
            assert verdicts(seen(1, micros + 1), seen(2, micros)) == ["new", "older"]


class TestTies:
    """Two changes at one time: the images tell, if the old one of one is the new one of the other."""

    @pytest.mark.parametrize(
        ("first", "second", "verdict"),
        [
            ({"old": A, "new": B}, {"old": B, "new": C}, "new"),
            ({"old": B, "new": C}, {"old": A, "new": B}, "older"),
            ({"old": A, "new": B}, {"old": B, "new": A}, "tie"),
            ({"old": A, "new": B}, {"old": A, "new": C}, "tie"),
            ({"old": A, "new": B}, {"old": A, "new": B}, "tie"),
            ({"old": A, "name": "REMOVE"}, {"new": B, "name": "INSERT"}, "new"),
            ({"new": B, "name": "INSERT"}, {"old": A, "name": "REMOVE"}, "older"),
            ({"new": A, "name": "INSERT"}, {"old": A, "new": B}, "new"),
            ({"old": A, "new": B}, {"new": A, "name": "INSERT"}, "older"),
            ({"old": B, "name": "REMOVE"}, {"old": A, "new": B}, "older"),
            ({"new": A, "name": "INSERT"}, {"old": A, "name": "REMOVE"}, "tie"),
        ],
        ids=[
            "follows",
            "precedes",
            "there and back",
            "from the same",
            "the same",
            "made after a deletion",
            "deleted before it was made",
            "changed after it was made",
            "made before it was changed",
            "changed before the deletion",
            "either may be first",
        ],
    )
    def test_by_images(self, first: Any, second: Any, verdict: str) -> None:
        assert verdicts(seen(1, 10, **first), seen(2, 10, **second)) == ["new", verdict]

    @pytest.mark.parametrize("image", [None, Raw(b""), Raw(b"null"), UNREADABLE], ids=["none", "absent", "null", "odd"])
    @pytest.mark.parametrize("side", ["old", "new"])
    def test_an_image_that_is_not_there_proves_nothing(self, image: Any, side: str) -> None:
        """A MODIFY has both images; one without was odd, and what was not seen must not make another change late."""
        lacking = {"old": A, "new": B, side: image}
        for first, second in ((lacking, {"old": C, "new": A}), ({"old": B, "new": C}, lacking), (lacking, lacking)):
            assert verdicts(seen(1, 10, **first), seen(2, 10, **second)) == ["new", "tie"]

    def test_another_order_of_attributes_is_no_difference(self) -> None:
        """A -> B and B -> A, of which one B is written in another order: that the second one's new image is the first
        one's old image must not make it late."""
        b_again = dict(reversed(B.items()))
        assert raw(b_again) != raw(B)
        assert verdicts(seen(1, 10, old=A, new=B), seen(2, 10, old=b_again, new=A)) == ["new", "tie"]

    def test_the_later_one_of_a_tie_counts(self) -> None:
        first, second = seen(1, 10, old=A, new=B), seen(2, 10, old=A, new=C)
        assert verdicts(first, second, seen(3, 10, old=C, new=A)) == ["new", "tie", "tie"]
        assert verdicts(first, second, seen(3, 10, old=C, new=B)) == ["new", "tie", "new"]

    def test_time_comes_before_images(self) -> None:
        assert verdicts(seen(1, 10, old=B, new=C), seen(2, 11, old=A, new=B)) == ["new", "new"]


class TestReadAgain:
    def test_what_is_read_again_is_never_older(self) -> None:
        """After a restart, or for a deferred key: what was remembered since has a higher number."""
        first, second, third = seen(1, 10), seen(2, 20), seen(3, 30)
        assert verdicts(first, second, third, first, second, third) == ["new"] * 6

    def test_it_does_not_take_the_place_of_what_is_newer(self) -> None:
        first, second = seen(1, 10), seen(2, 20)
        assert verdicts(first, second, first, seen(3, 15)) == ["new", "new", "new", "older"]

    def test_what_was_late_is_late_again(self) -> None:
        newer, late = seen(1, 20), seen(2, 10)
        assert verdicts(newer, late, newer, late) == ["new", "older", "new", "older"]


class TestItems:
    def test_of_two_tables_are_two(self) -> None:
        assert verdicts(seen(1, 20), seen(2, 10, table="customers")) == ["new", "new"]

    def test_of_two_sort_keys_are_two(self) -> None:
        one, other = ({"id": {"S": "a"}, "sk": {"N": text}} for text in "12")
        assert verdicts(seen(1, 20, key=one), seen(2, 10, key=other)) == ["new", "new"]

    def test_spelled_in_two_ways_are_one(self) -> None:
        one = {"id": {"S": "a"}, "sk": {"N": "1"}}
        other = {"sk": {"N": "1.0"}, "id": {"S": "a"}}
        assert verdicts(seen(1, 20, key=one), seen(2, 10, key=other)) == ["new", "older"]

    @pytest.mark.parametrize("keys", [b"", b"null", b"{}", b"[", b'{"id":{}}', bytes(UNREADABLE)])
    def test_without_usable_keys_nothing_is_late(self, keys: bytes) -> None:
        """They need not be of one item, so none may be dropped for another."""
        records = [seen(1, 20), seen(2, 10), seen(3, 10)]
        for one in records:
            one.dynamodb.Keys = Raw(keys)
        assert verdicts(*records) == ["new", "new", "new"]

    def test_without_a_time_nothing_is_late(self) -> None:
        untimed = seen(2)
        untimed.dynamodb.ApproximateCreationDateTime = 0.0
        assert verdicts(seen(1, 10), untimed, seen(3, 5)) == ["new", "new", "older"]

    def test_only_changes_through_kinesis_have_versions(self) -> None:
        assert verdicts(data_record(), data_record()) == ["new", "new"]
        versions = ItemVersions(10)
        assert [versions.judge(record(1), b"item") for _ in range(2)] == ["new", "new"]
        assert len(versions) == 0


class TestMemory:
    def test_what_changed_last_is_remembered(self) -> None:
        versions = ItemVersions(2)
        keys = [{"id": {"S": name}} for name in "abc"]
        for number, key in enumerate((keys[0], keys[1], keys[0], keys[2])):  # b is the one that goes
            judge(versions, seen(number, 10 + number, key=key))
        assert len(versions) == 2
        assert judge(versions, seen(10, 1, key=keys[0])) == "older"
        assert judge(versions, seen(11, 1, key=keys[2])) == "older"
        assert judge(versions, seen(12, 1, key=keys[1])) == "new"
        assert len(versions) == 2

    def test_with_less_room_what_changed_first_is_forgotten(self) -> None:
        versions = ItemVersions(10)
        keys = [{"id": {"S": name}} for name in "abcd"]
        for number, key in enumerate(keys):
            judge(versions, seen(number, 10, key=key))
        versions.resize(2)
        assert len(versions) == 2
        assert [judge(versions, seen(number, 1, key=key)) for number, key in ((10, keys[2]), (11, keys[3]))] == [
            "older"
        ] * 2
        versions.resize(3)
        for number, key in ((12, keys[0]), (13, keys[1])):
            assert judge(versions, seen(number, 20, key=key)) == "new"
        assert len(versions) == 3

    def test_what_is_late_does_not_keep_an_item(self) -> None:
        versions = ItemVersions(2)
        keys = [{"id": {"S": name}} for name in "abc"]
        for number, (key, micros) in enumerate(((keys[0], 10), (keys[1], 10), (keys[0], 5), (keys[2], 10))):
            judge(versions, seen(number, micros, key=key))
        assert judge(versions, seen(10, 1, key=keys[0])) == "new"

    @given(st.lists(st.integers(0, 20), max_size=60), st.integers(-1, 8))
    def test_never_more_than_allowed(self, items: list[int], most: int) -> None:
        versions = ItemVersions(most)
        for number, item in enumerate(items):
            judge(versions, seen(number, number, key={"id": {"N": str(item)}}))
            assert len(versions) <= max(1, most)

    @pytest.mark.parametrize("text", ["", "x" * 2048], ids=["short", "long"])
    def test_what_an_item_takes(self, text: str) -> None:
        """``limits`` are counted by it, and a key may have 2 KB."""
        versions = ItemVersions(1000)
        for number in range(1000):
            long = 49590338271490256608559692538361571095921575989136588898 + number
            event_id = f"0a4c9f63-8e1c-4c77-9f0b-3b1f1b9b{number:04}"
            judge(versions, seen(long, number, event_id, old=A, new=B, key={"id": {"S": f"{text}{number}"}}))
        newest = versions._newest
        size = sys.getsizeof(newest)
        for item, version in newest.items():
            parts = (version.number, version.micros, version.event_id, version.old, version.new)
            size += sys.getsizeof(item) + sys.getsizeof(version) + sum(map(sys.getsizeof, parts))
        assert 0.7 * BYTES_PER_ITEM < size / len(newest) <= BYTES_PER_ITEM


CHANGES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.booleans()), max_size=14)


@given(CHANGES)
def test_what_is_let_through_to_the_handler_never_goes_back_in_time(changes: list[tuple[int, str, bool]]) -> None:
    """Whatever the order of arrival: of each item the times that are let through only grow, as far as they are known,
    and the newest one is among them."""
    versions = ItemVersions(100)
    let_through: dict[str, list[tuple[int, bool]]] = {}
    newest: dict[str, int] = {}
    for number, (millis, item, exact) in enumerate(changes, 1):
        micros = millis * 500
        verdict = judge(versions, seen(number, micros, key={"id": {"S": item}}, exact=exact))
        newest[item] = max(newest.get(item, 0), micros // 1000)
        if verdict in ("new", "tie"):
            let_through.setdefault(item, []).append((micros, exact))
    for item, times in let_through.items():
        millis_given = [micros // 1000 for micros, _ in times]
        assert millis_given == sorted(millis_given)
        assert millis_given[-1] == newest[item]
        for (before, one), (after, other) in pairwise(times):
            assert not (one and other) or before <= after


@given(CHANGES, st.data())
def test_repeats_change_nothing(changes: list[tuple[int, str, bool]], data: st.DataObject) -> None:
    """A change that is put again, anywhere behind the first time, is never given to the handler twice in a row: it is
    a double, or older than what came since, or a tie with that."""
    versions, number, last = ItemVersions(100), 0, {}
    for place, (millis, item, exact) in enumerate(changes):
        for _ in range(data.draw(st.integers(1, 3))):
            number += 1
            one = seen(number, millis * 500, f"e{place}", key={"id": {"S": item}}, exact=exact)
            verdict = judge(versions, one)
            if verdict in ("new", "tie"):
                assert last.get(item) != place
                last[item] = place


def test_what_came_too_late_is_that_again_when_it_is_read_again() -> None:
    """By a worker that gets its shard back, or for a deferred key: meanwhile still newer versions were read."""
    versions = ItemVersions(10)
    read = [seen(1, 50, "x"), seen(2, 40), seen(3, 50, "x"), seen(4, 60)]
    wanted = ["new", "older", "double", "new"]
    assert [judge(versions, one) for one in read] == wanted
    assert [judge(versions, one) for one in read] == wanted
