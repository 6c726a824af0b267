"""What every destination in AWS promises, behind the wire of a real client: SQS, SNS, S3, and each with an overflow."""

import json
import re
import time
import uuid

import pytest
from botocore.exceptions import ReadTimeoutError
from structlog.testing import capture_logs

from consumer.aws.destinations import build_dead_letters
from consumer.aws.errors import ApiCaller
from consumer.aws.overflow import WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.sns import SnsDeadLetters
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.dead_letter import split_payload
from consumer.domain.errors import (
    DependencyError,
    KeyUnusable,
    MisconfiguredResource,
    PayloadTooLarge,
    PermissionDenied,
    ResourceMissing,
    Throttled,
)
from consumer.settings.model import Settings
from consumer.worker.clock import SystemClock
from tests.conftest import unique
from tests.support.destination_worlds import (
    BIG,
    ENDPOINT,
    FIELDS,
    KEY,
    LIMIT,
    LOST,
    NOW,
    OVERFLOWING,
    PLAIN,
    Letter,
    Sns,
    bucket_of,
    objects,
    refused,
)


@pytest.fixture(params=[*PLAIN, *OVERFLOWING])
async def world(request, local_clients, queue):
    return await (PLAIN | OVERFLOWING)[request.param](local_clients).make(queue)


@pytest.fixture(params=[*PLAIN])
async def plain(request, local_clients, queue):
    return await PLAIN[request.param](local_clients).make(queue)


@pytest.fixture(params=[*OVERFLOWING])
async def roomy(request, local_clients, queue):
    return await OVERFLOWING[request.param](local_clients).make(queue)


class TestAnyDestination:
    async def test_a_document_is_there_unchanged_when_send_returns(self, world):
        letter = Letter({"id": {"S": "a"}, "text": {"S": "\u0000 \u20ac \U0001f600"}})
        await world.destination.prepare()
        await world.send(letter)
        assert await world.delivered() == [letter.body]

    async def test_it_can_be_sent_to_without_being_prepared(self, world):
        await world.send(Letter())
        assert len(await world.delivered()) == 1

    async def test_a_place_that_does_not_exist_is_named(self, world):
        destination = await world.missing()
        letter = Letter()
        for attempt in (destination.prepare(), destination.send(letter.body, attributes=letter.attributes)):
            with pytest.raises(ResourceMissing, match="no-such-place"):
                await attempt

    async def test_a_missing_permission_is_named_with_its_place(self, world):
        world.script.append(refused(world.denied, 403))
        with pytest.raises(PermissionDenied) as caught:
            await world.send(Letter())
        assert (caught.value.action, caught.value.resource) == (world.action, world.destination.destination)

    async def test_one_that_refuses_for_a_while_gets_the_document_in_the_end(self, world):
        letter = Letter()
        answers = [
            (refused("SlowDown", 503), Throttled),
            (refused("ThrottlingException"), Throttled),
            (refused("InternalError", 500), DependencyError),
            (refused("KMS.DisabledException"), KeyUnusable),
            ((ReadTimeoutError(**ENDPOINT), False), DependencyError),
        ]
        world.script.extend(answer for answer, _ in answers)
        for _, error in answers:
            with pytest.raises(error):
                await world.send(letter)
        await world.send(letter)
        assert await world.delivered() == [letter.body]

    async def test_a_lost_answer_makes_no_other_document(self, world):
        letter = Letter()
        world.script.append(LOST)
        with pytest.raises(DependencyError):
            await world.send(letter)
        await world.send(letter)
        copies = world.copies_when_an_answer_is_lost
        assert await world.delivered(at_least=copies) == [letter.body] * copies

    async def test_only_a_queue_says_how_many_letters_it_holds(self, world):
        await world.destination.prepare()
        await world.send(Letter())
        counts = world.destination.destination.startswith("arn:aws:sqs")
        assert await world.destination.backlog() == (1 if counts else None)

    async def test_its_name_is_the_configured_one(self, world):
        assert world.destination.destination.startswith(("arn:aws:", "s3://"))


