"""Letters of parked keys at real destinations: names that list in order, and queues that would lose their order."""

import json

import pytest
from structlog.testing import capture_logs

from consumer.aws.destinations import build_dead_letters
from consumer.aws.errors import ApiCaller
from consumer.aws.lambda_format import LambdaMessages, LambdaObjects
from consumer.aws.overflow import WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.dead_letter import Letter, Parked
from consumer.domain.errors import MisconfiguredResource
from consumer.settings.model import Settings
from consumer.worker.clock import SystemClock
from tests.support.destination_worlds import CONTEXT, LIMIT, NOW, SHARD, bucket_of, give_up, objects

DAY = 24 * 3600
PARK = "7e0d2c9e-park"


def parked(ordinal, image=None, now=NOW):
    number = str(2900002759746085485437 + ordinal)
    return Letter(CONTEXT, give_up(image, number), now, parked=Parked(PARK, ordinal))


async def send(destination, letter):
    await destination.send(letter.document(), attributes=letter.attributes)


async def folder(session, url):
    return S3Folder(await session.client("s3"), ApiCaller(), url, clock_wall=lambda: NOW)


class TestNames:
    async def test_a_listing_is_the_order_of_the_records(self, local_clients):
        bucket = await bucket_of(local_clients)
        destination = S3DeadLetters(await folder(local_clients, f"s3://{bucket}/dead"))
        for ordinal in (10, 2, 1, 100, 9):
            await send(destination, parked(ordinal))
        digest = parked(1).attributes["key_digest"]
        where = f"dead/parked/orders-projector/{digest}/{PARK}/2026-09-17T13:26:53.746/{SHARD}"
        listed = await objects(local_clients, bucket)
        assert list(listed) == [f"{where}/{ordinal:012}" for ordinal in (1, 2, 9, 10, 100)]
        assert list(listed.values())[1] == parked(2).document()

    async def test_a_letter_that_is_sent_again_is_the_same_object_whoever_sends_it(self, local_clients):
        bucket = await bucket_of(local_clients)
        destination = S3DeadLetters(await folder(local_clients, f"s3://{bucket}"))
        for now in (NOW, NOW + 3600):
            await send(destination, parked(3, now=now))
        assert len(await objects(local_clients, bucket)) == 1

    async def test_lambdas_format_has_the_same_names(self, local_clients):
        bucket = await bucket_of(local_clients)
        await send(LambdaObjects(await folder(local_clients, f"s3://{bucket}"), "f"), parked(3))
        (key,) = await objects(local_clients, bucket)
        assert key.startswith("parked/orders-projector/")
        assert key.endswith(f"/{3:012}")

    async def test_the_payload_of_a_parked_letter_lies_beside_its_place(self, local_clients, queue):
        bucket = await bucket_of(local_clients)
        made = await queue(MaximumMessageSize=str(LIMIT))
        sqs = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), made.arn)
        await send(
            WithOverflow(sqs, await folder(local_clients, f"s3://{bucket}/big")), parked(3, {"id": {"S": "x" * 5000}})
        )
        (key,) = await objects(local_clients, bucket)
        assert key.endswith(f"/{SHARD}/{3:012}.payload.json")
        (message,) = await made.receive()
        assert json.loads(message["Body"])["payloadLocation"] == f"s3://{bucket}/{key}"


class TestMetadata:
    async def metadata(self, session, letter, attributes=()):
        bucket = await bucket_of(session)
        destination = S3DeadLetters(await folder(session, f"s3://{bucket}"))
        await destination.send(letter.document(), attributes=letter.attributes | dict(attributes))
        (key,) = await objects(session, bucket)
        s3 = await session.client("s3")
        return (await s3.head_object(Bucket=bucket, Key=key))["Metadata"]

    async def test_an_object_says_what_a_message_says(self, local_clients):
        letter = parked(3)
        found = await self.metadata(local_clients, letter)
        assert found == {name.replace("_", "-"): value for name, value in letter.attributes.items()}

    async def test_what_is_no_header_is_replaced(self, local_clients):
        odd = {"error_type": " Fehler\n\u00fc\U0001f600 ", "handler": "m" * 256, "empty": ""}
        found = await self.metadata(local_clients, parked(3), odd)
        assert found["error-type"] == "Fehler???"
        assert "empty" not in found

    async def test_the_longest_of_all_is_taken(self, local_clients):
        long = dict.fromkeys(("application", "handler", "error_type", "shard_id", "park_id"), "x" * 256)
        found = await self.metadata(local_clients, parked(3), long)
        assert sum(len(name) + len(value) for name, value in found.items()) < 2048


async def test_a_message_in_lambdas_format_has_room_for_where_its_records_are(local_clients, queue):
    """Ten attributes and the location would be eleven, which SQS refuses for ever."""
    bucket, made = await bucket_of(local_clients), await queue()
    sqs = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), made.arn)
    letter = parked(3)
    assert len(letter.attributes) == 10
    await send(LambdaMessages(sqs, await folder(local_clients, f"s3://{bucket}"), "f"), letter)
    (message,) = await made.receive()
    expected = letter.attributes.keys() - {"error_type"} | {"payload_location"}
    assert message["MessageAttributes"].keys() == expected


class TestQueues:
    async def prepare(self, session, queue, order, **attributes):
        made = await queue(**attributes)
        text = {
            "application": "orders-projector",
            "source": {"table": "orders"},
            "handler": {"target": "shop.handlers:handle"},
            "on_failure": {"destination": made.arn, "order": order},
        }
        built = await build_dead_letters(Settings.model_validate(text), session, ApiCaller(), SystemClock())
        with capture_logs() as logs:
            await built.prepare()
        return [entry for entry in logs if entry["event"] == "dead_letter.short_retention"]

    async def test_one_that_forgets_early_is_pointed_out(self, local_clients, queue):
        (entry,) = await self.prepare(local_clients, queue, "park_key", MessageRetentionPeriod=str(4 * DAY))
        assert entry["seconds"] == 4 * DAY
        assert ":sqs:" in entry["destination"]

    @pytest.mark.parametrize(("order", "days"), [("park_key", 14), ("continue", 4)])
    async def test_any_other_is_taken_without_a_word(self, local_clients, queue, order, days):
        assert await self.prepare(local_clients, queue, order, MessageRetentionPeriod=str(days * DAY)) == []

    async def test_one_that_moves_letters_away_is_refused(self, local_clients, queue):
        other = await queue()
        policy = json.dumps({"deadLetterTargetArn": other.arn, "maxReceiveCount": "3"})
        with pytest.raises(MisconfiguredResource, match=r"RedrivePolicy.*remove it"):
            await self.prepare(local_clients, queue, "park_key", RedrivePolicy=policy)
        assert await self.prepare(local_clients, queue, "continue", RedrivePolicy=policy) == []
