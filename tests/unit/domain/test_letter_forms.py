"""The forms of a dead letter: UTF-8, compressed, in parts, pointing to what is kept elsewhere."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.dead_letter import (
    Letter,
    compressed_document,
    document,
    location_in_table,
    payload_parts,
    pointing_documents,
    split_payload,
)
from consumer.domain.outcome import HandlerFault
from consumer.domain.record import Change, Record
from consumer.domain.settlement import GiveUp
from consumer.domain.windows import TimeWindow, WindowCall
from tests.unit.domain.support import records
from tests.unit.domain.test_dead_letter import CONTEXT, NOW, RAISED, REFUSED_BY_SQS, give_up

LOCATION = location_in_table("stream-consumer", "app", "2026-09-17T13:26:53.746", "f" * 64)


def with_image(text: bytes) -> GiveUp:
    return give_up(of=[Record(Change("1", NewImage=Raw(b'{"a":{"S":' + text + b"}}")))])


def singles(letter: Letter) -> Iterator[Letter]:
    """Halved until every letter has one record."""
    if len(letter.step.records) == 1:
        yield letter
    else:
        for half in letter.halves():
            yield from singles(half)


# --- UTF-8 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ['"漢"'.encode(), b'"\\u6f22"'], ids=["as it is", "escaped by the service"])
def test_a_character_takes_the_bytes_it_has_in_utf8(wire: bytes) -> None:
    """Half the size of escapes for Chinese, Japanese and Korean, whichever way the service wrote it."""
    body = document(CONTEXT, with_image(b'"' + wire[1:-1] * 1000 + b'"'), NOW)
    assert "漢" * 1000 in body.decode("utf-8")
    assert b"\\u6f22" not in body


@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_is_the_same_text_in_every_form(text: str) -> None:
    """Surrogates, quotes, backslashes, control characters; none of the forms holds what SQS refuses."""
    step = with_image(json.dumps(text).encode())
    plain = document(CONTEXT, step, NOW)
    assert REFUSED_BY_SQS.search(plain.decode("utf-8")) is None
    (event,) = json.loads(plain)["payload"]["Records"]
    assert json.dumps(event["dynamodb"]["NewImage"]["a"]["S"]) == json.dumps(text)
    packed = json.loads(compressed_document(plain))["payload"]
    assert gzip.decompress(base64.b64decode(packed)) == split_payload(plain)[1] != b""


# --- compressed ------------------------------------------------------------------------------------------


def test_a_compressed_letter_differs_in_its_payload_only() -> None:
    plain = document(CONTEXT, give_up(), NOW)
    packed = compressed_document(plain)
    assert packed.isascii()
    whole, found = json.loads(plain), json.loads(packed)
    assert list(found) == [*list(whole)[:-1], "payloadEncoding", "payload"]
    assert found.pop("payloadEncoding") == "gzip+base64"
    assert gzip.decompress(base64.b64decode(found.pop("payload"))) == split_payload(plain)[1]
    whole.pop("payload")
    assert found == whole
    assert compressed_document(plain) == packed, "the same bytes every time"


# --- in parts --------------------------------------------------------------------------------------------


def test_halves_are_complete_letters_of_their_own_records() -> None:
    whole = Letter(CONTEXT, give_up(of=records(*"12345")), NOW)
    parts = list(singles(whole))
    assert [letter.step.records[0].sequence_number for letter in parts] == list("12345")
    for number, letter in enumerate(parts, 1):
        found = json.loads(letter.document())
        assert found["part"] == {"of": whole.key, "first": number, "last": number, "records": 5}
        assert found["DDBStreamBatchInfo"]["startSequenceNumber"] == str(number)
        assert found["DDBStreamBatchInfo"]["batchSize"] == 1
        assert len(found["payload"]["Records"]) == 1
        assert found["idempotencyKey"] == letter.key == letter.attributes["idempotency_key"]
    assert len({whole.key, *(letter.key for letter in parts)}) == 6
    left, right = whole.halves()
    assert [(half.part.first, half.part.last) for half in (left, right) if half.part] == [(1, 2), (3, 5)]


def test_a_part_has_the_same_key_at_every_attempt() -> None:
    """Another owner, another time, another error: the records decide."""
    one = Letter(CONTEXT, give_up(of=records(*"1234")), NOW)
    later = Letter(CONTEXT, give_up("RecordAgeExceeded", None, of=records(*"1234")), NOW + 60)
    assert [part.key for part in singles(one)] == [part.key for part in singles(later)]


def test_one_record_is_never_split() -> None:
    with pytest.raises(ValueError, match="one record"):
        Letter(CONTEXT, give_up(of=records("1")), NOW).halves()


def test_a_whole_letter_has_no_part_and_a_window_stays_in_every_half() -> None:
    assert "part" not in json.loads(Letter(CONTEXT, give_up(), NOW).document())
    window = WindowCall(TimeWindow(1789654270, 1789654300), state=b'{"sum":1}')
    for half in Letter(CONTEXT, give_up(of=records(*"12")), NOW, window).halves():
        found = json.loads(half.document())
        assert found["payload"]["state"] == {"sum": 1}
        assert found["timeWindowInfo"]["window"] == {"start": "2026-09-17T14:11:10Z", "end": "2026-09-17T14:11:40Z"}


# --- kept elsewhere --------------------------------------------------------------------------------------


def test_a_letter_that_points_elsewhere_has_all_but_the_payload() -> None:
    fault = HandlerFault("raised", "ValueError", "漢" * 4096, ("frame",) * 40)
    plain = document(CONTEXT, give_up(fault=fault), NOW)
    whole: dict[str, Any] = json.loads(plain)
    whole.pop("payload")
    first, short = pointing_documents(plain, LOCATION)
    assert json.loads(first) == whole | {"payloadLocation": LOCATION}
    whole["error"] |= {"errorMessage": "漢" * 256, "stackTrace": []}
    assert json.loads(short) == whole | {"payloadLocation": LOCATION}
    assert first.isascii()
    assert short.isascii()
    assert len(short) < 4096


def test_without_an_error_there_is_nothing_to_cut() -> None:
    plain = document(CONTEXT, give_up("RecordAgeExceeded", None), NOW)
    assert len(list(pointing_documents(plain, LOCATION))) == 1


@pytest.mark.parametrize("size", [1, 300 * 1024, 300 * 1024 + 1, 5_000_000])
def test_parts_fit_into_an_item_and_make_up_the_payload(size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    parts = payload_parts("key", payload)
    assert b"".join(part.payload for part in parts) == payload
    assert [part.number for part in parts] == list(range(len(parts)))
    assert {(part.key, part.count) for part in parts} == {("key", len(parts))}
    assert max(len(part.payload) for part in parts) <= 350_000


def test_the_error_of_a_letter_is_readable() -> None:
    assert "bad é" in document(CONTEXT, give_up(fault=RAISED), NOW).decode("utf-8")
