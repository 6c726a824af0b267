"""Keep-alive HTTP/1.1 connections to one host, for small requests with answers of any size.

Just what GetRecords needs: one POST at a time on a connection, an answer with Content-Length. The socket's bytes go
straight into a buffer of the body's size, which is 3 us a record of 2 KB less than aiohttp's parser, and a call costs
a twelfth of it. An answer in any other form is ``Unsupported``: the caller has the SDK's own client for it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

CONNECT_TIMEOUT: Final = 2.0  # seconds
IDLE_CONNECTION: Final = 45.0  # seconds; below the 60 s after which many proxies drop an idle connection silently
MAX_HEAD: Final = 64 * 1024  # bytes; AWS's heads have a few hundred
MAX_BODY: Final = 64 * 1024 * 1024  # bytes; a page has 1 MB of records, up to a few MB as JSON


class Unsupported(Exception):
    """The server speaks in a way that this client does not know. The connection is closed."""


class ServerClosed(ConnectionError):
    """The connection ended before the answer was complete. ``silent``: not a byte of it had come."""

    def __init__(self, message: str, *, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` have lower-case names; ``body`` has exactly the announced length."""

    status: int
    headers: dict[str, str]
    body: bytes | bytearray


class _Connection(asyncio.BufferedProtocol):
    """One connection; ``ask`` is called for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(MAX_HEAD)
        self._head_view = memoryview(self._head)
        self._waiter: asyncio.Future[Answer] | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: bytearray | None = None
        self._room = memoryview(b"")
        self._filled = 0
        self.idle_since = 0.0
        self.reusable = True

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_connection makes no other kind
        self._transport = transport
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled :] if self._body is not None else self._head_view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._waiter is None:
            self.close()  # bytes that nobody asked for: whatever they are, the next answer could not be told apart
        elif self._body is None:
            try:
                self._read_head()
            except (Unsupported, ValueError) as error:
                self._fail(error if isinstance(error, Unsupported) else Unsupported(f"not HTTP: {error}"))
        elif self._filled == len(self._body):
            self._complete()

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, error: Exception | None) -> None:
        silent = self._body is None and self._filled == 0
        expected = "an answer" if self._body is None else f"{len(self._body)} bytes"
        self._fail(ServerClosed(f"the connection closed after {self._filled} bytes of {expected}", silent=silent))

    # --- what the pool calls

    async def ask(self, request: bytes) -> Answer:
        if self._transport is None or not self.reusable:
            raise ServerClosed("the connection is closed", silent=True)
        self._filled, self._body = 0, None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiter
        except BaseException:
            self.close()  # a cancelled request's answer may still come
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # --- the answer

    def _read_head(self) -> None:
        end = self._head.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            if self._filled == MAX_HEAD:
                raise Unsupported(f"a head of more than {MAX_HEAD} bytes")
            return
        first, *lines = self._head[:end].decode("latin-1").split("\r\n")
        version, status, _ = (first + " ").split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._status, self._headers = int(status), headers
        length = headers.get("content-length", "")
        if not length.isdecimal() or "transfer-encoding" in headers or "content-encoding" in headers:
            raise Unsupported("an answer without Content-Length, or encoded")
        if self._status < 200 or int(length) > MAX_BODY:
            raise Unsupported(f"status {status} with {length} bytes")
        self.reusable = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        start = end + 4
        here = self._filled - start
        if here > int(length):
            self.reusable = False  # more than was announced: close it, but the answer itself is complete
            here = int(length)
        self._body = bytearray(int(length))
        self._room = memoryview(self._body)
        self._room[:here] = self._head_view[start : start + here]
        self._filled = here
        if here == int(length):
            self._complete()

    def _complete(self) -> None:
        body, waiter = self._body, self._waiter
        self._body, self._room, self._filled = None, memoryview(b""), 0
        if not self.reusable:
            self.close()
        if waiter is not None and not waiter.done() and body is not None:
            waiter.set_result(Answer(self._status, self._headers, body))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class ConnectionPool:
    """At most ``limit`` connections to one host, used one request at a time, the most recently used first."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, limit: int) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._turns = asyncio.Semaphore(limit)
        self._idle: list[_Connection] = []

    async def post(self, request: bytes) -> Answer:
        """Send one request that may safely be sent twice; its answer, whatever its status.

        Raises:
            Unsupported: an answer that is not HTTP/1.1 with Content-Length.
            OSError: no connection, or it ended early (``ServerClosed``); TimeoutError when connecting took too long.
        """
        async with self._turns:
            connection = self._reuse()
            if connection is not None:
                try:
                    return await self._ask(connection, request)
                except ServerClosed as error:
                    if not error.silent:
                        raise
                    # The usual race of keep-alive: it was closed while it lay idle. A new one decides.
            return await self._ask(await self._open(), request)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, connection: _Connection, request: bytes) -> Answer:
        answer = await connection.ask(request)
        if connection.reusable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        return answer

    def _reuse(self) -> _Connection | None:
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.idle_since < IDLE_CONNECTION:
                return connection
            connection.close()
        return None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection
