"""Dead letters to an Amazon SQS queue.

SQS acknowledges a message once it is stored redundantly, so a ``send`` that returned is durable. A ``send`` without an
answer may have been stored too: the caller sends again and the ``idempotency_key`` attribute is the same both times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import structlog

from consumer.aws.answers import Flaw
from consumer.aws.errors import ApiCaller
from consumer.aws.messages import check_size, message_attributes
from consumer.domain.errors import DependencyError, MisconfiguredResource, ResourceMissing, UnsuitableCharacters
from consumer.ports.letter_store import Waiting

SERVICE_LIMIT: Final = 1024 * 1024  # bytes of a message, its attributes included
LONGEST_RETENTION: Final = 14 * 24 * 3600  # seconds; a queue can be told to keep messages for so long
_COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")

log = structlog.get_logger()


class SqsDeadLetters:
    """``ports.DeadLetters`` on a standard SQS queue.

    Args:
        client: an sqs client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        queue_arn: ``arn:aws:sqs:REGION:ACCOUNT:NAME``.
        local: ``client`` asks an endpoint that was configured, so maybe a local server that knows one account only.
        keeps_parked: the letters of parked keys go here (``on_failure.order: park_key``): none of them may be moved
            away or get lost before its turn.
    """

    def __init__(
        self, client: Any, caller: ApiCaller, queue_arn: str, *, local: bool = False, keeps_parked: bool = False
    ) -> None:
        self.destination = queue_arn
        self._client = client
        self._caller = caller
        self._local = local
        self._keeps_parked = keeps_parked
        self._url = ""
        self.maximum_size = SERVICE_LIMIT

    async def prepare(self) -> None:
        """Find the queue and read its limits.

        ``maximum_size`` (bytes) is the queue's own limit, which is often 256 KiB although the service takes 1 MiB.

        Raises:
            ResourceMissing, PermissionDenied, DependencyError: as the service says.
            MisconfiguredResource: a FIFO queue, which would need a message group; for parked keys one with a
                dead-letter queue of its own, which would take letters out of their order.
        """
        url = await find_queue(self._client, self._caller, self.destination, local=self._local)
        asking = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        answer = await self._caller.call("GetQueueAttributes", self.destination, asking)
        attributes: Mapping[str, str] = answer["Attributes"]
        if attributes.get("FifoQueue") == "true":
            raise MisconfiguredResource(f"{self.destination} is a FIFO queue: dead letters need a standard one")
        if self._keeps_parked:
            self._check_for_parked(attributes)
        self.maximum_size = min(SERVICE_LIMIT, int(attributes.get("MaximumMessageSize", SERVICE_LIMIT)))
        self._url = url

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Store one document as the body of one message, with string attributes (at most ten; empty ones are left out).

        Raises:
            PayloadTooLarge: the queue does not take messages of this size.
            UnsuitableCharacters: the queue does not take what is in it.
            ResourceMissing, PermissionDenied, DependencyError: the caller tries again.
        """
        if not self._url:
            await self.prepare()
        extra = message_attributes(attributes)
        check_size(self.destination, document, extra, self.maximum_size)
        sending = self._client.send_message(
            QueueUrl=self._url, MessageBody=document.decode("utf-8"), MessageAttributes=extra
        )

        def is_stored_whole(answer: Mapping[str, Any]) -> Flaw | None:
            digest = hashlib.md5(document, usedforsecurity=False).hexdigest()  # what SQS has stored
            damaged = answer.get("MD5OfMessageBody") not in (None, digest)
            return Flaw("ChecksumMismatch", "is about another message: its MD5 differs") if damaged else None

        try:
            await self._caller.call("SendMessage", self.destination, sending, check=is_stored_whole)
        except ResourceMissing:
            self._url = ""  # deleted, perhaps made again: look anew next time
            raise
        except DependencyError as error:
            if error.code.startswith("InvalidMessageContents"):
                raise UnsuitableCharacters(f"{self.destination} refuses a dead letter: {error}") from error
            if error.code.startswith("InvalidParameter"):
                self._url = ""  # the queue's size limit may have been lowered: read it again next time
            raise

    async def backlog(self) -> int:
        """All messages of the queue, about, those in the hands of a reader included: whoever put them there."""
        if not self._url:
            await self.prepare()
        try:
            found = await count_messages(self._client, self._caller, self.destination, self._url)
        except ResourceMissing:
            self._url = ""
            raise
        return found.visible + found.hidden

    def _check_for_parked(self, attributes: Mapping[str, str]) -> None:
        if attributes.get("RedrivePolicy"):
            raise MisconfiguredResource(
                f"{self.destination} has a dead-letter queue of its own (RedrivePolicy), which would move letters of "
                "parked keys away before their turn: remove it, or send them to s3://"
            )
        kept = int(attributes.get("MessageRetentionPeriod", LONGEST_RETENTION))
        if kept < LONGEST_RETENTION:
            log.warning("dead_letter.short_retention", destination=self.destination, seconds=kept)


async def count_messages(client: Any, caller: ApiCaller, queue_arn: str, url: str) -> Waiting:
    """About how many messages the queue holds. ResourceMissing, PermissionDenied, DependencyError; the last one also
    when the answer does not say it, which never means 0."""
    asking = client.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))
    answer = await caller.call("GetQueueAttributes", queue_arn, asking, check=_says_how_many)
    visible, hidden = (int(answer["Attributes"][name]) for name in _COUNTS)
    return Waiting(visible, hidden)


def _says_how_many(answer: Mapping[str, Any]) -> Flaw | None:
    for name in _COUNTS:
        if not str(answer["Attributes"].get(name, "")).isdecimal():
            return Flaw("Malformed", f"does not say {name}")
    return None


async def find_queue(client: Any, caller: ApiCaller, queue_arn: str, *, local: bool) -> str:
    """The queue's URL. Local servers may know one account only; on AWS the account must match, or a queue of the same
    name in this account would receive another account's records. ResourceMissing, PermissionDenied, DependencyError."""
    *_, account, name = queue_arn.split(":")
    looking = client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
    try:
        answer = await caller.call("GetQueueUrl", queue_arn, looking)
    except ResourceMissing:  # QueueDoesNotExist; any other failure says nothing about where the queue is
        if not local or "amazonaws.com" in str(client.meta.endpoint_url):
            raise
        answer = await caller.call("GetQueueUrl", queue_arn, client.get_queue_url(QueueName=name))
    return str(answer["QueueUrl"])
