"""An HTTP server that answers GetRecords with any bytes, for what the SDK and the direct call make of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any


class Server:
    """Answers GetRecords with the bytes of ``answers``, in turn; then with the last one. Other operations get what
    ``others`` has for them."""

    def __init__(self, first: bytes, others: Mapping[str, Any]) -> None:
        self.answers: list[bytes] = [ok(first)]
        self.others = dict(others)
        self.requests: list[dict[str, str]] = []
        self.connections = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                headers["body"] = (await reader.readexactly(int(headers["content-length"]))).decode()
                operation = headers["x-amz-target"].partition(".")[2]
                if operation in self.others:
                    writer.write(ok(json.dumps(self.others[operation]).encode()))
                    continue
                self.requests.append(headers)
                await self.hold.wait()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                if b"Connection: close" in answer or b"CUT" in answer or not answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ok(body: bytes, *, status: int = 200, length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    kind = "Content-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 1\r\n"
    return f"HTTP/1.1 {status} X\r\n{kind}Content-Length: {size}\r\n{more}\r\n".encode() + body


def strange(body: bytes, status: int = 200) -> bytes:
    """An answer of something else, without a request id."""
    return f"HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def refusal(code: str, status: int = 400) -> bytes:
    return ok(json.dumps({"__type": f"com.amazonaws.dynamodb#{code}", "message": "why"}).encode(), status=status)


@asynccontextmanager
async def serving(first: bytes, others: Mapping[str, Any] | None = None) -> AsyncIterator[Server]:
    """A server on a port of its own, for as long as the block runs."""
    server = Server(first, others or {})
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.hold.set()
        listener.close()
        server.hang_up()
