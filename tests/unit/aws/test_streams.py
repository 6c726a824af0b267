"""The stream adapter on a real SDK client with scripted answers: listings, errors, and the self-test.

The answers are scripted with the client's own events, which the direct GetRecords call does not go through: pages come
through the SDK here (``test_direct_get_records.py`` reads them both ways).
"""

import asyncio
import json
import time

import pytest
import structlog
from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import NoCredentialsError

from consumer.aws import dynamodb_streams, page_reader
from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller, AwsConfigurationError
from consumer.aws.page_reader import SAMPLE, SELF_TEST
from consumer.aws.pages import decode_page
from consumer.aws.session import AwsSession
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
    Throttled,
    TrimmedData,
)
from consumer.domain.shards import ShardInfo
from consumer.ports.source import Position
from tests.support.unknown_sdk import UnknownClient

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000"
STREAM = {
    "StreamArn": ARN,
    "StreamLabel": "2026-01-01T00:00:00.000",
    "StreamStatus": "ENABLED",
    "StreamViewType": "NEW_IMAGE",
    "TableName": "orders",
    "KeySchema": [{"AttributeName": "sk", "KeyType": "RANGE"}, {"AttributeName": "id", "KeyType": "HASH"}],
    "Shards": [],
}


def shard(number, parent=None, *, end=None):
    numbers = {"StartingSequenceNumber": str(10**20 + number)}
    if end:
        numbers["EndingSequenceNumber"] = end
    described = {"ShardId": f"shardId-{number:020d}-00000000", "SequenceNumberRange": numbers}
    return described if parent is None else {**described, "ParentShardId": f"shardId-{parent:020d}-00000000"}


def shard_id(number):
    return shard(number)["ShardId"]


def listing(*shards, last=None):
    more = {"LastEvaluatedShardId": shard_id(last)} if last is not None else {}
    return {"StreamDescription": {**STREAM, "Shards": list(shards), **more}}


def failure(code, message=""):
    return 400, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}


class Script:
    """Answers by operation, in order; the last one repeats. An answer is a body, or (status, body)."""

    def __init__(self):
        self.answers = {}
        self.requests = []
        self.headers = {}
        self.seconds = 0

    def on(self, operation, *answers):
        self.answers[operation] = list(answers)

    def asked(self, operation):
        return [request for name, request in self.requests if name == operation]

    def send(self, request, **_):
        body = request.body if isinstance(request.body, bytes) else request.body.encode()
        if SELF_TEST.encode() in body:
            return None
        operation = request.headers["X-Amz-Target"]
        operation = (operation.decode() if isinstance(operation, bytes) else operation).rpartition(".")[2]
        self.requests.append((operation, json.loads(body)))
        queue = self.answers[operation]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        headers = {"content-length": str(len(data)), "content-type": "application/x-amz-json-1.0"}
        headers |= {"x-amzn-requestid": "1", **self.headers}
        return AioAWSResponse("http://127.0.0.1:9/", status, headers, Body(data, self.seconds))


class Body:
    def __init__(self, data, seconds):
        self.data = data
        self.seconds = seconds

    async def read(self):
        await asyncio.sleep(self.seconds)
        return self.data


@pytest.fixture
async def script(aws_environment):
    async with AwsSession(
        "us-east-1", {"dynamodb": "http://127.0.0.1:9", "dynamodb_streams": "http://127.0.0.1:9"}
    ) as s:
        script = Script()
        script.known = await s.client("dynamodbstreams")
        script.streams, script.dynamodb = UnknownClient(script.known), await s.client("dynamodb")
        script.streams.meta.events.register_first("before-send", script.send)
        script.dynamodb.meta.events.register_first("before-send", script.send)
        script.on("DescribeStream", listing(shard(1)))
        script.on("DescribeTable", {"Table": {"TableName": "orders", "LatestStreamArn": ARN}})
        script.calls = []
        yield script


def source_of(script, **options):
    caller = ApiCaller(lambda operation, outcome, _: script.calls.append((operation, outcome)))
    options = options or {"stream_arn": ARN}
    return DynamoDBStreamSource(
        script.streams, script.dynamodb, caller, **{"table": None, "stream_arn": None, **options}
    )


@pytest.fixture
def fast_pauses(monkeypatch):
    monkeypatch.setattr(dynamodb_streams, "PAGE_PAUSE", 0.0)
    monkeypatch.setattr(dynamodb_streams, "THROTTLED_PAUSE", 0.0)


