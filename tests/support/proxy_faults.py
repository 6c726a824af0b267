"""What the proxy does to the next requests of an operation: errors, lost responses, delays, cut and strange bodies."""

from __future__ import annotations

import asyncio
import json
import uuid
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

REQUEST_ID = "x-amzn-requestid"
Kind = Literal["error", "lose_request", "lose_response", "delay", "truncate", "reply", "rewrite", "anonymous"]


class Refusal(Exception):
    """The proxy's own error answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UpstreamError(Exception):
    """An error answer of the real server, passed on as it is."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@dataclass
class Fault:
    """Applies to the next ``times`` requests of ``operation`` (``*`` is any), after letting ``skip`` of them pass.
    Of every ten such requests it takes ``of_ten``; with ``signed_with`` only those signed with this access key, with
    ``about`` only those that have this text in their body."""

    operation: str
    kind: Kind
    times: int = 1
    skip: int = 0
    of_ten: int = 10
    seen: int = 0
    code: str = "InternalServerError"
    status: int = 500
    message: str = ""
    seconds: float = 0.0
    keep: float = 0.5
    honest_length: bool = True
    body: str = ""
    signed_with: str = ""
    content_type: str = "text/html"
    applied: bool = False  # what "reply" answers to
    about: str = ""
    old: str = ""  # what "rewrite" puts ``new`` in the place of
    new: str = ""

    def takes(self, operation: str, authorization: str, body: bytes) -> bool:
        if self.times <= 0 or self.operation not in ("*", operation):
            return False
        if f"Credential={self.signed_with}" not in authorization and self.signed_with:
            return False
        if self.about.encode() not in body:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.seen += 1
        if self.seen * 7 % 10 >= self.of_ten:
            return False
        self.times -= 1
        return True


def error_response(code: str, status: int = 400, message: str = "") -> web.Response:
    """An error as DynamoDB and SQS (JSON protocol) send it."""
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message})
    return web.Response(status=status, text=body, content_type="application/x-amz-json-1.0")


def json_response(body: object) -> web.Response:
    """A success as DynamoDB sends it."""
    data = json.dumps(body).encode()
    headers = {REQUEST_ID: uuid.uuid4().hex, "x-amz-crc32": str(zlib.crc32(data))}
    headers["Content-Type"] = "application/x-amz-json-1.0"
    return web.Response(body=data, headers=headers)


async def apply(
    fault: Fault | None, request: web.Request, forward: Callable[[], Awaitable[web.Response]]
) -> web.Response:
    """The answer to a request: what ``forward`` gives, unless the fault says otherwise."""
    if fault is None:
        return await forward()
    if fault.kind == "error":
        return error_response(fault.code, fault.status, fault.message)
    if fault.kind == "reply":
        if fault.applied:
            await forward()
        return web.Response(status=fault.status, text=fault.body, content_type=fault.content_type)
    if fault.kind == "delay":
        await asyncio.sleep(fault.seconds)
        return await forward()
    if fault.kind == "lose_request":
        return _hang_up(request)
    answer = await forward()  # applied from here on
    if fault.kind == "lose_response":
        return _hang_up(request)
    if fault.kind == "anonymous":
        return web.Response(status=answer.status, body=_body(answer), content_type="application/json")
    if fault.kind == "rewrite":
        if answer.status != 200:
            return answer
        return json_response(json.loads(_body(answer).replace(fault.old.encode(), fault.new.encode())))
    return await _truncated(fault, request, answer)


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _body(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


async def _truncated(fault: Fault, request: web.Request, answer: web.Response) -> web.Response:
    """The first part of the body: with a Content-Length to match, as some middlebox would, or with the true one."""
    body = _body(answer)
    kept = body[: int(len(body) * fault.keep)]
    if fault.honest_length:
        headers = {name: value for name, value in answer.headers.items() if name.lower() == REQUEST_ID}
        headers["Content-Type"] = "application/x-amz-json-1.0"
        return web.Response(status=answer.status, body=kept, headers=headers)
    if request.transport is not None:
        head = f"HTTP/1.1 {answer.status} OK\r\nContent-Length: {len(body)}\r\n\r\n"
        request.transport.write(head.encode() + kept)
        request.transport.close()
    return web.Response(status=500)
