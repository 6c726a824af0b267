"""Status 200 is no success: whatever lacks what a service always gives is no answer, for every service alike."""

import asyncio
import hashlib
import json
import zlib

import pytest
from aiobotocore.awsrequest import AioAWSResponse

from consumer.aws.answers import HttpAnswer, parsed_flaw
from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller, StrangeAnswer, Unanswered
from consumer.aws.lease_table import DynamoDBLeaseStore
from consumer.aws.overflow import WithOverflow
from consumer.aws.page_reader import SAMPLE, SELF_TEST
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.session import AwsSession
from consumer.aws.sns import SnsDeadLetters
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.errors import DependencyError, PayloadTooLarge, ResourceMissing
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.parking import ParkedKey, ParkedShard
from consumer.ports.leases import Loss
from consumer.ports.source import Position
from tests.support.unknown_sdk import UnknownClient

ID = {"x-amzn-requestid": "1", "x-amz-request-id": "1"}
PORTAL = (b"<!DOCTYPE html><html><body>Please accept our terms</body></html>", {"content-type": "text/html"})
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:dead"
TOPIC = "arn:aws:sns:us-east-1:000000000000:dead"
SHARD = "shardId-00000001789651619772-2a9e5aad"
OWNER = LeaseRow("shard-1", owner="me", epoch=1)
PARKED = ParkedKey("digest", "p1", state="closing", nonce="n1", redriver="me", claim=1)
LETTERS = ParkedShard("digest", "label", "shard-1", "p1", first="7", letters=1, last="8", done=1)

# What no service sends: bodies of a success (status 200) and their headers. Some are those of another service.
STRANGE = {
    "portal": PORTAL,
    "empty object": (b"{}", {}),
    "empty": (b"", {}),
    "status": (b'{"status":"ok"}', {"content-type": "application/json"}),
    "cut": (b'{"Attributes":{"pk":{"S":"a', ID),
    "list": (b"[]", ID),
    "null": (b"null", ID),
    "text": (b'"ok"', ID),
    "portal with an id": (PORTAL[0], PORTAL[1] | ID),
    "damaged": (b"{}", ID | {"x-amz-crc32": "1"}),
    "shortened": (b"{}", ID | {"content-length": "9"}),
}
# Headers and an empty body are a whole answer of S3.
STRANGE_TO_S3 = {name: STRANGE[name] for name in ("portal", "empty object", "empty", "status", "shortened")}
STRANGE_TO_S3["no etag"] = (b"", ID)


class Services:
    """Clients of every service whose requests are answered here: with what ``answer`` says, each time."""

    def __init__(self, session):
        self.session = session
        self.answer = PORTAL
        self.status = 200
        self.usual = {}  # body by operation, answered as the service does
        self.requests = []
        self.outcomes = []

    async def client(self, name):
        client = await self.session.client(name)
        client.meta.events.register_first("before-send", self._send)
        return client

    def caller(self):
        return ApiCaller(lambda operation, outcome, _: self.outcomes.append((operation, outcome)))

    def _send(self, request, event_name, **_):
        body = request.body if isinstance(request.body, bytes) else b""
        if SELF_TEST.encode() in body:
            return None
        operation = event_name.rpartition(".")[2]
        self.requests.append(operation)
        body, headers = self.answer
        status = self.status
        if operation in self.usual:
            status, body, headers = 200, self.usual[operation], ID
        return AioAWSResponse("http://127.0.0.1:9/", status, headers, _Raw(body))


class _Raw:
    def __init__(self, body):
        self._body = body

    async def read(self):
        await asyncio.sleep(0)
        return self._body


@pytest.fixture
async def services(aws_environment):
    names = ("dynamodb", "dynamodb_streams", "sqs", "sns", "s3")
    async with AwsSession("us-east-1", dict.fromkeys(names, "http://127.0.0.1:9")) as session:
        yield Services(session)


