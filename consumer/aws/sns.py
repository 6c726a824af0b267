"""Dead letters to an Amazon SNS topic.

SNS answers once it has stored the message, so a ``send`` that returned is durable, and SNS then delivers to every
subscription on its own. A topic that has none throws messages away: that is said at start, because nothing can be
noticed later. A ``send`` without an answer may have been published too: the caller sends again and the
``idempotency_key`` attribute is the same both times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog

from consumer.aws.errors import ApiCaller
from consumer.aws.messages import check_size, message_attributes
from consumer.domain.errors import MisconfiguredResource, ResourceMissing

SERVICE_LIMIT: Final = 256 * 1024  # bytes of a message, its attributes included

log = structlog.get_logger()


class SnsDeadLetters:
    """``ports.DeadLetters`` on a standard SNS topic.

    Args:
        client: an sns client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        topic_arn: ``arn:aws:sns:REGION:ACCOUNT:NAME``.
    """

    def __init__(self, client: Any, caller: ApiCaller, topic_arn: str) -> None:
        self.destination = topic_arn
        self.maximum_size = SERVICE_LIMIT
        self._client = client
        self._caller = caller
        self._checked = False

    async def prepare(self) -> None:
        """Check that the topic is there and is a standard one.

        Raises:
            ResourceMissing, PermissionDenied, DependencyError: as the service says.
            MisconfiguredResource: a FIFO topic, which would need a message group.
        """
        asking = self._client.get_topic_attributes(TopicArn=self.destination)
        answer = await self._caller.call("GetTopicAttributes", self.destination, asking)
        attributes: Mapping[str, str] = answer["Attributes"]
        if attributes.get("FifoTopic") == "true" or self.destination.endswith(".fifo"):
            raise MisconfiguredResource(f"{self.destination} is a FIFO topic: dead letters need a standard one")
        if attributes.get("SubscriptionsConfirmed") == "0":  # a warning only: AWS brings this count up to date late
            log.warning("dead_letter.no_subscribers", destination=self.destination)
        self._checked = True

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Publish one document as one message, with string attributes (at most ten; empty ones are left out).

        Raises:
            PayloadTooLarge: SNS does not take messages of this size.
            ResourceMissing, PermissionDenied, DependencyError: the caller tries again.
        """
        if not self._checked:
            await self.prepare()
        extra = message_attributes(attributes)
        check_size(self.destination, document, extra, self.maximum_size)
        publishing = self._client.publish(
            TopicArn=self.destination, Message=document.decode("utf-8"), MessageAttributes=extra
        )
        try:
            await self._caller.call("Publish", self.destination, publishing)
        except ResourceMissing:
            self._checked = False  # deleted, perhaps made again, perhaps as another kind: look anew next time
            raise

    async def backlog(self) -> None:
        """Not known: a topic keeps nothing, and its subscriptions are not ours to ask."""