class TestDescribe:
    @pytest.mark.parametrize("options", [{"stream_arn": ARN}, {"table": "orders"}])
    async def test_by_table_and_by_arn(self, script, options):
        script.headers["date"] = "Thu, 01 Jan 2026 00:00:10 GMT"
        found = await source_of(script, **options).describe()
        assert (found.stream_arn, found.label, found.table_name) == (ARN, "2026-01-01T00:00:00.000", "orders")
        assert (found.status, found.view_type, found.format.ordered_by) == ("ENABLED", "NEW_IMAGE", "id")
        assert found.server_time == 1767225610.0

    @pytest.mark.parametrize("options", [{"stream_arn": ARN}, {"table": "orders"}])
    async def test_the_newest_stream_of_a_table_needs_no_call_of_describe_stream(self, script, options):
        """An account has ten a second, and a fleet may start all at once."""
        script.headers["date"] = "Thu, 01 Jan 2026 00:00:10 GMT"
        by_stream = await source_of(script, **options).describe()
        assert script.asked("DescribeStream"), "the table does not say enough"
        script.requests.clear()
        keys = STREAM["KeySchema"]
        enabled = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        table = {"TableName": "orders", "LatestStreamArn": ARN, "KeySchema": keys, "StreamSpecification": enabled}
        script.on("DescribeTable", {"Table": table})
        source = source_of(script, **options)
        assert await source.describe() == by_stream
        assert not script.asked("DescribeStream")
        await source.check_listing()
        assert [request["Limit"] for request in script.asked("DescribeStream")] == [1]
        script.on("DescribeTable", {"Table": {**table, "LatestStreamArn": ARN + "-new"}})
        assert (await source.describe()).stream_arn == ARN, "an older one is asked for itself"
        assert len(script.asked("DescribeStream")) == 2

    @pytest.mark.parametrize("refused", ["AccessDeniedException", "ResourceNotFoundException"])
    async def test_a_stream_given_by_arn_needs_no_permission_for_its_table(self, script, refused):
        script.on("DescribeTable", failure(refused))
        assert (await source_of(script).describe()).table_name == "orders"
        assert [request["TableName"] for request in script.asked("DescribeTable")] == [ARN.partition("/stream/")[0]]

    @pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Jan 2026 00:00:10 GMT"])
    async def test_the_local_time_when_the_answer_has_no_date(self, script, date):
        if date is not None:
            script.headers["date"] = date
        assert abs((await source_of(script).describe()).server_time - time.time()) < 5

    async def test_a_table_without_stream_says_how_to_get_one(self, script):
        script.on("DescribeTable", {"Table": {"TableName": "orders"}})
        with pytest.raises(
            MisconfiguredResource, match=r"table orders has no stream.*update-table --table-name orders"
        ):
            await source_of(script, table="orders").describe()

    async def test_a_missing_table_is_named(self, script):
        script.on("DescribeTable", failure("ResourceNotFoundException"))
        with pytest.raises(ResourceMissing, match="table orders does not exist"):
            await source_of(script, table="orders").describe()

    async def test_a_missing_stream_is_named(self, script):
        script.on("DescribeStream", failure("ResourceNotFoundException"))
        with pytest.raises(ResourceMissing, match=f"stream {ARN} does not exist"):
            await source_of(script).describe()
        with pytest.raises(MisconfiguredResource, match=r"table orders names the stream .* which is gone"):
            await source_of(script, table="orders").describe()

    async def test_a_stream_that_vanishes_later_is_missing_for_listings(self, script):
        source = source_of(script, table="orders")
        await source.describe()
        script.on("DescribeStream", failure("ResourceNotFoundException"))
        with pytest.raises(ResourceMissing):
            await source.list_shards()

    async def test_the_stream_of_a_table_is_resolved_once(self, script):
        source = source_of(script, table="orders")
        await source.describe()
        script.on("DescribeTable", {"Table": {"LatestStreamArn": ARN + "-new"}})
        assert (await source.describe()).stream_arn == ARN

    @pytest.mark.parametrize("body", [b"", b"{", b'{"Table":{"TableNa', b"{}"])
    async def test_a_cut_table_description_is_not_a_table_without_stream(self, script, body):
        script.on("DescribeTable", body)
        with pytest.raises(DependencyError, match="Malformed"):
            await source_of(script, table="orders").describe()

    async def test_denied(self, script):
        script.on("DescribeStream", failure("AccessDeniedException"))
        with pytest.raises(PermissionDenied, match=f"dynamodb:DescribeStream on {ARN}"):
            await source_of(script).describe()

    @pytest.mark.parametrize("options", [{"table": "a", "stream_arn": "b"}, {"table": None}])
    async def test_exactly_one_of_table_and_arn(self, script, options):
        with pytest.raises(ValueError, match="exactly one"):
            source_of(script, **options)


