"""GetRecords on connections of our own, with all that the SDK decided: endpoint, headers, credentials, signature.

A call through the SDK costs 700 us before a byte is sent and after the last one came (endpoint rules, serializer,
user agent, signer, retry machinery), and aiohttp adds 3 us for every 2 KB. Near the tip of a stream, where pages are
small, that is nearly all the CPU a worker uses. Here a call costs 60 us.

Nothing is guessed. ``learn`` lets the SDK prepare and sign one request, keeps it from the network, takes its URL,
headers and signer, and signs the same request itself: only when both signatures are the same to the byte is this path
used. Credentials come from the SDK's signer for every request, so rotation stays its business. Error answers go through
botocore's parser and are raised as the exceptions that the client raises. Whatever is not understood (a proxy, a client
certificate, another signature, an answer without Content-Length) is left to ``client.get_records()``.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiobotocore.parsers import create_parser
from botocore.awsrequest import HeadersDict
from botocore.exceptions import NoCredentialsError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from consumer.aws.connections import Answer, ConnectionPool, Unsupported
from consumer.aws.sigv4 import Credentials, PostSigner, timestamp_of

OPERATION: Final = "GetRecords"
_BEFORE_SIGN: Final = f"before-sign.dynamodb-streams.{OPERATION}"
_BEFORE_SEND: Final = f"before-send.dynamodb-streams.{OPERATION}"
# What a request carries that differs from call to call, or that the connection adds.
_PER_CALL: Final = {"x-amz-date", "authorization", "x-amz-security-token", "content-length", "host"}
_UNTRACED: Final = {"amz-sdk-invocation-id", "amz-sdk-request"}  # unsigned, about retries that we do ourselves
_PLAIN_PATH: Final = re.compile(r"/|(/[A-Za-z0-9_.~-]+)+/?")

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
        self._request_signer: Any = None
        self._scope: dict[str, str] = {}
        self._signer: PostSigner | None = None
        self._head = b""
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
        if url.scheme not in ("http", "https") or url.query or not _PLAIN_PATH.fullmatch(url.path or "/"):
            raise NotLean(f"an unusual endpoint: {request.url}")
        config = self._client.meta.config
        if config.proxies or get_environ_proxies(request.url) or config.client_cert:
            raise NotLean("a proxy or a client certificate is configured")
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        self._request_signer = signing["request_signer"]
        self._scope = {name: signing[name] for name in ("signing_name", "region_name", "signature_version")}
        host = url.netloc.rpartition("@")[2]
        if url.port == {"http": 80, "https": 443}[url.scheme]:
            host = str(url.hostname)
        self._signer = PostSigner(
            host=host,
            path=url.path or "/",
            content_type=headers.get("content-type", ""),
            target=headers.get("x-amz-target", ""),
            region=signing["region_name"],
            service=signing["signing_name"],
        )
        await self._compare(headers, request.body)
        fixed = {name: value for name, value in headers.items() if name not in _PER_CALL | _UNTRACED}
        lines = [f"POST {url.path or '/'} HTTP/1.1", f"Host: {host}", *(f"{name}: {fixed[name]}" for name in fixed)]
        if any("\r" in line or "\n" in line for line in lines):
            raise NotLean("a header with a line break")
        self._head = "\r\n".join(lines).encode("latin-1")
        port = url.port or (443 if url.scheme == "https" else 80)
        tls = _tls() if url.scheme == "https" else None
        self._pool = ConnectionPool(str(url.hostname), port, tls, limit=self._limit)

    async def call(self, iterator: str, limit: int) -> Answer:
        """The raw answer of a successful call.

        Raises:
            NotLean: the answer is none that is understood here; ask the SDK.
            ClientError: as ``client.get_records()`` raises it.
            OSError, BotoCoreError: no answer, no credentials.
        """
        body = _encode({"ShardIterator": iterator, "Limit": limit})
        signed = await self._sign(body, timestamp_of(dt.datetime.now(dt.UTC)))
        lines = "".join([f"\r\n{name}: {value}" for name, value in signed.items()])
        tail = f"{lines}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1")
        if self._pool is None:
            raise NotLean("learn was not called")
        try:
            answer = await self._pool.post(self._head + tail + body)
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

    async def _compare(self, headers: dict[str, str], body: Any) -> None:
        ours = await self._sign(body if isinstance(body, bytes) else str(body).encode(), headers.get("x-amz-date", ""))
        for name, value in ours.items():
            if headers.get(name.lower()) != value:
                raise NotLean(f"the SDK's {name} is another one than ours")

    async def _sign(self, body: bytes, timestamp: str) -> dict[str, str]:
        found = (await self._request_signer.get_auth_instance(**self._scope)).credentials
        if found is None:
            raise NoCredentialsError
        if self._signer is None:
            raise NotLean("learn was not called")
        return self._signer.headers(body, Credentials(found.access_key, found.secret_key, found.token), timestamp)

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


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _tls() -> ssl.SSLContext:
    """Verifies as the SDK does: against its own bundle, or the one that the environment names."""
    named = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    return ssl.create_default_context(cafile=named or get_cert_path(True))
