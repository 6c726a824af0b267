"""Attributes that never leave: which a path names, and that every other byte of a record stays."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.dead_letter import (
    Letter,
    compressed_document,
    payload_parts,
    pointing_documents,
    split_payload,
)
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.kinesis_records import Data, KinesisRecord, through_kinesis
from consumer.domain.letter_reading import read_letter
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.domain.record import UNREADABLE, Change, Record
from consumer.domain.redaction import REDACTED, Redaction, is_redacted, path_problem
from tests.unit.domain.test_dead_letter import CONTEXT, NOW, give_up

KEYS = b'{"pk":{"S":"a"}}'
MARKED = json.loads(REDACTED)


def change(new: object = None, old: object = None, *, keys: bytes = KEYS) -> Record:
    """A record with images that are attribute values as Python has them, or JSON as it came."""
    images = [b"" if one is None else one if isinstance(one, bytes) else json.dumps(one).encode() for one in (new, old)]
    return Record(Change("7", Keys=Raw(keys), NewImage=Raw(images[0]), OldImage=Raw(images[1])))


def image_without(paths: Sequence[str], image: object) -> tuple[Any, tuple[str, ...]]:
    """The image that a letter has, and the paths that it names."""
    kept = Redaction(paths).records([change(image)])
    (record,) = kept.records
    assert isinstance(record, Record)
    text = bytes(record.dynamodb.NewImage)
    return json.loads(text) if text else None, kept.paths


PERSON = {
    "pk": {"S": "a"},
    "ssn": {"S": "123-45-6789"},
    "address": {"M": {"street": {"S": "Elm"}, "email": {"S": "a@b.c"}, "city": {"M": {"street": {"S": "no"}}}}},
    "others": {
        "L": [{"M": {"email": {"S": "x"}, "age": {"N": "3"}}}, {"L": [{"M": {"email": {"S": "y"}}}]}, {"N": "1"}]
    },
    "a.b": {"M": {"c": {"S": "dotted"}}},
    "tags": {"SS": ["one", "two"]},
}
"""What every case below looks at."""


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        ("ssn", ["ssn"]),
        ("address.street", ["address/M/street"]),
        ("address", ["address"]),
        ("*.email", ["address/M/email", "others/L/0/M/email", "others/L/1/L/0/M/email"]),
        ("others.email", ["others/L/0/M/email", "others/L/1/L/0/M/email"]),
        ("*.*.street", ["address/M/city/M/street"]),
        ("a.b", ["a.b"]),
        ("a.b.c", ["a.b/M/c"]),
        ("*.c", ["a.b/M/c"]),
        ("tags", ["tags"]),
        ("*", ["ssn", "address", "others", "a.b", "tags"]),
        ("SSN", []),
        ("email", []),
        ("ssn.street", []),
        ("tags.one", []),
        ("pk", []),
    ],
)
def test_what_a_path_names(path: str, gone: list[str]) -> None:
    """A whole attribute value is replaced by a text that says so; keys stay."""
    expected = json.loads(json.dumps(PERSON))
    for place in gone:
        *steps, last = place.split("/")
        inside = expected
        for step in steps:
            inside = inside[int(step)] if step.isdecimal() else inside[step]
        inside[last] = MARKED
    assert image_without([path], PERSON) == (expected, (path,) if gone else ())


def test_the_paths_that_a_letter_names_are_those_that_took_something() -> None:
    """In the order of the configuration; of a path below another one the shorter."""
    paths = ["nothing", "address.street", "others.email", "ssn", "address"]
    assert image_without(paths, PERSON)[1] == ("others.email", "ssn", "address")


def test_every_other_byte_stays_as_it_came() -> None:
    """Blanks, escapes, the order of members, numbers that no float holds."""
    image = b'{ "z" : {"N":"1E+125"},\n "\\u0073sn":{"S": "secret \\" }"} ,"caf\\u00e9\xc3\xa9":{"S":"\\ud83d"}}'
    kept = Redaction(["ssn"]).records([change(image)])
    assert bytes(kept.records[0].dynamodb.NewImage) == (  # type: ignore[attr-defined] # a change, as given
        b'{ "z" : {"N":"1E+125"},\n "\\u0073sn":' + REDACTED + b' ,"caf\\u00e9\xc3\xa9":{"S":"\\ud83d"}}'
    )
    assert kept.paths == ("ssn",)


def test_both_images_and_records_that_came_through_kinesis() -> None:
    record = through_kinesis(change(PERSON, PERSON))
    (copy,) = Redaction(["ssn"]).records([record]).records
    assert type(copy) is type(record)
    assert b"6789" not in bytes(copy.dynamodb.NewImage) + bytes(copy.dynamodb.OldImage)
    assert b"6789" in bytes(record.dynamodb.NewImage), "the record itself is what the handler gets again"


def test_a_record_without_the_attribute_is_not_copied() -> None:
    record, data = change({"pk": {"S": "a"}}), KinesisRecord(Data("7", b'{"ssn":"x"}'))
    kept = Redaction(["ssn"]).records([record, data])
    assert kept.records[0] is record
    assert kept.records[1] is data
    assert kept.paths == ()


@pytest.mark.parametrize(
    "image",
    [
        b'{"ssn":{"S":"secret"}', b"[1]", b'"secret"', b'{"address":"secret"}', b'{"address":{"S":1,"M":{}}}',
        b'{"address":{"M":[]}}', b'{"address":{"L":{}}}', b'{"address":{"X":{"street":"secret"}}}', b"\xff",
        b'{"ssn":{"S":"1"},"ssn":{"S":"secret"}}', b'{"address":' + b'{"L":[' * 2000 + b"]}" * 2000 + b"}",
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_read_is_left_out(image: bytes) -> None:
    """Rather than shown with what nobody could find; and the letter says that everything may be missing."""
    paths = ["ssn", "address.street"]
    redaction, record = Redaction(paths), change(image)
    assert bytes(redaction.records([record]).records[0].dynamodb.NewImage) == b""  # type: ignore[attr-defined] # a change
    assert redaction.records([record]).paths == tuple(paths)
    assert redaction.hidden_values([record]).hide("may hold it") == "[redacted]"


def test_deep_values_beside_the_path_and_in_it() -> None:
    deep = b'{"M":{"a":' * 2000 + b'{"S":"x"}' + b"}}" * 2000
    image = b'{"pk":{"S":"a"},"deep":' + deep + b',"ssn":' + deep + b"}"
    (record,) = Redaction(["ssn"]).records([change(image)]).records
    assert bytes(record.dynamodb.NewImage) == b'{"pk":{"S":"a"},"deep":' + deep + b',"ssn":' + REDACTED + b"}"  # type: ignore[attr-defined] # a change


def test_five_megabytes() -> None:
    big = b'"' + b"\\u0001" * 800_000 + b'"'
    image = b'{"ssn":{"S":"secret text"},"big":{"S":' + big + b"}}"
    letter = letter_of([change(image, image)], ["ssn"])
    document = letter.document()
    assert b"secret" not in document
    (event,) = json.loads(document)["payload"]["Records"]
    assert event["dynamodb"]["NewImage"] == {"ssn": MARKED, "big": {"S": "\x01" * 800_000}}
    assert b"secret" not in gzip.decompress(base64.b64decode(json.loads(compressed_document(document))["payload"]))


def test_unreadable_images_of_odd_records_stay_what_they_are() -> None:
    """Nothing of the original is in them."""
    (record,) = Redaction(["ssn"]).records([change(bytes(UNREADABLE))]).records
    assert bytes(record.dynamodb.NewImage) == bytes(UNREADABLE)  # type: ignore[attr-defined] # a change


# --- the document ------------------------------------------------------------------------------------------


def letter_of(records: list[Record], paths: Sequence[str], fault: HandlerFault | None = None) -> Letter:
    step = give_up("RetryAttemptsExhausted", fault, of=records)
    return Letter(CONTEXT, step, NOW, redaction=Redaction(paths))


def test_a_redacted_letter_says_so_and_is_otherwise_the_same_letter() -> None:
    letter = letter_of([change(PERSON)], ["*.email", "nothing", "ssn"])
    plain = replace(letter, redaction=None)
    found, whole = json.loads(letter.document()), json.loads(plain.document())
    assert (found.pop("redacted"), found.pop("redactedAttributes")) == (True, ["*.email", "ssn"])
    assert list(found)[-1] == "payload"
    found.pop("payload")
    assert whole.pop("payload")
    assert found == whole, "the key of the letter, its digest and everything else do not change"
    assert letter.attributes == plain.attributes
    assert is_redacted(json.loads(letter.document()))
    assert read_letter(letter.document(), letter.attributes).redacted


def test_a_letter_of_which_nothing_was_taken_is_a_plain_one() -> None:
    letter = letter_of([change({"pk": {"S": "a"}})], ["ssn"])
    assert letter.document() == replace(letter, redaction=None).document()
    assert not is_redacted(json.loads(letter.document()))
    assert not read_letter(letter.document(), letter.attributes).redacted


def test_each_half_says_what_it_lacks() -> None:
    halves = letter_of([change(PERSON), change({"pk": {"S": "a"}})], ["ssn"]).halves()
    assert [is_redacted(json.loads(half.document())) for half in halves] == [True, False]


NAMES = st.sampled_from(["a", "b", "ssn", "é", ""])
SECRETS = st.integers(0, 2**64).map(lambda seed: f"q{random.Random(seed).randbytes(8).hex()}z")  # found by chance never
TEXTS = SECRETS.map(lambda secret: {"S": f"{secret} \"'\\\n<é"}) | SECRETS.map(lambda secret: {"S": secret})
LEAVES = (
    TEXTS
    | st.integers(10**11, 10**20).map(lambda number: {"N": str(number)})
    | SECRETS.map(lambda secret: {"B": base64.b64encode(secret.encode()).decode()})
    | st.lists(SECRETS, min_size=1, max_size=3).map(lambda secrets: {"SS": secrets})
    | st.booleans().map(lambda value: {"BOOL": value})
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: {"L": values})
        | st.dictionaries(NAMES, inner, max_size=3).map(lambda values: {"M": values})
    ),
    max_leaves=8,
)
PATHS = st.lists(st.lists(st.sampled_from(["a", "b", "ssn", "*"]), min_size=1, max_size=3).map(".".join), min_size=1)


def texts_below(value: Any, without: Sequence[Any] = ()) -> set[str]:
    """Every text and number in an attribute value or image, as it is written there, but for what is ``without``."""
    if any(value is one for one in without):
        return set()
    if isinstance(value, dict):
        return {text for name, inner in value.items() if name != "BOOL" for text in texts_below(inner, without)}
    if isinstance(value, list):
        return {text for inner in value for text in texts_below(inner, without)}
    return {str(value)}


def named(steps: Sequence[str], image: dict[str, Any]) -> list[Any]:
    """The attribute values that a path names, by the rules as the documentation has them (no name has a dot)."""
    found = [inner for name, inner in image.items() if steps[0] in ("*", name)]
    if len(steps) == 1:
        return found
    return [one for inner in found for map_ in maps_in(inner) for one in named(steps[1:], map_)]


def maps_in(value: dict[str, Any]) -> list[dict[str, Any]]:
    if "L" in value:
        return [found for inner in value["L"] for found in maps_in(inner)]
    return [value["M"]] if "M" in value else []


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4), PATHS, st.booleans())
def test_no_text_of_a_named_attribute_is_in_any_form_of_the_letter(
    new: dict[str, Any], old: dict[str, Any], paths: list[str], ascii_only: bool
) -> None:
    """Random items and paths: plain, compressed, halved, pointing, in parts, and in what the handler said."""
    images = [json.dumps(image, ensure_ascii=ascii_only).encode() for image in (new, old)]
    record = change(*images, keys=b'{"key of the item":{"S":"k"}}')
    taken = [one for path in paths for image in (new, old) for one in named(path.split("."), image)]
    kept = texts_below(new, taken) | texts_below(old, taken)
    stays = "\n".join(kept)  # the same value in another attribute is none of its business
    secrets = sorted(text for text in {text for one in taken for text in texts_below(one)} if text not in stays)
    redaction = Redaction(paths)
    call = HandlerCall([record], "id", 1, "app", "shard", 1, 1.0, hidden=redaction.hidden_values([record]))
    said = [*secrets, *map(repr, secrets), *map(json.dumps, secrets), repr(new), json.dumps(old)]
    fault = HandlerFault("raised", " ".join(said[:1]) or "E", " ".join(said), tuple(said))
    shown = call.redacted(Outcome("failed", fault=fault)).fault
    letter = Letter(CONTEXT, give_up(of=[record, record], fault=shown), NOW, redaction=redaction)
    for one in (letter, *letter.halves()):
        plain = one.document()
        packed = gzip.decompress(base64.b64decode(json.loads(compressed_document(plain))["payload"]))
        parts = b"".join(part.payload for part in payload_parts(one.key, split_payload(plain)[1]))
        for form in (plain, packed, parts, *pointing_documents(plain, "s3://b/k")):
            text = form.decode()
            assert [s for s in secrets if s in text or json.dumps(s)[1:-1] in text or escaped(s) in text] == []
        (event, *_) = json.loads(plain)["payload"]["Records"]
        there = {t for name in ("NewImage", "OldImage") for t in texts_below(event["dynamodb"].get(name, {}))}
        assert kept <= there
        assert is_redacted(json.loads(plain)) == bool(taken)


def escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


# --- paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ssn", "address.street", "*.email", "*", "a-b_c.d e", "größe"])
def test_paths_that_are_some(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", " a", "a*", "**", "a.*b", "list[0]", "list[*].ssn"])
def test_paths_that_are_none(path: str) -> None:
    assert path_problem(path) is not None


def test_a_name_of_the_key_is_refused_with_what_to_do() -> None:
    with pytest.raises(MisconfiguredResource, match=r"names pk, of the key of orders: .*\(take it off the list\)"):
        Redaction(["ssn", "pk"]).require_no_keys(["pk", "sk"], "orders")
    Redaction(["ssn", "*", "address.pk"]).require_no_keys(["pk", "sk"], "orders")
    Redaction(["ssn"]).require_no_keys([], "orders")


def test_faults_of_other_calls_stay_as_they_are() -> None:
    call = HandlerCall([change(PERSON)], "id", 1, "app", "shard", 1, 1.0)
    outcome = Outcome("failed", fault=HandlerFault("raised", "E", "123-45-6789"))
    assert call.redacted(outcome) is outcome
    assert call.shown("123-45-6789") == "123-45-6789"
