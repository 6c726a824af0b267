"""Handlers behind a URL (``kind: http``): one POST of the Lambda event for each batch.

The one question after anything that is not a plain answer: can user code have run? While the request had not been
sent (refused, unknown host, TLS, slow connect) it cannot, and a 429, or a 503 with ``Retry-After``, says that it did
not: ``not_invoked``, no retry is spent. Everything else counts as an attempt that failed.

There is no killing over HTTP. At the time limit, or when the call is cancelled, the connection is closed; whether
the server stops then is its own matter. ``Lambda-Runtime-Deadline-Ms`` says how long the daemon waits, and the lease
epoch among the headers lets a sink refuse what comes too late.

Proxies: ``HTTP_PROXY`` and ``.netrc`` are not looked at. In this process they are meant for AWS, the usual handler is
a container beside the daemon, and records must not travel through a proxy because of a variable. Redirects are not
followed for the same reason: events go to the configured address or nowhere.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from yarl import URL

from consumer.domain.errors import HandlerImportError
from consumer.domain.outcome import TOO_LATE, HandlerCall, HandlerFault, Outcome
from consumer.domain.urls import REDACTED, redact_urls, secrets_of
from consumer.handlers.handler_faults import fault_of, timeout_fault
from consumer.handlers.results import lambda_outcome
from consumer.handlers.runtime.faults import clean, describe

MAX_ANSWER: Final = 6 * 1024 * 1024  # bytes; Lambda's limit for a synchronous response
_EXCERPT_CHARACTERS: Final = 500
# Of an error page only the excerpt is wanted, but a short page is read to its end: the connection can be used again.
_MAX_ERROR_PAGE: Final = 64 * 1024
_ERROR_PAGE_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 3.0
# Common servers (uvicorn, Node) close after five idle seconds. The daemon must close first: a request that
# meets the closing of a server looks like a handler that crashed.
_IDLE_SECONDS: Final = 4.0
_MAX_STACK: Final = 40
_EMULATOR_PATH: Final = "/2015-03-31/functions/"
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Progress:
    """How far a request got. ``sent``: its first bytes may have left."""

    sent: bool = False


class _TooLate(Exception):
    """The call must not start any more."""


_call: ContextVar[HandlerCall] = ContextVar("call")


class _CheckedRequest(aiohttp.ClientRequest):
    """Looks at the ownership when the connection is there, which may have taken seconds."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        if _call.get().may_start_for() <= 0:
            raise _TooLate
        return await super().send(conn)


async def _mark_sent(session: aiohttp.ClientSession, context: Any, params: object) -> None:
    context.trace_request_ctx.sent = True