async def queue(services):
    services.usual = {
        "GetQueueUrl": b'{"QueueUrl":"http://127.0.0.1:9/0/dead"}',
        "GetQueueAttributes": b'{"Attributes":{"MaximumMessageSize":"262144"}}',
    }
    return SqsDeadLetters(await services.client("sqs"), services.caller(), QUEUE)


async def topic(services):
    services.usual = {
        "GetTopicAttributes": b"<GetTopicAttributesResponse><GetTopicAttributesResult><Attributes>"
        b"<entry><key>A</key><value>1</value></entry>"
        b"</Attributes></GetTopicAttributesResult></GetTopicAttributesResponse>"
    }
    return SnsDeadLetters(await services.client("sns"), services.caller(), TOPIC)


async def folder(services):
    return S3Folder(await services.client("s3"), services.caller(), "s3://bucket/dead", clock_wall=lambda: 1.8e9)


async def source(services, **options):
    """Through the SDK's own GetRecords; test_direct_get_records compares the direct call with it."""
    streams = UnknownClient(await services.client("dynamodbstreams"))
    options = options or {"table": None, "stream_arn": ARN}
    return DynamoDBStreamSource(streams, await services.client("dynamodb"), services.caller(), **options)


async def store(services):
    client = await services.client("dynamodb")
    return DynamoDBLeaseStore(client, services.caller(), table="t", application="a", clock_wall=lambda: 1.8e9)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr("consumer.aws.table_rows.PAUSE", 0.0)


# --- dead letters: none is taken for stored ------------------------------------------------------------


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("make", [queue, topic])
async def test_a_letter_counts_as_stored_only_by_its_message_id(services, make, answer):
    destination = await make(services)
    services.answer = answer
    with pytest.raises(StrangeAnswer) as caught:
        await destination.send(b"document", attributes={})
    assert isinstance(caught.value, Unanswered)
    assert services.outcomes[-1][1] == "strange"


@pytest.mark.parametrize("answer", STRANGE_TO_S3.values(), ids=STRANGE_TO_S3)
async def test_an_object_counts_as_stored_only_by_its_etag(services, answer):
    destination = S3DeadLetters(await folder(services))
    services.answer = answer
    with pytest.raises(StrangeAnswer):
        await destination.send(b"document", attributes={})
    assert services.outcomes == [("PutObject", "strange")]


async def test_neither_is_an_overflow_that_nobody_stored(services):
    class TooSmall:
        destination = QUEUE

        async def send(self, document, *, attributes):
            raise PayloadTooLarge(QUEUE, len(document), 10)

    letters = WithOverflow(TooSmall(), await folder(services))
    with pytest.raises(StrangeAnswer):
        await letters.send(b'{"a":1,"payload":{"Records":[]}}', attributes={})


async def test_another_message_s_digest_is_not_this_one_s(services):
    destination = await queue(services)
    stored = {"MessageId": "m", "MD5OfMessageBody": hashlib.md5(b"another").hexdigest()}
    services.answer = (json.dumps(stored).encode(), ID)
    with pytest.raises(StrangeAnswer, match="ChecksumMismatch"):
        await destination.send(b"document", attributes={})
    for stored in ({"MessageId": "m", "MD5OfMessageBody": hashlib.md5(b"document").hexdigest()}, {"MessageId": "m"}):
        services.answer = (json.dumps(stored).encode(), ID)
        await destination.send(b"document", attributes={})


@pytest.mark.parametrize("make", [queue, topic, folder])
async def test_a_destination_is_not_there_because_something_answers(services, make):
    destination = await make(services)
    services.usual, services.answer = {}, PORTAL
    with pytest.raises(StrangeAnswer):
        await (destination.prepare() if hasattr(destination, "prepare") else destination.check())


# --- the lease table: nothing is written, renewed, or missing --------------------------------------------

