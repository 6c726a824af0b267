"""``kind: http``: what a server can answer, or do instead of answering, and what it means for the batch. The rules of
Lambda's answers are in ``test_parity.py``."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web

from consumer.domain.windows import TimeWindow, WindowCall
from consumer.handlers.http_handler import HttpHandler
from tests.integration.handlers.http_servers import (
    EMULATOR,
    failures,
    outcome_of,
    serving,
    started,
)
from tests.integration.handlers.support import call, invoke, number


async def test_the_request_is_the_lambda_event_and_its_context_in_headers() -> None:
    seen: list[tuple[str, str, Any, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, request.headers.copy(), await request.json()))
        return web.Response()

    async with serving(answer) as url, started(url + "/hook?tenant=a%20b") as handler:
        before = time.time() * 1000
        assert (await invoke(handler, call(2, timeout=60.0, attempt=3))).kind == "ok"
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
@pytest.mark.parametrize("body", ["", " \n", '{"ok": true}'])
async def test_success(status: int, body: str) -> None:
    outcome = await outcome_of(status, "" if status == 204 else body)
    assert outcome.kind == "ok"
    assert outcome.seconds > 0


@pytest.mark.parametrize(("left_over", "kind"), [(False, "failed"), (True, "ok")])
async def test_a_server_that_knows_no_windows_may_end_one_of_other_settings(*, left_over: bool, kind: str) -> None:
    """It answers without a state, which fails any other call of a window."""
    window = WindowCall(TimeWindow(60, 120), b'{"count":3}', final=True, terminated_early=True, left_over=left_over)

    async def answer(request: web.Request) -> web.Response:
        assert (await request.json())["isFinalInvokeForWindow"]
        return web.Response(text="{}")

    async with serving(answer) as url, started(url) as handler:
        outcome = await invoke(handler, msgspec.structs.replace(call(0), window=window))
    assert outcome.kind == kind


async def test_a_windows_state_comes_back() -> None:
    """What the server counted so far is what the next call of the window is told."""
    window = WindowCall(TimeWindow(1_789_651_620, 1_789_651_680), b'{"count":3}', "arn:aws:dynamodb:stream")

    async def answer(request: web.Request) -> web.Response:
        event = await request.json()
        return web.json_response({"state": {"count": event["state"]["count"] + len(event["Records"])}})

    async with serving(answer) as url, started(url) as handler:
        outcome = await invoke(handler, msgspec.structs.replace(call(2), window=window))
    assert outcome.kind == "ok"
    assert outcome.state == b'{"count":5}'


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
    async with serving(lambda request: pytest.fail("followed")) as elsewhere:  # type: ignore[arg-type, return-value]  # never answers
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
                outcome = await invoke(handler, call(1))
            assert outcome.kind == "failed"
            assert outcome.fault is not None
            assert (outcome.fault.kind, outcome.fault.type) == ("raised", "Function.ResponseSizeTooLarge")
            assert sent < 32 << 20


async def test_the_largest_answer_is_taken() -> None:
    body = b'{"padding": "' + b"x" * 1000 + b'"}'

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(answer) as url:
        handler = HttpHandler(url, report_failures=True)
        handler.max_answer = len(body)
        await handler.start()
        assert (await invoke(handler, call(1))).kind == "ok"
        handler.max_answer -= 1
        assert (await invoke(handler, call(1))).kind == "failed"
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
        outcome = await invoke(handler, call(1, timeout=0.3))
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
        assert (await invoke(handler, call(2))).failed == (number(1),)


async def test_an_error_page_that_never_ends_does_not_hide_the_status() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=429)
        await response.prepare(request)
        await response.write(b"too many")
        await asyncio.sleep(30)
        return response

    async with serving(answer) as url, started(url) as handler:
        outcome = await invoke(handler, call(1, timeout=20))
        assert outcome.kind == "not_invoked"
        assert outcome.seconds < 5
