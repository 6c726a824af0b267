"""Records: the exact Lambda event, lazy images, and letting go of a page."""

from __future__ import annotations

import datetime as dt
import json
import sys
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from boto3.dynamodb.types import Binary
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from consumer.domain.events import batch_event_json, event_json, records_from_event
from consumer.domain.record import Change, Record
from tests.unit.domain.support import ABSENT, ARN, record

# The example of the reference, byte for byte in AWS's key order.
MODIFY = (
    b'{"eventID":"9cdf975187b7d7f668abf98414c08f05","eventName":"MODIFY","eventVersion":"1.1",'
    b'"eventSource":"aws:dynamodb","awsRegion":"us-east-1","dynamodb":{"ApproximateCreationDateTime":1789651659.0,'
    b'"Keys":{"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a"},"n":{"N":"1.25"},"bin":{"B":"AQID"},'
    b'"ss":{"SS":["a","b"]},"m":{"M":{"l":{"L":[{"NULL":true},{"BOOL":false}]}}}},"OldImage":{"pk":{"S":"a"}},'
    b'"SequenceNumber":"3100000105893955554117","SizeBytes":80,"StreamViewType":"NEW_AND_OLD_IMAGES"},'
    b'"eventSourceARN":"' + ARN.encode() + b'"}'
)
TTL = (
    b'{"eventID":"b","eventName":"REMOVE","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-east-1",'
    b'"dynamodb":{"ApproximateCreationDateTime":1789651700.0,"Keys":{"pk":{"S":"b"}},"OldImage":{"pk":{"S":"b"}},'
    b'"SequenceNumber":"3200000105893955554117","SizeBytes":33,"StreamViewType":"NEW_AND_OLD_IMAGES"},'
    b'"userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"eventSourceARN":"'
    + ARN.encode()
    + b'"}'
)
EVENT = b'{"Records":[' + MODIFY + b"," + TTL + b"]}"


def from_the_stream(event: bytes) -> Record:
    """The same record as GetRecords sends it: whole seconds, upper-case identity, no ARN (added by the reader)."""
    wire = json.loads(event)
    wire["dynamodb"]["ApproximateCreationDateTime"] = int(wire["dynamodb"]["ApproximateCreationDateTime"])
    del wire["eventSourceARN"]
    if "userIdentity" in wire:
        wire["userIdentity"] = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    text = json.dumps({"Records": [wire]}, separators=(",", ":")).encode()
    (one,) = records_from_event(text)
    one.event_source_arn = ARN
    return one


@pytest.mark.parametrize("event", [MODIFY, TTL], ids=["modify", "ttl removal"])
def test_events_are_lambdas_byte_for_byte(event: bytes) -> None:
    """From the stream's wire format to Lambda's: float time, lower-case identity, ARN added, images as they are."""
    one = from_the_stream(event)
    assert event_json(one) == event
    assert one.as_event() == json.loads(event)
    assert isinstance(one.as_event()["dynamodb"]["ApproximateCreationDateTime"], float)


def test_round_trip() -> None:
    """A batch's event decodes to records that make the same event."""
    found = records_from_event(EVENT)
    assert batch_event_json(found) == EVENT
    assert batch_event_json(tuple(found)) == EVENT
    assert batch_event_json([]) == b'{"Records":[]}'


def test_attributes_for_handlers() -> None:
    """Python values as boto3 gives them, decoded on first use."""
    change, removal = records_from_event(EVENT)
    assert (change.event_id, change.event_name) == ("9cdf975187b7d7f668abf98414c08f05", "MODIFY")
    assert change.sequence_number == "3100000105893955554117"
    assert change.approximate_creation_time == dt.datetime.fromtimestamp(1789651659, tz=dt.UTC)
    assert (change.size_bytes, change.stream_view_type) == (80, "NEW_AND_OLD_IMAGES")
    assert change.event_source_arn == ARN
    assert change.keys == {"pk": "a"}
    assert change.new_image == {
        "pk": "a",
        "n": Decimal("1.25"),
        "bin": Binary(b"\x01\x02\x03"),
        "ss": {"a", "b"},
        "m": {"l": [None, False]},
    }
    assert change.old_image == {"pk": "a"}
    assert change.user_identity is None
    assert removal.new_image is None
    assert removal.user_identity == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}