WRITES = {
    "bump": lambda store: store.bump_session("me", 2),
    "open": lambda store: store.open_session(SessionRow("me")),
    "fence": lambda store: store.fence_session("other", 1),
    "announce": lambda store: store.announce("me", handoffs=1, leaving=False),
    "close": lambda store: store.close_session("me"),
    "add": lambda store: store.add_lease("label", LeaseRow("shard-1")),
    "save": lambda store: store.save("label", OWNER),
    "release": lambda store: store.release("label", OWNER),
    "loss": lambda store: store.record_loss("label", OWNER, Loss("gap", "shard-1", "1", None, "r", 1.0)),
    "pin": lambda store: store.pin_application("orders"),
    "stream": lambda store: store.switch_stream(None, ARN),
    "park": lambda store: store.park("label", OWNER, PARKED, LETTERS),
    "join": lambda store: store.join_parked("label", OWNER, PARKED, LETTERS),
    "count": lambda store: store.count_letters("label", OWNER, [LETTERS]),
    "close for an owner": lambda store: store.close_for_owner(PARKED, LETTERS, None),
    "free": lambda store: store.free_parked(PARKED, [LETTERS]),
    "release parked": lambda store: store.release_parked(PARKED),
}
READS = {
    "lease": lambda store: store.lease("label", "shard-1"),
    "leases": lambda store: store.leases("label"),
    "sessions": lambda store: store.sessions(),
    "registration": lambda store: store.registration("label"),
    "table": lambda store: store.prepare(create=False),
    "window": lambda store: store.window_state("label", "shard-1"),
    "parked": lambda store: store.parked(),
    "parked key": lambda store: store.parked_key("digest"),
    "parked changes": lambda store: store.parked_changes(),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_write_is_doubtful_and_sent_again(services, write, answer):
    services.answer = answer
    with pytest.raises(StrangeAnswer):
        await write(await store(services))
    assert [outcome for _, outcome in services.outcomes] == ["strange"] * 3


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_a_read_finds_neither_a_row_nor_none(services, read, answer):
    services.answer = answer
    with pytest.raises(StrangeAnswer):
        await read(await store(services))


async def test_a_take_needs_the_row_that_it_asked_for(services):
    """An empty object with everything else right: the row as it is now was asked for, and is not there."""
    services.answer = (b"{}", ID)
    services.usual = {"GetItem": b"{}"}
    assert await (await store(services)).take("label", LeaseRow("shard-1"), "me", "nonce") is None
    assert services.requests == ["UpdateItem"] * 3 + ["GetItem"]


# --- the stream -----------------------------------------------------------------------------------------------

QUESTIONS = {
    "describe": lambda source: source.describe(),
    "shards": lambda source: source.list_shards(),
    "children": lambda source: source.child_shards(SHARD),
    "iterator": lambda source: source.iterator(SHARD, Position("TRIM_HORIZON")),
    "records": lambda source: source.get_records("shard-1", "i", 10),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
async def test_the_stream_says_nothing(services, ask, answer):
    services.answer = answer
    with pytest.raises(StrangeAnswer):
        await ask(await source(services))


async def test_a_page_that_is_not_the_service_s_never_ends_a_shard(services):
    services.answer = (b'{"Records":[]}', {"content-type": "application/json"})
    with pytest.raises(StrangeAnswer, match="NotTheService"):
        await (await source(services)).get_records("shard-1", "i", 10)
    services.answer = (b'{"Records":[]}', ID)
    page = await (await source(services)).get_records("shard-1", "i", 10)
    assert page.next_iterator is None


async def test_a_checksum_counts(services):
    services.answer = (SAMPLE.replace(b"eu-west-1", b"eu-west-2"), {"x-amz-crc32": str(zlib.crc32(SAMPLE))})
    with pytest.raises(StrangeAnswer, match="ChecksumMismatch"):
        await (await source(services)).get_records("shard-1", "i", 10)


@pytest.mark.parametrize("body", [b"{}", b'{"Table":null}', b'{"Table":[]}'])
async def test_a_table_is_not_without_stream_because_nothing_is_said(services, body):
    services.answer = (body, ID)
    with pytest.raises(DependencyError):
        await (await source(services, table="orders", stream_arn=None)).latest_stream()


# --- errors that no service sent ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 407, 429, 502])
async def test_an_error_page_of_something_else_says_nothing_about_the_resource(services, status):
    """A 404 of a proxy would mean that the shard is gone, a 403 that a policy must be changed."""
    services.status = status
    for call in (
        (await source(services)).get_records("shard-1", "i", 10),
        (await store(services)).lease("label", "shard-1"),
        (await folder(services)).check(),
        (await queue(services)).send(b"document", attributes={}),
        (await topic(services)).send(b"document", attributes={}),
    ):
        with pytest.raises(StrangeAnswer, match="NotTheService"):
            await call


async def test_an_error_that_is_named_needs_no_request_id(services):
    """Local servers leave it out."""
    services.status = 400
    services.answer = (b'{"__type":"x#ResourceNotFoundException","message":""}', {})
    with pytest.raises(ResourceMissing):
        await (await store(services)).lease("label", "shard-1")
    services.answer = (b"<ErrorResponse><Error><Code>NotFound</Code></Error></ErrorResponse>", {})
    with pytest.raises(ResourceMissing):
        await (await topic(services)).send(b"document", attributes={})


# --- the rule by itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        (ID, b"{}", None),
        ({"x-amz-crc32": str(zlib.crc32(b"{}"))}, b"{}", None),
        (ID, b'{"a":NaN,"b":"\\ud800","c":"\xff"}', None),  # odd, but of the service: see test_pages
        (ID | {"content-length": "2"}, b"{}", None),
        (ID | {"content-length": "1", "content-encoding": "gzip"}, b"{}", None),  # of what was sent, not of this
        ({}, b"{}", "NotTheService"),
        ({"x-amzn-requestid": ""}, b"{}", "NotTheService"),
        (ID, b"", "Malformed"),
        (ID, b"[" * 100_000, "Malformed"),
        (ID, b'{"a":1}x', "Malformed"),
        (ID | {"content-length": "3"}, b"{}", "Truncated"),
        (ID | {"x-amz-crc32": "7"}, b"{}", "ChecksumMismatch"),
    ],
)
def test_flaws(headers, body, code):
    flaw = HttpAnswer(200, headers, body).flaw(json_body=True)
    assert (flaw and flaw.code) == code


