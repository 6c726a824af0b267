"""Destinations on the local AWS behind a wire that fails as scripted, and letters to send to them."""

import json

from botocore.exceptions import ClientError, ReadTimeoutError
from msgspec import Raw

from consumer.aws.errors import ApiCaller
from consumer.aws.overflow import WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.sns import SnsDeadLetters
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.dead_letter import DeadLetterContext, document, idempotency_key
from consumer.domain.events import batch_event_json
from consumer.domain.outcome import HandlerFault
from consumer.domain.record import Change, Record
from consumer.domain.settlement import GiveUp
from consumer.domain.source_format import dynamodb_format
from tests.conftest import unique

LIMIT = 4096  # bytes of every destination below, but for S3's own
SHARD = "shardId-00000001789651619772-2a9e5aad"
STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/T/stream/2026-09-17T13:26:53.746"
CONTEXT = DeadLetterContext(
    "orders-projector",
    "shop.handlers:handle",
    STREAM,
    SHARD,
    "6a7a7d45-request",
    dynamodb_format("id"),
    "2026-09-17T13:26:53.746",
)
NOW = 1789651752.967  # 2026-09-17T13:29:12.967Z
# What an error message may hold to lead a reader astray that looks for fields in the text.
FAULT = HandlerFault(
    "raised", "ValueError", '","payload":{"Records":[ ,"timestamp":"1999-01-01T00:00:00Z"', ("line 1",)
)
FIELDS = ["requestContext", "responseContext", "version", "timestamp", "DDBStreamBatchInfo", "application", "error"]
BIG = {"id": {"S": "a"}, "text": {"S": "\u20ac" * 3 * LIMIT}, "payload": {"M": {"payload": {"S": ',"payload":'}}}}
KEY = (
    r"aws/lambda/orders-projector/"
    + SHARD
    + r"/2026/09/17/2026-09-17T13\.29\.12-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
ENDPOINT = {"endpoint_url": "test"}


def give_up(image=None, number="2900002759746085485437"):
    change = Change(
        ApproximateCreationDateTime=1789651658.0,
        Keys=Raw(b'{"id":{"S":"a"}}'),
        NewImage=Raw(image if isinstance(image, bytes) else json.dumps(image or {"id": {"S": "a"}}).encode()),
        SequenceNumber=number,
        SizeBytes=10,
        StreamViewType="NEW_IMAGE",
    )
    record = Record(change, "e" * 32, "INSERT", event_source_arn=STREAM)
    return GiveUp([record], "RetryAttemptsExhausted", 3, FAULT, invoked=True)


class Letter:
    """A document with its attributes, as the delivery of dead letters makes them."""

    def __init__(self, image=None, now=NOW, number="2900002759746085485437"):
        step = give_up(image, number)
        self.payload = batch_event_json(list(step.records))
        self.body = document(CONTEXT, step, now)
        self.attributes = {
            "application": CONTEXT.application,
            "shard_id": SHARD,
            "condition": step.condition,
            "idempotency_key": idempotency_key(CONTEXT, step),
            "error_type": "ValueError",
        }


class Wire:
    """A client whose writes go wrong as scripted: ``refuse`` before they are applied, ``lose`` afterwards."""

    WRITES = frozenset({"send_message", "publish", "put_object"})

    def __init__(self, client, script):
        self._client = client
        self._script = script

    def __getattr__(self, name):
        method = getattr(self._client, name)
        if name not in self.WRITES:
            return method

        async def call(**request):
            error, applied = self._script.pop(0) if self._script else (None, True)
            answer = await method(**request) if applied else None
            if error is not None:
                raise error
            return answer

        return call


def refused(code, status=400, operation="Write"):
    answer = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation), False


LOST = (ReadTimeoutError(**ENDPOINT), True)


class World:
    """One destination on the local AWS. ``script`` is what its wire does to the next writes."""

    copies_when_an_answer_is_lost = 2  # nothing can be taken back from a queue; consumers see equal idempotency keys
    denied = "AccessDenied"

    def __init__(self, session):
        self.session = session
        self.script = []

    async def client(self, service):
        return Wire(await self.session.client(service), self.script)

    async def send(self, letter):
        await self.destination.send(letter.body, attributes=letter.attributes)


class Sqs(World):
    action = "sqs:SendMessage"

    async def make(self, queue):
        self.queue = await queue(MaximumMessageSize=str(LIMIT))
        self.destination = await self.at(self.queue.arn)
        return self

    async def at(self, arn):
        return SqsDeadLetters(await self.client("sqs"), ApiCaller(), arn)

    async def missing(self):
        return await self.at("arn:aws:sqs:us-east-1:000000000000:no-such-place")

    async def delivered(self, at_least=1):
        return [message["Body"].encode() for message in await self.queue.receive(at_least)]


class Sns(World):
    action = "sns:Publish"
    denied = "AuthorizationError"

    async def make(self, queue):
        self.queue = await queue()
        sns = await self.session.client("sns")
        self.arn = (await sns.create_topic(Name=unique("dead")))["TopicArn"]
        raw = {"RawMessageDelivery": "true"}
        await sns.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint=self.queue.arn, Attributes=raw)
        self.destination = await self.at(self.arn)
        self.destination.maximum_size = LIMIT
        return self

    async def at(self, arn):
        return SnsDeadLetters(await self.client("sns"), ApiCaller(), arn)

    async def missing(self):
        return await self.at("arn:aws:sns:us-east-1:000000000000:no-such-place")

    async def delivered(self, at_least=1):
        return [message["Body"].encode() for message in await self.queue.receive(at_least)]


async def bucket_of(session):
    name = unique("bucket")
    await (await session.client("s3")).create_bucket(Bucket=name)
    return name


async def objects(session, bucket):
    s3 = await session.client("s3")
    listed = (await s3.list_objects_v2(Bucket=bucket)).get("Contents", ())
    return {one["Key"]: await (await s3.get_object(Bucket=bucket, Key=one["Key"]))["Body"].read() for one in listed}


class S3(World):
    action = "s3:PutObject"
    copies_when_an_answer_is_lost = 1

    async def make(self, queue):
        self.bucket = await bucket_of(self.session)
        self.destination = await self.at(f"s3://{self.bucket}/dead/letters", maximum_size=LIMIT)
        return self

    async def at(self, url, **options):
        folder = S3Folder(await self.client("s3"), ApiCaller(), url, clock_wall=lambda: NOW, **options)
        return S3DeadLetters(folder)

    async def missing(self):
        return await self.at("s3://no-such-place/prefix")

    async def delivered(self, at_least=1):
        return list((await objects(self.session, self.bucket)).values())


def overflowing(kind):
    """The same place with an overflow around it: small letters must not notice."""

    class Overflowing(kind):
        async def make(self, queue):
            await super().make(queue)
            self.overflow_bucket = await bucket_of(self.session)
            self.destination = WithOverflow(self.destination, await self.store(self.overflow_bucket))
            return self

        async def missing(self):
            return WithOverflow(await super().missing(), await self.store(self.overflow_bucket))

        async def store(self, bucket):
            url = f"s3://{bucket}/big/"
            return S3Folder(await self.client("s3"), ApiCaller(), url, clock_wall=lambda: NOW)

    return Overflowing


PLAIN = {"sqs": Sqs, "sns": Sns, "s3": S3}
OVERFLOWING = {f"{name}+overflow": overflowing(kind) for name, kind in PLAIN.items()}