class TestTooLarge:
    async def test_it_is_refused_whole(self, plain):
        letter = Letter(BIG)
        with pytest.raises(PayloadTooLarge) as caught:
            await plain.send(letter)
        assert caught.value.limit == LIMIT
        assert caught.value.size >= len(letter.body)
        small = Letter()
        await plain.send(small)
        assert await plain.delivered() == [small.body], "nothing of the big one arrived"

    async def test_with_an_overflow_the_records_are_kept_and_found(self, roomy):
        letter = Letter(BIG)
        await roomy.send(letter)
        ((key, stored),) = (await objects(roomy.session, roomy.overflow_bucket)).items()
        (arrived,) = await roomy.delivered()
        pointer = json.loads(arrived)
        assert list(pointer) == [*FIELDS, "idempotencyKey", "deadLetter", "payloadLocation"]
        assert pointer.pop("payloadLocation") == f"s3://{roomy.overflow_bucket}/{key}"
        assert re.fullmatch("big/" + KEY + r"\.payload\.json", key)
        whole = json.loads(letter.body)
        assert json.loads(stored) == whole.pop("payload") == json.loads(letter.payload)
        assert json.dumps(pointer) == json.dumps(whole)

    @pytest.mark.parametrize(
        ("script", "copies"),
        [
            pytest.param([refused("SlowDown", 503)], 1, id="the overflow refuses"),
            pytest.param([LOST], 1, id="the overflow's answer is lost"),
            pytest.param([(None, True), refused("InternalError", 500)], 1, id="the destination refuses"),
            pytest.param([(None, True), LOST], 2, id="the destination's answer is lost"),
        ],
    )
    async def test_a_failure_of_either_step_is_repaired_by_sending_again(self, roomy, script, copies):
        letter = Letter(BIG)
        roomy.script.extend(script)
        with pytest.raises(DependencyError):
            await roomy.send(letter)
        await roomy.send(letter)
        (key,) = await objects(roomy.session, roomy.overflow_bucket)
        arrived = await roomy.delivered(at_least=copies)
        assert len(arrived) == min(copies, roomy.copies_when_an_answer_is_lost)
        assert {json.loads(one)["payloadLocation"] for one in arrived} == {f"s3://{roomy.overflow_bucket}/{key}"}

    async def test_the_document_is_not_sent_before_its_payload_is_stored(self, roomy):
        roomy.script.append(refused("AccessDenied", 403))
        with pytest.raises(PermissionDenied) as caught:
            await roomy.send(Letter(BIG))
        assert caught.value.action == "s3:PutObject"
        small = Letter()
        await roomy.send(small)
        assert await roomy.delivered() == [small.body]

    async def test_a_missing_overflow_bucket_shows_at_the_start(self, roomy):
        destination = WithOverflow(roomy.destination, await roomy.store("no-such-bucket"))
        with pytest.raises(ResourceMissing, match="no-such-bucket"):
            await destination.prepare()

    async def test_what_is_too_big_without_its_payload_stays_an_error(self, roomy):
        letter = Letter(BIG)
        bloated = letter.body.replace(b'"version":"1.0"', b'"version":"' + b"1" * 2 * LIMIT + b'"')
        for body in (bloated, b'{"version":"' + b"1" * 2 * LIMIT + b'"}'):
            with pytest.raises(PayloadTooLarge):
                await roomy.destination.send(body, attributes=letter.attributes)
        stored = await objects(roomy.session, roomy.overflow_bucket)
        assert len(stored) == 1, "only what had a payload"

    async def test_a_refusal_says_where_the_payload_is(self, roomy):
        """Whoever delivers the letter need not keep it a second time."""
        letter = Letter(BIG)
        bloated = letter.body.replace(b'"version":"1.0"', b'"version":"' + b"1" * 2 * LIMIT + b'"')
        with pytest.raises(PayloadTooLarge) as caught:
            await roomy.destination.send(bloated, attributes=letter.attributes)
        (key,) = await objects(roomy.session, roomy.overflow_bucket)
        assert caught.value.payload_location == f"s3://{roomy.overflow_bucket}/{key}"

    async def test_a_long_error_is_cut_when_nothing_else_helps(self, roomy):
        letter = Letter(BIG)
        long = letter.body.replace(b'"stackTrace":["line 1"', b'"stackTrace":["' + b"x" * 2 * LIMIT + b'"')
        assert long != letter.body
        await roomy.destination.send(long, attributes=letter.attributes)
        (arrived,) = await roomy.delivered()
        found = json.loads(arrived)
        assert found["payloadLocation"].startswith("s3://")
        assert (found["error"]["errorType"], found["error"]["stackTrace"]) == ("ValueError", [])

    async def test_records_that_no_parser_can_read_are_moved_all_the_same(self, roomy):
        deep = b'{"id":' + b'{"M":{"a":' * 4000 + b'{"S":"a"}' + b"}}" * 4000 + b"}"
        letter = Letter(deep)
        await roomy.send(letter)
        (stored,) = (await objects(roomy.session, roomy.overflow_bucket)).values()
        assert stored == letter.payload


