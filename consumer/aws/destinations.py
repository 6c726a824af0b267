"""From ``on_failure`` in the configuration to the place where dead letters go."""

from __future__ import annotations

from consumer.aws.errors import ApiCaller
from consumer.aws.overflow import WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.session import AwsSession
from consumer.aws.sns import SnsDeadLetters
from consumer.aws.sqs import SqsDeadLetters
from consumer.ports import Clock, DeadLetters
from consumer.settings.model import Settings


async def build_dead_letters(
    settings: Settings, session: AwsSession, caller: ApiCaller, clock: Clock
) -> DeadLetters | None:
    """The configured destination, with the overflow around it if there is one; None without a destination."""
    destination = await _destination(settings, session, caller, clock)
    overflow = settings.on_failure.overflow
    if destination is None or overflow is None:
        return destination
    store = S3Folder(await session.client("s3"), caller, overflow, clock_wall=clock.wall)
    return WithOverflow(destination, store)


async def _destination(settings: Settings, session: AwsSession, caller: ApiCaller, clock: Clock) -> DeadLetters | None:
    name, kind = settings.on_failure.destination, settings.on_failure.destination_kind
    if name is None or kind is None:
        return None
    client = await session.client(kind)
    if kind == "s3":
        return S3DeadLetters(client, caller, name, clock_wall=clock.wall)
    if kind == "sns":
        return SnsDeadLetters(client, caller, name)
    return SqsDeadLetters(client, caller, name)
