"""What all clients of the process share of the SDK: its service models, and whom its connections trust.

As it comes, the SDK reads the certificate authorities (150 of them) for each client anew, and decodes its models into
ordered dictionaries, pair by pair: together a quarter of the CPU time in which a daemon starts. And its asynchronous
form (aiobotocore 2.25) trusts too much: it takes a certificate of any name, and through a proxy one of any authority.
"""

from __future__ import annotations

import gzip
import os
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.utils import _RefCountedSession
from botocore.exceptions import DataNotFoundError
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.loaders import JSONFileLoader, Loader

SERVICES: Final = ("dynamodb", "dynamodbstreams", "kinesis", "s3", "sns", "sqs")  # sorted, as the SDK lists them
_FORMATS: Final[Mapping[str, Callable[..., Any]]] = {".json": open, ".json.gz": gzip.open}  # in the SDK's order


@cache
def models(data_path: str | None) -> Loader:
    """The loader of service models, once for all sessions (each event loop has one): they are large, and read-only.
    ``data_path`` is as in ``AWS_DATA_PATH``."""
    paths = [os.path.expandvars(path) for path in (data_path or "").split(os.pathsep)]
    known = [os.path.expanduser(path) for path in paths if path]  # noqa: PTH111 - pathlib's raises where there is no home
    return _Models(known, _ModelFiles())


class _Models(Loader):  # type: ignore[misc]  # botocore has no types
    """Finds the models of the services that are used here without looking into the folders of the 400 others."""

    def list_available_services(self, type_name: str) -> list[str]:
        """Those of ``SERVICES`` that have a file of this type."""
        return [service for service in SERVICES if self._has(service, type_name)]

    def _has(self, service: str, type_name: str) -> bool:
        try:
            self.list_api_versions(service, type_name)
        except DataNotFoundError:
            return False
        return True


class _ModelFiles(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    """Reads the SDK's files with a decoder that is ten times as fast. Plain dictionaries keep the order, too."""

    def load_file(self, file_path: str) -> Any:
        """What is in the file of this name, which lacks its extension; None when there is none. Raises ValueError when
        it is no JSON."""
        for extension, opened in _FORMATS.items():
            if not Path(file_path + extension).is_file():
                continue
            with opened(file_path + extension, "rb") as file:
                try:
                    return msgspec.json.decode(file.read())
                except msgspec.DecodeError as error:
                    raise ValueError(f"{file_path}{extension}: {error}") from error
        return None


class HttpSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """The SDK's connections, to nobody else than they are meant for, and with one TLS context for all clients that
    trust the same authorities."""

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        of_proxy = self._proxy_config.settings
        if not (of_proxy.get("proxy_ca_bundle") or of_proxy.get("proxy_client_cert")):
            proxy_url = None  # with a proxy that has no settings of its own the SDK would verify nothing
        if proxy_url or not self._verify or self._cert_file:  # a context of their own
            connector: aiohttp.TCPConnector = super()._create_connector(proxy_url)
            return connector
        context = trust(get_cert_path(self._verify))
        return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=context, **self._connector_args)

    def _get_ssl_context(self) -> ssl.SSLContext:
        return _checks_names()


class FetchingSession(HttpSession, _RefCountedSession):  # type: ignore[misc]  # aiobotocore has no types
    """The same for what the SDK asks without a client: the endpoint of a container's credentials."""


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


@cache
def trust(authorities: str) -> ssl.SSLContext:
    """What trusts the authorities in this file, as the SDK makes it. Several threads may use it."""
    context = _checks_names()
    context.load_verify_locations(authorities)
    return context


def _checks_names() -> ssl.SSLContext:
    """The SDK switches the check off, because the HTTP library of its synchronous form does it."""
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True
    return context
