"""``kind: http``: what a server can answer, or do instead of answering, and what it means for the batch."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError
from consumer.domain.outcome import Outcome
from consumer.domain.windows import TimeWindow, WindowCall
from consumer.handlers.http import HttpHandler
from consumer.ports import Handler
from tests.integration.handlers.support import call, eventually, number

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
EMULATOR = "/2015-03-31/functions/function/invocations"


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server on loopback that gives every request to ``answer``; yields its URL."""
    runner = web.ServerRunner(web.Server(answer, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[HttpHandler]:
    handler = HttpHandler(url, **({"timeout": 5.0, "report_failures": True} | options))
    await handler.start()
    try:
        yield handler
    finally:
        await handler.close()


async def outcome_of(
    status: int = 200,
    body: bytes | str = b"",
    headers: dict[str, str] | None = None,
    path: str = "/handle",
    **options: Any,
) -> Outcome:
    """What comes of a batch of three when the server answers so."""
    raw = body.encode() if isinstance(body, str) else body

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, body=raw, headers=headers)

    async with serving(answer) as url, started(url + path, **options) as handler:
        return await handler.invoke(call(3))


def failures(*indexes: int) -> str:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": number(index)} for index in indexes]})


def a_port_nobody_listens_on() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_the_request_is_the_lambda_event_and_its_context_in_headers() -> None:
    seen: list[tuple[str, str, Any, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, request.headers.copy(), await request.json()))
        return web.Response()

    async with serving(answer) as url, started(url + "/hook?tenant=a%20b") as handler:
        before = time.time() * 1000
        assert (await handler.invoke(call(2, timeout=60.0, attempt=3))).kind == "ok"
    [(method, path, headers, event)] = seen
    assert (method, path) == ("POST", "/hook?tenant=a%20b")
    assert [record["dynamodb"]["SequenceNumber"] for record in event["Records"]] == [number(0), number(1)]
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Stream-Consumer-Application"] == "orders-projector"
    assert headers["X-Stream-Consumer-Shard-Id"] == "shardId-1"
    assert headers["X-Stream-Consumer-Lease-Epoch"] == "7"
    assert headers["X-Stream-Consumer-Attempt"] == "3"
    assert headers["X-Stream-Consumer-Request-Id"] == headers["Lambda-Runtime-Aws-Request-Id"] == "request-1"
    assert 50_000 < int(headers["Lambda-Runtime-Deadline-Ms"]) - before < 70_000


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("body", ["", "null", "{}", " \n", '{"batchItemFailures": []}', '{"ok": true}'])
async def test_success(status: int, body: str) -> None:
    outcome = await outcome_of(status, "" if status == 204 else body)
    assert outcome.kind == "ok"
    assert outcome.seconds > 0


async def test_a_windows_state_comes_back() -> None:
    """What the server counted so far is what the next call of the window is told."""
    window = WindowCall(TimeWindow(1_789_651_620, 1_789_651_680), b'{"count":3}', "arn:aws:dynamodb:stream")

    async def answer(request: web.Request) -> web.Response:
        event = await request.json()
        return web.json_response({"state": {"count": event["state"]["count"] + len(event["Records"])}})

    async with serving(answer) as url, started(url) as handler:
        outcome = await handler.invoke(msgspec.structs.replace(call(2), window=window))
    assert outcome.kind == "ok"
    assert outcome.state == b'{"count":5}'


async def test_partial_failures_follow_lambdas_rules() -> None:
    assert (await outcome_of(200, failures(1, 2))).failed == (number(1), number(2))
    assert (await outcome_of(200, failures(9))).kind == "failed"
    assert (await outcome_of(200, failures(1), report_failures=False)).kind == "ok"


@pytest.mark.parametrize(
    ("status", "headers", "kind", "type_"),
    [
        (429, {}, "not_invoked", "HttpStatus.429"),
        (503, {"Retry-After": "2"}, "not_invoked", "HttpStatus.503"),
        (503, {}, "failed", "HttpStatus.503"),
        (500, {}, "failed", "HttpStatus.500"),
        (502, {"Retry-After": "2"}, "failed", "HttpStatus.502"),
        (400, {}, "failed", "HttpStatus.400"),
        (404, {}, "failed", "HttpStatus.404"),
        (304, {}, "failed", "HttpStatus.304"),
    ],
)
async def test_other_statuses(status: int, headers: dict[str, str], kind: str, type_: str) -> None:
    outcome = await outcome_of(status, "" if status == 304 else "no\nluck " * 200, headers)
    assert outcome.kind == kind
    assert outcome.fault is not None
    assert outcome.fault.type == type_
    assert f"HTTP {status}" in outcome.fault.message
    if status != 304:
        assert "no luck no luck" in outcome.fault.message
        assert len(outcome.fault.message) < 600


async def test_redirects_are_not_followed() -> None:
    async with serving(lambda request: pytest.fail("followed")) as elsewhere:  # type: ignore[arg-type, return-value]
        outcome = await outcome_of(307, "moved", {"Location": f"{elsewhere}/new?token=secret"})
    assert outcome.kind == "failed"
    assert outcome.fault is not None
    assert f"to {elsewhere}/new)" in outcome.fault.message
    assert "secret" not in outcome.fault.message


@pytest.mark.parametrize("body", [b"<html>", b"{", b"\xff\xfe\x00", b"NaN", b'"\\ud800"', b"[" * 100_000])
async def test_what_is_no_answer_fails_and_is_shown(body: bytes) -> None:
    outcome = await outcome_of(200, body)
    assert outcome.kind == "failed"
    assert outcome.fault is not None
    assert outcome.fault.kind == "bad_response"
    assert outcome.fault.message.startswith("HTTP 200: ")
    assert len(outcome.fault.message) < 800
    outcome.fault.message.encode()


class TestRuntimeInterfaceEmulator:
    async def test_an_answer_and_an_error_both_come_with_200(self) -> None:
        assert (await outcome_of(200, failures(1), path=EMULATOR)).failed == (number(1),)
        error = {
            "errorMessage": "boom \ud800",
            "errorType": "ValueError",
            "requestId": "x",
            "stackTrace": ["  line 1\n"],
        }
        outcome = await outcome_of(200, json.dumps(error), path=EMULATOR)
        assert outcome.kind == "failed"
        assert outcome.fault is not None
        assert (outcome.fault.kind, outcome.fault.type) == ("raised", "ValueError")
        assert outcome.fault.message == "boom \\ud800"
        assert outcome.fault.stack == ("  line 1\n",)

    async def test_the_error_header_alone_is_an_error(self) -> None:
        for body in ("", "null", "not json", failures()):
            outcome = await outcome_of(200, body, {"X-Amz-Function-Error": "Unhandled"}, EMULATOR)
            assert outcome.kind == "failed"
            assert outcome.fault is not None
            assert outcome.fault.type == "Unhandled"

    async def test_an_answer_about_errors_is_no_error(self) -> None:
        body = {"errorMessage": "x", "errorType": "y", "batchItemFailures": []}
        assert (await outcome_of(200, json.dumps(body))).kind == "ok"
        assert (await outcome_of(200, '{"errorMessage": "x"}')).kind == "ok"

    async def test_its_own_time_limit(self) -> None:
        outcome = await outcome_of(200, "Task timed out after 3.00 seconds", path=EMULATOR)
        assert outcome.kind == "failed"
        assert outcome.fault is not None
        assert outcome.fault.kind == "timeout"

    async def test_busy_with_another_call_spends_no_retry(self) -> None:
        assert (await outcome_of(400, b"", path=EMULATOR)).kind == "not_invoked"
        assert (await outcome_of(400, b"{}", path=EMULATOR)).kind == "failed"


async def test_an_answer_that_is_too_large_is_not_read_further() -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        if request.path == "/announced":
            response.content_length = 1 << 30
        await response.prepare(request)
        while sent < 1 << 28:
            await response.write(b" " * 65536)
            sent += 65536
        return response

    async with serving(answer) as url:
        for path in ("/chunked", "/announced"):
            sent = 0
            async with started(url + path) as handler:
                outcome = await handler.invoke(call(1))
            assert outcome.kind == "failed"
            assert outcome.fault is not None
            assert (outcome.fault.kind, outcome.fault.type) == ("raised", "Function.ResponseSizeTooLarge")
            assert sent < 32 << 20


async def test_the_largest_answer_is_taken() -> None:
    body = b'{"padding": "' + b"x" * 1000 + b'"}'

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(answer) as url:
        handler = HttpHandler(url, timeout=5.0, report_failures=True)
        handler.max_answer = len(body)
        await handler.start()
        assert (await handler.invoke(call(1))).kind == "ok"
        handler.max_answer -= 1
        assert (await handler.invoke(call(1))).kind == "failed"
        await handler.close()


@pytest.mark.parametrize("where", ["before the head", "in the body"])
async def test_the_time_limit_closes_the_connection(where: str) -> None:
    closed = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            if where == "in the body":
                await response.prepare(request)
                await response.write(b"{")
            await asyncio.sleep(30)
        finally:
            closed.set()
        return response

    async with serving(answer) as url, started(url) as handler:
        outcome = await handler.invoke(call(1, timeout=0.3))
        assert outcome.kind == "failed"
        assert outcome.fault is not None
        assert outcome.fault.kind == "timeout"
        assert "Task timed out after 0.30 seconds" in outcome.fault.message
        assert 0.25 < outcome.seconds < 2
        async with asyncio.timeout(5):
            await closed.wait()


async def test_a_slow_body_within_the_limit_is_an_answer() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in failures(1).encode():
            await response.write(bytes([byte]))
            await asyncio.sleep(0.002)
        return response

    async with serving(answer) as url, started(url) as handler:
        assert (await handler.invoke(call(2))).failed == (number(1),)


async def test_an_error_page_that_never_ends_does_not_hide_the_status() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=429)
        await response.prepare(request)
        await response.write(b"too many")
        await asyncio.sleep(30)
        return response

    async with serving(answer) as url, started(url) as handler:
        outcome = await handler.invoke(call(1, timeout=20))
        assert outcome.kind == "not_invoked"
        assert outcome.seconds < 5


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
        outcome = await handler.invoke(call(1))
    assert outcome.kind == "failed"
    assert outcome.fault is not None
    assert outcome.fault.kind in ("crashed", "bad_response")
    assert outcome.fault.message


