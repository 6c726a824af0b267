"""What every destination of dead letters promises: stored when ``send`` returns, refused loudly otherwise."""

import json

import pytest

from consumer.aws.errors import ApiCaller
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.errors import (
    DependencyError,
    LetterRefused,
    MisconfiguredResource,
    PayloadTooLarge,
    PermissionDenied,
    ResourceMissing,
    Unavailable,
    UnsuitableCharacters,
)
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from consumer.testing.network import Link
from tests.support.destination_worlds import Wire, refused

ATTRIBUTES = {
    "application": "orders-projector",
    "shard_id": "shardId-1",
    "condition": "RetryAttemptsExhausted",
    "idempotency_key": "f" * 64,
    "error_type": "ValueError",
}
COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
DOCUMENT = json.dumps({"version": "1.0", "text": "\u0000 \u20ac \U0001f600"}).encode("ascii")


class Memory:
    def __init__(self):
        self.destination = MemoryDeadLetters(maximum_size=4096)

    async def delivered(self):
        return [(letter.document, letter.attributes) for letter in self.destination.delivered]


class Sqs:
    def __init__(self, client, queue):
        self.queue = queue
        self.destination = SqsDeadLetters(client, ApiCaller(), queue.arn)

    async def delivered(self):
        return [
            (
                message["Body"].encode(),
                {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()},
            )
            for message in await self.queue.receive()
        ]


@pytest.fixture(params=["memory", "sqs"])
async def world(request, local_clients, queue):
    if request.param == "memory":
        return Memory()
    return Sqs(await local_clients.client("sqs"), await queue(MaximumMessageSize="4096"))


class TestAnyDestination:
    async def test_a_document_arrives_unchanged_with_its_attributes(self, world):
        await world.destination.prepare()
        await world.destination.send(DOCUMENT, attributes=ATTRIBUTES)
        assert await world.delivered() == [(DOCUMENT, ATTRIBUTES)]

    async def test_a_document_that_is_too_big_is_refused_whole(self, world):
        await world.destination.prepare()
        with pytest.raises(PayloadTooLarge) as caught:
            await world.destination.send(b'"' + b"x" * 5000 + b'"', attributes={})
        assert caught.value.limit == 4096
        assert caught.value.size >= 5000

    async def test_it_has_a_name(self, world):
        assert world.destination.destination


class Answering:
    """A client whose ``get_queue_attributes`` answers ``attributes``, or raises."""

    def __init__(self, client, attributes=None, error=None):
        self._client, self._attributes, self._error = client, attributes, error

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def get_queue_attributes(self, **request):
        if request["AttributeNames"] == ["All"]:
            return await self._client.get_queue_attributes(**request)
        if self._error is not None:
            raise self._error
        return {"Attributes": self._attributes}


class TestBacklog:
    async def test_it_counts_what_was_sent(self, world):
        assert await world.destination.backlog() == 0
        for _ in range(3):
            await world.destination.send(DOCUMENT, attributes=ATTRIBUTES)
        assert await world.destination.backlog() == 3

    async def test_a_message_in_the_hands_of_a_reader_counts(self, local_clients, queue):
        world = Sqs(await local_clients.client("sqs"), await queue())
        await world.destination.send(DOCUMENT, attributes=ATTRIBUTES)
        await world.destination.send(DOCUMENT, attributes=ATTRIBUTES)
        client = await local_clients.client("sqs")
        (_taken,) = (await client.receive_message(QueueUrl=world.queue.url, VisibilityTimeout=60))["Messages"]
        assert await world.destination.backlog() == 2

    async def test_a_refusal_names_the_permission(self, local_clients, queue):
        client = Answering(await local_clients.client("sqs"), error=refused("AccessDenied", 403)[0])
        world = Sqs(client, await queue())
        with pytest.raises(PermissionDenied) as caught:
            await world.destination.backlog()
        assert (caught.value.action, caught.value.resource) == ("sqs:GetQueueAttributes", world.queue.arn)

    @pytest.mark.parametrize("attributes", [{}, {"ApproximateNumberOfMessages": "3"}, dict.fromkeys(COUNTS, "-1")])
    async def test_an_answer_that_does_not_say_it_is_no_0(self, local_clients, queue, attributes):
        world = Sqs(Answering(await local_clients.client("sqs"), attributes), await queue())
        with pytest.raises(DependencyError, match="does not say ApproximateNumberOfMessages"):
            await world.destination.backlog()

    async def test_a_queue_that_is_deleted_and_made_again_is_found_again(self, local_clients, queue):
        client, made = await local_clients.client("sqs"), await queue(name="counted-anew")
        destination = SqsDeadLetters(client, ApiCaller(), made.arn)
        assert await destination.backlog() == 0
        await client.delete_queue(QueueUrl=made.url)
        with pytest.raises(ResourceMissing):
            await destination.backlog()
        await queue(name="counted-anew")
        assert await destination.backlog() == 0


