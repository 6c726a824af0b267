"""Dead letters out of an Amazon SQS queue.

A queue shows a message to one reader at a time and hides it meanwhile: what is in flight elsewhere is not seen here,
and what is taken here nobody else sees until it is put back, deleted, or kept for too long. A reader never knows
whether it has seen everything: it stops after several answers that show nothing but what has come since it began.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from consumer.aws.answers import has
from consumer.aws.errors import ApiCaller
from consumer.aws.sqs import count_messages, find_queue
from consumer.domain.errors import DependencyError, MisconfiguredResource, StreamConsumerError
from consumer.ports.letter_store import StoredLetter, Waiting

HIDDEN: Final = 300  # seconds for which a taken message stays hidden, unless it is kept
LONG_POLL: Final = 2  # seconds that an empty answer takes: shorter polls ask some of the queue's servers only
EMPTY_ANSWERS: Final = 3  # in a row, or with new messages only, and the queue counts as read
TRIES: Final = 2  # to change how long messages stay hidden
BATCH: Final = 10  # messages in one call, which is SQS's limit


class LetterQueue:
    """``ports.LetterStore`` on a standard SQS queue.

    Args:
        client: an sqs client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        queue_arn: ``arn:aws:sqs:REGION:ACCOUNT:NAME``.
        clock_wall: Unix time at the services.
        local: as in ``SqsDeadLetters``.
        hidden_for: seconds.
    """

    def __init__(
        self,
        client: Any,
        caller: ApiCaller,
        queue_arn: str,
        *,
        clock_wall: Callable[[], float],
        local: bool = False,
        hidden_for: int = HIDDEN,
    ) -> None:
        self.place = queue_arn
        self.hidden_for: float = hidden_for
        self._hidden_for = hidden_for
        self._client = client
        self._caller = caller
        self._clock_wall = clock_wall
        self._local = local
        self._url = ""
        self._taken: list[StoredLetter] = []  # and not given to a reader that has stopped in between
        self.moves_after = 0  # receives, and the queue moves a message to a dead-letter queue of its own; 0: never

    async def prepare(self) -> None:
        """Find the queue. MisconfiguredResource for a FIFO queue, which no letter was ever sent to."""
        self._url = await find_queue(self._client, self._caller, self.place, local=self._local)
        asking = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["All"])
        attributes = (await self._caller.call("GetQueueAttributes", self.place, asking))["Attributes"]
        if attributes.get("FifoQueue") == "true":
            raise MisconfiguredResource(f"{self.place} is a FIFO queue: dead letters are in standard ones")
        self.moves_after = int(_policy(attributes).get("maxReceiveCount") or 0)

    async def letters(self, *, parked: bool = True) -> AsyncIterator[StoredLetter]:
        """All messages that were there when this began, as far as the queue shows them, and some that came since; each
        is hidden from the others from then on. While letters go on coming an empty answer may never come."""
        began = self._clock_wall()
        while self._taken:
            yield self._taken.pop(0)
        empty = 0
        while empty < EMPTY_ANSWERS:
            messages = await self._received()
            empty = 0 if any(_sent_at(one) <= began for one in messages) else empty + 1
            self._taken += map(_stored, messages)
            while self._taken:
                yield self._taken.pop(0)

    async def _received(self) -> Sequence[Mapping[str, Any]]:
        """One long poll. It is not cut short: the queue hides what it gives to a request that has nobody waiting."""
        request = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=LONG_POLL,
            VisibilityTimeout=self._hidden_for,
            MessageAttributeNames=["All"],
            AttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        receiving = asyncio.ensure_future(
            self._caller.call("ReceiveMessage", self.place, request, timeout=LONG_POLL + 10.0)
        )
        try:
            return (await asyncio.shield(receiving)).get("Messages") or ()
        except asyncio.CancelledError:
            with suppress(StreamConsumerError):
                self._taken += map(_stored, (await receiving).get("Messages") or ())
            raise

    async def keep(self, letters: Sequence[StoredLetter]) -> list[StoredLetter]:
        """A message can be kept for 12 hours in all, from when it was taken."""
        refused = await self._change([*letters, *self._taken], self._hidden_for)
        self._taken = [one for one in self._taken if one not in refused]
        return refused

    async def put_back(self, letters: Sequence[StoredLetter]) -> None:
        taken, self._taken = self._taken, []
        await self._change([*letters, *taken], 0)

    async def delete(self, letter: StoredLetter) -> None:
        deleting = self._client.delete_message(QueueUrl=self._url, ReceiptHandle=letter.handle)
        try:
            await self._caller.call("DeleteMessage", self.place, deleting)
        except DependencyError as error:
            if not error.code.startswith("ReceiptHandleIsInvalid"):  # so some servers speak of what is deleted already
                raise

    async def waiting(self) -> Waiting:
        return await count_messages(self._client, self._caller, self.place, self._url)

    async def _change(self, letters: Sequence[StoredLetter], seconds: int) -> list[StoredLetter]:
        """Set how long messages stay hidden from now on; returns those that refuse, because their time is over. What
        fails is tried once more, and costs no other message."""
        refused: list[StoredLetter] = []
        todo = list(letters)
        for _ in range(TRIES):
            todo, problems = await self._change_once(todo, seconds, refused)
            if not problems:
                return refused
        raise problems[0]

    async def _change_once(
        self, letters: Sequence[StoredLetter], seconds: int, refused: list[StoredLetter]
    ) -> tuple[list[StoredLetter], list[DependencyError]]:
        """What has failed, and why; ``refused`` gets those whose time is over."""
        left: list[StoredLetter] = []
        problems: list[DependencyError] = []
        for start in range(0, len(letters), BATCH):
            part = letters[start : start + BATCH]
            entries = [
                {"Id": str(place), "ReceiptHandle": letter.handle, "VisibilityTimeout": seconds}
                for place, letter in enumerate(part)
            ]
            changing = self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
            try:
                answer = await self._caller.call("ChangeMessageVisibilityBatch", self.place, changing)
            except DependencyError as error:
                problems.append(error)
                left += part
                continue
            for one in answer.get("Failed") or ():
                letter = part[int(one["Id"])]
                if one.get("SenderFault"):
                    refused.append(letter)
                else:
                    problems.append(DependencyError("ChangeMessageVisibilityBatch", str(one.get("Code")), self.place))
                    left.append(letter)
        return left, problems


def _stored(message: Mapping[str, Any]) -> StoredLetter:
    flaw = has("ReceiptHandle", str)(message) or has("Body", str)(message)
    if flaw is not None:
        raise DependencyError("ReceiveMessage", flaw.code, f"a message {flaw.text}")
    attributes = message.get("MessageAttributes") or {}
    return StoredLetter(
        name=str(message.get("MessageId") or message["ReceiptHandle"]),
        handle=message["ReceiptHandle"],
        body=message["Body"].encode("utf-8", "surrogatepass"),
        attributes={name: str(one.get("StringValue") or "") for name, one in attributes.items()},
        received=int((message.get("Attributes") or {}).get("ApproximateReceiveCount", 0)),
    )


def _sent_at(message: Mapping[str, Any]) -> float:
    """Unix seconds; 0 when the message does not say it."""
    return int((message.get("Attributes") or {}).get("SentTimestamp", 0)) / 1000


def _policy(attributes: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        found = json.loads(attributes.get("RedrivePolicy") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
