"""Filters: what matches, what does not, and what is not even looked at."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from msgspec import Raw

from consumer.domain.filters.filters import compile_filters
from consumer.domain.record import Change, Record
from tests.unit.domain.support import ARN

GARBAGE = Raw(b'{"status":{"S":')


def record_of(
    new: dict[str, Any] | None = None,
    *,
    name: str = "INSERT",
    keys: dict[str, Any] | None = None,
    old: dict[str, Any] | None = None,
    identity: dict[str, str] | None = None,
) -> Record:
    def raw(item: dict[str, Any] | None) -> Raw:
        return Raw(b"") if item is None else Raw(json.dumps(item).encode())

    change = Change(
        "3100000105893955554117",
        ApproximateCreationDateTime=1789651659.0,
        Keys=raw(keys or {"id": {"S": "id_value"}}),
        NewImage=raw(new),
        OldImage=raw(old),
        SizeBytes=80,
        StreamViewType="NEW_AND_OLD_IMAGES",
    )
    record = Record(change, event_id="9cdf", event_name=name, aws_region="us-east-1", event_source_arn=ARN)
    record.user_identity_wire = identity
    return record


def matches(pattern: dict[str, Any], record: Record, **options: Any) -> bool:
    return compile_filters([pattern], **options).matches(record)


def image(alternatives: list[Any], value: Any, **options: Any) -> bool:
    """Whether the alternatives, given for an attribute's S, match the value there."""
    return matches({"dynamodb": {"NewImage": {"a": {"S": alternatives}}}}, record_of({"a": {"S": value}}), **options)


def new_image(pattern: dict[str, Any]) -> dict[str, Any]:
    return {"dynamodb": {"NewImage": pattern}}


def test_no_filters_match_everything() -> None:
    filters = compile_filters([])
    assert filters.matches(record_of())
    assert len(filters) == 0
    assert not filters


@pytest.mark.parametrize("count", [2, 5, 6, 11, 300])
def test_filters_are_alternatives_and_there_may_be_more_than_five(count: int) -> None:
    """Lambda takes five, ten on request; here each of any number decides."""
    filters = compile_filters([{"dynamodb": {"NewImage": {"n": {"N": [str(n)]}}}} for n in range(count)])
    assert len(filters) == count
    for n in range(count):
        assert filters.matches(record_of({"n": {"N": str(n)}}))
    assert not filters.matches(record_of({"n": {"N": str(count)}}))


