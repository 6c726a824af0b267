"""The direct GetRecords call, and the fallback to the SDK's client: the same pages, errors and signatures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import structlog

from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller, CredentialsRejected, Unanswered
from consumer.aws.page_reader import SAMPLE
from consumer.aws.session import AwsSession
from consumer.domain.errors import DependencyError, ExpiredIterator, PermissionDenied, Throttled, TrimmedData
from tests.support.get_records_server import Server, ok, refusal, serving, strange
from tests.support.unknown_sdk import UnknownClient

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000"
LISTING = {
    "StreamDescription": {"StreamArn": ARN, "Shards": [], "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]}
}


@pytest.fixture
async def server(aws_environment):
    async with serving(SAMPLE, {"DescribeStream": LISTING}) as server:
        yield server


@asynccontextmanager
async def source_of(server: Server, *, direct: bool = True):
    async with AwsSession("us-east-1", {"dynamodb_streams": server.url}) as session:
        client = await session.client("dynamodbstreams")
        client = client if direct else UnknownClient(client)
        caller = ApiCaller(None, session.credentials_refused)
        source = DynamoDBStreamSource(client, None, caller, table=None, stream_arn=ARN)
        await source.describe()
        server.requests.clear()
        yield source


def everything(page):
    return [page.next_iterator, page.wire_bytes, *[record.as_event() for record in page.records]]


async def outcome(read: Callable[[], Awaitable[object]]) -> object:
    """The page, or the error with everything that callers look at."""
    try:
        return everything(await read())
    except DependencyError as error:
        # What is wrong with a damaged body is worded by the parser that met it.
        return (type(error), error.operation, error.code, None if error.code == "Malformed" else str(error))
    except Exception as error:
        return (type(error), str(error))


class TestSameAsTheClient:
    @pytest.mark.parametrize(
        "answer",
        [
            ok(SAMPLE),
            ok(b'{"Records":[],"NextShardIterator":"n"}'),
            ok(b'{"Records":[]}'),
            ok(b'{"Records":[' + b"," * 100_000),
            ok(SAMPLE[: len(SAMPLE) // 2]),
            ok(SAMPLE[:-1]),
            ok(b"{}"),
            ok(b"[]"),
            ok(b"null"),
            ok(b'{"NextShardIterator":"n"}'),
            ok(b'{"Records":null}'),
            ok(b'{"Records":[],"NextShardIterator":""}'),
            ok(b"<html>hello</html>"),
            ok(b""),
            refusal("ExpiredIteratorException"),
            refusal("TrimmedDataAccessException"),
            refusal("ResourceNotFoundException"),
            refusal("LimitExceededException"),
            refusal("ProvisionedThroughputExceededException"),
            refusal("AccessDeniedException"),
            refusal("UnrecognizedClientException"),
            refusal("InternalServerError", 500),
            ok(b"<html>bad gateway</html>", status=502),
            strange(b"<html>not found</html>", status=404),
            strange(b"<html>sign in</html>"),
            strange(b'{"Records":[]}'),
            ok(SAMPLE, more="x-amz-crc32: 5\r\n"),
            ok(b"", status=503),
        ],
        ids=lambda answer: answer[-40:].decode(errors="replace"),
    )
    async def test_pages_and_errors(self, server, answer):
        server.answers = [answer]
        found = []
        for direct in (True, False):
            async with source_of(server, direct=direct) as source:
                found.append(await outcome(lambda s=source: s.get_records("shard-1", "iterator", 7)))
        assert found[0] == found[1]

    @pytest.mark.parametrize("direct", [True, False])
    async def test_an_empty_success_is_an_error_and_only_a_closed_shard_ends(self, server, direct):
        """botocore makes ``{}`` of a damaged body: read as a page it would end the shard and lose what follows."""
        async with source_of(server, direct=direct) as source:
            for damaged in (b"", b"{}", SAMPLE[: len(SAMPLE) // 2], b'{"NextShardIterator":"n"}'):
                server.answers = [ok(damaged)]
                with pytest.raises(DependencyError, match="Malformed"):
                    await source.get_records("shard-1", "i", 7)
            server.answers = [strange(b'{"Records":[]}')]
            with pytest.raises(DependencyError, match="NotTheService"):
                await source.get_records("shard-1", "i", 7)
            server.answers = [ok(b'{"Records":[]}')]
            page = await source.get_records("shard-1", "i", 7)
            assert (list(page.records), page.next_iterator) == ([], None)

    async def test_requests(self, server, monkeypatch):
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a token/with=signs")
        for direct in (True, False):
            async with source_of(server, direct=direct) as source:
                await source.get_records("shard-1", 'an "iterator"', 7)
                sent = server.requests[-1]
                signed = sent["authorization"].split("SignedHeaders=")[1].split(",")[0]
                assert json.loads(sent["body"]) == {"ShardIterator": 'an "iterator"', "Limit": 7}
                assert signed == "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
                assert sent["host"] == f"127.0.0.1:{server.port}"
                assert sent["x-amz-security-token"] == "a token/with=signs"
                assert sent["x-amz-target"] == "DynamoDBStreams_20120810.GetRecords"
                assert "dynamodb-stream-consumer" in sent["user-agent"]
        assert ("amz-sdk-request" in server.requests[-1], len(server.requests)) == (True, 1)

    @pytest.mark.parametrize("direct", [True, False])
    async def test_named_errors(self, server, direct):
        async with source_of(server, direct=direct) as source:
            for code, error in (
                ("ExpiredIteratorException", ExpiredIterator),
                ("TrimmedDataAccessException", TrimmedData),
                ("ThrottlingException", Throttled),
                ("AccessDeniedException", PermissionDenied),
            ):
                server.answers = [refusal(code)]
                with pytest.raises(error):
                    await source.get_records("shard-1", "i", 7)


class TestConnections:
    async def test_one_connection_serves_many_calls(self, server):
        async with source_of(server) as source:
            before = server.connections
            for _ in range(20):
                await source.get_records("shard-1", "i", 7)
        assert server.connections <= before + 1

    async def test_a_page_of_megabytes(self, server):
        record = json.loads(SAMPLE)["Records"][0]
        body = json.dumps({"Records": [record] * 3000, "NextShardIterator": "n"}).encode()
        server.answers = [ok(body)]
        async with source_of(server) as source:
            page = await source.get_records("shard-1", "i", 7)
        assert (len(page.records), page.wire_bytes) == (3000, len(body))
        assert page.records[-1].new_image == page.records[0].new_image

    @pytest.mark.parametrize("sent", [0, 1, len(SAMPLE) - 1])
    async def test_a_cut_answer_is_an_error_and_never_a_page(self, server, sent):
        server.answers = [ok(SAMPLE[:sent], length=len(SAMPLE), more="X-CUT: 1\r\n")]
        async with source_of(server) as source:
            with pytest.raises(Unanswered):
                await source.get_records("shard-1", "i", 7)
            server.answers = [ok(SAMPLE)]
            assert len((await source.get_records("shard-1", "i", 7)).records) == 2

    async def test_a_cancelled_call_never_answers_the_next_one(self, server):
        server.answers = [ok(b'{"Records":[],"NextShardIterator":"late"}'), ok(SAMPLE)]
        server.hold.clear()
        async with source_of(server) as source:
            first = asyncio.create_task(source.get_records("shard-1", "i", 7))
            while not server.requests:
                await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            server.hold.set()
            server.answers = [ok(SAMPLE)]
            assert (await source.get_records("shard-1", "i", 7)).next_iterator == "next"

    async def test_a_proxy_is_used(self, server, monkeypatch):
        """The client's own HTTP session asks, so whatever it is configured with holds."""
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with AwsSession("us-east-1", {"dynamodb_streams": "http://streams.invalid"}) as session:
            client = await session.client("dynamodbstreams")
            source = DynamoDBStreamSource(client, None, ApiCaller(), table=None, stream_arn=ARN)
            assert len((await source.get_records("shard-1", "i", 7)).records) == 2
        assert server.requests[-1]["host"] == "streams.invalid"


