"""The largest record that a source has comes back byte for byte: letter, redrive, handler.

An item of DynamoDB has 400 KB at most, so a record with both images has 800 KB as the service counts. JSON is larger:
a control character is one byte there and six here (``\\u0001``), so such a record is 4.7 MB of JSON. An invocation
takes 6 MB. A record of Kinesis is bounded by its stream (1 MiB, or up to 10 MiB), and base64 makes a third more of it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conftest import unique
from tests.e2e.conftest import Aws, client
from tests.e2e.dlq_commands import Dead, made
from tests.e2e.fleet import Fleet, wait_until
from tests.support.threads import serving

MOST_OF_AN_ITEM = 390_000  # bytes; DynamoDB takes 400 KiB with names and keys
CONTROL = "\x01"
EXPECTED_EVENT = 2 * 6 * MOST_OF_AN_ITEM  # bytes at least: both images, six for each character


class Function(ThreadingHTTPServer):
    """A handler over http that keeps the bytes which it was sent. It fails until it is ``mended``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.mended = False
        self.failed_with: list[bytes] = []
        self.handled: list[bytes] = []


class _Request(BaseHTTPRequestHandler):
    server: Function
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        (self.server.handled if self.server.mended else self.server.failed_with).append(body)
        self.send_response(200 if self.server.mended else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        pass


@pytest.fixture
def function() -> Iterator[Function]:
    with serving(Function()) as server:
        yield server


@pytest.fixture(params=["s3", pytest.param("sqs", marks=pytest.mark.soak)])
def dead(request: pytest.FixtureRequest, aws: Aws, fleet: Fleet) -> Dead:
    found = made(request.param, aws, fleet)
    if request.param == "sqs":  # a message has 1 MiB at most
        bucket = unique("overflow")
        client("s3", aws.endpoint).create_bucket(Bucket=bucket)
        found.overrides["on_failure"]["overflow"] = f"s3://{bucket}/large"
    return found


@pytest.mark.parametrize("order", ["continue", "park_key"])
def test_the_largest_item_comes_back_byte_for_byte(
    order: str, aws: Aws, fleet: Fleet, dead: Dead, function: Function
) -> None:
    for version in (1, 2):
        item = {"pk": {"S": "large"}, "version": {"N": str(version)}, "text": {"S": CONTROL * MOST_OF_AN_ITEM}}
        aws.dynamodb.put_item(TableName=fleet.table, Item=item)
    dead.overrides["on_failure"]["order"] = order
    dead.overrides["handler"] = {"kind": "http", "target": f"http://127.0.0.1:{function.server_port}/"}
    dead.overrides |= {"batch": {"batch_size": 1}, "retry": {"max_retry_attempts": 0}}
    worker = fleet.start("w1", **dead.overrides)
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") >= 2, 90, "both versions are letters")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0

    function.mended = True
    done = dead.run("redrive")
    assert done.returncode == 0, done.stderr
    assert dead.list()["letters"] == 0
    records = [record for body in function.handled for record in json.loads(body)["Records"]]
    assert [record["dynamodb"]["NewImage"]["version"]["N"] for record in records] == ["1", "2"]
    assert records[1]["dynamodb"]["OldImage"]["text"]["S"] == CONTROL * MOST_OF_AN_ITEM
    assert len(function.handled[1]) > EXPECTED_EVENT
    if order == "continue":  # the later one of a parked key comes for the first time now
        assert function.handled == function.failed_with
    else:
        assert function.handled[:1] == function.failed_with
