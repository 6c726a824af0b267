"""GetRecords of Kinesis, the direct way and through the SDK: the same pages and errors, from the stream's own host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from consumer.aws import kinesis_page_reader
from consumer.aws.direct_get_records import DirectGetRecords
from consumer.aws.errors import ApiCaller
from consumer.aws.kinesis_page_reader import SAMPLE, KinesisPageReader
from consumer.aws.kinesis_pages import KinesisPage, KinesisShard
from consumer.aws.session import AwsSession
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    KeyUnusable,
    PermissionDenied,
    ResourceMissing,
    Throttled,
)
from tests.support.get_records_server import Server, ok, refusal, serving, strange
from tests.support.kinesis_answers import ARN, SHARD_ID, body_of, change, data_of, wire
from tests.support.unknown_sdk import UnknownClient

SHARD = KinesisShard(ARN, SHARD_ID)
DATA_PLANE = "123456789012.data-kinesis.eu-west-1.amazonaws.com"


@pytest.fixture
async def server(aws_environment: None) -> AsyncIterator[Server]:
    async with serving(SAMPLE) as server:
        yield server


@asynccontextmanager
async def reader_of(server: Server, *, direct: bool = True) -> AsyncIterator[KinesisPageReader]:
    async with AwsSession("eu-west-1", {"kinesis": server.url}) as session:
        client = await session.client("kinesis")
        reader = KinesisPageReader(client if direct else UnknownClient(client), ARN)
        await reader.prepare()
        yield reader


async def read(reader: KinesisPageReader) -> KinesisPage:
    return await ApiCaller().call("GetRecords", ARN, reader.read("iterator", 7, SHARD))


def everything(found: KinesisPage) -> list[Any]:
    page = found.page
    return [page.next_iterator, page.behind, page.wire_bytes, found.children, [one.as_event() for one in page.records]]


class TestSameAsTheClient:
    @pytest.mark.parametrize(
        "answer",
        [
            ok(SAMPLE),
            ok(body_of(wire(data_of(change())), following=None)),
            ok(b'{"Records":[]}'),
            ok(SAMPLE[: len(SAMPLE) // 2]),
            ok(b"{}"),
            ok(b"null"),
            ok(b""),
            ok(b'{"NextShardIterator":"n"}'),
            ok(b"<html>hello</html>"),
            refusal("ExpiredIteratorException"),
            refusal("ProvisionedThroughputExceededException"),
            refusal("InvalidArgumentException"),
            refusal("KMSDisabledException"),
            refusal("KMSThrottlingException"),
            refusal("InternalFailure", 500),
            ok(b"<html>bad gateway</html>", status=502),
            strange(b"<html>not found</html>", status=404),
            strange(b'{"Records":[]}'),
        ],
        ids=lambda answer: answer[-40:].decode(errors="replace"),
    )
    async def test_pages_and_errors(self, server: Server, answer: bytes) -> None:
        server.answers = [answer]
        found: list[Any] = []
        for direct in (True, False):
            async with reader_of(server, direct=direct) as reader:
                try:
                    found.append(everything(await read(reader)))
                except Exception as error:
                    damaged = isinstance(error, DependencyError) and error.code == "Malformed"
                    found.append((type(error), "" if damaged else str(error)))
        assert found[0] == found[1]

    async def test_the_direct_way_is_the_one_that_is_taken(self, server: Server) -> None:
        async with reader_of(server) as reader:
            await read(reader)
        async with reader_of(server, direct=False) as reader:
            await read(reader)
        assert ["amz-sdk-request" in sent for sent in server.requests] == [False, True]

    @pytest.mark.parametrize("direct", [True, False])
    async def test_requests(self, server: Server, direct: bool) -> None:
        async with reader_of(server, direct=direct) as reader:
            await read(reader)
        [sent] = server.requests
        assert json.loads(sent["body"]) == {"ShardIterator": "iterator", "Limit": 7, "StreamARN": ARN}
        assert sent["x-amz-target"] == "Kinesis_20131202.GetRecords"
        assert sent["content-type"] == "application/x-amz-json-1.1"
        assert "/eu-west-1/kinesis/aws4_request" in sent["authorization"]

    @pytest.mark.parametrize("direct", [True, False])
    async def test_named_errors(self, server: Server, direct: bool) -> None:
        async with reader_of(server, direct=direct) as reader:
            for code, kind in (
                ("ExpiredIteratorException", ExpiredIterator),
                ("ProvisionedThroughputExceededException", Throttled),
                ("KMSThrottlingException", Throttled),
                ("KMSNotFoundException", KeyUnusable),
                ("AccessDeniedException", PermissionDenied),
                ("ResourceNotFoundException", ResourceMissing),
            ):
                server.answers = [refusal(code)]
                with pytest.raises(kind):
                    await read(reader)


class TestTheHost:
    """A stream of AWS has a host of its own, with its account in the name."""

    async def url_for(self, region: str, arn: str, endpoints: dict[str, str]) -> str:
        async with AwsSession(region, endpoints) as session:
            reader = KinesisPageReader(await session.client("kinesis"), arn)
            with structlog.testing.capture_logs() as logs:
                await reader.prepare()
            assert logs == []
            assert reader._direct is not None
            return reader._direct._url

    async def test_is_that_of_the_data_plane(self, aws_environment: None) -> None:
        assert await self.url_for("eu-west-1", ARN, {}) == f"https://{DATA_PLANE}/"

    async def test_is_the_configured_one_where_there_is_one(self, aws_environment: None) -> None:
        assert await self.url_for("eu-west-1", ARN, {"kinesis": "http://127.0.0.1:9"}) == "http://127.0.0.1:9/"

    async def test_each_stream_has_its_own(self, aws_environment: None) -> None:
        other = ARN.replace("123456789012", "210987654321")
        assert (
            await self.url_for("eu-west-1", other, {})
            == f"https://{DATA_PLANE.replace('123456789012', '210987654321')}/"
        )

    async def test_an_sdk_that_leaves_the_stream_out_is_noticed(self, server: Server) -> None:
        """Then host and permissions are those of something else: the SDK must ask by itself."""
        async with AwsSession("eu-west-1", {"kinesis": server.url}) as session:
            client = await session.client("kinesis")

            def without_arn(params: dict[str, Any], **_: Any) -> None:
                params.pop("StreamARN", None)

            client.meta.events.register("provide-client-params.kinesis.GetRecords", without_arn)
            with structlog.testing.capture_logs() as logs:
                await KinesisPageReader(client, ARN).prepare()
        [entry] = logs
        assert (entry["event"], entry["log_level"]) == ("pages.fallback_parser", "error")
        assert "asks for other things" in entry["reason"]


class TestSelfTest:
    async def test_works_with_this_sdk_and_never_leaves_the_process(self, server: Server) -> None:
        with structlog.testing.capture_logs() as logs:
            async with reader_of(server):
                pass
        assert logs == []
        assert server.requests == []

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"NextShardIterator": "next"', b'"other": 1'),
            (b'"MillisBehindLatest": 1500', b'"other": 1'),
            (b'"ChildShards"', b'"other"'),
            (b'"Records": [', b'"Records": [], "other": ['),
        ],
    )
    async def test_a_page_that_is_decoded_in_another_way_leaves_it_to_the_sdk(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
    ) -> None:
        """What botocore sees differs from what msgspec sees: here because only one of them gets another body."""
        assert old in SAMPLE
        given = kinesis_page_reader.decode_page
        monkeypatch.setattr(
            kinesis_page_reader, "decode_page", lambda body, shard: given(body.replace(old, new), shard)
        )
        with structlog.testing.capture_logs() as logs:
            async with reader_of(server) as reader:
                found = await read(reader)
        assert [entry["event"] for entry in logs] == ["pages.fallback_parser"]
        assert len(found.page.records) == 3
        assert "amz-sdk-request" in server.requests[-1]

    async def test_two_that_ask_at_once_learn_once(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        learned = []
        learn = DirectGetRecords.learn

        async def counted(self: DirectGetRecords, iterator: str) -> Any:
            learned.append(iterator)
            return await learn(self, iterator)

        monkeypatch.setattr(DirectGetRecords, "learn", counted)
        async with AwsSession("eu-west-1", {"kinesis": server.url}) as session:
            reader = KinesisPageReader(await session.client("kinesis"), ARN)
            await asyncio.gather(*(reader.read("i", 7, SHARD) for _ in range(3)))
        assert len(learned) == 1
        assert len(server.requests) == 3
