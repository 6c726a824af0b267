"""GetRecords on connections of our own, with all that the SDK decides: endpoint, headers, credentials, signature.

A call through the SDK costs 2.5 ms of CPU, most of it in endpoint rules, serializer, user agent, retry handlers and
parsers whose outcome is the same for every call, and aiohttp's reader costs 1.3 us for every record of 2 KB. Near the
tip of a stream, where pages are small, and in a backlog that is most of what a worker uses. Here a call costs 0.2 ms.

Nothing is guessed. ``learn`` lets the SDK prepare and sign one request, keeps it from the network, and takes its URL,
its headers and its signer; ``call`` signs the same request with another body by that signer, so rotation of credentials
stays the SDK's business. Error answers go through botocore's parser and are raised as the exceptions that the client
raises. Whatever is not understood (a proxy, a client certificate, another signature, an answer without Content-Length)
is left to ``client.get_records()``.
"""

from __future__ import annotations

import os
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiobotocore.parsers import create_parser
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from consumer.aws.connections import Answer, ConnectionPool, Unsupported

OPERATION: Final = "GetRecords"
_BEFORE_SIGN: Final = f"before-sign.dynamodb-streams.{OPERATION}"
_BEFORE_SEND: Final = f"before-send.dynamodb-streams.{OPERATION}"
# What differs from call to call, that the connection adds, or that is about retries, which are not the SDK's here.
_PER_CALL: Final = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "host",
    "x-amz-date",
    "x-amz-security-token",
}

_encode = msgspec.json.Encoder().encode


class NotLean(Exception):
    """This path cannot be used, or not any more; the text says why."""


class LeanGetRecords:
    """``GetRecords`` of one client without its per-call machinery. ``learn`` first; one event loop.

    Args:
        client: a ``dynamodbstreams`` client. Event handlers for its requests are not called on this path.
        connections: at most that many calls at the same time; more take turns.
    """

    def __init__(self, client: Any, *, connections: int) -> None:
        self._client = client
        self._limit = connections
        self._pool: ConnectionPool | None = None
        self._signer: Any = None
        self._scope: dict[str, str] = {}
        self._url = ""
        self._start = ""
        self._headers: dict[str, str] = {}
        model = client.meta.service_model
        self._shape = model.operation_model(OPERATION).output_shape
        self._parser = create_parser(model.protocol)

    async def learn(self, iterator: str) -> None:
        """Take over how the SDK asks. A handler of ``before-send`` must answer the request for ``iterator``.

        Raises:
            NotLean: the SDK asks in a way that is not understood here.
            BotoCoreError: there are no credentials.
        """
        signing, request = await self._prepared_request(iterator)
        if signing.get("signature_version") != "v4" or request is None or request.method != "POST":
            raise NotLean(f"requests are not plain signature v4: {signing.get('signature_version')}")
        url = urlsplit(request.url)
        if url.scheme not in ("http", "https") or url.query or not url.hostname:
            raise NotLean(f"an unusual endpoint: {request.url}")
        config = self._client.meta.config
        if config.proxies or get_environ_proxies(request.url) or config.client_cert:
            raise NotLean("a proxy or a client certificate is configured")
        self._signer = signing["request_signer"]
        self._scope = {name: signing[name] for name in ("signing_name", "region_name", "signature_version")}
        self._url = request.url
        self._headers = {name: _text(value) for name, value in request.headers.items() if name.lower() not in _PER_CALL}
        # The signature covers the Host header: it is what botocore makes of the URL.
        self._start = f"POST {url.path or '/'} HTTP/1.1\r\nHost: {_host_of(self._url)}\r\n"
        port = url.port or (443 if url.scheme == "https" else 80)
        tls = _tls() if url.scheme == "https" else None
        self._pool = ConnectionPool(url.hostname, port, tls, limit=self._limit)

    async def call(self, iterator: str, limit: int) -> Answer:
        """The raw answer of a successful call.

        Raises:
            NotLean: the answer is none that is understood here; ask the SDK.
            ClientError: as ``client.get_records()`` raises it.
            OSError, BotoCoreError: no answer, no credentials.
        """
        if self._pool is None:
            raise NotLean("learn was not called")
        body = _encode({"ShardIterator": iterator, "Limit": limit})
        request = AWSRequest("POST", self._url, dict(self._headers), body)
        # The signer of this moment: credentials are refreshed by it when they are due.
        auth = await self._signer.get_auth_instance(**self._scope)
        auth.add_auth(request)
        lines = "".join([f"{name}: {_text(value)}\r\n" for name, value in request.headers.items()])
        head = f"{self._start}{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        try:
            answer = await self._pool.post(head + body)
        except (Unsupported, ssl.SSLCertVerificationError) as error:  # a private CA that only the SDK knows
            raise NotLean(str(error)) from error
        if answer.status >= 300:
            await self._raise(answer)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        if self._pool is not None:
            self._pool.close()

    async def _prepared_request(self, iterator: str) -> tuple[dict[str, Any], Any]:
        """What the SDK signs with, and the request that it would send."""
        signing: dict[str, Any] = {}
        prepared: list[Any] = []

        def on_sign(**given: Any) -> None:
            signing.update(given)

        def on_send(request: Any, **_: Any) -> None:
            prepared.append(request)

        events = self._client.meta.events
        events.register(_BEFORE_SIGN, on_sign)
        events.register_first(_BEFORE_SEND, on_send)
        try:
            await self._client.get_records(ShardIterator=iterator)
        finally:
            events.unregister(_BEFORE_SIGN, on_sign)
            events.unregister(_BEFORE_SEND, on_send)
        return signing, prepared[-1] if prepared else None

    async def _raise(self, answer: Answer) -> None:
        response = {
            "status_code": answer.status,
            "headers": HeadersDict(answer.headers),
            "body": bytes(answer.body),
            "context": {"operation_name": OPERATION},
        }
        parsed = await self._parser.parse(response, self._shape)
        error = self._client.exceptions.from_code(parsed.get("Error", {}).get("Code"))
        raise error(parsed, OPERATION)


def _host_of(url: str) -> str:
    """The Host header as botocore's signer takes it from a URL: without the scheme's own port."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    own = {"http": 80, "https": 443}[parts.scheme]
    return str(parts.hostname) if parts.port == own else host


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _tls() -> ssl.SSLContext:
    """Verifies as the SDK does: against its own bundle, or the one that the environment names."""
    named = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    return ssl.create_default_context(cafile=named or get_cert_path(True))
