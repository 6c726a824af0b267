"""What one event says for records of an item that lack attributes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from consumer.domain.read_again import Marked, as_it_is_now, in_runs, why_not_told
from consumer.domain.record import Change, Record

PATHS = ("ssn",)
NOW = {"id": {"S": "a"}, "ssn": {"S": "123"}, "v": {"N": "7"}}
MARK = {"S": "[redacted]"}
TTL = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode()) if value is not None else Raw(b"")


def record(number: int, name: str, *, item: str = "a", old: Any = None, view: str = "NEW_AND_OLD_IMAGES") -> Record:
    new = None if name == "REMOVE" else {"id": {"S": item}, "ssn": MARK, "v": {"N": str(number)}}
    change = Change(str(number), float(number), raw({"id": {"S": item}}), raw(new), raw(old), 10, view)
    return Record(change, event_id=f"e{number}", event_name=name, user_identity_wire=TTL if name == "REMOVE" else None)


def told(names: str, item: dict[str, Any] | None) -> dict[str, Any]:
    run = [(record(number, name), PATHS) for number, name in enumerate(names.split(), 1)]
    return as_it_is_now(run, item).as_event()


@pytest.mark.parametrize(
    ("names", "there", "expected"),
    [
        ("INSERT", True, "INSERT"),
        ("INSERT MODIFY", True, "INSERT"),  # the handler has seen no item before
        ("MODIFY MODIFY", True, "MODIFY"),
        ("REMOVE INSERT", True, "MODIFY"),  # it has seen one, and there is one
        ("INSERT", False, "REMOVE"),
        ("MODIFY", False, "REMOVE"),
        ("MODIFY REMOVE", False, "REMOVE"),
        ("MODIFY REMOVE", True, "REMOVE"),  # written again since: that is another record
    ],
)
def test_the_event_tells_the_item_as_it_is_now_in_the_place_of_the_last(names: str, there: bool, expected: str) -> None:
    found = told(names, NOW if there else None)
    last = len(names.split())
    assert (found["eventName"], found["eventID"], found["dynamodb"]["SequenceNumber"]) == (
        expected,
        f"e{last}",
        str(last),
    )
    assert found["dynamodb"].get("NewImage") == (None if expected == "REMOVE" else NOW)
    assert found["dynamodb"]["Keys"] == {"id": {"S": "a"}}
    assert ("userIdentity" in found) is (names.split()[-1] == "REMOVE"), "who removed it is said of no other change"


@pytest.mark.parametrize(
    ("old", "kept"),
    [({"id": {"S": "a"}, "v": {"N": "0"}}, True), ({"id": {"S": "a"}, "ssn": MARK, "v": {"N": "0"}}, False)],
)
def test_an_old_image_is_told_when_it_is_whole_and_is_what_was_before_the_first(
    old: dict[str, Any], kept: bool
) -> None:
    run: list[Marked] = [
        (record(1, "MODIFY", old=old), PATHS),
        (record(2, "MODIFY", old={"id": {"S": "a"}, "v": {"N": "1"}}), PATHS),
    ]
    assert as_it_is_now(run, NOW).as_event()["dynamodb"].get("OldImage") == (old if kept else None)


def test_the_size_is_that_of_what_is_told() -> None:
    item = {
        "id": {"S": "a"},
        "text": {"S": "ü"},
        "number": {"N": "-12.5"},
        "binary": {"B": "AAEC"},
        "list": {"L": [{"BOOL": True}, {"M": {"x": {"NULL": True}}}]},
        "set": {"NS": ["1", "22"]},
    }
    found = as_it_is_now([(record(1, "MODIFY"), PATHS)], item)
    image = (2 + 1) + (4 + 2) + (6 + 3) + (6 + 3) + (4 + 3 + 2 + (1 + 3 + 1 + 1 + 1)) + (3 + 2 + 2)
    assert found.size_bytes == 3 + image


def test_what_comes_together_is_of_one_item_and_follows_each_other() -> None:
    marked: list[Marked] = [
        (record(1, "INSERT"), PATHS),
        (record(2, "MODIFY"), PATHS),
        (record(3, "INSERT", item="b"), PATHS),
        (record(4, "MODIFY"), PATHS),
        (record(5, "MODIFY"), ()),
        (record(6, "MODIFY", item="b"), ()),
        (record(7, "MODIFY"), PATHS),
    ]
    assert list(in_runs(marked)) == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]


@pytest.mark.parametrize("view", ["OLD_IMAGE", "KEYS_ONLY"])
def test_a_stream_without_new_images_has_nothing_that_could_be_read(view: str) -> None:
    assert view in why_not_told(record(1, "MODIFY", view=view))
    assert why_not_told(record(1, "MODIFY", view="NEW_IMAGE")) == ""


def test_a_record_without_keys_tells_no_item() -> None:
    assert "no item" in why_not_told(Record(Change("1", StreamViewType="NEW_IMAGE")))
