"""Another account's queue is never taken for one of the same name in this account, but on a local server."""

from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from consumer.aws.errors import ApiCaller
from consumer.aws.session import AwsSession
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.errors import StreamConsumerError

ARN = "arn:aws:sqs:us-east-1:123456789012:dead"
LOCAL, AMAZON = "http://127.0.0.1:4566", "https://sqs.us-east-1.amazonaws.com"


def refusal(code):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "GetQueueUrl")


class Queues:
    """A client that knows the queue of its own account only, and fails in some way when asked for another one's."""

    def __init__(self, endpoint, error):
        self.meta = SimpleNamespace(endpoint_url=endpoint)
        self._error = error
        self.asked = []

    async def get_queue_url(self, **request):
        self.asked.append(request.get("QueueOwnerAWSAccountId"))
        if self.asked[-1] is not None:
            raise self._error
        return {"QueueUrl": "own"}

    async def get_queue_attributes(self, **_):
        return {"Attributes": {}}


MISSING = ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")


@pytest.mark.parametrize("code", MISSING)
async def test_a_local_server_that_knows_one_account(code):
    client = Queues(LOCAL, refusal(code))
    await SqsDeadLetters(client, ApiCaller(), ARN, local=True).prepare()
    assert client.asked == ["123456789012", None]


@pytest.mark.parametrize(
    ("endpoint", "local", "error"),
    [
        (AMAZON, True, refusal("QueueDoesNotExist")),
        (LOCAL, False, refusal("QueueDoesNotExist")),
        ("https://sqs.us-iso-east-1.c2s.ic.gov", False, refusal("QueueDoesNotExist")),
        (LOCAL, True, refusal("AccessDenied")),
        (LOCAL, True, refusal("RequestThrottled")),
        (LOCAL, True, refusal("InternalError")),
        (LOCAL, True, refusal("InvalidClientTokenId")),
        (LOCAL, True, ReadTimeoutError(endpoint_url=LOCAL)),
    ],
)
async def test_nothing_else_is_a_reason_to_look_in_this_account(endpoint, local, error):
    client = Queues(endpoint, error)
    with pytest.raises(StreamConsumerError):
        await SqsDeadLetters(client, ApiCaller(), ARN, local=local).prepare()
    assert client.asked == ["123456789012"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"])
def test_what_counts_as_a_configured_endpoint(monkeypatch, aws_environment, name):
    assert not AwsSession("us-east-1", {"sns": LOCAL}).has_endpoint("sqs")
    assert AwsSession("us-east-1", {"sqs": LOCAL}).has_endpoint("sqs")
    monkeypatch.setenv(name, LOCAL)
    assert AwsSession("us-east-1", {}).has_endpoint("sqs")
