"""From ``on_failure`` in the configuration to the place where dead letters go."""

from __future__ import annotations

import os

from consumer.aws.errors import ApiCaller
from consumer.aws.lambda_format import LambdaMessages, LambdaObjects
from consumer.aws.overflow import WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.session import AwsSession
from consumer.aws.sns import SnsDeadLetters
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.function_name import function_name
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.time import Clock
from consumer.settings.model import Settings


async def build_dead_letters(
    settings: Settings, session: AwsSession, caller: ApiCaller, clock: Clock
) -> DeadLetters | None:
    """The configured destination in the configured format, with its overflow if there is one; None without one.

    Lambda's messages without an overflow would lose the records; the configuration check refuses them.
    """
    chosen = settings.on_failure
    name, kind = chosen.destination, chosen.destination_kind
    if name is None or kind is None:
        return None

    async def folder(url: str) -> S3Folder:
        return S3Folder(await session.client("s3"), caller, url, clock_wall=clock.wall)

    as_lambda = chosen.format == "lambda"
    function = function_name(os.environ, settings.application)
    if kind == "s3" and as_lambda:
        return LambdaObjects(await folder(name), function)
    destination: DeadLetters
    if kind == "s3":
        destination = S3DeadLetters(await folder(name))
    elif kind == "sns":
        destination = SnsDeadLetters(await session.client("sns"), caller, name)
    else:
        destination = SqsDeadLetters(
            await session.client("sqs"),
            caller,
            name,
            local=session.has_endpoint("sqs"),
            keeps_parked=chosen.order != "continue",
        )
    if chosen.overflow is None:
        return destination
    store = await folder(chosen.overflow)
    return LambdaMessages(destination, store, function) if as_lambda else WithOverflow(destination, store)
