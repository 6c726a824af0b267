"""Letters read again: whatever form they were sent in, the records come back as the handler got them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.dead_letter import (
    Letter,
    Parked,
    compressed_document,
    lambda_document,
    pointing_documents,
    split_payload,
)
from consumer.domain.deferred import digest_of
from consumer.domain.events import batch_event_json
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_records import Data, KinesisChange, KinesisRecord
from consumer.domain.letter_reading import ReadLetter, read_letter
from consumer.domain.record import Change, Record
from consumer.domain.settlement import GiveUp
from consumer.domain.windows import TimeWindow, WindowCall
from tests.unit.domain.support import ARN, record, records
from tests.unit.domain.test_dead_letter import CONTEXT, NOW, RAISED, give_up

LOCATION = "s3://bucket/key.payload.json"


def full(letter: Letter) -> ReadLetter:
    return read_letter(letter.document(), {})


def compressed(letter: Letter) -> ReadLetter:
    return read_letter(compressed_document(letter.document()), {})


def pointing(letter: Letter) -> ReadLetter:
    (document, *_), (_, payload) = pointing_documents(letter.document(), LOCATION), split_payload(letter.document())
    found = read_letter(document, {})
    assert (found.location, found.payload) == (LOCATION, b"")
    return found.with_payload(payload)


def lambda_object(letter: Letter) -> ReadLetter:
    return read_letter(lambda_document(letter.document(), "f", with_payload=True), letter.attributes)


def lambda_message(letter: Letter) -> ReadLetter:
    document = lambda_document(letter.document(), "f", with_payload=False)
    found = read_letter(document, letter.attributes | {"payload_location": LOCATION})
    assert (found.location, found.payload) == (LOCATION, b"")
    return found.with_payload(split_payload(letter.document())[1])


def over_a_topic(letter: Letter) -> ReadLetter:
    attributes = {name: {"Type": "String", "Value": value} for name, value in letter.attributes.items()}
    text = {"Type": "Notification", "Message": letter.document().decode(), "MessageAttributes": attributes}
    return read_letter(json.dumps(text).encode(), {})


def formatted_by_hand(letter: Letter) -> ReadLetter:
    return read_letter(json.dumps(json.loads(letter.document()), indent=2).encode(), {})


FORMS: dict[str, Callable[[Letter], ReadLetter]] = {
    "full": full,
    "compressed": compressed,
    "pointing": pointing,
    "lambda in S3": lambda_object,
    "lambda in SQS": lambda_message,
    "over a topic": over_a_topic,
    "formatted by hand": formatted_by_hand,
}
any_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def as_letter(image: bytes, number: str = "2900002759746085485437") -> Letter:
    change = Change(number, 1789651658.0, Raw(b'{"pk":{"S":"a"}}'), Raw(image), SizeBytes=7, StreamViewType="NEW_IMAGE")
    return Letter(CONTEXT, give_up(of=[Record(change, "e" * 32, "MODIFY", event_source_arn=ARN)]), NOW)


@any_form
def test_every_form_says_where_its_records_are_from(form: Callable[[Letter], ReadLetter]) -> None:
    letter = replace(Letter(CONTEXT, give_up(of=[record(7)]), NOW), parked=Parked("park", 12))
    found = form(letter)
    assert (found.application, found.stream_arn, found.shard_id) == ("app", ARN, CONTEXT.shard_id)
    assert (found.key, found.condition, found.error_type) == (letter.key, "RetryAttemptsExhausted", "ValueError")
    assert (found.given_up_at, found.first_number, found.count) == (NOW, "7", 1)
    assert (found.key_digest, found.parked) == (digest_of(b'{"S":"a"}'), Parked("park", 12))
    assert (found.handler, found.stream_label) == ("module:handler", "2026-09-17T13:26:53.746")
    assert [one.sequence_number for one in found.records()] == ["7"]
    assert found.is_about("ValueError")
    assert found.is_about("RetryAttemptsExhausted")
    assert not found.is_about("KeyError")


IMAGE = {
    "number": {"N": "12345678901234567890123456789012345678"},
    "small": {"N": "1E-130"},
    "binary": {"B": "AAECAw=="},
    "set": {"BS": ["AA==", "//8="]},
    "text": {"S": 'é漢\U0001f600 ","payload":{"Records":[]} \u0000 \\ud800'},
    "nothing": {"NULL": True},
}


@any_form
def test_an_image_comes_back_as_the_handler_got_it(form: Callable[[Letter], ReadLetter]) -> None:
    letter = as_letter(json.dumps(IMAGE).encode())
    (found,) = form(letter).records()
    assert found.as_event() == letter.step.records[0].as_event()
    assert json.loads(bytes(found.dynamodb.NewImage)) == IMAGE  # type: ignore[attr-defined]  # it is a change


@pytest.mark.parametrize(
    "form",
    [
        full,
        pointing,
        *(pytest.param(form, marks=pytest.mark.soak) for form in (compressed, lambda_object, lambda_message)),
    ],
    ids=lambda form: form.__name__,
)
def test_its_bytes_are_the_same_bytes(form: Callable[[Letter], ReadLetter]) -> None:
    """5 MB in one item: what goes to the handler again is what went to it before, byte for byte."""
    text = json.dumps({"text": {"S": "漢字\u001f" * 420_000}}, ensure_ascii=False, separators=(",", ":")).encode()
    letter = as_letter(text)
    found = form(letter)
    assert found.payload == split_payload(letter.document())[1]
    assert batch_event_json(found.records()) == found.payload
    assert len(found.payload) > 5_000_000


def test_what_no_parser_reads_comes_back_as_well() -> None:
    """2,000 nested levels: an emulator takes them, and a letter must not get lost for what is in it."""
    deep = b'{"a":' + b'{"M":{"a":' * 2000 + b'{"S":"x"}' + b"}}" * 2000 + b"}"
    (found,) = full(as_letter(deep)).records()
    assert bytes(found.dynamodb.NewImage) == deep  # type: ignore[attr-defined]  # it is a change


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_text_comes_back(text: str) -> None:
    letter = as_letter(json.dumps({"a": {"S": text}}).encode())
    for form in (full, compressed, lambda_object):
        (found,) = form(letter).records()
        assert found.as_event()["dynamodb"]["NewImage"] == {"a": {"S": text}}


def test_parts_are_letters_of_their_own() -> None:
    whole = Letter(CONTEXT, give_up(of=records(*"1234")), NOW)
    left, right = (full(half) for half in whole.halves())
    assert [one.sequence_number for part in (left, right) for one in part.records()] == list("1234")
    assert len({left.key, right.key, whole.key}) == 3


def test_keys_are_named_by_their_digest_also_where_the_letter_does_not_say_it() -> None:
    step = give_up(of=[record(1), record(2, keys=b'{"pk":{"S":"b"}}')])
    found = full(Letter(CONTEXT, step, NOW))
    assert found.key_digest is None
    assert found.key_digests(CONTEXT.source.key_of) == {digest_of(b'{"S":"a"}'), digest_of(b'{"S":"b"}')}
    of_one = full(Letter(CONTEXT, give_up(), NOW))
    assert of_one.key_digests(CONTEXT.source.key_of) == {digest_of(b'{"S":"a"}')}


def test_a_window_is_noticed() -> None:
    window = WindowCall(TimeWindow(0, 60), state=b'{"sum":1}')
    assert full(Letter(CONTEXT, give_up(), NOW, window)).in_window
    assert not full(Letter(CONTEXT, give_up(), NOW)).in_window
    last = full(Letter(CONTEXT, GiveUp([], "RetryAttemptsExhausted", 2, RAISED, invoked=True), NOW, window))
    with pytest.raises(ValueError, match="no record"):
        last.records()


def test_records_of_kinesis_are_such_again() -> None:
    context = replace(CONTEXT, source=KINESIS_FORMAT, stream_arn="arn:aws:kinesis:us-east-1:1:stream/s")
    change = KinesisChange(Change("495", 1.0005, Raw(b'{"pk":{"S":"a"}}')), "e", "INSERT", table_name="orders")
    other = KinesisRecord(Data("496:2", b"\x00\xff", "p", 1.5), "shard:496:2")
    found = full(Letter(context, GiveUp([change, other], "RetryAttemptsExhausted", 2, RAISED, invoked=True), NOW))
    first, second = found.records()
    assert isinstance(first, KinesisChange)
    assert [KINESIS_FORMAT.key_of(one) for one in (first, second)] == [
        KINESIS_FORMAT.key_of(one) for one in (change, other)
    ]
    assert [one.number for one in (first, second)] == [one.number for one in (change, other)]
    assert second.as_event() == other.as_event()


BODY: dict[str, Any] = {"DDBStreamBatchInfo": {"startSequenceNumber": "5"}}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"no json", "is no JSON"),
        (b"[1]", "is list, not an object"),
        (b"{}", "neither DDBStreamBatchInfo nor KinesisBatchInfo"),
        (b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (json.dumps(BODY).encode(), "in the stream from 5 on"),
        (json.dumps(BODY | {"payload": "x", "payloadEncoding": "zip"}).encode(), "does not know"),
        (json.dumps(BODY | {"payload": "x", "payloadEncoding": "gzip+base64"}).encode(), r"is no gzip\+base64"),
        (json.dumps(BODY | {"payload": {}, "deadLetter": {"parkId": "p"}}).encode(), "without its place"),
    ],
)
def test_what_is_no_letter_says_why(document: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_letter(document, {})


def test_a_payload_that_is_no_event_is_said_when_it_is_read() -> None:
    found = read_letter(json.dumps(BODY | {"payload": {"Records": 5}}).encode(), {})
    with pytest.raises(ValueError, match="not an event"):
        found.records()


def test_a_letter_of_which_attributes_were_removed_is_known() -> None:
    marked = json.loads(Letter(CONTEXT, give_up(), NOW).document()) | {"redacted": True}
    assert read_letter(json.dumps(marked).encode(), {}).redacted