class TestSqs:
    async def test_prepare_reads_the_limit_of_the_queue(self, local_clients, queue):
        destination = SqsDeadLetters(
            await local_clients.client("sqs"), ApiCaller(), (await queue(MaximumMessageSize="2048")).arn
        )
        await destination.prepare()
        assert destination.maximum_size == 2048

    async def test_attributes_count_against_the_limit(self, local_clients, queue):
        made = await queue(MaximumMessageSize="1024")
        destination = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), made.arn)
        with pytest.raises(PayloadTooLarge):
            await destination.send(b"x" * 1000, attributes={"application": "a" * 30})
        await destination.send(b"x" * 980, attributes={"application": "a" * 27})
        assert len(await made.receive()) == 1

    async def test_a_missing_queue_is_named(self, local_clients):
        arn = "arn:aws:sqs:us-east-1:000000000000:no-such-queue"
        destination = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), arn)
        for attempt in (destination.prepare(), destination.send(DOCUMENT, attributes={})):
            with pytest.raises(ResourceMissing, match="no-such-queue"):
                await attempt

    async def test_an_account_the_local_server_does_not_know_is_no_obstacle(self, local_clients, queue):
        made = await queue()
        arn = made.arn.replace("000000000000", "123456789012")
        destination = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), arn, local=True)
        await destination.send(DOCUMENT, attributes={})
        assert len(await made.receive()) == 1

    async def test_a_fifo_queue_is_refused(self, local_clients, queue):
        made = await queue(name="dead.fifo", FifoQueue="true")
        destination = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), made.arn)
        with pytest.raises(MisconfiguredResource, match="FIFO"):
            await destination.prepare()

    async def test_a_queue_that_is_deleted_and_made_again_is_found_again(self, local_clients, queue):
        client = await local_clients.client("sqs")
        made = await queue(name="comes-and-goes")
        destination = SqsDeadLetters(client, ApiCaller(), made.arn)
        await destination.send(DOCUMENT, attributes={})
        await client.delete_queue(QueueUrl=made.url)
        with pytest.raises(ResourceMissing):
            await destination.send(DOCUMENT, attributes={})
        again = await queue(name="comes-and-goes")
        await destination.send(DOCUMENT, attributes={})
        assert len(await again.receive()) >= 1

    async def test_control_characters_in_attributes_do_not_refuse_the_message(self, local_clients, queue):
        made = await queue()
        destination = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), made.arn)
        await destination.send(DOCUMENT, attributes={"error_type": "Bad\x00\x1bName", "empty": ""})
        (message,) = await made.receive()
        assert message["MessageAttributes"]["error_type"]["StringValue"] == "Bad??Name"
        assert "empty" not in message["MessageAttributes"]

    async def test_characters_that_the_service_refuses_are_not_sent_again_as_they_are(self, local_clients, queue):
        client = Wire(await local_clients.client("sqs"), [refused("InvalidMessageContents")])
        destination = SqsDeadLetters(client, ApiCaller(), (await queue()).arn)
        with pytest.raises(UnsuitableCharacters, match="InvalidMessageContents") as caught:
            await destination.send(DOCUMENT, attributes={})
        assert isinstance(caught.value, LetterRefused)

    @pytest.mark.parametrize("code", ["KmsDisabled", "AccessDenied", "AWS.SimpleQueueService.NonExistentQueue"])
    async def test_what_a_person_can_mend_is_no_fault_of_the_letter(self, local_clients, queue, code):
        client = Wire(await local_clients.client("sqs"), [refused(code)])
        destination = SqsDeadLetters(client, ApiCaller(), (await queue()).arn)
        with pytest.raises(Unavailable) as caught:
            await destination.send(DOCUMENT, attributes={})
        assert not isinstance(caught.value, LetterRefused)
        await destination.send(DOCUMENT, attributes={})


class TestMemory:
    async def test_faults_follow_the_script(self):
        link = Link()
        destination = MemoryDeadLetters(link=link)
        link.refuse(DependencyError("SendMessage", "Timeout"), "send", times=1)
        link.lose_response("send", times=1)
        for stored in (0, 1):
            with pytest.raises(DependencyError):
                await destination.send(DOCUMENT, attributes={})
            assert len(destination.delivered) == stored
        await destination.send(DOCUMENT, attributes={})
        assert [letter.json()["version"] for letter in destination.delivered] == ["1.0", "1.0"]
