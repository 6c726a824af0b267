"""Builds the AWS adapters of one process from the settings: one session for the main loop, one for the control loop.

Clients belong to the event loop they were made on; the control thread therefore has its own, and its renewals never
queue behind the main loop's calls in a connection pool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from consumer.aws.destinations import build_dead_letters
from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller
from consumer.aws.lease_table import DynamoDBLeaseStore
from consumer.aws.session import AwsSession
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.leases import LeaseTable
from consumer.ports.time import Clock, ServiceClock
from consumer.settings.model import Settings

Observe = Callable[[str, str, float], None]
CredentialsEnd = Callable[[float | None], None]

SHARD_CONNECTIONS = 128  # polls at the same time; more shards than that take turns


class MainAdapters:
    """Source, lease store and dead letters of the main loop. Use as an async context manager."""

    source: DynamoDBStreamSource
    store: DynamoDBLeaseStore
    dead_letters: DeadLetters | None

    def __init__(
        self, settings: Settings, observe: Observe, clock: ServiceClock, credentials_end: CredentialsEnd | None = None
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._credentials_end = credentials_end
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(
                AwsSession(
                    settings.aws.region,
                    settings.aws.endpoints.secret_urls(),
                    max_pool_connections=SHARD_CONNECTIONS,
                    clock=self._clock,
                    credentials_end=self._credentials_end,
                    heard=self._clock.heard,
                )
            )
            caller = ApiCaller(self._observe, session.credentials_refused)
            dynamodb = await session.client("dynamodb")
            streams = await session.client("dynamodbstreams")
            self.source = DynamoDBStreamSource(
                streams,
                dynamodb,
                caller,
                table=settings.source.table,
                stream_arn=settings.source.stream_arn,
                wall=self._clock.wall,
            )
            self.store = lease_store(settings, dynamodb, caller, self._clock)
            self.dead_letters = await build_dead_letters(settings, session, caller, self._clock)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


def lease_store(settings: Settings, dynamodb: object, caller: ApiCaller, clock: Clock) -> DynamoDBLeaseStore:
    return DynamoDBLeaseStore(
        dynamodb, caller, table=settings.leases.table, application=settings.application, clock_wall=clock.wall
    )


@asynccontextmanager
async def lease_table(
    settings: Settings,
    clock: ServiceClock,
    observe: Observe | None = None,
    credentials_end: CredentialsEnd | None = None,
) -> AsyncIterator[LeaseTable]:
    """The lease table alone, on a session of its own: for the control thread, and for commands."""
    async with AwsSession(
        settings.aws.region,
        settings.aws.endpoints.secret_urls(),
        max_pool_connections=4,
        clock=clock,
        credentials_end=credentials_end,
        heard=clock.heard,
    ) as session:
        caller = ApiCaller(observe, session.credentials_refused)
        yield lease_store(settings, await session.client("dynamodb"), caller, clock)