@pytest.mark.usefixtures("fast_pauses")
class TestListing:
    async def test_all_pages(self, script):
        numbers = list(range(1, 951))
        parts = [numbers[at : at + 100] for at in range(0, 950, 100)]
        answers = [listing(*map(shard, part), last=part[-1]) for part in parts[:-1]]
        script.on("DescribeStream", *answers, listing(*map(shard, parts[-1])))
        found = await source_of(script).list_shards()
        assert [one.shard_id for one in found] == [shard_id(number) for number in numbers]
        starts = [request.get("ExclusiveStartShardId") for request in script.asked("DescribeStream")]
        assert starts == [None, *[shard_id(part[-1]) for part in parts[:-1]]]

    async def test_parents_and_numbers_are_as_given(self, script):
        bare = {"ShardId": shard_id(9), "SequenceNumberRange": {}}
        script.on("DescribeStream", listing(shard(1, end="0" * 20 + "7"), shard(2, parent=1), bare))
        assert await source_of(script).list_shards() == [
            ShardInfo(shard_id(1), (), str(10**20 + 1), "0" * 20 + "7"),
            ShardInfo(shard_id(2), (shard_id(1),), str(10**20 + 2), None),
            ShardInfo(shard_id(9)),
        ]

    @pytest.mark.parametrize(
        "bad",
        [
            failure("InternalServerError"),
            b"",
            b'{"StreamDescription":{"Shar',
            {"StreamDescription": {"StreamArn": ARN}},
        ],
    )
    async def test_a_bad_page_fails_the_listing(self, script, bad):
        script.on("DescribeStream", listing(shard(1), last=1), bad)
        with pytest.raises(DependencyError):
            await source_of(script).list_shards()

    async def test_a_throttled_page_is_asked_for_again(self, script):
        throttled = failure("LimitExceededException")
        script.on("DescribeStream", listing(shard(1), last=1), throttled, throttled, listing(shard(2)))
        assert len(await source_of(script).list_shards()) == 2

    async def test_but_not_for_ever(self, script):
        script.on("DescribeStream", failure("LimitExceededException"))
        with pytest.raises(Throttled):
            await source_of(script).list_shards()
        assert len(script.asked("DescribeStream")) == dynamodb_streams.THROTTLED_ATTEMPTS

    async def test_paging_in_circles_ends(self, script):
        script.on("DescribeStream", listing(shard(1), last=1), listing(shard(2), last=2), listing(shard(1), last=1))
        with pytest.raises(DependencyError, match="PagingLoop"):
            await source_of(script).list_shards()

    async def test_children_are_checked(self, script):
        everything = listing(shard(1, end="9"), shard(2, parent=1), shard(3, parent=1), shard(4, parent=2))
        script.on("DescribeStream", everything)  # as a server that ignores the filter
        children = await source_of(script).child_shards(shard_id(1))
        assert [child.shard_id for child in children] == [shard_id(2), shard_id(3)]
        [request] = script.asked("DescribeStream")
        assert request["ShardFilter"] == {"Type": "CHILD_SHARDS", "ShardId": shard_id(1)}

    async def test_children_over_several_pages(self, script):
        script.on("DescribeStream", listing(last=1), listing(shard(2, parent=1)))
        assert [child.shard_id for child in await source_of(script).child_shards(shard_id(1))] == [shard_id(2)]


