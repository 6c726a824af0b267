"""Records per CPU-second: the limit of the machine, the loop a user writes by hand, and the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from benchmarks import naive
from benchmarks.daemon import run_daemon, settings_of
from benchmarks.measure import Meter
from consumer.domain import compiled_values


def limit(stream: str, records: int, shards: int) -> dict[str, float]:
    """A blocking socket and the same lazy decode as the daemon's: what one core can do at all."""
    from consumer.aws.pages import decode_page

    address = urlsplit(stream)
    meter = Meter(records)
    with socket.create_connection((str(address.hostname), int(address.port or 80))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        requests = [
            json.loads(_post(connection, "GetShardIterator", _iterator_request(shard))) for shard in range(shards)
        ]
        iterators = [answer["ShardIterator"] for answer in requests]
        turn = 0
        while not meter.measured:
            shard = turn % shards
            page = decode_page(_post(connection, "GetRecords", {"ShardIterator": iterators[shard]}), "arn")
            iterators[shard] = page.next_iterator
            meter.count(len(page.records))
            turn += 1
    return meter.result()


def _iterator_request(shard: int) -> dict[str, str]:
    from benchmarks.stub_stream import shard_id

    return {"ShardId": shard_id(shard), "ShardIteratorType": "TRIM_HORIZON"}


def _post(connection: socket.socket, operation: str, request: dict[str, Any]) -> bytes:
    body = json.dumps(request).encode()
    connection.sendall(
        b"POST / HTTP/1.1\r\nHost: stub\r\nX-Amz-Target: X.%s\r\nContent-Length: %d\r\n\r\n"
        % (operation.encode(), len(body))
        + body
    )
    head = bytearray()
    while b"\r\n\r\n" not in head:
        head += connection.recv(1 << 16)
    headers, _, start = bytes(head).partition(b"\r\n\r\n")
    length = int(headers.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    answer = bytearray(length)
    answer[: len(start)] = start
    view = memoryview(answer)[len(start) :]
    while view:
        view = view[connection.recv_into(view) :]
    return bytes(answer)


def naive_loop(stream: str, records: int, shards: int, handler: str) -> dict[str, float]:
    """``benchmarks.naive`` with one of its handlers."""
    meter = Meter(records)
    asyncio.run(naive.consume(stream, shards, getattr(naive, handler), meter))
    return meter.result()


def daemon(
    stream: str,
    table: str,
    records: int,
    handler: dict[str, Any],
    sections: dict[str, Any] | None = None,
    compiled: bool = False,
) -> dict[str, float]:
    """The whole daemon: real client, leases and checkpoints in the local AWS, batches of 100 (the default). Images are
    made into values by Python, also where the compiled code is installed, or by that."""
    os.environ[compiled_values.VARIABLE] = "1" if compiled else "0"
    choice = compiled_values.choose(os.environ)
    if compiled and choice.made_by == "Python":
        raise RuntimeError(f"the compiled code is not used: {choice.unfit or 'it is not installed'}")
    meter = Meter(records, warm_up=records // 10)

    async def run() -> None:
        stop = asyncio.Event()
        meter.on_end = stop.set
        await run_daemon(settings_of(stream, table, handler, **(sections or {})), meter.count, stop)

    asyncio.run(run())
    return meter.result()