# What AWS was seen to do with DynamoDB records.
AWS_CASES = [
    ("or", {"eventName": ["INSERT", "MODIFY"]}, record_of(name="MODIFY"), True),
    ("or, other", {"eventName": ["INSERT", "MODIFY"]}, record_of(name="REMOVE"), False),
    ("multiple", {"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}, record_of(), True),
    ("multiple, other", {"eventName": ["MODIFY"], "eventSource": ["aws:dynamodb"]}, record_of(), False),
    ("type", {"dynamodb": {"NewImage": {"id": {"S": ["v"]}}}}, record_of({"id": {"S": "v"}}), True),
    ("type forgotten", {"dynamodb": {"NewImage": {"id": ["v"]}}}, record_of({"id": {"S": "v"}}), False),
    ("exists", new_image({"p": {"S": [{"exists": True}]}}), record_of({"p": {"S": "x"}}), True),
    ("exists, not", new_image({"p": {"S": [{"exists": True}]}}), record_of({"q": {"S": "x"}}), False),
    ("exists false, absent", new_image({"p": [{"exists": False}]}), record_of({"q": {"S": "x"}}), True),
    ("exists false, object", new_image({"p": [{"exists": False}]}), record_of({"p": {"S": "x"}}), True),
    ("numeric on N", new_image({"n": {"N": [{"numeric": [">", 100]}]}}), record_of({"n": {"N": "150"}}), False),
    (
        "numeric or anything-but on N",
        new_image({"n": {"N": [{"numeric": [">", 100]}, {"anything-but": "101"}]}}),
        record_of({"n": {"N": "100"}}),
        True,
    ),
    (
        "numeric or anything-but on N, excluded",
        new_image({"n": {"N": [{"numeric": [">", 100]}, {"anything-but": "101"}]}}),
        record_of({"n": {"N": "101"}}),
        False,
    ),
    ("prefix", new_image({"id": {"S": [{"prefix": "te"}]}}), record_of({"id": {"S": "test"}}), True),
    ("prefix, other", new_image({"id": {"S": [{"prefix": "te"}]}}), record_of({"id": {"S": "best"}}), False),
    ("time", {"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 0]}]}}, record_of(), True),
    ("size", {"dynamodb": {"SizeBytes": [{"numeric": [">", 10, "<=", 80]}]}}, record_of(), True),
    ("dots join", {"dynamodb.NewImage": {"a.b.S": ["v"]}}, record_of({"a.b": {"S": "v"}}), True),
    ("dots join a nested pattern", new_image({"a": {"b": {"S": ["v"]}}}), record_of({"a.b": {"S": "v"}}), True),
    ("dots join a nested event", new_image({"m.M.x.S": ["v"]}), record_of({"m": {"M": {"x": {"S": "v"}}}}), True),
]


@pytest.mark.parametrize(("pattern", "record", "expected"), [case[1:] for case in AWS_CASES], ids=lambda _: "")
def test_what_aws_does(pattern: dict[str, Any], record: Record, expected: bool) -> None:
    assert matches(pattern, record) is expected


def test_deletions_by_time_to_live() -> None:
    ttl = {"userIdentity": {"type": ["Service"], "principalId": ["dynamodb.amazonaws.com"]}, "eventName": ["REMOVE"]}
    identity = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    assert matches(ttl, record_of(name="REMOVE", identity=identity))
    assert not matches(ttl, record_of(name="REMOVE"))
    assert matches({"userIdentity": {"type": [{"exists": False}]}}, record_of(name="REMOVE"))


@pytest.mark.parametrize(
    ("alternatives", "value", "expected"),
    [
        (["paid", "open"], "open", True),
        (["paid"], "Paid", False),
        ([""], "", True),
        ([""], None, False),
        ([None], None, True),
        ([None], "null", False),
        ([True], True, True),
        ([True], 1, False),
        ([1], True, False),
        ([1], 1.0, True),
        ([300], 3.0e2, True),
        ([1], "1", False),
        ([{"exactly": "a"}], "a", True),
        ([{"prefix": "pa"}], "paid", True),
        ([{"prefix": ""}], "paid", True),
        ([{"prefix": "pa"}], 5, False),
        ([{"prefix": {"equals-ignore-case": "PA"}}], "paid", True),
        ([{"prefix": {"equals-ignore-case": "PA"}}], "apaid", False),
        ([{"suffix": "id"}], "paid", True),
        ([{"suffix": "pa"}], "paid", False),
        ([{"suffix": {"equals-ignore-case": "ID"}}], "paid", True),
        ([{"equals-ignore-case": "PAID"}], "paId", True),
        ([{"equals-ignore-case": "PAID"}], None, False),
        ([{"anything-but": "paid"}], "open", True),
        ([{"anything-but": "paid"}], "paid", False),
        ([{"anything-but": "paid"}], 7, True),
        ([{"anything-but": "paid"}], None, True),
        ([{"anything-but": ["paid", "open"]}], "open", False),
        ([{"anything-but": [1, 2]}], 2.0, False),
        ([{"anything-but": [1, 2]}], 3, True),
        ([{"anything-but": [1, 2]}], "2", True),
        ([{"anything-but": {"prefix": "pa"}}], "paid", False),
        ([{"anything-but": {"prefix": ["pa", "op"]}}], "open", False),
        ([{"anything-but": {"prefix": ["pa", "op"]}}], "late", True),
        ([{"anything-but": {"prefix": "pa"}}], 1, True),
        ([{"anything-but": {"suffix": "id"}}], "paid", False),
        ([{"anything-but": {"suffix": ["x", "id"]}}], "open", True),
        ([{"anything-but": {"equals-ignore-case": ["PAID", "OPEN"]}}], "Open", False),
        ([{"anything-but": {"equals-ignore-case": "PAID"}}], "open", True),
        ([{"anything-but": {"wildcard": "p*d"}}], "paid", False),
        ([{"anything-but": {"wildcard": ["p*d", "*n"]}}], "late", True),
        ([{"numeric": ["=", 3.018e2]}], 301.8, True),
        ([{"numeric": [">", 0, "<=", 5]}], 5, True),
        ([{"numeric": [">", 0, "<=", 5]}], 0, False),
        ([{"numeric": [">=", 0, "<", 5]}], 5, False),
        ([{"numeric": ["<", 10]}], -1, True),
        ([{"numeric": ["<", 10]}], "5", False),
        ([{"numeric": ["<", 10]}], True, False),
        ([{"exists": True}], None, True),
        ([{"exists": True}], "", True),
        ([{"exists": False}], "x", False),
        ([{"exists": False}, "x"], "x", True),
        ([{"exists": True}], [], False),
        ([{"exists": False}], [], True),
        ([{"cidr": "10.0.0.0/24"}], "10.0.0.255", True),
        ([{"cidr": "10.0.0.0/24"}], "10.0.1.0", False),
        ([{"cidr": "10.0.0.7/24"}], "10.0.0.1", True),
        ([{"cidr": "10.0.0.0/24"}], "::ffff:a00:1", False),
        ([{"cidr": "2001:db8::/32"}], "2001:DB8:0::1", True),
        ([{"cidr": "2001:db8::/32"}], "2001:db9::1", False),
        ([{"cidr": "10.0.0.0/24"}], "not an address", False),
        ([{"cidr": "10.0.0.0/8"}], 167772161, False),
        ([{"wildcard": "*"}], "", True),
        ([{"wildcard": "a*c"}], "abbbc", True),
        ([{"wildcard": "a*c"}], "ac", True),
        ([{"wildcard": "a*a"}], "a", False),
        ([{"wildcard": "a*b*b"}], "ab", False),
        ([{"wildcard": "*b*d*"}], "abcde", True),
        ([{"wildcard": "*d*b*"}], "abcde", False),
        ([{"wildcard": "abc"}], "abc", True),
        ([{"wildcard": "abc"}], "abcd", False),
        ([{"wildcard": r"a\*c"}], "a*c", True),
        ([{"wildcard": r"a\*c"}], "abc", False),
        ([{"wildcard": r"a\\*"}], "a\\b", True),
        ([{"wildcard": "a*"}], 1, False),
        (["b"], ["a", "b"], True),
        (["c"], ["a", "b"], False),
        ([{"anything-but": "a"}], ["a", "b"], True),
        ([{"anything-but": "a"}], ["a"], False),
        (["c"], [["a"], ["c"]], True),
        (["x"], {"deeper": "x"}, False),
    ],
)
def test_operators(alternatives: list[Any], value: Any, expected: bool) -> None:
    assert image(alternatives, value) is expected


@pytest.mark.parametrize(
    ("alternatives", "text", "expected"),
    [
        ([{"numeric": [">", 100]}], "100.00000000000000000000000000000000001", True),
        ([{"numeric": [">", 100]}], "100", False),
        ([{"numeric": ["=", 0.1]}], "0.1", True),
        ([{"numeric": ["=", 0.1]}], "0.10000000000000000001", False),
        ([{"numeric": ["=", 150]}], "1.5E+2", True),
        ([{"numeric": ["=", 1e125]}], "1" + "0" * 125, True),
        ([{"numeric": ["<", 1e125]}], "1" + "0" * 125, False),
        ([{"numeric": ["<", 0]}], "-1E-130", True),
        ([{"numeric": ["<", 9]}], "1_0", False),
        ([{"numeric": [">", 0]}], "Infinity", False),
        ([{"numeric": [">", 0]}], "NaN", False),
        ([{"numeric": [">", 0]}], "sNaN", False),
        ([{"numeric": [">", 0]}], "ten", False),
        (["10"], "10", True),
        ([10], "10", False),
    ],
)
def test_numeric_on_numbers_is_exact(alternatives: list[Any], text: str, expected: bool) -> None:
    pattern, record = new_image({"n": {"N": alternatives}}), record_of({"n": {"N": text}})
    assert matches(pattern, record, numeric_on_numbers=True) is expected
    if expected and alternatives != ["10"]:
        assert not matches(pattern, record)


def test_numeric_on_numbers_reads_number_sets_but_no_other_text() -> None:
    above = [{"numeric": [">", 10]}]
    record = record_of({"ns": {"NS": ["1", "20"]}, "s": {"S": "20"}, "m": {"M": {"N": {"S": "20"}}}})
    assert matches(new_image({"ns": {"NS": above}}), record, numeric_on_numbers=True)
    assert not matches(new_image({"s": {"S": above}}), record, numeric_on_numbers=True)
    assert not matches(new_image({"m": {"M": {"N": {"S": above}}}}), record, numeric_on_numbers=True)
    assert matches({"dynamodb": {"SizeBytes": above}}, record, numeric_on_numbers=True)


EMPLOYEES = record_of(
    {
        "e": {
            "L": [
                {"M": {"first": {"S": "Anna"}, "last": {"S": "Smith"}}},
                {"M": {"first": {"S": "Peter"}, "last": {"S": "Jones"}, "left": {"BOOL": True}}},
            ]
        },
        "tags": {"SS": ["x", "y"]},
    }
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"first": {"S": ["Anna"]}, "last": {"S": ["Smith"]}}, True),
        ({"first": {"S": ["Anna"]}, "last": {"S": ["Jones"]}}, False),
        ({"first": {"S": ["Anna", "Peter"]}, "last": {"S": ["Jones"]}}, True),
        ({"first": {"S": ["Anna"]}, "left": {"BOOL": [{"exists": False}]}}, False),  # absence is of the whole event
        ({"first": {"S": ["Anna"]}, "title": {"S": [{"exists": False}]}}, True),
    ],
)
def test_fields_match_within_one_element_only(pattern: dict[str, Any], expected: bool) -> None:
    assert matches(new_image({"e": {"L": {"M": pattern}}}), EMPLOYEES) is expected


def test_elements_are_kept_together_across_or_and_nested_arrays() -> None:
    either = {"$or": [{"e.L.M.last.S": ["Jones"]}, {"tags.SS": ["z"]}], "e": {"L": {"M": {"first": {"S": ["Anna"]}}}}}
    assert not matches(new_image(either), EMPLOYEES)
    either["$or"] = [{"e.L.M.last.S": ["Jones"]}, {"tags.SS": ["y"]}]
    assert matches(new_image(either), EMPLOYEES)
    nested = record_of({"l": [[{"a": 1, "b": 2}], [{"a": 3, "b": 4}, {"a": 5, "b": 6}]]})
    assert matches(new_image({"l": {"a": [5], "b": [6]}}), nested)
    assert not matches(new_image({"l": {"a": [3], "b": [6]}}), nested)


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [("INSERT", "late", True), ("MODIFY", "paid", True), ("MODIFY", "late", False), ("REMOVE", "paid", False)],
)
def test_or(name: str, status: str, expected: bool) -> None:
    pattern = {
        "eventSource": ["aws:dynamodb"],
        "$or": [
            {"eventName": ["INSERT"]},
            {"eventName": ["MODIFY"], "dynamodb": {"$or": [{"NewImage": {"s": {"S": ["paid"]}}}, {"SizeBytes": [1]}]}},
        ],
    }
    assert matches(pattern, record_of({"s": {"S": status}}, name=name)) is expected