class TestSplitPayload:
    @pytest.mark.parametrize("image", [None, BIG])
    def test_nothing_is_lost_and_nothing_added(self, image):
        letter = Letter(image)
        rest, payload = split_payload(letter.body)
        assert json.loads(payload) == json.loads(letter.payload)
        assert rest[:-1] + b',"payload":' + payload + b"}" == letter.body
        assert list(json.loads(rest)) == [*FIELDS, "idempotencyKey", "deadLetter"]

    @pytest.mark.parametrize("body", [b"{}", b"", b'{"a":1,"payload":null}', b'{"a":1,"payload":{"Records":[]},"z":1}'])
    def test_a_document_of_another_make_is_left_whole(self, body):
        assert split_payload(body) == (body, b"")


class TestSns:
    async def test_attributes_go_along(self, local_clients, queue):
        world = await Sns(local_clients).make(queue)
        letter = Letter()
        letter.attributes |= {"error_type": "Bad\x00Name", "empty": ""}
        await world.send(letter)
        (message,) = await world.queue.receive()
        found = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        del letter.attributes["empty"]
        assert found == letter.attributes | {"error_type": "Bad?Name"}

    async def test_the_limit_of_the_service_counts_attributes(self, local_clients, queue):
        world = await Sns(local_clients).make(queue)
        destination = await world.at(world.arn)
        assert destination.maximum_size == 256 * 1024
        fits = b"x" * (256 * 1024 - len("nameStringvalue"))
        await destination.send(fits, attributes={"name": "value"})
        assert await world.delivered() == [fits]
        with pytest.raises(PayloadTooLarge):
            await destination.send(fits + b"x", attributes={"name": "value"})

    async def test_a_fifo_topic_is_refused(self, local_clients):
        sns = await local_clients.client("sns")
        made = await sns.create_topic(Name=unique("dead") + ".fifo", Attributes={"FifoTopic": "true"})
        with pytest.raises(MisconfiguredResource, match="FIFO"):
            await SnsDeadLetters(sns, ApiCaller(), made["TopicArn"]).prepare()

    @pytest.mark.parametrize("subscribed", [True, False])
    async def test_a_topic_that_throws_everything_away_is_pointed_out(self, local_clients, queue, subscribed):
        sns = await local_clients.client("sns")
        if subscribed:
            arn = (await Sns(local_clients).make(queue)).arn
        else:
            arn = (await sns.create_topic(Name=unique("dead")))["TopicArn"]
        with capture_logs() as logs:
            await SnsDeadLetters(sns, ApiCaller(), arn).prepare()
        assert ["dead_letter.no_subscribers"] * (not subscribed) == [entry["event"] for entry in logs]

    async def test_a_topic_that_is_deleted_and_made_again_is_found_again(self, local_clients, queue):
        world = await Sns(local_clients).make(queue)
        sns = await local_clients.client("sns")
        calls = []
        caller = ApiCaller(lambda operation, outcome, _: calls.append((operation, outcome)))
        destination = SnsDeadLetters(sns, caller, world.arn)
        await destination.send(b"{}", attributes={})
        await sns.delete_topic(TopicArn=world.arn)
        with pytest.raises(ResourceMissing):
            await destination.send(b"{}", attributes={})
        await sns.create_topic(Name=world.arn.rpartition(":")[2])
        await destination.send(b"{}", attributes={})
        once = [("GetTopicAttributes", "ok"), ("Publish", "ok")]
        assert calls == [*once, ("Publish", "missing"), *once], "looked at anew: it may be of another kind now"


