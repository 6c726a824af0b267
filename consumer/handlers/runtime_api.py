"""The channel to a program that speaks the Lambda Runtime API (version 2018-06-01), in any language.

The program is the client: it asks this endpoint for its next invocation and posts the answer (Lambda Developer Guide,
"Using the Lambda runtime API for custom runtimes"). Each process has an endpoint of its own, on a loopback port that is
told to it in ``AWS_LAMBDA_RUNTIME_API``; connections of other processes are refused.

A process is ready when it asks for the first time, and idle only when it asks again: what a runtime does between its
answer and that is still user code.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final
from weakref import WeakSet

import structlog
from aiohttp import web

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.domain.function_name import function_arn
from consumer.domain.outcome import TOO_LATE, HandlerCall, HandlerFault, Outcome
from consumer.handlers.channel import Listener, Program
from consumer.handlers.handler_faults import answer_fault
from consumer.handlers.peer_process import is_of_session
from consumer.handlers.runtime.faults import clean
from consumer.handlers.runtime.wire import MAX_RESPONSE

log = structlog.get_logger(__name__)

ADDRESS: Final = "AWS_LAMBDA_RUNTIME_API"
PREFIX: Final = "/2018-06-01/runtime"
ERROR_TYPE: Final = "Lambda-Runtime-Function-Error-Type"
RESPONSE_MODE: Final = "Lambda-Runtime-Function-Response-Mode"
_MOST_OF_ERROR: Final = 1 << 20  # bytes of a description
# AWS's clients put the places of an error for X-Ray into a header, unless they take more than 1 MiB.
_MOST_OF_HEADER: Final = (1 << 20) + 4096
# Names of errors, of several languages and SDKs, for what passes when the network or a service is there.
_MAY_PASS: Final = (
    *("ConnectionError", "ConnectionRefusedError", "ConnectionResetError", "TimeoutError", "gaierror", "SSLError"),
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"),
    *("NoCredentialsError", "CredentialRetrievalError", "ECONNREFUSED", "ENOTFOUND", "ETIMEDOUT"),
)
_ACCEPTED: Final = {"status": "OK"}


class RuntimeApiChannel:
    """``channel.Channel`` for ``handler.command``.

    Args:
        command: what to start, with its arguments.
        folder: where it starts.
        function: the name in the ARN that the program is told.
        listener: the process.
    """

    def __init__(self, command: list[str], folder: str, function: str, listener: Listener) -> None:
        self._command = command
        self._folder = folder
        self._function = function
        self._listener = listener
        self._runner: web.AppRunner | None = None
        self._pid = 0
        self._started = asyncio.Event()
        self._port = 0
        self._trusted: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._asked = False
        self._next: asyncio.Future[tuple[HandlerCall, bytes]] | None = None  # the request that waits for work
        self._under_way = ""  # request id of the call that was handed over

    @property
    def name(self) -> str:
        return f"handler.command {self._command[0]!r}"

    async def open(self) -> Program:
        app = web.Application(client_max_size=MAX_RESPONSE, middlewares=[self._only_its_own])
        app.router.add_get(f"{PREFIX}/invocation/next", self._serve_next)
        app.router.add_post(f"{PREFIX}/invocation/{{id}}/response", self._serve_response)
        app.router.add_post(f"{PREFIX}/invocation/{{id}}/error", self._serve_error)
        app.router.add_post(f"{PREFIX}/init/error", self._serve_init_error)
        # No time-outs: a client may wait for hours.
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=0.0, max_field_size=_MOST_OF_HEADER
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return Program(self._command, {ADDRESS: f"127.0.0.1:{self._port}"}, folder=self._folder)

    async def connect(self, pid: int) -> None:
        self._pid = pid
        self._started.set()

    def hand_over(self, call: HandlerCall, event: bytes) -> Outcome | None:
        if self._next is None or self._next.done():
            return Outcome(
                "not_invoked", fault=HandlerFault("cancelled", "Gone", "the runtime no longer asks for work")
            )
        self._next.set_result((call, event))
        return None

    def ask_to_end(self) -> bool:
        return False

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if self._next is not None:
            self._next.cancel()
        if runner is not None:
            await runner.cleanup()

    # -- the endpoint

    @web.middleware
    async def _only_its_own(self, request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        if transport is not None and transport not in self._trusted:
            await self._started.wait()  # it may be quicker than the news of its start
            peer = transport.get_extra_info("peername")
            if not await asyncio.to_thread(is_of_session, peer, self._port, self._pid):
                log.warning("handler.stranger_refused", pid=self._pid, peer=str(peer))
                return _refusal(403, "Forbidden", "this endpoint is another process's")
            self._trusted.add(transport)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _serve_next(self, request: web.Request) -> web.Response:
        if self._under_way:
            self._end(
                Outcome("failed", fault=_protocol_fault("asked for the next invocation and did not answer this one"))
            )
        if self._next is not None and not self._next.done():
            self._next.cancel()  # by a request that came after it: a client that gave up waiting
        waiting = self._next = asyncio.get_running_loop().create_future()
        self._say_idle()
        while True:
            try:
                call, event = await waiting
            except asyncio.CancelledError:
                if not waiting.cancelled():
                    raise
                return _refusal(410, "Gone", "the invocation was given to a later request")
            # Handed over in this turn of the loop; until now the shard may have got another owner.
            if call.may_start_for() > 0 and request.transport is not None and not request.transport.is_closing():
                break
            waiting = self._next = asyncio.get_running_loop().create_future()
            self._say_idle()
            self._listener.on_answer(TOO_LATE)
        self._next = None
        self._under_way = call.request_id
        return web.Response(body=event, headers=self._headers(call), content_type="application/json")

    def _say_idle(self) -> None:
        if self._asked:
            self._listener.on_idle()
        else:
            self._asked = True
            self._listener.on_ready(None)

    def _headers(self, call: HandlerCall) -> dict[str, str]:
        digits = call.request_id.replace("-", "").ljust(32, "0")
        return {
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + call.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": function_arn(call.source_arn, self._function),
            # Never sampled: there is no X-Ray daemon to send to.
            "Lambda-Runtime-Trace-Id": f"Root=1-{digits[:8]}-{digits[8:32]};Parent={digits[:16]};Sampled=0",
        }

    async def _serve_response(self, request: web.Request) -> web.Response:
        if refusal := self._wrong_id(request):
            return refusal
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            text = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
            self._end(Outcome("failed", fault=answer_fault(text, "Function.ResponseSizeTooLarge")))
            return _refusal(413, "RequestEntityTooLarge", text)
        if refusal := self._wrong_id(request):  # it took long, and the call is over
            return refusal
        if request.headers.get(RESPONSE_MODE, "").lower() == "streaming":
            # What fails on the way is told in trailers, and the HTTP library drops them: no answer may pass for one.
            text = "the function streams its answer: whether it failed cannot be told; return the answer instead"
            self._end(Outcome("failed", fault=answer_fault(text, "Runtime.StreamedResponse")))
        else:
            self._end(body)
        return web.json_response(_ACCEPTED, status=202)

    async def _serve_error(self, request: web.Request) -> web.Response:
        if refusal := self._wrong_id(request):
            return refusal
        fault = await _fault_in(request)
        if refusal := self._wrong_id(request):
            return refusal
        self._end(Outcome("failed", fault=fault))
        return web.json_response(_ACCEPTED, status=202)

    async def _serve_init_error(self, request: web.Request) -> web.Response:
        fault = await _fault_in(request)
        kind = HandlerImportMayPass if fault.type.rpartition(".")[2] in _MAY_PASS else HandlerImportError
        self._listener.on_ready(kind(" ".join(f"{self.name}: {fault.type}: {fault.message}".split())[:1500]))
        return web.json_response(_ACCEPTED, status=202)

    def _wrong_id(self, request: web.Request) -> web.Response | None:
        given = request.match_info["id"]
        if given and given == self._under_way:
            return None
        return _refusal(400, "InvalidRequestID", f"{given[:64]} is not the invocation under way")

    def _end(self, answer: Outcome | bytes) -> None:
        self._under_way = ""
        self._listener.on_answer(answer)


def _refusal(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"errorType": kind, "errorMessage": message}, status=status)


def _protocol_fault(what: str) -> HandlerFault:
    return HandlerFault("crashed", "Runtime.ProtocolError", f"the runtime {what}")


async def _fault_in(request: web.Request) -> HandlerFault:
    """What a runtime says of an error: ``errorType``, ``errorMessage`` and ``stackTrace``, a list of lines or, in Go,
    of objects. Node.js names it ``trace``."""
    text = bytearray()
    async for chunk in request.content.iter_any():
        text += chunk
        if len(text) > _MOST_OF_ERROR:
            text[:] = b'{"errorMessage": "(its description is too large to be read)"}'
            break
    try:
        said = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    kind = said.get("errorType") or request.headers.get(ERROR_TYPE) or "Unknown"
    stack = said.get("stackTrace") or said.get("trace")
    stack = stack if isinstance(stack, list) else [stack] if stack else []
    lines = tuple(clean(_line(entry), 1024) for entry in stack[:40])
    return HandlerFault("raised", clean(str(kind), 256), clean(str(said.get("errorMessage", ""))), lines)


def _line(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    return f"{entry.get('path', '')}:{entry.get('line', '')} {entry.get('label', '')}".strip()