@pytest.mark.parametrize("value", [["x"], [{"prefix": "x"}], [{"prefix": "x"}, {"suffix": "x"}], {"S": ["x"]}])
def test_or_is_an_ordinary_field_otherwise(value: Any) -> None:
    event = {"$or": {"S": "x"}} if isinstance(value, dict) else {"$or": "x"}
    assert matches(new_image({"$or": value}), record_of(event))
    assert not matches(new_image({"$or": value}), record_of({"a": {"S": "x"}}))


def test_an_attribute_may_have_an_operators_name() -> None:
    assert matches(new_image({"prefix": {"S": ["x"]}}), record_of({"prefix": {"S": "x"}}))


# What is looked at, and what happens when it cannot be.


def garbled(name: str = "INSERT", keys: Raw | None = None) -> Record:
    record = record_of(name=name)
    record.dynamodb.NewImage = record.dynamodb.OldImage = GARBAGE
    record.dynamodb.Keys = keys or record.dynamodb.Keys
    return record


PAID = new_image({"status": {"S": ["paid"]}})


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([{"dynamodb": {"Keys": {"id": {"S": ["id_value"]}}}}], True),
        ([{"dynamodb": {"Keys": {"id": {"S": ["other"]}}}}], False),
        ([{"eventName": ["MODIFY"]}], False),
        ([{"dynamodb": {"StreamViewType": ["NEW_IMAGE"]}}], False),
        ([{"eventName": ["MODIFY"], **PAID}], False),  # decided before the image
        ([{"dynamodb": {"Keys": {"id": {"S": ["other"]}}, **PAID["dynamodb"]}}], False),
        ([PAID], True),  # undecidable: the handler has to see it
        ([{"eventName": ["MODIFY"]}, PAID], True),
        ([{"$or": [{"eventName": ["INSERT"]}, PAID]}], True),
        ([{"$or": [{"eventName": ["MODIFY"]}, {"eventID": ["no"]}], **PAID}], False),
    ],
)
def test_images_are_decoded_only_when_the_outcome_depends_on_them(patterns: list[Any], expected: bool) -> None:
    filters, record = compile_filters(patterns), garbled()
    assert filters.matches(record) is expected
    assert filters.explain(record).matched is expected
    assert record.cached is None