class TestS3:
    @pytest.mark.parametrize(
        ("path", "prefix"),
        [("", ""), ("/", ""), ("/dead", "dead/"), ("/dead/", "dead/"), ("/a/b.c/", "a/b.c/")],
    )
    async def test_names_are_those_of_lambda_under_the_prefix(self, local_clients, path, prefix):
        bucket = await bucket_of(local_clients)
        s3 = await local_clients.client("s3")
        letter = Letter()
        destination = S3DeadLetters(S3Folder(s3, ApiCaller(), f"s3://{bucket}{path}", clock_wall=time.time))
        await destination.send(letter.body, attributes=letter.attributes)
        ((key, stored),) = (await objects(local_clients, bucket)).items()
        assert re.fullmatch(re.escape(prefix) + KEY, key)
        assert stored == letter.body
        assert (await s3.head_object(Bucket=bucket, Key=key))["ContentType"] == "application/json"

    def folder(self, clock_wall=lambda: NOW):
        return S3Folder(None, ApiCaller(), "s3://bucket", clock_wall=clock_wall)

    def test_the_clock_has_no_say_in_the_name_of_a_retried_document(self):
        letter = Letter()
        keys = {self.folder(lambda at=at: at).key(letter.body, letter.attributes) for at in (0.0, NOW, 2e9)}
        assert len(keys) == 1

    def test_other_records_have_another_name(self):
        one, other = Letter(), Letter(number="3000002759746085485437")
        assert self.folder().key(one.body, one.attributes) != self.folder().key(other.body, other.attributes)

    def test_the_same_records_at_another_time_share_the_uuid(self):
        one, later = Letter(), Letter(now=NOW + 3600)
        keys = [self.folder().key(letter.body, letter.attributes) for letter in (one, later)]
        assert "T13.29.12-" in keys[0]
        assert "T14.29.12-" in keys[1]
        assert len({str(uuid.UUID(key[-36:])) for key in keys}) == 1

    def test_a_document_that_says_nothing_gets_a_name_too(self):
        keys = [self.folder().key(body, {}) for body in (b"{}", b"{}", b'{"a":1}')]
        assert keys[0] == keys[1] != keys[2]
        assert keys[0].startswith("aws/lambda/unknown/unknown/2026/09/17/2026-09-17T13.29.12-")


class TestBuild:
    def settings(self, **on_failure):
        text = {
            "application": "orders-projector",
            "source": {"table": "orders"},
            "handler": {"target": "shop.handlers:handle"},
            "on_failure": on_failure,
        }
        return Settings.model_validate(text)

    async def build(self, session, **on_failure):
        return await build_dead_letters(self.settings(**on_failure), session, ApiCaller(), SystemClock())

    @pytest.mark.parametrize(
        ("destination", "kind"),
        [
            ("arn:aws:sqs:us-east-1:000000000000:dead", SqsDeadLetters),
            ("arn:aws:sns:us-east-1:000000000000:dead", SnsDeadLetters),
            ("s3://bucket/dead", S3DeadLetters),
        ],
    )
    async def test_the_destination_decides(self, local_clients, destination, kind):
        built = await self.build(local_clients, destination=destination)
        assert isinstance(built, kind)
        assert built.destination == destination
        covered = await self.build(local_clients, destination=destination, overflow="s3://bucket/big")
        assert isinstance(covered, WithOverflow)
        assert covered.destination == destination

    async def test_without_a_destination_there_is_none(self, local_clients):
        assert await self.build(local_clients) is None
        assert await self.build(local_clients, overflow="s3://bucket/big") is None

    async def test_what_is_built_delivers_big_letters(self, local_clients, queue):
        made = await queue(MaximumMessageSize=str(LIMIT))
        bucket = await bucket_of(local_clients)
        built = await self.build(local_clients, destination=made.arn, overflow=f"s3://{bucket}")
        await built.prepare()
        letter = Letter(BIG)
        await built.send(letter.body, attributes=letter.attributes)
        (message,) = await made.receive()
        bucket_name, _, key = json.loads(message["Body"])["payloadLocation"].removeprefix("s3://").partition("/")
        assert json.loads((await objects(local_clients, bucket_name))[key]) == json.loads(letter.payload)