class HttpHandler:
    """``consumer.ports.Handler`` for ``kind: http``, and its own ``Reservation``: a connection is opened by the call
    that needs one, and ownership is looked at again when it is open.

    ``max_answer`` (bytes) may be changed before ``start``.
    """

    def __init__(self, url: str, *, report_failures: bool | None = True) -> None:
        self.max_answer = MAX_ANSWER
        self._url = url
        self._secrets: tuple[str, ...] = ()
        self._report_failures = report_failures
        self._session: aiohttp.ClientSession | None = None

    @property
    def width(self) -> int:
        """No limit: the server says 429 when it has one."""
        return 0

    async def start(self) -> None:
        """Open the session. The endpoint may come up later than the daemon: when it is not there, that is only logged.

        HandlerImportError: ``handler.target`` is no http(s) URL.
        """
        try:
            url = URL(self._url)
            usable = url.scheme in ("http", "https") and bool(url.host)
            self._secrets = secrets_of(self._url)
        except ValueError:
            usable = False
        if not usable:
            raise HandlerImportError(f"handler.target {redact_urls(self._url)!r}: must be an http:// or https:// URL")
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_mark_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
            # No compression: a few kilobytes must not become gigabytes here.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "stream-consumer"},
            auto_decompress=False,
            trace_configs=[trace],
            request_class=_CheckedRequest,
            trust_env=False,
        )
        await self._probe(url)

    async def reserve(self) -> HttpHandler:
        return self

    def release(self) -> None:
        """Nothing was reserved."""

    async def run(self, call: HandlerCall) -> Outcome:
        """Run one batch; see ``consumer.ports.Reservation.run``. Cancelling closes the connection."""
        session = self._session
        if session is None:
            return Outcome("not_invoked", fault=HandlerFault("cancelled", "Closed", "the handler is not started"))
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome = await self._outcome(session, call)
        if outcome.fault is not None and self._secrets:
            outcome = msgspec.structs.replace(outcome, fault=self._masked(outcome.fault))
        return msgspec.structs.replace(outcome, seconds=loop.time() - started)

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- inside

    def _masked(self, fault: HandlerFault) -> HandlerFault:
        """Without the credentials in the URL, which servers like to quote: "Cannot POST /in?api_key=..."."""

        def masked(text: str) -> str:
            for secret in self._secrets:
                text = text.replace(secret, REDACTED)
            return text

        return replace(fault, message=masked(fault.message), stack=tuple(masked(line) for line in fault.stack))

    async def _probe(self, url: URL) -> None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                _, writer = await asyncio.open_connection(url.host, url.port)
                writer.close()
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            reason = describe(error) or f"no connection within {_PROBE_SECONDS:g} s"
            log.warning("handler.endpoint_unreachable", url=_public(url), error=reason)

    async def _outcome(self, session: aiohttp.ClientSession, call: HandlerCall) -> Outcome:
        progress = _Progress()
        _call.set(call)
        try:
            event = call.event()
            async with asyncio.timeout(call.timeout):
                return await self._post(session, call, event, progress)
        except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
            if not progress.sent:
                reason = describe(error) or f"no connection within {call.timeout:g} s"
                return Outcome("not_invoked", fault=HandlerFault("crashed", type(error).__name__, reason))
            if isinstance(error, TimeoutError):
                return Outcome("failed", fault=timeout_fault(call.request_id, call.timeout))
            return _failed("crashed", "ConnectionLost", f"{type(error).__name__}: {describe(error)}")
        except aiohttp.ClientError as error:  # half a body, or no HTTP at all
            return _failed("bad_response", type(error).__name__, describe(error))
        except _TooLate:
            return TOO_LATE
        except Exception as error:  # noqa: BLE001  # a record that cannot be written is poison, not the daemon's end
            return Outcome("failed", fault=fault_of(error))

    async def _post(
        self, session: aiohttp.ClientSession, call: HandlerCall, event: bytes, progress: _Progress
    ) -> Outcome:
        async with session.post(
            self._url,
            data=io.BytesIO(event),  # written in pieces: megabytes at once would hold up the loop
            headers=_headers(call),
            allow_redirects=False,
            trace_request_ctx=progress,
        ) as response:
            if 200 <= response.status < 300:
                return await self._answered(response, call)
            page = await _error_page(response)
            return _refused(response, page)

    async def _answered(self, response: aiohttp.ClientResponse, call: HandlerCall) -> Outcome:
        body = await _read(response, self.max_answer)
        if len(body) > self.max_answer or (response.content_length or 0) > self.max_answer:
            response.close()
            text = f"the answer is larger than {self.max_answer} bytes"
            return _failed(
                "raised", "Function.ResponseSizeTooLarge", f"HTTP {response.status}: {text}: {_excerpt(body)}"
            )
        error = _function_error(response.headers, body)
        if error is not None:
            return Outcome("failed", fault=error)
        numbers = frozenset([record.sequence_number for record in call.records])
        windowed = call.window is not None and call.window.asks_for_state
        outcome = lambda_outcome(body.strip(), numbers, report_failures=self._report_failures, windowed=windowed)
        if outcome.fault is not None:
            message = f"HTTP {response.status}: {outcome.fault.message}: {_excerpt(body)}"
            outcome = _failed(outcome.fault.kind, outcome.fault.type, message)
        return msgspec.structs.replace(outcome, answer=body)