async def test_an_endpoint_that_is_not_there_spends_no_retry() -> None:
    for url in (f"http://127.0.0.1:{a_port_nobody_listens_on()}", "http://no-such-host.invalid:9000/"):
        with capture_logs() as logs:
            async with started(url) as handler:
                outcome = await handler.invoke(call(1))
        assert outcome.kind == "not_invoked"
        assert outcome.fault is not None
        assert outcome.fault.message
        assert [entry["event"] for entry in logs] == ["handler.endpoint_unreachable"]
        assert logs[0]["log_level"] == "warning"


async def test_a_server_without_tls_spends_no_retry() -> None:
    async with raw_server(b"", reset=False) as url, started(url.replace("http:", "https:")) as handler:
        outcome = await handler.invoke(call(1, timeout=1))
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
            handler = HttpHandler(f"http://127.0.0.1:{address[1]}", timeout=0.5, report_failures=True)
            with capture_logs() as logs:
                await handler.start()
            outcome = await handler.invoke(call(1, timeout=0.5))
            await handler.close()
        finally:
            for filler in fillers:
                filler.close()
    assert outcome.kind == "not_invoked"
    assert "no connection within" in logs[0]["error"]


async def test_the_log_does_not_show_credentials() -> None:
    port = a_port_nobody_listens_on()
    with capture_logs() as logs:
        async with started(f"http://user:password@127.0.0.1:{port}/x?key=secret"):
            pass
    assert logs[0]["url"] == f"http://127.0.0.1:{port}/x"