@pytest.mark.parametrize("image", [ABSENT, Raw(b"null")], ids=["absent", "null"])
def test_absent_images_are_omitted_never_null(image: Raw) -> None:
    """Handlers of Lambda crash on null images."""
    one = Record(Change("1", Keys=Raw(b'{"pk":{"S":"a"}}'), NewImage=image, OldImage=image))
    assert list(one.as_event()["dynamodb"]) == [
        "ApproximateCreationDateTime",
        "Keys",
        "SequenceNumber",
        "SizeBytes",
        "StreamViewType",
    ]
    assert (one.new_image, one.old_image) == (None, None)


def test_an_empty_image_is_an_image() -> None:
    """``{}`` is not the same as no image."""
    one = Record(Change("1", NewImage=Raw(b"{}")))
    assert one.new_image == {}
    assert one.as_event()["dynamodb"]["NewImage"] == {}


@pytest.mark.parametrize("keys", [b"", b"null"])
def test_records_without_keys_raise_for_who_asks(keys: bytes) -> None:
    """ValueError from ``keys``; the event is still made."""
    one = record(7, keys=keys)
    with pytest.raises(ValueError, match="record 7 has no Keys"):
        _ = one.keys
    assert "Keys" not in one.as_event()["dynamodb"]


@pytest.mark.parametrize(
    "image", [b'{"a":{"X":1}}', b'{"a":{}}', b'{"a":{"N":"' + b"1" * 39 + b'"}}', b'{"a":{"N":"NaN"}}', b"5"]
)
def test_one_odd_image_fails_its_own_record_only(image: bytes) -> None:
    """The page decodes, the others are read, and the odd one raises ValueError each time it is looked at."""
    event = (
        b'{"Records":[{"dynamodb":{"SequenceNumber":"1","NewImage":%s}},{"dynamodb":{"SequenceNumber":"2"}}]}' % image
    )
    odd, fine = records_from_event(event)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"."):
            _ = odd.new_image
    assert fine.new_image is None
    assert odd.as_event()["dynamodb"]["NewImage"] == json.loads(image)


def test_unknown_fields_and_values_pass() -> None:
    """New event names, versions and fields of the service do no harm; what is missing has a default."""
    (one,) = records_from_event(
        b'{"Records":[{"eventName":"REPLICATE","eventVersion":"1.2","new":[1],"dynamodb":{"SequenceNumber":"1","x":{}}}]}'
    )
    assert (one.event_name, one.event_version) == ("REPLICATE", "1.2")
    (bare,) = records_from_event(b'{"Records":[{"dynamodb":{"SequenceNumber":"1"}}]}')
    assert (bare.event_name, bare.event_version, bare.event_source) == ("", "1.1", "aws:dynamodb")
    assert bare.approximate_creation_time == dt.datetime.fromtimestamp(0, tz=dt.UTC)


@pytest.mark.parametrize("identity", [None, {}])
def test_no_identity_no_field(identity: dict[str, str] | None) -> None:
    """``userIdentity`` appears only for deletions by a service."""
    one = record(1)
    one.user_identity_wire = identity
    assert one.user_identity is None
    assert "userIdentity" not in one.as_event()


def test_odd_identities_do_not_break_the_batch() -> None:
    """Any names, also an empty one."""
    one = record(1)
    one.user_identity_wire = {"": "x", "Type": "Service", "ID": "y"}
    assert one.as_event()["userIdentity"] == {"": "x", "type": "Service", "iD": "y"}


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"[]",
        b"{}",
        b'{"Records":5}',
        b'{"Records":[{}]}',
        b'{"Records":[{"dynamodb":{}}]}',
        b'{"Records":[{"dynamodb":{"SequenceNumber":"1","NewImage":{"a":'
        + b'{"L":[' * 100_000
        + b"]}" * 100_000
        + b"}}}]}",
    ],
    ids=lambda event: repr(event[:32]),
)
def test_what_is_no_event_raises_value_error(event: bytes) -> None:
    """Also when it is nested too deep to be read at all."""
    with pytest.raises(ValueError, match="not an event of DynamoDB or Kinesis"):
        records_from_event(event)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(
    sequence=st.integers(10**20, 10**40 - 1).map(str),
    created=st.integers(0, 4_000_000_000),
    texts=st.lists(TEXTS, min_size=5, max_size=5),
    images=st.lists(
        st.one_of(st.none(), st.dictionaries(TEXTS, TEXTS.map(lambda s: {"S": s}))), min_size=2, max_size=2
    ),
    identity=st.one_of(st.none(), st.dictionaries(TEXTS, TEXTS, min_size=1)),
)
@settings(max_examples=150, deadline=None)
def test_any_record_survives_the_round_trip(
    sequence: str, created: int, texts: list[str], images: list[Any], identity: dict[str, str] | None
) -> None:
    """What is spliced is valid JSON with the same content, and decodes to the same values."""
    new, old = (ABSENT if image is None else Raw(json.dumps(image).encode()) for image in images)
    keys = Raw(json.dumps({"pk": {"S": texts[0]}}).encode())
    one = Record(Change(sequence, float(created), keys, new, old, 5, texts[1]), *texts[2:], user_identity_wire=identity)
    (again,) = records_from_event(batch_event_json([one]))
    assert event_json(again) == event_json(one)
    event = one.as_event()
    assert event["dynamodb"]["SequenceNumber"] == sequence
    assert event["dynamodb"]["ApproximateCreationDateTime"] == created
    assert event["dynamodb"]["Keys"] == {"pk": {"S": texts[0]}}
    for name, image in zip(("NewImage", "OldImage"), images, strict=True):
        assert event["dynamodb"].get(name) == image
    assert (again.keys, again.new_image, again.old_image) == (one.keys, one.new_image, one.old_image)
    assert again.user_identity == one.user_identity


