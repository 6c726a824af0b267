"""A DynamoDB Streams endpoint that costs little CPU: the load for every row, in a process of its own.

It answers DescribeStream, GetShardIterator and GetRecords over HTTP/1.1. Records are joined from parts rendered once.
Two further operations steer it: ``Bench.Configure`` starts over with other shards, sizes and rates, ``Bench.Put`` makes
more records readable, and both answer with what ``Bench.Stats`` says: calls counted by operation, and the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections import Counter
from typing import Any

from benchmarks.records import FIRST_NUMBER, TEMPLATES, key_of, render_templates

STREAM_ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
ENDLESS = 1 << 60


class Stream:
    """Shards of records numbered from 0. What is readable is a total, or grows with time at ``rate`` a shard."""

    def __init__(self) -> None:
        self._templates = {size: render_templates(size) for size in (1000, 2000)}
        self.configure({})

    def configure(self, options: dict[str, Any]) -> None:
        """``shards``; ``records`` readable of each (default: endless); ``page``: records at most in an answer;
        ``size``: bytes of a record; ``keys``: different keys of a shard; ``rate``: records/s becoming readable."""
        self.shards = int(options.get("shards", 1))
        self._totals: list[int] = [options.get("records", ENDLESS)] * self.shards
        self._page: int = options.get("page", 1000)
        self._parts = [template.parts for template in self._templates[options.get("size", 2000)]]
        self._keys: int = options.get("keys", 10_000)
        self._rate: float | None = options.get("rate")
        self.epoch = time.monotonic()
        self.calls: Counter[str] = Counter()

    def put(self, shard: int, count: int) -> None:
        """``count`` more records of one shard are readable from now on."""
        self._totals[shard] += count

    def readable(self, shard: int) -> int:
        total = self._totals[shard]
        if self._rate is None:
            return total
        return min(total, int((time.monotonic() - self.epoch) * self._rate))

    def page(self, shard: int, start: int, limit: int) -> bytes:
        end = max(start, min(self.readable(shard), start + limit, start + self._page))
        pieces: list[bytes] = [b'{"Records":[']
        created = b"%d" % time.time()  # as if they were new: a daemon sees by it that it is not behind
        for number in range(start, end):
            head, first, second, third, before, after = self._parts[number % TEMPLATES]
            key = key_of(number, self._keys)
            comma = b"," if number > start else b""
            shown = b"%d" % (FIRST_NUMBER + number)
            pieces += (comma, head, created, first, key, second, key, third, key, before, shown, after)
        pieces.append(b'],"NextShardIterator":"%s"}' % _iterator(shard, end))
        return b"".join(pieces)


def shard_id(shard: int) -> str:
    return f"shardId-{shard:020d}-{shard:08x}"


def _iterator(shard: int, start: int) -> bytes:
    return b"%s|%d|%d|%s" % (STREAM_ARN.encode(), shard, start, b"A" * 120)  # real ones are a few hundred characters


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time, nothing else."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n")
        self._buffer = buffer
        if head_end < 0 or self._transport is None:
            return
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in buffer[:head_end].split(b"\r\n")[1:])
        }
        end = head_end + 4 + int(headers.get(b"content-length", b"0"))
        if len(buffer) < end:
            return
        self._buffer = buffer[end:]
        operation = headers.get(b"x-amz-target", b"").decode().rpartition(".")[2]
        status, body = self._answer(operation, json.loads(buffer[head_end + 4 : end] or b"{}"))
        self._transport.write(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n"
            b"x-amzn-RequestId: 4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG\r\n\r\n"
            % (status, len(body))
            + body
        )

    def _answer(self, operation: str, request: dict[str, Any]) -> tuple[int, bytes]:
        stream = self._stream
        if operation == "GetRecords":
            stream.calls[operation] += 1
            _, shard, start, _ = request["ShardIterator"].split("|")
            return 200, stream.page(int(shard), int(start), request.get("Limit", 1000))
        if operation == "Stats":
            return 200, json.dumps({"calls": stream.calls, "epoch": stream.epoch, "now": time.monotonic()}).encode()
        if operation == "Configure":
            stream.configure(request)
            return self._answer("Stats", {})
        if operation == "Put":
            stream.put(request["shard"], request["count"])
            return self._answer("Stats", {})
        stream.calls[operation] += 1
        if operation == "GetShardIterator":
            return 200, b'{"ShardIterator":"%s"}' % _iterator(*self._position(request))
        if operation == "DescribeStream":
            return 200, json.dumps({"StreamDescription": self._description(request)}).encode()
        return 400, b'{"__type":"UnknownOperationException"}'

    def _position(self, request: dict[str, Any]) -> tuple[int, int]:
        shard, kind = int(request["ShardId"].split("-")[1]), request["ShardIteratorType"]
        if kind == "TRIM_HORIZON":
            return shard, 0
        if kind == "LATEST":
            return shard, self._stream.readable(shard)
        return shard, int(request["SequenceNumber"]) - FIRST_NUMBER + (kind == "AFTER_SEQUENCE_NUMBER")

    def _description(self, request: dict[str, Any]) -> dict[str, Any]:
        last = request.get("ExclusiveStartShardId")
        first = int(last.split("-")[1]) + 1 if last else 0
        end = min(self._stream.shards, first + request.get("Limit", 100))
        if request.get("ShardFilter"):
            end = first  # open shards have no children
        shards = [
            {"ShardId": shard_id(number), "SequenceNumberRange": {"StartingSequenceNumber": str(FIRST_NUMBER)}}
            for number in range(first, end)
        ]
        return {
            "StreamArn": STREAM_ARN,
            "StreamLabel": STREAM_ARN.rpartition("/")[2],
            "StreamStatus": "ENABLED",
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            "TableName": "orders",
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "Shards": shards,
            **({"LastEvaluatedShardId": shard_id(end - 1)} if first < end < self._stream.shards else {}),
        }


async def serve(port: int) -> None:
    stream = Stream()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stream), "127.0.0.1", port, backlog=512)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))
