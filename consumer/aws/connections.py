"""How this process connects to AWS: to nobody else than it means to, and with no more than it has to say.

The SDK's asynchronous form (aiobotocore 2.25) leaves to its HTTP library what that of the synchronous form does and
``aiohttp`` does not, and the reverse: as it comes it takes a certificate of any name, and through a proxy one of any
authority; follows redirects with the session token in its hands; sends back the cookies of whoever is in between; and
waits for ever for leave to send a body. All clients and requests of the process are made with ``HttpSession``.
"""

from __future__ import annotations

import os
import ssl
from functools import cache
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.utils import _RefCountedSession
from botocore.httpsession import create_urllib3_context, get_cert_path

from consumer.aws.errors import AwsConfigurationError, one_line


class HttpSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """The SDK's connections, with one TLS context for all clients that trust the same authorities. ``verify`` is the
    file of these; an empty one is none, and means the SDK's own, as without it: nothing switches the check off."""

    def __init__(self, verify: str | bool | None = True, *rest: Any, **options: Any) -> None:
        super().__init__(verify or True, *rest, **options)

    async def send(self, request: Any) -> Any:
        """The answer to a request, whatever it is. A body is sent without asking first: it is small, and what does not
        know ``Expect`` would never give leave."""
        request.headers.pop("Expect", None)
        return await super().send(request)

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = self._sessions.get(proxy_url)
        if session is None:
            client = aiohttp.ClientSession(
                connector=self._create_connector(proxy_url),
                timeout=self._timeout,
                skip_auto_headers={"CONTENT-TYPE"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            await self._exit_stack.enter_async_context(client)
            session = self._sessions[proxy_url] = _Straight(client)
        return session

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        of_proxy = self._proxy_config.settings
        if not (of_proxy.get("proxy_ca_bundle") or of_proxy.get("proxy_client_cert")):
            proxy_url = None  # with a proxy that has no settings of its own the SDK would verify nothing
        if proxy_url or self._cert_file:  # a context of their own
            connector: aiohttp.TCPConnector = super()._create_connector(proxy_url)
            return connector
        context = trust(get_cert_path(self._verify))
        return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=context, **self._connector_args)

    def _get_ssl_context(self) -> ssl.SSLContext:
        return _checks_names()


class _Straight:
    """A session that goes nowhere else. Where a redirect means something, as between the regions of S3, the SDK follows
    it by itself, and signs anew."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> aiohttp.ClientResponse:
        return await self._session.request(method, allow_redirects=False, **options)


class FetchingSession(HttpSession, _RefCountedSession):  # type: ignore[misc]  # aiobotocore has no types
    """The same for what the SDK asks without a client: who gives the credentials of a container or a machine."""


class ClientConfig(AioConfig):  # type: ignore[misc]  # aiobotocore has no types
    """Makes clients with ``HttpSession``, also where the SDK adds options of its own: ``merge`` of the SDK forgets the
    class of the session."""

    def __init__(self, connector_args: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(connector_args, HttpSession, **options)

    def merge(self, other_config: Any) -> AioConfig:
        """With the options of the other one, which win."""
        merged = super().merge(other_config)
        merged.http_session_cls = HttpSession
        return merged


def authorities_of(session: Any) -> str:
    """The file of the authorities that clients of this session of the SDK trust. AwsConfigurationError when it cannot
    be used: calls would only fail, one after the other."""
    named = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    path: str = get_cert_path(named or True)
    try:
        trust(path)
    except OSError as error:  # ssl.SSLError is one
        where = "AWS_CA_BUNDLE, ca_bundle of the profile, or REQUESTS_CA_BUNDLE" if named else "the SDK's own"
        raise AwsConfigurationError(
            f"no certificate authorities can be read from {path} ({where}): {one_line(error)}"
        ) from error
    return path


@cache
def trust(authorities: str) -> ssl.SSLContext:
    """What trusts the authorities in this file, as it is now. Several threads may use it. OSError."""
    context = _checks_names()
    context.load_verify_locations(authorities)
    return context


def _checks_names() -> ssl.SSLContext:
    """The SDK switches the check off, because the HTTP library of its synchronous form does it."""
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True
    return context