def test_detached_records_let_go_of_their_page() -> None:
    """A slice keeps the whole page in memory; a detached record keeps its own bytes only, with the same values."""
    page = bytes(bytearray(EVENT))  # an object that only this test and the slices refer to
    before = sys.getrefcount(page)
    first, second = records_from_event(page)
    assert sys.getrefcount(page) > before
    expected = (event_json(first), dict(first.keys))
    size = first.detach()
    slices_of_second = sys.getrefcount(page) - before
    assert slices_of_second == len([raw for raw in (second.dynamodb.Keys, second.dynamodb.OldImage) if bytes(raw)])
    second.detach()
    assert sys.getrefcount(page) == before
    assert (event_json(first), first.keys) == expected
    images = (first.dynamodb.Keys, first.dynamodb.NewImage, first.dynamodb.OldImage)
    assert size == first.wire_size == sum(len(bytes(raw)) for raw in images) + 400
    assert first.detach() == size, "a second time does nothing new"


def test_decoding_does_not_pin_the_page() -> None:
    """Decoded images are copies: after detaching, nothing of them points into the page."""
    page = bytes(bytearray(EVENT))
    before = sys.getrefcount(page)
    first, second = records_from_event(page)
    values = (first.new_image, first.old_image, second.keys)
    for one in (first, second):
        one.detach()
    assert sys.getrefcount(page) == before
    assert values[0] is first.new_image


def test_forget_undoes_what_a_handler_did_to_the_values() -> None:
    """Decoded values are kept between looks and dropped between attempts."""
    one, _ = records_from_event(EVENT)
    image = one.new_image
    assert image is not None
    image["pk"] = "changed"
    assert one.new_image is image
    one.forget()
    again = one.new_image
    assert again is not None
    assert again["pk"] == "a"


def test_records_are_values() -> None:
    """Equal by content, and small: not tracked by the garbage collector."""
    left, right = records_from_event(EVENT), records_from_event(EVENT)
    assert left == right
    assert left[0] != left[1]
    assert msgspec.structs.fields(Change)[0].required


@given(
    images=st.tuples(*[st.sampled_from([b"", b"null", b"{}", b'{"id":{"S":"' + b"x" * 300 + b'"}}'])] * 3),
    created=st.sampled_from([0.0, 1789651659.0, -1.2345678901234567e-300]),
    size=st.sampled_from([0, 80, 400_000]),
    identity=st.sampled_from([None, {}, {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}]),
    arn=st.sampled_from(["", ARN]),
)
def test_the_size_of_an_event_is_never_too_small_and_hardly_too_large(
    images: tuple[bytes, bytes, bytes], created: float, size: int, identity: dict[str, str] | None, arn: str
) -> None:
    """Batches are cut by it: too small would break the bound, too large would make small records fill 6 MB early."""
    keys, new, old = map(Raw, images)
    change = Change("3100000105893955554117", created, keys, new, old, size, "NEW_AND_OLD_IMAGES")
    one = Record(
        change, "9cdf975187b7d7f668abf98414c08f05", "MODIFY", "1.1", "aws:dynamodb", "us-east-1", identity, arn
    )
    with_comma = len(event_json(one)) + 1
    assert with_comma <= one.event_size <= with_comma + 100
