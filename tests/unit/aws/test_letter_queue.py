"""How a queue of dead letters is asked, which one local server cannot show: SQS keeps a queue on several servers, and a
short poll asks some of them only."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.aws import letter_queue
from consumer.aws.errors import ApiCaller
from consumer.aws.letter_queue import LetterQueue
from tests.conftest import LONG_POLL

ARN = "arn:aws:sqs:eu-central-1:123456789012:dlq"


class Servers:
    """An sqs client of a queue on four servers, one message on the last of them."""

    meta = SimpleNamespace(endpoint_url="https://sqs.eu-central-1.amazonaws.com")

    def __init__(self) -> None:
        self._asked = 0
        self._messages = [{"MessageId": "m1", "ReceiptHandle": "h1", "Body": json.dumps({"some": "letter"})}]

    async def get_queue_url(self, **_: Any) -> dict[str, Any]:
        return {"QueueUrl": "https://queue"}

    async def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {"ApproximateNumberOfMessages": "1"}}

    async def receive_message(self, **request: Any) -> dict[str, Any]:
        self._asked = 4 if request["WaitTimeSeconds"] > 0 else self._asked + 1
        if self._asked < 4:
            return {}
        messages, self._messages = self._messages, []
        return {"Messages": messages} if messages else {}


async def test_an_empty_answer_speaks_for_all_servers_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the wait that is used on AWS: tests on the local AWS, which is one server, do without."""
    monkeypatch.setattr(letter_queue, "LONG_POLL", LONG_POLL)
    store = LetterQueue(Servers(), ApiCaller(), ARN, clock_wall=lambda: 0.0)
    await store.prepare()
    assert [one.name async for one in store.letters()] == ["m1"]