@pytest.mark.parametrize("bad", [b"{", b"[]", b'"x"', b"\xff", b'{"a":"\xff"}', b"[" * 5000, b'{"a":' * 5000])
def test_what_does_not_decode_matches(bad: bytes) -> None:
    record = garbled(keys=Raw(bad))
    filters = compile_filters([{"dynamodb": {"Keys": {"id": {"S": ["other"]}}}}])
    assert filters.matches(record)
    assert filters.explain(record).matched
    assert "dynamodb.Keys" in filters.explain(record).reason


def test_an_absent_or_null_image_has_no_fields() -> None:
    for raw in (Raw(b""), Raw(b"null")):
        record = record_of()
        record.dynamodb.NewImage = raw
        assert not matches(PAID, record)
        assert matches(new_image({"status": {"S": [{"exists": False}]}}), record)


def test_hostile_wildcards_and_arrays_take_no_time() -> None:
    started = time.perf_counter()
    assert not image([{"wildcard": "*a" * 200 + "*b"}], "a" * 100_000)
    elements = [{"x": number, "y": number + 1} for number in range(20_000)]
    record = record_of({"l": elements, "m": elements, "n": elements})
    three = {name: {"x": [{"exists": True}], "y": [{"anything-but": 0}], "z": [1]} for name in ("l", "m", "n")}
    assert not matches(new_image(three), record)
    assert time.perf_counter() - started < 5