async def test_an_endpoint_that_comes_up_later_is_used() -> None:
    port = a_port_nobody_listens_on()
    async with started(f"http://127.0.0.1:{port}") as handler:
        assert (await handler.invoke(call(1))).kind == "not_invoked"
        server = web.Server(lambda request: asyncio.sleep(0, web.Response()))
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            assert (await handler.invoke(call(1))).kind == "ok"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("url", ["myapp:handler", "ftp://host/x", "http://", "http://[::1", ""])
async def test_a_target_that_is_no_url(url: str) -> None:
    with pytest.raises(HandlerImportError, match=r"handler\.target"):
        await HttpHandler(url, timeout=5.0, report_failures=True).start()


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
            await handler.invoke(call(1, attempt=attempt))
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
        outcomes = await asyncio.gather(*[handler.invoke(call(1)) for _ in range(150)])
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
        task = asyncio.create_task(handler.invoke(call(1)))
        await eventually(lambda: "called" in events)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: "ended" in events)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{a_port_nobody_listens_on()}")
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
        assert (await handler.invoke(call(10_000, timeout=30))).kind == "ok"
    assert sizes == [10_000]


async def test_life_cycle() -> None:
    handler: Handler = HttpHandler("http://127.0.0.1:1", timeout=5.0, report_failures=True)
    assert (await handler.invoke(call(1))).kind == "not_invoked"
    await handler.start()
    await handler.close()
    await handler.close()
    assert (await handler.invoke(call(1))).kind == "not_invoked"