class TestReading:
    async def test_numbers_and_iterators_go_through_unchanged(self, script):
        script.on("GetShardIterator", {"ShardIterator": "arn|1|zzz"})
        script.on("GetRecords", SAMPLE)
        source = source_of(script)
        text = "000000000000000000042"
        assert await source.iterator(shard_id(1), Position("AFTER_SEQUENCE_NUMBER", text)) == "arn|1|zzz"
        page = await source.get_records(shard_id(1), "arn|1|zzz", 250)
        assert script.asked("GetShardIterator")[0]["SequenceNumber"] == text
        assert script.asked("GetRecords") == [{"ShardIterator": "arn|1|zzz", "Limit": 250}]
        assert [record.event_source_arn for record in page.records] == [ARN, ARN]
        assert page.wire_bytes == len(SAMPLE)
        assert ("GetRecords", "ok") in script.calls

    async def test_a_page_that_does_not_decode(self, script):
        source = source_of(script)
        for length in (0, 1, 30, len(SAMPLE) // 2, len(SAMPLE) - 1):
            script.on("GetRecords", SAMPLE[:length])
            with pytest.raises(DependencyError):
                await source.get_records(shard_id(1), "i", 10)

    @pytest.mark.parametrize(
        ("code", "kind", "text"),
        [
            ("ExpiredIteratorException", ExpiredIterator, "shardId-"),
            ("TrimmedDataAccessException", TrimmedData, "shardId-"),
            ("ResourceNotFoundException", ResourceMissing, "shard shardId-"),
            ("AccessDeniedException", PermissionDenied, ARN),
            ("ProvisionedThroughputExceededException", Throttled, "GetRecords"),
            ("LimitExceededException", Throttled, "GetRecords"),
            ("InternalServerError", DependencyError, "GetRecords"),
        ],
    )
    async def test_errors_of_both_calls(self, script, code, kind, text):
        script.on("GetRecords", failure(code))
        script.on("GetShardIterator", failure(code))
        source = source_of(script)
        with pytest.raises(kind, match=text):
            await source.get_records(shard_id(1), "i", 10)
        with pytest.raises(kind):
            await source.iterator(shard_id(1), Position("TRIM_HORIZON"))

    async def test_an_error_page_of_a_load_balancer(self, script):
        script.on("GetRecords", (503, b"<html>Service Unavailable</html>"), (300, b"{}"), (204, b""))
        for _ in range(3):
            with pytest.raises(DependencyError):
                await source_of(script).get_records(shard_id(1), "i", 10)

    @pytest.mark.parametrize("body", [b"", b"{", {}, {"ShardIterator": ""}])
    async def test_no_iterator(self, script, body):
        script.on("GetShardIterator", body)
        with pytest.raises(DependencyError, match="Malformed"):
            await source_of(script).iterator(shard_id(1), Position("LATEST"))

    async def test_every_call_is_bounded(self, script, monkeypatch):
        monkeypatch.setattr(dynamodb_streams, "CALL_TIMEOUT", 0.05)
        script.seconds = 60
        source = source_of(script)
        for operation in ("DescribeStream", "GetShardIterator", "GetRecords"):
            script.on(operation, {})
        for call in (
            source.list_shards(),
            source.child_shards(shard_id(1)),
            source.iterator(shard_id(1), Position("LATEST")),
            source.get_records(shard_id(1), "i", 1),
        ):
            with pytest.raises(DependencyError, match="Timeout"):
                await call


class TestSelfTest:
    async def test_the_direct_call_works_with_this_sdk(self, script):
        script.streams = script.known
        with structlog.testing.capture_logs() as logs:
            await source_of(script).describe()
        assert logs == []
        assert script.asked("GetRecords") == []  # the self-test never leaves the process
        assert {operation for operation, _ in script.calls} == {"DescribeTable", "DescribeStream"}  # nor is it counted

    async def test_falls_back_when_the_sdk_reads_a_page_in_another_way(self, script, monkeypatch):
        monkeypatch.setattr(page_reader, "SAMPLE", SAMPLE.replace(b'"NextShardIterator":"next"', b'"other":1'))
        script.streams = script.known
        source = source_of(script)
        with structlog.testing.capture_logs() as logs:
            await source.describe()
        [entry] = logs
        assert (entry["event"], entry["log_level"]) == ("pages.fallback_parser", "error")
        assert "differently" in entry["reason"]
        script.on("GetRecords", SAMPLE)
        slow = await source.get_records(shard_id(1), "i", 10)
        fast = decode_page(SAMPLE, ARN)
        assert [record.as_event() for record in slow.records] == [record.as_event() for record in fast.records]
        assert (slow.next_iterator, slow.wire_bytes) == (fast.next_iterator, fast.wire_bytes)

    @pytest.mark.parametrize(("target", "replacement"), [("decode_page", lambda *_: 1 / 0)])
    async def test_any_failure_is_a_reason(self, script, monkeypatch, target, replacement):
        monkeypatch.setattr(page_reader, target, replacement)
        script.streams = script.known
        with structlog.testing.capture_logs() as logs:
            await source_of(script).describe()
        assert ["ZeroDivisionError" in entry["reason"] for entry in logs] == [True]

    async def test_runs_once(self, script):
        source = source_of(script)
        with structlog.testing.capture_logs() as logs:
            await source.describe()
            await source.describe()
            await source.of(ARN).describe()
        assert [entry["event"] for entry in logs] == ["pages.fallback_parser"]

    async def test_decides_nothing_while_there_are_no_credentials(self, script):
        """The next call asks again, instead of reading at the SDK's price for the rest of the daemon's life."""
        failing = [NoCredentialsError(), TimeoutError()]

        async def sign(**_):
            if failing:
                raise failing.pop(0)

        script.known.meta.events.register("before-sign.dynamodb-streams.GetRecords", sign)
        script.streams = script.known
        source = source_of(script)
        with structlog.testing.capture_logs() as logs:
            with pytest.raises(AwsConfigurationError):
                await source.describe()
            with pytest.raises(DependencyError, match="Timeout"):
                await source.describe()
            await source.describe()
        assert logs == []