def _headers(call: HandlerCall) -> dict[str, str]:
    """What the ``context`` of a function would say; the last two named as Lambda's runtime API names them."""
    redrive = {"X-Stream-Consumer-Redrive": "true"} if call.redrive else {}
    return {
        **redrive,
        "Content-Type": "application/json",
        "X-Stream-Consumer-Application": call.application,
        "X-Stream-Consumer-Shard-Id": call.shard_id,
        "X-Stream-Consumer-Lease-Epoch": str(call.lease_epoch),
        "X-Stream-Consumer-Attempt": str(call.attempt),
        "X-Stream-Consumer-Request-Id": call.request_id,
        "Lambda-Runtime-Aws-Request-Id": call.request_id,
        "Lambda-Runtime-Deadline-Ms": str(int((time.time() + call.timeout) * 1000)),
    }


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or as much of it as shows that it is larger than ``limit``."""
    announced_too_large = (response.content_length or 0) > limit
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if announced_too_large or len(body) > limit:
            break
    return bytes(body)


async def _error_page(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error page. The status is what counts, so a page that does not come is none."""
    try:
        async with asyncio.timeout(_ERROR_PAGE_SECONDS):
            page = await _read(response, _MAX_ERROR_PAGE)
    except (aiohttp.ClientError, TimeoutError, OSError):
        page = b""
    if not response.content.at_eof():
        response.close()
    return page


def _refused(response: aiohttp.ClientResponse, page: bytes) -> Outcome:
    """The outcome of an answer that is not 2xx."""
    status = response.status
    message = f"HTTP {status} {response.reason or ''}".rstrip() + (f": {_excerpt(page)}" if page.strip() else "")
    busy = status == 429 or (status == 503 and "Retry-After" in response.headers)
    # The Runtime Interface Emulator runs one call at a time and says a bare 400 to any other; functions cannot say 400.
    if busy or (status == 400 and not page and response.url.path.startswith(_EMULATOR_PATH)):
        return Outcome("not_invoked", fault=HandlerFault("crashed", f"HttpStatus.{status}", clean(message)))
    if 300 <= status < 400:
        location = clean(redact_urls(response.headers.get("Location", "nowhere")), 200)
        where = f"redirects are not followed (to {location.partition('?')[0]}): put the final address in handler.target"
        return _failed("bad_response", f"HttpStatus.{status}", f"HTTP {status}: {where}: {_excerpt(page)}")
    return _failed("raised", f"HttpStatus.{status}", message)


def _function_error(headers: Mapping[str, str], body: bytes) -> HandlerFault | None:
    """What a Lambda container (and Lambda itself) answers, with 200, when the function raised; None when it did not."""
    marked = headers.get("X-Amz-Function-Error")
    if body.startswith(b"Task timed out after "):  # the Runtime Interface Emulator, at AWS_LAMBDA_FUNCTION_TIMEOUT
        return HandlerFault("timeout", "Sandbox.Timedout", _excerpt(body))
    if marked is None and b'"errorMessage"' not in body:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    fields: dict[str, Any] = document if isinstance(document, dict) else {}
    named = "errorMessage" in fields and "errorType" in fields and "batchItemFailures" not in fields
    if marked is None and not named:
        return None
    type_ = clean(str(fields.get("errorType") or marked or "Unhandled"), 256)
    message = fields.get("errorMessage")
    text = clean(str(message)) if message is not None else _excerpt(body)
    stack = fields.get("stackTrace")
    lines = tuple(clean(str(line), 1024) for line in stack[:_MAX_STACK]) if isinstance(stack, list) else ()
    return HandlerFault("timeout" if type_ == "Sandbox.Timedout" else "raised", type_, text, lines)


def _failed(kind: Any, type_: str, message: str) -> Outcome:
    return Outcome("failed", fault=HandlerFault(kind, type_, clean(message)))


def _excerpt(body: bytes) -> str:
    """The first characters of a body, on one line."""
    return " ".join(body[: _EXCERPT_CHARACTERS * 4].decode("utf-8", "replace")[:_EXCERPT_CHARACTERS].split())


def _public(url: URL) -> str:
    """Without user, password and query, which may hold a key."""
    return str(url.with_user(None).with_query(None).with_fragment(None))