def test_explain_says_what_decided() -> None:
    filters = compile_filters([{"eventName": ["INSERT"], **PAID}, {"eventName": ["REMOVE"]}])
    no = filters.explain(record_of({"status": {"S": "late"}}))
    assert not no.matched
    assert no.reason == "filters[0].dynamodb.NewImage.status.S: found 'late'; filters[1].eventName: found 'INSERT'"
    clause = no.filters[0].clauses[1]
    assert (clause.field, clause.wanted, clause.found) == ("dynamodb.NewImage.status.S", ("paid",), ("late",))
    yes = filters.explain(record_of(name="REMOVE"))
    assert yes.matched
    assert yes.reason == "filters[1] matches"
    assert compile_filters([]).explain(record_of()).reason == "there are no filters"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (new_image({"s": ["x"]}), "the field is an object, only its leaves match; the type tag is missing, write {S: "),
        (new_image({"t": {"S": ["x"]}}), "the event has no such field"),
        ({"dynamodb": {"OldImage": {"t": {"S": ["x"]}}}}, "the event has no dynamodb.OldImage"),
        ({"dynamodb": {"NewImag": {"t": {"S": ["x"]}}}}, "a DynamoDB event has no field dynamodb.NewImag"),
        ({"eventname": ["INSERT"]}, "a DynamoDB event has no field eventname"),
        ({"userIdentity": {"type": ["Service"]}}, "the event has no such field"),
    ],
)
def test_explain_names_the_usual_mistakes(pattern: dict[str, Any], reason: str) -> None:
    assert reason in compile_filters([pattern]).explain(record_of({"s": {"S": "x"}})).reason


