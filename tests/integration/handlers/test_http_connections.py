"""``kind: http``: connections that are refused, hang, break, come up later, or are used again."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError
from consumer.handlers.http_handler import HttpHandler
from consumer.ports.handler import Handler
from tests.integration.handlers.http_servers import (
    a_port_without_listener,
    outcome_of,
    serving,
    started,
)
from tests.integration.handlers.support import call, eventually, invoke


@asynccontextmanager
async def raw_server(answer: bytes, *, reset: bool) -> AsyncIterator[str]:
    """Reads a whole request, writes ``answer`` and ends the connection: with a reset, or orderly."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        writer.write(answer)
        await writer.drain()
        if reset:
            await asyncio.sleep(0.05)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", HALF, b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\na" * 9000])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_breaks_after_the_request_is_a_failure(answer: bytes, reset: bool) -> None:
    async with raw_server(answer, reset=reset) as url, started(url) as handler:
        outcome = await invoke(handler, call(1))
    assert outcome.kind == "failed"
    assert outcome.fault is not None
    assert outcome.fault.kind in ("crashed", "bad_response")
    assert outcome.fault.message


async def test_an_endpoint_that_is_not_there_spends_no_retry() -> None:
    for url in (f"http://127.0.0.1:{a_port_without_listener()}", "http://no-such-host.invalid:9000/"):
        with capture_logs() as logs:
            async with started(url) as handler:
                outcome = await invoke(handler, call(1))
        assert outcome.kind == "not_invoked"
        assert outcome.fault is not None
        assert outcome.fault.message
        assert [entry["event"] for entry in logs] == ["handler.endpoint_unreachable"]
        assert logs[0]["log_level"] == "warning"


async def test_a_server_without_tls_spends_no_retry() -> None:
    async with raw_server(b"", reset=False) as url, started(url.replace("http:", "https:")) as handler:
        outcome = await invoke(handler, call(1, timeout=1))
    assert outcome.kind == "not_invoked"


async def test_connecting_that_hangs_spends_no_retry() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # the backlog is full: further connection attempts get no answer
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            handler = HttpHandler(f"http://127.0.0.1:{address[1]}", report_failures=True)
            with capture_logs() as logs:
                await handler.start()
            outcome = await invoke(handler, call(1, timeout=0.5))
            await handler.close()
        finally:
            for filler in fillers:
                filler.close()
    assert outcome.kind == "not_invoked"
    assert "no connection within" in logs[0]["error"]


async def test_the_log_does_not_show_credentials() -> None:
    port = a_port_without_listener()
    with capture_logs() as logs:
        async with started(f"http://user:password@127.0.0.1:{port}/x?key=secret"):
            pass
    assert logs[0]["url"] == f"http://127.0.0.1:{port}/x"


async def test_an_endpoint_that_comes_up_later_is_used() -> None:
    port = a_port_without_listener()
    async with started(f"http://127.0.0.1:{port}") as handler:
        assert (await invoke(handler, call(1))).kind == "not_invoked"
        server = web.Server(lambda request: asyncio.sleep(0, web.Response()))
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            assert (await invoke(handler, call(1))).kind == "ok"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("url", ["myapp:handler", "ftp://host/x", "http://", "http://[::1", ""])
async def test_a_target_that_is_no_url(url: str) -> None:
    with pytest.raises(HandlerImportError, match=r"handler\.target"):
        await HttpHandler(url, report_failures=True).start()


async def test_connections_are_used_again() -> None:
    connections = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        connections.add(request.transport.get_extra_info("peername"))
        await request.read()
        attempt = int(request.headers["X-Stream-Consumer-Attempt"])
        return web.Response(status=200 if attempt % 2 else 500, text="{}")

    async with serving(answer) as url, started(url) as handler:
        connections.clear()
        for attempt in range(1, 11):
            await invoke(handler, call(1, attempt=attempt))
    assert len(connections) == 1


async def test_calls_run_side_by_side() -> None:
    running = most = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.3)
        running -= 1
        return web.Response()

    async with serving(answer) as url, started(url) as handler:
        assert handler.width == 0
        outcomes = await asyncio.gather(*[invoke(handler, call(1)) for _ in range(150)])
    assert {outcome.kind for outcome in outcomes} == {"ok"}
    assert most > 120


async def test_cancelling_closes_the_connection() -> None:
    events: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        events.append("called")
        try:
            await asyncio.sleep(30)
        finally:
            events.append("ended")
        return web.Response()

    async with serving(answer) as url, started(url) as handler:
        task = asyncio.create_task(invoke(handler, call(1)))
        await eventually(lambda: "called" in events)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: "ended" in events)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{a_port_without_listener()}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await outcome_of(200, "{}")).kind == "ok"


async def test_compressed_and_cookie_setting_answers() -> None:
    outcome = await outcome_of(200, b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip", "Set-Cookie": "a=b"})
    assert outcome.kind == "failed"


async def test_a_large_batch_is_sent_whole() -> None:
    sizes = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.content.read()
        while not request.content.at_eof():
            body += await request.content.read()
        sizes.append(len(json.loads(body)["Records"]))
        return web.Response()

    async with serving(answer) as url, started(url) as handler:
        assert (await invoke(handler, call(10_000, timeout=30))).kind == "ok"
    assert sizes == [10_000]


async def test_life_cycle() -> None:
    handler: Handler = HttpHandler("http://127.0.0.1:1", report_failures=True)
    assert (await invoke(handler, call(1))).kind == "not_invoked"
    await handler.start()
    await handler.close()
    await handler.close()
    assert (await invoke(handler, call(1))).kind == "not_invoked"
