"""The one place that knows how a client of the AWS SDK is made.

Everything above asks ``AwsSession`` for a client and gets the same long-lived one each time: a client costs about
100 ms and tens of megabytes of service model to create, and its connection pool is only worth having when it is shared.

The SDK's own defaults are wrong for a daemon that must notice a dead peer within a lease: sixty seconds of connect and
read time-out, and silent retries that hide throttling from the code that paces the calls. Both are replaced here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Self

import aioboto3
import aiobotocore.session
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioRefreshableCredentials
from botocore.exceptions import BotoCoreError, CredentialRetrievalError

from consumer.aws.errors import AwsConfigurationError, one_line, translate

CONNECT_TIMEOUT: Final = 2.0  # seconds
READ_TIMEOUT: Final = 10.0  # seconds without a byte; ApiCaller bounds the call as a whole
IDLE_CONNECTION: Final = 45.0  # seconds; below the 60 s after which many proxies drop an idle connection silently
USER_AGENT: Final = "dynamodb-stream-consumer"  # added to the SDK's own, so that CloudTrail tells the calls apart
CREDENTIALS_DEADLINE: Final = 15.0  # seconds; a metadata service that accepts and stays silent must not hang the start

_ENDPOINT_KEYS: Final = {"dynamodbstreams": "dynamodb_streams"}  # as the configuration file spells them


class AwsSession:
    """Credentials, region and one client per service, for the lifetime of the ``async with`` block.

    Args:
        region: region name; None leaves it to the SDK's chain (environment, profile).
        endpoints: endpoint URLs by ``dynamodb``, ``dynamodb_streams``, ``kinesis``, ``sqs``, ``sns``, ``s3``. Services
            that are not named keep the SDK's own rules, ``AWS_ENDPOINT_URL*`` included.
        max_pool_connections: connections per client; must exceed the number of shards polled at the same time.

    Raises (on entry):
        AwsConfigurationError: no region, no credentials, or a profile that does not exist (exit 78).
        DependencyError: the credentials provider failed in a way that may pass (exit 69).
    """

    def __init__(
        self,
        region: str | None,
        endpoints: Mapping[str, str],
        *,
        max_pool_connections: int = 50,
    ) -> None:
        self._region = region
        self._endpoints = dict(endpoints)
        self._config_options: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # throttles are counted and paced by the callers
            "tcp_keepalive": True,  # aiobotocore 2.25 ignores it; until it does not, IDLE_CONNECTION does the work
            "max_pool_connections": max_pool_connections,
            "user_agent_extra": USER_AGENT,
        }
        self._session: Any = None
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}
        self._creating = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            botocore_session = aiobotocore.session.get_session()
            chain = botocore_session.get_component("credential_provider")
            botocore_session.register_component("credential_provider", _CredentialChain(chain))
            self._session = aioboto3.Session(botocore_session=botocore_session, region_name=self._region)
            if not self._session.region_name:
                raise AwsConfigurationError("no AWS region is configured (set aws.region or AWS_REGION)")
            async with asyncio.timeout(CREDENTIALS_DEADLINE):
                credentials = await botocore_session.get_credentials()
        except (BotoCoreError, OSError) as error:  # TimeoutError is an OSError
            raise translate(error, "GetCredentials", "the AWS credentials chain") from error
        if credentials is None:
            raise AwsConfigurationError(
                "no AWS credentials were found (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "a profile, or run with an instance, task or pod role)"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        self._clients.clear()
        await self._stack.aclose()

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
        config = AioConfig(connector_args={"keepalive_timeout": IDLE_CONNECTION}, **options)
        try:
            # The context manager closes what it opened when it fails half-way; the stack owns it from then on.
            return await self._stack.enter_async_context(
                self._require().client(service, endpoint_url=endpoint, config=config)
            )
        except (BotoCoreError, ValueError) as error:
            raise AwsConfigurationError(f"the AWS client for {service} cannot be made: {one_line(error)}") from error

    def _require(self) -> Any:
        if self._session is None:
            raise RuntimeError("AwsSession is used outside its 'async with' block")
        return self._session


class _CredentialChain:
    """The SDK's credential chain, whose errors look like what they are: a dependency that fails."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain

    async def load_credentials(self) -> Any:
        with _provider_errors():
            credentials = await self._chain.load_credentials()
        return _Refreshable(credentials) if isinstance(credentials, AioRefreshableCredentials) else credentials


class _Refreshable:
    """Credentials that expire are fetched again in the middle of any call, by either of the two methods here."""

    def __init__(self, credentials: AioRefreshableCredentials) -> None:
        self._credentials = credentials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._credentials, name)

    async def get_frozen_credentials(self) -> Any:
        with _provider_errors():
            return await self._credentials.get_frozen_credentials()

    async def get_account_id(self) -> Any:
        with _provider_errors():
            return await self._credentials.get_account_id()


@contextmanager
def _provider_errors() -> Iterator[None]:
    """Providers raise anything (KeyError where a part of an answer is missing, RuntimeError when what they got has
    expired, too), which could not be told from a bug in this program. It is a dependency that fails, and may pass."""
    try:
        yield
    except (BotoCoreError, OSError):
        raise
    except Exception as error:
        found = one_line(f"{type(error).__name__}: {error}")
        raise CredentialRetrievalError(provider="the AWS credentials chain", error_msg=found) from error