def test_explain_names_the_option_that_compares_numbers() -> None:
    """Nothing in the event shows why ``numeric`` does not hold for 150; the option is off, as in Lambda."""
    record = record_of({"n": {"N": "150"}, "ns": {"NS": ["150"]}, "s": {"S": "150"}})
    above, below = [{"numeric": [">", 100]}], [{"numeric": ["<", 100]}]
    hint = "found '150'; numeric compares N and NS, which are text, only with filter_options.numeric_on_n: true"
    for name, tag in (("n", "N"), ("ns", "NS")):
        assert hint in compile_filters([new_image({name: {tag: above}})]).explain(record).reason
        asked = compile_filters([new_image({name: {tag: below}})], numeric_on_numbers=True).explain(record)
        assert asked.reason.endswith("found '150'")
    for pattern in (new_image({"s": {"S": above}}), new_image({"n": {"N": ["151"]}})):
        assert "numeric_on_n" not in compile_filters([pattern]).explain(record).reason
    either = compile_filters([new_image({"n": {"N": [*above, "150"]}})]).explain(record)
    assert either.matched
    assert either.filters[0].clauses[0].note == ""


@pytest.mark.parametrize(
    ("pattern", "decided"),
    [
        # one alternative holds, so the other one decides nothing
        ({"$or": [{"eventName": ["MODIFY"]}, {"eventName": ["INSERT"]}], **PAID}, ["dynamodb.NewImage.status.S"]),
        ({"$or": [{"eventName": ["MODIFY"]}, PAID]}, ["eventName", "dynamodb.NewImage.status.S"]),
        (
            {"$or": [{"eventName": ["INSERT"], **PAID}, {"eventName": ["REMOVE"]}]},
            ["dynamodb.NewImage.status.S", "eventName"],
        ),
        # whatever the alternatives say
        ({"$or": [{"eventID": ["x"]}, {"eventName": ["REMOVE"]}], "awsRegion": ["mars"]}, ["awsRegion"]),
        (
            {"$or": [{"$or": [{"eventName": ["MODIFY"]}, {"eventName": ["INSERT"]}], "eventID": ["x"]}, PAID]},
            ["eventID", "dynamodb.NewImage.status.S"],
        ),
    ],
)
def test_explain_names_the_clauses_that_decided_and_no_other(pattern: dict[str, Any], decided: list[str]) -> None:
    (result,) = compile_filters([pattern]).explain(record_of({"status": {"S": "late"}})).filters
    assert not result.matched
    assert [clause.field for clause in result.decided] == decided
    assert all(clause.place in result.reason for clause in result.decided)
    assert result.reason.count("filters[0]") == len(decided)


def test_explain_tells_of_different_elements() -> None:
    pattern = new_image({"e": {"L": {"M": {"first": {"S": ["Anna"]}, "last": {"S": ["Jones"]}}}}})
    explanation = compile_filters([pattern]).explain(EMPLOYEES)
    assert not explanation.matched
    assert "different elements" in explanation.reason
    assert explanation.filters[0].clauses[0].found == ("Anna", "Peter")