def test_the_message_says_what_came_and_where_to_look_but_nothing_of_the_body():
    flaw = HttpAnswer(200, PORTAL[1], PORTAL[0]).flaw(json_body=True)
    text = str(StrangeAnswer("PutItem", flaw))
    assert "PutItem failed: NotTheService: the answer with status 200 (text/html, 64 bytes) has no request id" in text
    assert "aws.endpoints" in text
    assert "terms" not in text


# --- what a success of each operation has ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "success"),
    [
        ("DescribeStreamSummary", {"StreamDescriptionSummary": {"StreamName": "s"}}),
        ("ListShards", {"Shards": []}),
        ("GetShardIterator", {"ShardIterator": "i"}),
        ("DescribeStream", {"StreamDescription": {}}),
        ("DescribeTable", {"Table": {}}),
        ("Query", {"Items": []}),
    ],
)
def test_a_success_has_what_its_operation_always_gives(operation, success):
    """An empty list of shards is an answer; no list is none, and would look like a stream without shards."""
    [name] = success
    assert parsed_flaw(operation, success) is None
    for lacking in ({}, {name: None}, {name: 5}, {name: ""}, {"ResponseMetadata": {}}):
        flaw = parsed_flaw(operation, lacking)
        assert flaw is not None
        assert (flaw.code, flaw.text) == ("Malformed", f"has no {name}")
