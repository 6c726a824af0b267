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
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.aws.kinesis_page_reader import KinesisPageReader
from consumer.aws.kinesis_streams import KinesisStreamSource
from consumer.aws.lease_table import DynamoDBLeaseStore
from consumer.aws.session import AwsSession
from consumer.aws.streaming_destination import StreamingDestination
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.leases import LeaseTable
from consumer.ports.source import StreamSource
from consumer.ports.time import Clock, ServiceClock
from consumer.settings.model import Settings

Observe = Callable[[str, str, float], None]
CredentialsEnd = Callable[[float | None], None]

CONNECTIONS = 128  # of each client
CALLS = 100  # of each client under way: polls and writes of more shards than that take turns
CONTROL_CONNECTIONS = 4  # of the control thread's client


class MainAdapters:
    """Source, lease store and dead letters of the main loop. Use as an async context manager."""

    session: AwsSession
    source: StreamSource
    store: DynamoDBLeaseStore
    dead_letters: DeadLetters | None
    streaming: StreamingDestination | None
    """Of the table whose changes are picked out of a Kinesis stream; None without one."""

    def __init__(
        self,
        settings: Settings,
        observe: Observe,
        clock: ServiceClock,
        credentials_end: CredentialsEnd | None = None,
        foreign: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._credentials_end = credentials_end
        self._foreign = foreign
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._settings
        async with AsyncExitStack() as stack:
            session = self.session = await stack.enter_async_context(
                AwsSession(
                    settings.aws.region,
                    settings.aws.endpoints.secret_urls(),
                    max_pool_connections=CONNECTIONS,
                    clock=self._clock,
                    credentials_end=self._credentials_end,
                    heard=self._clock.heard,
                )
            )
            dynamodb = await session.client("dynamodb")
            self.source = await self._build_source(session, dynamodb)
            self.store = lease_store(settings, dynamodb, self.caller(session), self._clock)
            table = settings.source.table if settings.source.kind == "kinesis" else None
            self.streaming = StreamingDestination(dynamodb, self.caller(session), table) if table else None
            self.dead_letters = await build_dead_letters(settings, session, self.caller(session), self._clock)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _build_source(self, session: AwsSession, dynamodb: object) -> StreamSource:
        source, caller = self._settings.source, self.caller(session)
        if source.kind == "kinesis":
            kinesis = await session.client("kinesis")
            pages = KinesisPageReader(kinesis, source.stream_arn)
            calls = KinesisCalls(kinesis, caller, pages, stream=source.stream, stream_arn=source.stream_arn)
            clock = self._clock
            return KinesisStreamSource(calls, wall=clock.wall, monotonic=clock.monotonic, foreign=self._foreign)
        streams = await session.client("dynamodbstreams")
        wall = self._clock.wall
        return DynamoDBStreamSource(
            streams, dynamodb, caller, table=source.table, stream_arn=source.stream_arn, wall=wall
        )

    def caller(self, session: AwsSession) -> ApiCaller:
        """For the calls of one client (the source asks the tables' one once a minute, beside the lease store)."""
        return ApiCaller(self._observe, session.credentials_refused, at_once=CALLS)


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
        max_pool_connections=CONTROL_CONNECTIONS,
        clock=clock,
        credentials_end=credentials_end,
        heard=clock.heard,
    ) as session:
        caller = ApiCaller(observe, session.credentials_refused, at_once=CONTROL_CONNECTIONS - 1)
        yield lease_store(settings, await session.client("dynamodb"), caller, clock)
