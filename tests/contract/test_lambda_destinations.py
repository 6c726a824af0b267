"""``on_failure.format: lambda`` behind the wire of a real client: Lambda's documents, and no record lost with them."""

import json
import re
import uuid

import pytest

from consumer.aws.destinations import build_dead_letters
from consumer.aws.errors import ApiCaller
from consumer.aws.lambda_format import mapping_id
from consumer.domain.dead_letter import lambda_document
from consumer.domain.errors import DependencyError, PayloadTooLarge, PermissionDenied, ResourceMissing
from consumer.settings.errors import ConfigError
from consumer.settings.load import settings_from
from consumer.settings.model import Settings
from consumer.worker.clock import SystemClock
from tests.conftest import unique
from tests.support.destination_worlds import (
    BIG,
    LIMIT,
    LOST,
    SHARD,
    Letter,
    Wire,
    bucket_of,
    objects,
    refused,
)

APPLICATION = "orders-projector"
FUNCTION = "orders-on-lambda"
LAMBDA_KEYS = ["requestContext", "responseContext", "version", "timestamp", "DDBStreamBatchInfo"]
NAME = re.compile(
    r"aws/lambda/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/"
    + SHARD
    + r"/2026/09/17/2026-09-17T13\.29\.12-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)


class Session:
    """Clients whose writes go wrong as scripted, in the order in which they are made."""

    def __init__(self, session):
        self.session = session
        self.script = []

    def has_endpoint(self, service):
        return self.session.has_endpoint(service)

    async def client(self, service):
        return Wire(await self.session.client(service), self.script)


async def built(session, **on_failure):
    text = {
        "application": APPLICATION,
        "source": {"table": "orders"},
        "handler": {"target": "shop.handlers:handle"},
        "on_failure": {"format": "lambda"} | on_failure,
    }
    return await build_dead_letters(Settings.model_validate(text), session, ApiCaller(), SystemClock())


@pytest.fixture(autouse=True)
def function(aws_environment, monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", FUNCTION)


class Messages:
    """A queue, or a topic with a queue behind it, and a bucket for the records."""

    def __init__(self, session, queue, bucket, destination):
        self.session, self.queue, self.bucket, self.destination = session, queue, bucket, destination

    @classmethod
    async def make(cls, kind, local_clients, queue):
        session = Session(local_clients)
        made = await queue(**({"MaximumMessageSize": str(LIMIT)} if kind == "sqs" else {}))
        arn = made.arn
        if kind == "sns":
            sns = await local_clients.client("sns")
            arn = (await sns.create_topic(Name=unique("dead")))["TopicArn"]
            raw = {"RawMessageDelivery": "true"}
            await sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=made.arn, Attributes=raw)
        bucket = await bucket_of(local_clients)
        destination = await built(session, destination=arn, overflow=f"s3://{bucket}/kept")
        return cls(session, made, bucket, destination)

    async def send(self, letter):
        await self.destination.send(letter.body, attributes=letter.attributes)

    async def received(self, at_least=1):
        return await self.queue.receive(at_least)

    async def kept(self):
        return await objects(self.session.session, self.bucket)


@pytest.fixture(params=["sqs", "sns"])
async def messages(request, local_clients, queue):
    return await Messages.make(request.param, local_clients, queue)


class TestMessages:
    async def test_the_body_is_lambdas_and_the_records_are_in_the_bucket(self, messages):
        letter = Letter()
        await messages.destination.prepare()
        await messages.send(letter)
        (message,) = await messages.received()
        assert message["Body"].encode() == lambda_document(letter.body, FUNCTION, with_payload=False)
        found = json.loads(message["Body"])
        assert list(found) == LAMBDA_KEYS
        assert found["requestContext"]["functionArn"].endswith(f":function:{FUNCTION}")
        ((key, kept),) = (await messages.kept()).items()
        assert json.loads(kept) == json.loads(letter.payload)
        attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        assert attributes == letter.attributes | {"payload_location": f"s3://{messages.bucket}/{key}"}
        assert key.startswith(f"kept/aws/lambda/{APPLICATION}/{SHARD}/")
        assert key.endswith(".payload.json")

    async def test_big_letters_fit_without_their_records(self, messages):
        letter = Letter(BIG)
        await messages.send(letter)
        assert list(json.loads((await messages.received())[0]["Body"])) == LAMBDA_KEYS
        (kept,) = (await messages.kept()).values()
        assert json.loads(kept) == json.loads(letter.payload)

    async def test_no_message_without_its_records(self, messages):
        messages.session.script.append(refused("AccessDenied", 403))
        with pytest.raises(PermissionDenied) as caught:
            await messages.send(Letter())
        assert caught.value.action == "s3:PutObject"
        other = Letter(number="3000002759746085485437")
        await messages.send(other)
        (message,) = await messages.received()
        found = json.loads(message["Body"])["DDBStreamBatchInfo"]
        assert found["startSequenceNumber"] == "3000002759746085485437", "the refused one never arrived"

    @pytest.mark.parametrize(
        ("script", "copies"),
        [
            pytest.param([LOST], 1, id="the bucket's answer is lost"),
            pytest.param([(None, True), refused("InternalError", 500)], 1, id="the destination refuses"),
            pytest.param([(None, True), LOST], 2, id="the destination's answer is lost"),
        ],
    )
    async def test_a_failure_of_either_step_is_repaired_by_sending_again(self, messages, script, copies):
        messages.session.script.extend(script)
        letter = Letter()
        with pytest.raises(DependencyError):
            await messages.send(letter)
        await messages.send(letter)
        arrived = await messages.received(at_least=copies)
        assert len(arrived) == copies
        assert len({message["Body"] for message in arrived}) == 1
        (key,) = await messages.kept()
        places = {message["MessageAttributes"]["payload_location"]["StringValue"] for message in arrived}
        assert places == {f"s3://{messages.bucket}/{key}"}

    async def test_a_missing_bucket_shows_at_the_start(self, local_clients, queue):
        made = await queue()
        destination = await built(local_clients, destination=made.arn, overflow="s3://no-such-bucket")
        with pytest.raises(ResourceMissing, match="no-such-bucket"):
            await destination.prepare()

    async def test_its_name_is_the_configured_one(self, messages):
        assert messages.destination.destination.startswith("arn:aws:s")

    async def test_a_queue_too_small_for_even_that_stays_an_error(self, local_clients, queue):
        made = await queue(MaximumMessageSize="1024")
        bucket = await bucket_of(local_clients)
        destination = await built(local_clients, destination=made.arn, overflow=f"s3://{bucket}")
        letter = Letter()
        with pytest.raises(PayloadTooLarge) as caught:
            await destination.send(letter.body, attributes=letter.attributes)
        (key,) = await objects(local_clients, bucket)
        assert caught.value.payload_location == f"s3://{bucket}/{key}"


class TestObjects:
    async def make(self, local_clients, path=""):
        bucket = await bucket_of(local_clients)
        session = Session(local_clients)
        return bucket, session, await built(session, destination=f"s3://{bucket}{path}")

    @pytest.mark.parametrize(("path", "prefix"), [("", ""), ("/dead/letters/", "dead/letters/")])
    async def test_document_name_and_type_are_lambdas(self, local_clients, path, prefix):
        bucket, _, destination = await self.make(local_clients, path)
        await destination.prepare()
        letter = Letter({"id": {"S": "\u20ac"}})
        await destination.send(letter.body, attributes=letter.attributes)
        ((key, stored),) = (await objects(local_clients, bucket)).items()
        assert key.startswith(prefix)
        match = NAME.fullmatch(key.removeprefix(prefix))
        assert match, key
        assert match[1] == str(mapping_id(APPLICATION))
        s3 = await local_clients.client("s3")
        assert (await s3.head_object(Bucket=bucket, Key=key))["ContentType"] == "application/octet-stream"
        found = json.loads(stored)
        assert list(found) == [*LAMBDA_KEYS[:3], "payload", *LAMBDA_KEYS[3:]]
        assert json.loads(found["payload"]) == json.loads(letter.payload)

    async def test_a_lost_answer_makes_no_second_object(self, local_clients):
        bucket, session, destination = await self.make(local_clients)
        letter = Letter(BIG)
        session.script.append(LOST)
        with pytest.raises(DependencyError):
            await destination.send(letter.body, attributes=letter.attributes)
        await destination.send(letter.body, attributes=letter.attributes)
        assert len(await objects(local_clients, bucket)) == 1

    def test_the_id_of_an_application_never_changes(self):
        """Readers have it in their paths and policies; a new one would hide the old letters."""
        assert mapping_id(APPLICATION) == uuid.UUID("5ee89b36-cce7-5832-a2c3-85eb33b0ec72")
        assert mapping_id("another") != mapping_id(APPLICATION)


class TestConfiguration:
    @pytest.mark.parametrize(
        "destination", ["arn:aws:sqs:us-east-1:000000000000:dead", "arn:aws:sns:us-east-1:000000000000:dead"]
    )
    def test_records_are_never_given_up_for_a_format(self, destination):
        text = {"application": "a", "source": {"table": "orders"}, "handler": {"target": "a:b"}}
        with pytest.raises(
            ConfigError, match=r"on_failure\.format: must be full for S[QN]S without on_failure\.overflow"
        ):
            settings_from(text | {"on_failure": {"format": "lambda", "destination": destination}})
        for good in ({"overflow": "s3://kept"}, {"format": "full"}, {"destination": "s3://dead"}):
            assert settings_from(text | {"on_failure": {"format": "lambda", "destination": destination} | good})
