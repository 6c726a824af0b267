"""Filters that can match no record of a stream, because of its view type or of the table's keys."""

import pytest

from consumer.domain.filters.filters import compile_filters

STATUS = {"status": {"S": ["paid"]}}
NEW, OLD = {"dynamodb": {"NewImage": STATUS}}, {"dynamodb": {"OldImage": STATUS}}
GONE = {"dynamodb": {"NewImage": {"status": [{"exists": False}]}}}
KEY = {"dynamodb": {"Keys": {"id": {"S": ["a"]}}}}
NAME = {"eventName": ["INSERT"]}


@pytest.mark.parametrize(
    ("view_type", "never"),
    [
        ("KEYS_ONLY", [NEW, OLD]),
        ("NEW_IMAGE", [OLD]),
        ("OLD_IMAGE", [NEW]),
        ("NEW_AND_OLD_IMAGES", []),
        ("", []),
    ],
)
def test_images_that_the_stream_leaves_out(view_type, never):
    for pattern in (NEW, OLD, GONE, KEY, NAME):
        found = compile_filters([pattern]).never_match(view_type, ["id"])
        assert len(found) == (pattern in never), pattern
        assert all(f"the stream is {view_type}, its records have no" in line for line in found)


@pytest.mark.parametrize(
    ("attribute", "keys", "never"),
    [
        ("id", ("id",), False),
        ("id", ("pk", "id"), False),
        ("id", ("pk", "sk"), True),
        ("i", ("id",), True),
        ("a.b", ("a.b",), False),
        ("a.b", ("a",), False),  # not to be told from an attribute inside of one: never called wrong
        ("id", (), False),
    ],
)
def test_keys_that_the_table_does_not_have(attribute, keys, never):
    pattern = {"dynamodb": {"Keys": {attribute: {"S": [{"prefix": "x"}]}}}}
    assert bool(compile_filters([pattern]).never_match("KEYS_ONLY", keys)) == never


def test_a_key_that_must_not_be_there_is_no_problem():
    pattern = {"dynamodb": {"Keys": {"other": [{"exists": False}]}}}
    assert compile_filters([pattern]).never_match("KEYS_ONLY", ["id"]) == []


def test_one_alternative_is_enough_and_every_requirement_is_needed():
    either = {"$or": [NEW, NAME]}
    both = {"eventName": ["INSERT"], "dynamodb": {"NewImage": STATUS}}
    neither = {"$or": [NEW, OLD]}
    found = compile_filters([either, both, neither]).never_match("KEYS_ONLY", ["id"])
    assert len(found) == 2
    assert found[0].startswith("filters[1].dynamodb.NewImage.status.S can never match: ")
    assert found[1].startswith("filters[2]")