class TestCredentials:
    async def test_rotated_credentials_sign_the_next_call(self, server, monkeypatch, tmp_path):
        """A program that gives other credentials each time that it is asked, which it is after a refusal."""
        program = tmp_path / "credentials.py"
        program.write_text(
            f"""
import datetime, json, pathlib
calls = pathlib.Path({str(tmp_path / "calls")!r})
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
count = len(calls.read_text())
expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=700)
print(json.dumps({{"Version": 1, "AccessKeyId": f"KEY{{count}}", "SecretAccessKey": "s",
                   "SessionToken": f"token {{count}}", "Expiration": expiry.isoformat()}}))
"""
        )
        config = tmp_path / "config"
        config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        async with source_of(server) as source:
            server.answers = [refusal("ExpiredTokenException"), ok(SAMPLE)]
            with pytest.raises(CredentialsRejected):
                await source.get_records("shard-1", "i", 7)
            async with asyncio.timeout(10.0):
                while "KEY2" not in server.requests[-1]["authorization"]:
                    await source.get_records("shard-1", "i", 7)
        keys = [sent["authorization"].split("Credential=")[1].split("/")[0] for sent in server.requests]
        tokens = [sent["x-amz-security-token"] for sent in server.requests]
        assert (keys[0], keys[-1]) == ("KEY1", "KEY2")
        assert tokens == [key.replace("KEY", "token ") for key in keys]


class TestLeftToTheSdk:
    async def test_when_the_client_is_made_in_another_way(self, server):
        """What has no public name may go with any release: then pages still come, at the SDK's price."""
        with structlog.testing.capture_logs() as logs:
            async with source_of(server, direct=False) as source:
                for _ in range(2):
                    assert len((await source.get_records("shard-1", "i", 7)).records) == 2
        [entry] = logs
        assert (entry["event"], entry["log_level"]) == ("pages.fallback_parser", "error")
        assert "no such attribute: _endpoint" in entry["reason"]
        assert "50 times slower" in entry["effect"]
        assert all("amz-sdk-request" in sent for sent in server.requests)

    async def test_a_checksum_counts_on_the_direct_path(self, server):
        server.answers = [ok(SAMPLE, more="x-amz-crc32: 5\r\n")]
        async with source_of(server) as source:
            with pytest.raises(DependencyError, match="ChecksumMismatch"):
                await source.get_records("shard-1", "i", 7)
