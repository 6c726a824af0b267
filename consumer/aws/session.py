"""The one place that knows how a client of the AWS SDK is made.

Everything above asks ``AwsSession`` for a client and gets the same long-lived one each time: a client costs about
100 ms and tens of megabytes of service model to create, and its connection pool is only worth having when it is shared.

The SDK's own defaults are wrong for a daemon that must notice a dead peer within a lease: sixty seconds of connect and
read time-out, and silent retries that hide throttling from the code that paces the calls. Both are replaced here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import aioboto3
import aiobotocore.session
import structlog
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from consumer.aws.connections import ClientConfig, authorities_of
from consumer.aws.credentials import HeldCredentials, metadata_service_is_asked, sdk_chain
from consumer.aws.errors import AwsConfigurationError, one_line, translate
from consumer.aws.inspection import Inspection, Parsers
from consumer.aws.sdk_data import models
from consumer.domain.errors import DependencyError, StreamConsumerError
from consumer.ports.time import Clock

log = structlog.get_logger()

CONNECT_TIMEOUT: Final = 2.0  # seconds
READ_TIMEOUT: Final = 10.0  # seconds without a byte; ApiCaller bounds the call as a whole
IDLE_CONNECTION: Final = 45.0  # seconds; below the 60 s after which many proxies drop an idle connection silently
USER_AGENT: Final = "dynamodb-stream-consumer"  # added to the SDK's own, so that CloudTrail tells the calls apart

_ENDPOINT_KEYS: Final = {"dynamodbstreams": "dynamodb_streams"}  # as the configuration file spells them


class AwsSession:
    """Credentials, region and one client per service, for the lifetime of the ``async with`` block.

    Args:
        region: region name; None: AWS_REGION, which every SDK but Python's knows, then the SDK's own chain
            (AWS_DEFAULT_REGION, profile).
        endpoints: endpoint URLs by ``dynamodb``, ``dynamodb_streams``, ``kinesis``, ``sqs``, ``sns``, ``s3``. Services
            that are not named keep the SDK's own rules, ``AWS_ENDPOINT_URL*`` included.
        max_pool_connections: connections per client; must exceed the number of shards polled at the same time.
        clock: for when credentials end; None for the machine's.
        credentials_end: is told the end of the credentials (Unix time; None for keys without one), at each renewal.
        heard: is given the service's time (Unix seconds) with every answer that says it.

    Raises (on entry):
        AwsConfigurationError: no region, a profile that does not exist, or no credentials and nothing that could give
            any later (exit 78).
        DependencyError: the provider of the credentials failed in a way that may pass (exit 69).
        PermissionDenied: the role of the credentials may not be assumed (exit 77).
    """

    def __init__(
        self,
        region: str | None,
        endpoints: Mapping[str, str],
        *,
        max_pool_connections: int = 50,
        clock: Clock | None = None,
        credentials_end: Callable[[float | None], None] | None = None,
        heard: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._region = region or os.environ.get("AWS_REGION") or None
        self._endpoints = dict(endpoints)
        self._inspection = Inspection(heard)
        self._config_options: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # throttles are counted and paced by the callers
            "tcp_keepalive": True,  # aiobotocore 2.25 ignores it; until it does not, IDLE_CONNECTION does the work
            "max_pool_connections": max_pool_connections,
            "user_agent_extra": USER_AGENT,
        }
        self._credentials = HeldCredentials(partial(sdk_chain, self._region), clock=clock, ends=credentials_end)
        self._session: Any = None
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}
        self._creating = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            botocore_session = aiobotocore.session.get_session()
            data_path = botocore_session.get_config_variable("data_path")
            botocore_session.register_component("data_loader", models(data_path))
            botocore_session.register_component("credential_provider", self)
            botocore_session.register_component("response_parser_factory", Parsers())
            self._session = aioboto3.Session(botocore_session=botocore_session, region_name=self._region)
            if not self._session.region_name:
                raise AwsConfigurationError("no AWS region is configured (set aws.region or AWS_REGION)")
            authorities_of(botocore_session)
            await self._credentials.obtain()
        except NoCredentialsError as error:
            raise _no_credentials() from error
        except ClientError as error:  # of the service that gives them
            raise translate(error, error.operation_name, "the role that the AWS credentials are for") from error
        except (BotoCoreError, OSError) as error:  # TimeoutError is an OSError
            raise translate(error, "GetCredentials", "the AWS credentials chain") from error
        renewal = asyncio.create_task(self._credentials.run(), name="credentials")
        renewal.add_done_callback(_died)
        self._stack.push_async_callback(self._end, renewal)
        return self

    async def _end(self, renewal: asyncio.Task[None]) -> None:
        renewal.cancel()
        await asyncio.wait({renewal})
        await self._credentials.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        self._clients.clear()
        await self._stack.aclose()

    async def load_credentials(self) -> HeldCredentials:
        """What the SDK calls for every client: this session is its chain of providers."""
        return self._credentials

    def credentials_refused(self) -> None:
        """A service did not accept the credentials: they are read again, beside the calls."""
        self._credentials.refused()

    def has_endpoint(self, service: str) -> bool:
        """Whether an endpoint is configured for ``service``: in the settings, or by ``AWS_ENDPOINT_URL*``."""
        names = (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL")
        return bool(self._endpoints.get(service)) or any(os.environ.get(name) for name in names)

    async def client(self, service: str) -> Any:
        """The client of ``service`` (botocore's name, such as ``dynamodbstreams``), created on first use.

        Raises:
            AwsConfigurationError: the SDK refuses the settings, for instance an endpoint that is no URL.
        """
        async with self._creating:  # two tasks asking at once must not create two
            if service not in self._clients:
                self._clients[service] = await self._create(service)
            return self._clients[service]

    async def _create(self, service: str) -> Any:
        endpoint = self._endpoints.get(_ENDPOINT_KEYS.get(service, service))
        options = dict(self._config_options)
        if service == "s3" and endpoint:
            options["s3"] = {"addressing_style": "path"}  # a custom endpoint rarely resolves bucket.host names
        connector = {"keepalive_timeout": IDLE_CONNECTION}
        config = ClientConfig(connector, **options)
        try:
            # The context manager closes what it opened when it fails half-way; the stack owns it from then on.
            client = await self._stack.enter_async_context(
                self._require().client(service, endpoint_url=endpoint, config=config)
            )
        except (BotoCoreError, ValueError) as error:
            raise AwsConfigurationError(f"the AWS client for {service} cannot be made: {one_line(error)}") from error
        self._inspection.watch(client)
        return client

    def _require(self) -> Any:
        if self._session is None:
            raise RuntimeError("AwsSession is used outside its 'async with' block")
        return self._session


def _no_credentials() -> StreamConsumerError:
    where = (
        "no AWS credentials were found (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "a profile, or run with an instance, task or pod role)"
    )
    if metadata_service_is_asked():  # at boot it may answer later than we ask
        return DependencyError("GetCredentials", "NoCredentials", f"{where}; the metadata service gives none either")
    return AwsConfigurationError(where)


def _died(renewal: asyncio.Task[None]) -> None:
    """From then on calls renew their credentials themselves, at their end."""
    if not renewal.cancelled():
        log.critical("task.died", task="credentials", exc_info=renewal.exception())
