"""What a letter says of itself without being opened: its key's digest, its place, its handler; never the key."""

from __future__ import annotations

import json
from dataclasses import replace

from msgspec import Raw

from consumer.domain.dead_letter import Letter, Parked, lambda_document, letter_fields, pointing_documents
from consumer.domain.deferred import digest_of
from consumer.domain.outcome import HandlerFault
from consumer.domain.settlement import GiveUp
from consumer.domain.windows import TimeWindow, WindowCall
from tests.unit.domain.support import record
from tests.unit.domain.test_dead_letter import CONTEXT, NOW, RAISED, give_up

PARKED = Parked("5c0e5b6a-park", 7)
OF_A = digest_of(b'{"S":"a"}')


def test_a_message_has_its_ten_attributes_at_most() -> None:
    letter = Letter(CONTEXT, give_up(of=[record("2900002759746085485437")]), NOW, parked=PARKED)
    assert letter.attributes == {
        "application": "app",
        "shard_id": "shardId-00000001789651619772-2a9e5aad",
        "condition": "RetryAttemptsExhausted",
        "idempotency_key": letter.key,
        "error_type": "ValueError",
        "key_digest": OF_A,
        "sequence_number": "2900002759746085485437",
        "handler": "module:handler",
        "park_id": "5c0e5b6a-park",
        "ordinal": "7",
    }


def test_a_letter_that_is_not_parked_has_no_place_among_parked_ones() -> None:
    letter = Letter(CONTEXT, give_up(), NOW)
    assert letter.attributes.keys().isdisjoint({"park_id", "ordinal"})
    assert letter_fields(letter.document()).keys() == {"keyDigest", "sequenceNumber", "handler", "streamLabel"}


def test_records_of_several_keys_have_no_digest() -> None:
    """One of them would lie about the others."""
    letter = Letter(CONTEXT, give_up(of=[record(1), record(2, keys=b'{"pk":{"S":"b"}}')]), NOW)
    assert "key_digest" not in letter.attributes
    assert "keyDigest" not in letter_fields(letter.document())
    assert letter.attributes["sequence_number"] == "1"


def test_equal_numbers_have_one_digest_however_they_are_written() -> None:
    step = give_up(of=[record(1, keys=b'{"pk":{"N":"1"}}'), record(2, keys=b'{"pk":{"N":"1.0"}}')])
    assert Letter(CONTEXT, step, NOW).attributes["key_digest"] == digest_of(b"N1")


def test_the_document_says_the_same_for_who_has_only_that() -> None:
    letter = Letter(CONTEXT, give_up(of=[record(5)]), NOW, parked=PARKED)
    assert letter_fields(letter.document()) == {
        "keyDigest": OF_A,
        "sequenceNumber": "5",
        "handler": "module:handler",
        "streamLabel": "2026-09-17T13:26:53.746",
        "parkId": "5c0e5b6a-park",
        "ordinal": 7,
    }
    for pointer in pointing_documents(letter.document(), "s3://bucket/key"):
        assert letter_fields(pointer) == letter_fields(letter.document())


def test_the_key_is_in_the_payload_only() -> None:
    secret = record(5, keys=b'{"pk":{"S":"someone@example.com"}}')
    letter = Letter(CONTEXT, give_up(of=[secret]), NOW, parked=PARKED)
    assert "someone" not in json.dumps(letter.attributes)
    document = json.loads(letter.document())
    assert "someone" in json.dumps(document.pop("payload"))
    assert "someone" not in json.dumps(document)


def test_lambdas_documents_have_no_such_field() -> None:
    letter = Letter(CONTEXT, give_up(of=[record(5)]), NOW, parked=PARKED)
    for with_payload in (True, False):
        assert "deadLetter" not in json.loads(lambda_document(letter.document(), "f", with_payload=with_payload))


def test_a_parked_key_does_not_change_what_the_same_records_are() -> None:
    plain = Letter(CONTEXT, give_up(), NOW)
    assert replace(plain, parked=PARKED).key == plain.key


def test_a_later_record_of_a_parked_key_says_why_it_is_there() -> None:
    step = GiveUp([record(6)], "KeyParked", 1, None, invoked=False)
    letter = Letter(CONTEXT, step, NOW, parked=Parked("p", 2))
    document = json.loads(letter.document())
    assert document["requestContext"]["condition"] == letter.attributes["condition"] == "KeyParked"
    assert "responseContext" not in document, "nobody was asked"
    assert document["error"] is None


def test_the_last_call_of_a_window_has_neither_key_nor_number() -> None:
    window = WindowCall(TimeWindow(0, 60), state=b"{}", final=True)
    letter = Letter(CONTEXT, GiveUp([], "RetryAttemptsExhausted", 2, RAISED, invoked=True), NOW, window)
    assert letter.attributes.keys().isdisjoint({"key_digest", "sequence_number"})
    assert letter_fields(letter.document()).keys() == {"handler", "streamLabel"}


def test_long_names_are_cut_in_attributes() -> None:
    fault = HandlerFault("raised", "E" * 1000, "m")
    letter = Letter(replace(CONTEXT, target="m" * 1000), give_up(fault=fault), NOW)
    assert letter.attributes["handler"] == "m" * 256
    assert letter.attributes["error_type"] == "E" * 256


def test_a_record_without_a_usable_key_shares_the_digest_of_its_kind() -> None:
    broken = record(1)
    broken.dynamodb.Keys = Raw(b'{"other":{"S":"a"}}')
    assert Letter(CONTEXT, give_up(of=[broken]), NOW).attributes["key_digest"] == digest_of(b"")
