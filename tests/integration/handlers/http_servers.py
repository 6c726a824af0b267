"""Servers for the tests of ``kind: http``, and handlers that call them."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from consumer.domain.outcome import Outcome
from consumer.handlers.http_handler import HttpHandler
from tests.integration.handlers.support import call, invoke, number

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
    handler = HttpHandler(url, **({"report_failures": True} | options))
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
        return await invoke(handler, call(3))


def failures(*indexes: int) -> str:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": number(index)} for index in indexes]})


def a_port_without_listener() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
