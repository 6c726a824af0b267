"""`check-config --aws` for a Kinesis stream: what `run` would stumble over, and a table that puts nothing into it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import output_of
from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import Fleet, closing
from tests.support.reshard_proxy import ProxyThread

READS = ("DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords")
ASKING = "DescribeKinesisStreamingDestination"


class Checked:
    """A stream, a table that can feed it, a lease table, and the command."""

    def __init__(self, aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
        self.aws, self.fleet, self.proxy = aws, fleet, proxy
        self.kinesis = client("kinesis", aws.endpoint)
        self.stream = f"s-{uuid.uuid4().hex[:12]}"
        self.kinesis.create_stream(StreamName=self.stream, ShardCount=2)
        self.kinesis.get_waiter("stream_exists").wait(StreamName=self.stream, WaiterConfig={"Delay": 1})
        self.arn = self.kinesis.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"]["StreamARN"]

    def check(self, **source: Any) -> tuple[int, str]:
        endpoints = dict.fromkeys(("dynamodb", "dynamodb_streams", "kinesis", "sqs"), self.proxy.endpoint)
        return output_of(
            self.fleet,
            "check-config",
            "{config}",
            "--aws",
            aws={"endpoints": endpoints},
            source={"kind": "kinesis", "stream": self.stream, "table": None} | source,
        )

    def feed(self, arn: str) -> None:
        self.aws.dynamodb.enable_kinesis_streaming_destination(TableName=self.fleet.table, StreamArn=arn)

    def deny(self, operation: str) -> None:
        self.proxy.call("fault", operation, code="AccessDeniedException", status=400, times=1000)


@pytest.fixture
def checked(aws: Aws, proxy: ProxyThread, tmp_path: Path) -> Iterator[Checked]:
    with closing(Fleet(proxy.endpoint, tmp_path, aws.table(), aws.queue()[1])) as fleet:
        assert output_of(fleet, "init", "--config", "{config}")[0] == 0
        yield Checked(aws, fleet, proxy)


@pytest.mark.parametrize("by_arn", [False, True])
def test_a_stream_that_can_be_read(checked: Checked, *, by_arn: bool) -> None:
    code, said = checked.check(**({"stream": None, "stream_arn": checked.arn} if by_arn else {}))
    assert code == 0, said
    assert "stream: ok" in said
    assert "shards: ok" in said
    assert "destination of table" not in said
    for operation in READS:
        assert checked.proxy.call("calls_of", operation) > 0, operation
    assert checked.proxy.call("calls_of", ASKING) == checked.proxy.call("calls_of", "DescribeStream") == 0


@pytest.mark.parametrize("operation", READS)
def test_a_missing_permission_is_named(checked: Checked, operation: str) -> None:
    checked.deny(operation)
    code, said = checked.check()
    assert code == 77, said
    assert f"permission denied: kinesis:{operation} on Kinesis stream {checked.stream}" in said


def test_a_stream_that_is_not_there(checked: Checked) -> None:
    code, said = checked.check(stream="no-such-stream")
    assert code == 78, said
    assert "no-such-stream" in said
    assert "source.stream" in said


def test_a_filter_that_can_never_match(checked: Checked) -> None:
    """A Kinesis stream holds both images, so none is missed; and the keys are not known."""
    images = [{"data": {"dynamodb": {"OldImage": {"a": {"S": ["b"]}}}}}, {"dynamodb": {"Keys": {"x": {"S": ["b"]}}}}]
    endpoints = dict.fromkeys(("dynamodb", "kinesis", "sqs"), checked.proxy.endpoint)
    source = {"kind": "kinesis", "stream": checked.stream, "table": None}
    command = ("check-config", "{config}", "--aws")
    code, said = output_of(checked.fleet, *command, aws={"endpoints": endpoints}, source=source, filters=images)
    assert code == 0, said
    assert "filters: ok" in said


def test_a_table_that_feeds_the_stream(checked: Checked) -> None:
    checked.feed(checked.arn)
    code, said = checked.check(table=checked.fleet.table)
    assert code == 0, said
    assert "warning: table" not in said
    assert f"Kinesis destination of table {checked.fleet.table}: ok" in said


def test_a_table_that_feeds_no_stream_or_another_one_is_a_warning(checked: Checked) -> None:
    table = checked.fleet.table
    code, said = checked.check(table=table)
    assert code == 0, said
    assert (
        f"warning: table {table}: it puts its changes into no Kinesis stream, so none come from {checked.arn}" in said
    )
    assert f"aws dynamodb enable-kinesis-streaming-destination --table-name {table} --stream-arn {checked.arn}" in said
    other = checked.arn.replace(checked.stream, "another")
    checked.kinesis.create_stream(StreamName="another", ShardCount=1)
    checked.feed(other)
    code, said = checked.check(table=table)
    assert code == 0, said
    assert f"it puts its changes into {other}, so none come from {checked.arn}" in said


def test_a_destination_that_was_turned_off_is_a_warning(checked: Checked) -> None:
    table = checked.fleet.table
    checked.feed(checked.arn)
    checked.aws.dynamodb.disable_kinesis_streaming_destination(TableName=table, StreamArn=checked.arn)
    code, said = checked.check(table=table)
    assert code == 0, said
    assert f"warning: table {table}: its Kinesis destination {checked.arn} is DISABLED: no changes come" in said
    checked.feed(checked.arn)
    assert "warning: table" not in checked.check(table=table)[1]


def test_a_table_that_may_not_be_looked_at_is_no_error(checked: Checked) -> None:
    checked.deny(ASKING)
    code, said = checked.check(table=checked.fleet.table)
    assert code == 0, said
    assert "warning: Kinesis" not in said
    assert f"(not looked at, because dynamodb:{ASKING} is not allowed, and need not be): ok" in said


def test_a_table_that_is_not_there_is_a_warning(checked: Checked) -> None:
    code, said = checked.check(table="no-such-table")
    assert code == 0, said
    assert "warning: Kinesis destination of table no-such-table: cannot be looked at: " in said
