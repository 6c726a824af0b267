"""The health, metrics and status server. It runs in the control thread's loop, so it answers while a handler blocks the
main loop, which is exactly when its answers are needed.

No client is trusted: GET and HEAD only, a few exact paths, one request a connection, and a protocol in front of
aiohttp's that bounds what a connection may cost (8 KiB in, five seconds, 32 at a time), because aiohttp itself waits
without limit for a slow request. One connection more than that ends the oldest, so that however many are held open, a
probe gets its answer. The server never touches AWS and never waits for the main loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import Final

from aiohttp import web

from consumer.domain.errors import StreamConsumerError
from consumer.operate.listener import Listener
from consumer.operate.metrics import Metrics
from consumer.operate.page_files import PageFile, page_files
from consumer.operate.status import StatusBoard
from consumer.operate.status_json import StatusJson

REQUEST_BYTES: Final = 8 * 1024  # of one connection
CONNECTION_SECONDS: Final = 5.0
MAX_CONNECTIONS: Final = 32
LISTENING_CHECK: Final = 1.0  # seconds between looks at the listener

_TEXT: Final = "text/plain; charset=utf-8"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
    "Server": "stream-consumer",
    "X-Content-Type-Options": "nosniff",
}
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_REVALIDATE: Final = {"Cache-Control": "no-cache"}  # keep it, and ask whether it is still the same


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` are those beside the ones that every answer has."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class CannotListen(StreamConsumerError):
    """The configured address cannot be bound. ``address`` is host:port."""

    exit_code = 78

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason} (set http.host and http.port; port 0 takes a free one)")
        self.address = address


class HealthServer:
    """``start`` binds and serves until ``close``. ``connection_seconds`` is the life of a connection, for tests."""

    def __init__(
        self,
        board: StatusBoard,
        metrics: Metrics,
        host: str,
        port: int,
        *,
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        self._metrics = metrics
        self._json = StatusJson(board)
        self._host = host
        self._requested_port = port
        self._connection_seconds = connection_seconds
        self._open: dict[_BoundedConnection, None] = {}  # the oldest first
        self._web: web.Server | None = None
        self._listener: Listener | None = None
        self._routes: dict[str, Callable[[web.BaseRequest], Answer]] = {
            "/healthz": lambda _: _verdict(*board.health()),
            "/metrics": self._exposition,
            "/readyz": lambda _: _verdict(*board.readiness()),
            "/status.json": self._status,
        }
        for path, file in page_files().items():
            self._routes[path] = partial(_static, file)

    async def start(self) -> None:
        """Bind and serve. CannotListen when the address is taken, not this machine's, or does not resolve."""
        server = self._web = web.Server(self._answer, access_log=None, lingering_time=0)
        listener = Listener(
            lambda: _BoundedConnection(server(), self._open, self._connection_seconds, listener.refill),
            lambda: _end_oldest(self._open),
        )
        try:
            await listener.open(self._host, self._requested_port)
        except (OSError, OverflowError, UnicodeError) as error:
            self._web = None
            reason = getattr(error, "strerror", None) or str(error)
            raise CannotListen(f"{self._host}:{self._requested_port}", reason) from error
        self._listener = listener

    async def run(self) -> None:
        """Returns when the listener was closed, but not by ``close``. Cancel it before ``close``."""
        while self._listener is not None and self._listener.is_open:  # noqa: ASYNC110 - it has no event for this
            await asyncio.sleep(LISTENING_CHECK)

    async def close(self) -> None:
        """Stop listening and end open connections. Idempotent."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._web is not None:
            await self._web.shutdown(timeout=0.5)
            self._web = None
        for connection in list(self._open):
            connection.abort()

    @property
    def port(self) -> int:
        """The bound port (which is not the configured one when that was 0)."""
        bound = None if self._listener is None else self._listener.port
        return self._requested_port if bound is None else bound

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        answer = self._route(request)
        headers = {**_HEADERS, "Content-Type": answer.content_type, **answer.headers}
        response = web.Response(status=answer.status, body=answer.body, headers=headers)
        response.force_close()
        return response

    def _route(self, request: web.BaseRequest) -> Answer:
        make = self._routes.get(request.rel_url.raw_path)
        if make is None:
            return Answer(404, _TEXT, b"not found\n")
        if request.method not in ("GET", "HEAD"):
            return Answer(405, _TEXT, b"only GET and HEAD\n", {"Allow": "GET, HEAD"})
        return make(request)

    def _exposition(self, request: web.BaseRequest) -> Answer:
        body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        return Answer(200, content_type, body)

    def _status(self, request: web.BaseRequest) -> Answer:
        """``Last-Modified`` is the time of the snapshot also when nothing else has changed, so that whoever polls knows
        that the worker still reports."""
        body, tag, updated_at = self._json.encoded()
        seen = {"Last-Modified": formatdate(updated_at, usegmt=True)} if updated_at else {}
        return _unless_known(request, Answer(200, "application/json", body, {**seen, "ETag": tag}))


def _static(file: PageFile, request: web.BaseRequest) -> Answer:
    return _unless_known(request, Answer(200, file.content_type, file.body, {"ETag": file.tag}))


def _unless_known(request: web.BaseRequest, answer: Answer) -> Answer:
    """The answer, or that the client has it. Weak comparison, as RFC 9110 has it for If-None-Match."""
    headers = {**answer.headers, **_REVALIDATE}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if answer.headers["ETag"].removeprefix("W/") in known or known == ["*"]:
        return Answer(304, answer.content_type, b"", headers)
    return Answer(answer.status, answer.content_type, answer.body, headers)


def _verdict(good: bool, reason: str) -> Answer:
    text = f"{' '.join(reason.splitlines())}\n".encode("utf-8", "replace")
    return Answer(200 if good else 503, _TEXT, text)


def _end_oldest(connections: dict[_BoundedConnection, None]) -> None:
    """Requests are answered at once: who is here for longest is idle, or slow."""
    if connections:
        next(iter(connections)).abort()


class _BoundedConnection(asyncio.Protocol):
    """Stands between a socket and aiohttp's protocol and ends what costs too much."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        peers: dict[_BoundedConnection, None],
        seconds: float,
        ended: Callable[[], None],
    ) -> None:
        self._inner = inner
        self._peers = peers
        self._seconds = seconds
        self._ended = ended
        self._received = 0
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):  # pragma: no cover - create_server makes no others
            transport.close()
            return
        if len(self._peers) >= MAX_CONNECTIONS:
            _end_oldest(self._peers)
        self._transport = transport
        self._peers[self] = None
        self._deadline = asyncio.get_running_loop().call_later(self._seconds, self.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._received += len(data)
        if self._received > REQUEST_BYTES:
            self._transport.write(_TOO_LARGE)
            self._transport.close()
            return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._transport is None else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        self._peers.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        self._inner.connection_lost(exc)
        # The descriptor is closed after this call.
        asyncio.get_running_loop().call_soon(self._ended)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._inner.resume_writing()

    def abort(self) -> None:
        """End the connection now, whatever is still to be sent."""
        self._peers.pop(self, None)
        if self._transport is not None:
            self._transport.abort()
