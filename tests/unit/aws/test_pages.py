"""Pages decoded from slices: the same records as botocore gives, and never an empty page out of a damaged one."""

import base64
import json

import botocore.session
import pytest
import structlog
from aiobotocore.parsers import AioJSONParser
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.aws.page_reader import SAMPLE
from consumer.aws.pages import convert_page, decode_page
from consumer.domain.errors import DependencyError
from consumer.domain.events import batch_event_json, records_from_event
from consumer.domain.keys import partition_key_reader

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000"
MODEL = botocore.session.get_session().get_service_model("dynamodbstreams").operation_model("GetRecords")
NUMBER = "000000000000000000042"


def wire(number=NUMBER, *, change=None, **fields):
    """One record as on the wire."""
    inner = {
        "ApproximateCreationDateTime": 1.7e9,
        "Keys": {"id": {"S": "a"}},
        "NewImage": {"id": {"S": "a"}, "n": {"N": "1"}},
        "SequenceNumber": number,
        "SizeBytes": 10,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
        **(change or {}),
    }
    outer = {"eventID": "e", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb"}
    return {**outer, "awsRegion": "us-east-1", "dynamodb": inner, **fields}


def body_of(*records, following="next"):
    answer = {"Records": list(records)}
    if following is not None:
        answer["NextShardIterator"] = following
    return json.dumps(answer).encode()


async def through_botocore(body):
    answer = {"headers": {"content-length": str(len(body))}, "status_code": 200, "body": body, "context": {}}
    return convert_page(await AioJSONParser().parse(answer, MODEL.output_shape), ARN)


def everything(page):
    return [
        [page.next_iterator, page.wire_bytes],
        *[[record.as_event(), record.keys, record.new_image, record.old_image] for record in page.records],
    ]


class TestSameAsBotocore:
    async def test_the_built_in_sample(self):
        fast, slow = decode_page(SAMPLE, ARN), await through_botocore(SAMPLE)
        assert everything(fast) == everything(slow)
        first, second = fast.records
        assert first.new_image["b"].value == b"\x00\xff"
        assert second.user_identity == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
        assert {record.event_source_arn for record in fast.records} == {ARN}
        assert (first.event_version, first.new_image["pk"], fast.next_iterator) == (
            "1.1",
            "a\x00\N{GRINNING FACE}",
            "next",
        )

    @pytest.mark.parametrize(
        "record",
        [
            wire(),
            wire("9" * 40),
            wire(eventName="UNKNOWN_TO_SDK_VERSION"),
            wire(eventVersion="1.0"),
            wire(change={"NewImage": {"id": {"S": "a"}, "n": {"N": "9" * 38}}}),
            wire(change={"NewImage": {"id": {"S": "\x00\N{PILE OF POO}\u2028"}}}),
            wire(change={"NewImage": {"id": {"S": "x" * 400_000}}}),
            wire(change={"OldImage": {"id": {"B": base64.b64encode(bytes(range(256))).decode()}}}),
            wire(change={"NewImage": {}}),
            wire(change={"ApproximateCreationDateTime": 1700000000}),
            wire(userIdentity={"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}),
            wire(change={"somethingNew": {"a": [1]}}, more=1),
        ],
        ids=lambda record: str(record)[-40:],
    )
    async def test_one_record(self, record):
        body = body_of(record, wire("43"), following=None)
        fast = decode_page(body, ARN)
        assert everything(fast) == everything(await through_botocore(body))
        assert fast.next_iterator is None
        assert len(fast.records) == 2

    async def test_nested_to_the_limit_of_the_service(self):
        value = {"S": "deep"}
        for level in range(32):
            value = {"L": [value]} if level % 2 else {"M": {"k": value}}
        body = body_of(wire(change={"NewImage": {"id": {"S": "a"}, "v": value}}))
        assert everything(decode_page(body, ARN)) == everything(await through_botocore(body))

    async def test_a_record_without_keys(self):
        record = wire()
        del record["dynamodb"]["Keys"]
        for page in (decode_page(body_of(record), ARN), await through_botocore(body_of(record))):
            with pytest.raises(ValueError, match="has no Keys"):
                _ = page.records[0].keys
            assert page.records[0].new_image == {"id": "a", "n": 1}
            assert "Keys" not in page.records[0].as_event()["dynamodb"]

    async def test_empty_pages(self):
        page = decode_page(b'{"Records":[],"NextShardIterator":"n"}', ARN)
        assert (list(page.records), page.next_iterator, page.wire_bytes) == ([], "n", 38)
        assert decode_page(b'{"Records":[]}', ARN).next_iterator is None
        assert decode_page(b'{"Records":[],"NextShardIterator":null}', ARN).next_iterator is None


class TestDamagedPages:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"null",
            b"[]",
            b'{"NextShardIterator":"n"}',
            b'{"Records":null,"NextShardIterator":"n"}',
            b'{"Records":{},"NextShardIterator":"n"}',
            b'{"Records":[],"NextShardIterator":""}',
            b'{"Records":[],"NextShardIterator":7}',
            b'{"Records":[]} trailing',
            b"<html>Bad Gateway</html>",
            b"\xff\xfe",
            b'{"message":"not found"}',
            b'{"Records":[null]}',
            b'{"Records":[{"eventID":"e1"}]}',
            b'{"Records":[{"eventID":"e1","dynamodb":{}}]}',
            b'{"Records":[{"eventID":"e1","dynamodb":{"SequenceNumber":""}}]}',
            b'{"Records":[{"eventID":"e1","dynamodb":{"SequenceNumber":"abc"}}]}',
            b'{"Records":[{"eventID":"e1","dynamodb":{"SequenceNumber":1.5}}]}',
            b"[" * 100_000,
        ],
        ids=lambda body: repr(body[:45]),
    )
    def test_is_an_error_to_retry(self, body):
        with pytest.raises(DependencyError) as caught:
            decode_page(body, ARN)
        assert caught.value.operation == "GetRecords"

    def test_every_cut_of_a_page_is_an_error(self):
        for length in range(len(SAMPLE)):
            with pytest.raises(DependencyError):
                decode_page(SAMPLE[:length], ARN)

    async def test_every_cut_is_an_error_after_botocore_too(self):
        for length in range(0, len(SAMPLE), 7):
            with pytest.raises(DependencyError):
                await through_botocore(SAMPLE[:length])

    def test_a_record_without_number_is_named(self):
        with pytest.raises(DependencyError, match="SequenceNumber: number 1, eventID 'e1'"):
            decode_page(b'{"Records":[%s,{"eventID":"e1"}]}' % json.dumps(wire()).encode(), ARN)


NEIGHBOUR = json.dumps(wire("43")).encode()


def with_neighbours(odd):
    return decode_page(b'{"Records":[%s,%s,%s],"NextShardIterator":"n"}' % (NEIGHBOUR, odd, NEIGHBOUR), ARN)


class TestOddRecords:
    """One odd record among good ones: they are untouched, it keeps its place and number."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"SizeBytes": 10', b'"SizeBytes": "ten"'),
            (b'"SizeBytes": 10', b'"SizeBytes": null'),
            (b'"SizeBytes": 10', b'"SizeBytes": NaN'),
            (b"1700000000.0", b'"yesterday"'),
            (b"1700000000.0", b"1e400"),
            (b'"INSERT"', b"null"),
            (b'"INSERT"', b"NaN"),
            (b'"INSERT"', rb'"\ud800"'),
            (b'"INSERT"', b'"\xff"'),
            (b'"eventName"', b'"userIdentity": "odd", "eventName"'),
            (b'"eventName"', b'"userIdentity": {"Type": 1}, "eventName"'),
            (b'"NEW_AND_OLD_IMAGES"', b"[]"),
            (b'"000000000000000000042"', b"42"),
        ],
    )
    def test_fields_of_the_wrong_type_get_their_defaults(self, old, new):
        source = json.dumps(wire()).encode()
        assert old in source
        page = with_neighbours(source.replace(old, new))
        before, odd, after = page.records
        assert before.as_event() == after.as_event() == {**records_from_event(batch_event_json([after]))[0].as_event()}
        assert int(odd.sequence_number) == 42
        assert odd.keys == {"id": "a"}
        assert odd.new_image == {"id": "a", "n": 1}
        assert odd.event_source_arn == ARN
        assert page.next_iterator == "n"
        assert len(records_from_event(batch_event_json(list(page.records)))) == 3

    @pytest.mark.parametrize(
        "value", [b"NaN", rb'{"S": "\ud800"}', b'{"S": "\xff\xfe"}', b"[-Infinity]", b'{"S": NaN}']
    )
    def test_an_unreadable_image_is_poison_and_not_absent(self, value):
        source = json.dumps(wire()).encode().replace(b'{"N": "1"}', value)
        before, odd, _ = with_neighbours(source).records
        assert before.new_image == {"id": "a", "n": 1}
        assert (odd.sequence_number, odd.keys) == (NUMBER, {"id": "a"})
        with pytest.raises(ValueError, match=r"decode|attribute value|surrogate|codec"):
            _ = odd.new_image
        assert partition_key_reader("id")(odd) == partition_key_reader("id")(before)

    def test_unreadable_keys(self):
        source = json.dumps(wire()).encode().replace(b'"Keys": {"id": {"S": "a"}}', b'"Keys": {"id": {"S": NaN}}')
        odd = with_neighbours(source).records[1]
        with pytest.raises(ValueError, match="attribute value"):
            _ = odd.keys
        assert partition_key_reader("id")(odd) == b""

    def test_an_image_that_no_parser_takes(self):
        """Python's json refuses integers of more than 4,300 digits, msgspec null as ``eventName``."""
        source = json.dumps(wire(eventName=None)).encode().replace(b'{"N": "1"}', b"1" * 5000)
        odd = with_neighbours(source).records[1]
        assert odd.sequence_number == NUMBER
        for read in (lambda: odd.keys, lambda: odd.new_image, lambda: odd.old_image):
            with pytest.raises(ValueError, match="attribute value"):
                read()

    def test_an_odd_page_is_logged_and_a_good_one_is_not(self):
        with structlog.testing.capture_logs() as logs:
            with_neighbours(json.dumps(wire(eventName=None)).encode())
            decode_page(SAMPLE, ARN)
        assert [(entry["event"], entry["records"]) for entry in logs] == [("pages.odd_page", 3)]


# --- anything at all -------------------------------------------------------------------------------------------------

scalars = (
    st.text(max_size=20).map(lambda text: {"S": text})
    | st.integers(-(10**38) + 1, 10**38 - 1).map(lambda number: {"N": str(number)})
    | st.binary(max_size=20).map(lambda data: {"B": base64.b64encode(data).decode()})
    | st.booleans().map(lambda flag: {"BOOL": flag})
    | st.just({"NULL": True})
    | st.lists(st.text(max_size=3), min_size=1, unique=True).map(lambda texts: {"SS": texts})
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: {"L": items})
        | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3).map(lambda items: {"M": items})
    ),
    max_leaves=8,
)
images = st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=4)
records = st.builds(
    lambda number, keys, image, name: wire(str(number), change={"Keys": keys, "NewImage": image}, eventName=name),
    st.integers(10**20, 10**40 - 1),
    images.filter(bool),
    images,
    st.sampled_from(["INSERT", "MODIFY", "REMOVE"]) | st.text(max_size=5),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(records, max_size=4), st.booleans())
async def test_any_page_is_what_botocore_makes_of_it(wires, ascii_only):
    body = json.dumps({"Records": wires, "NextShardIterator": "n"}, ensure_ascii=ascii_only).encode()
    page = decode_page(body, ARN)
    assert everything(page) == everything(await through_botocore(body))
    assert [record.sequence_number for record in page.records] == [one["dynamodb"]["SequenceNumber"] for one in wires]


@settings(max_examples=200, deadline=None)
@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_a_cut_page_is_never_a_page(wires, data):
    body = body_of(*wires)
    with pytest.raises(DependencyError):
        decode_page(body[: data.draw(st.integers(0, len(body) - 1))], ARN)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["eventID", "eventName", "awsRegion", "userIdentity", "eventSource"]), json_values),
    st.dictionaries(
        st.sampled_from(["Keys", "NewImage", "OldImage", "SizeBytes", "ApproximateCreationDateTime", "StreamViewType"]),
        json_values,
    ),
)
def test_no_record_with_a_number_is_ever_lost(outer, inner):
    odd = json.dumps(wire(change=inner, **outer)).encode()
    page = with_neighbours(odd)
    assert [int(record.sequence_number) for record in page.records] == [43, 42, 43]
    assert len(records_from_event(batch_event_json(list(page.records)))) == 3
