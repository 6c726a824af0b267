"""Which way GetRecords goes through one client: the direct call, or the SDK's own when that is not possible.

The direct call (``consumer.aws.direct_get_records``) needs the SDK to work as it is known here. A self-test at the
start finds out: the SDK prepares one request that never leaves the process, and what its parser makes of a built-in
page must equal what msgspec makes of it. When anything differs, every page goes through
``client.get_records()`` and botocore's parser, about 50 times slower, and one ERROR event says so.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

import structlog
from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError

from consumer.aws.direct_get_records import BEFORE_SEND, DirectCallUnavailable, DirectGetRecords, event_name
from consumer.aws.pages import convert_page, decode_page
from consumer.domain.events import event_json
from consumer.domain.record import Record
from consumer.ports.source import Page

log = structlog.get_logger()

SELF_TEST: Final = "stream-consumer-self-test"
SELF_TEST_DEADLINE: Final = 5.0  # seconds; the request stays in the process, but signing it may fetch credentials
# They say nothing about the SDK: the self-test is repeated with the next call.
_UNDECIDED: Final = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TimeoutError)

Origin = TypeVar("Origin")
Decoded = TypeVar("Decoded")


class PageReader(ABC, Generic[Origin, Decoded]):
    """``GetRecords`` through one client, decoded. Safe to share between any number of shards of one event loop.

    Args:
        client: the long-lived client.
        fields: what every request has besides iterator and limit.
    """

    def __init__(self, client: Any, **fields: str) -> None:
        self._client = client
        self._fields = fields
        self._direct: DirectGetRecords | None = None
        self._preparing = asyncio.Lock()
        self._prepared = False

    async def prepare(self) -> None:
        """Find out whether direct calls work. Idempotent.

        Raises:
            BotoCoreError, TimeoutError: there are no credentials to sign with; nothing was decided, so call it again.
        """
        async with self._preparing:
            if self._prepared:
                return
            try:
                self._direct = await self._learned()
            except _UNDECIDED:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the SDK's own way still works
                log.error(
                    "pages.fallback_parser",
                    reason=str(error) if isinstance(error, DirectCallUnavailable) else repr(error),
                    effect="GetRecords goes through the SDK's parser: about 50 times slower",
                )
            self._prepared = True

    async def read(self, iterator: str, limit: int, origin: Origin) -> Decoded:
        """One page. ``origin``: where the iterator is from, which records repeat. StrangeAnswer when it does not
        decode; otherwise what the client raises."""
        if not self._prepared:
            await self.prepare()
        if self._direct is None:
            answer = await self._client.get_records(ShardIterator=iterator, Limit=limit, **self._fields)
            return self._converted(answer, origin)
        return self._decoded(await self._direct.call(iterator, limit), origin)

    async def _learned(self) -> DirectGetRecords:
        direct = DirectGetRecords(self._client, self._fields)
        sample = self._sample()
        events, before_send = self._client.meta.events, event_name(self._client, BEFORE_SEND)
        answer_self_test = partial(_answer_self_test, sample)
        events.register(before_send, answer_self_test)
        try:
            async with asyncio.timeout(SELF_TEST_DEADLINE):
                answer = await direct.learn(SELF_TEST)
        finally:
            events.unregister(before_send, answer_self_test)
        if not self._agree(answer, sample):
            raise DirectCallUnavailable("botocore and msgspec decode the built-in page differently")
        return direct

    @abstractmethod
    def _decoded(self, body: bytes, origin: Origin) -> Decoded:
        """The page of the body of a successful answer."""

    @abstractmethod
    def _converted(self, answer: Mapping[str, Any], origin: Origin) -> Decoded:
        """The page of what botocore's parser returned."""

    @abstractmethod
    def _sample(self) -> bytes:
        """The body of the built-in page, which has everything that may be in one."""

    @abstractmethod
    def _agree(self, answer: Mapping[str, Any], sample: bytes) -> bool:
        """Whether both ways make the same page of the sample: of botocore's ``answer``, and of its body."""


class StreamsPageReader(PageReader[str, Page]):
    """Of a ``dynamodbstreams`` client. Origins are the ARNs of streams."""

    def _decoded(self, body: bytes, origin: str) -> Page:
        return decode_page(body, origin)

    def _converted(self, answer: Mapping[str, Any], origin: str) -> Page:
        return convert_page(answer, origin)

    def _sample(self) -> bytes:
        return SAMPLE

    def _agree(self, answer: Mapping[str, Any], sample: bytes) -> bool:
        return _same_pages(convert_page(answer, SELF_TEST), decode_page(sample, SELF_TEST))


# --- the self-test ---------------------------------------------------------------------------------------------------

_EVERY_TYPE: Final = (
    b'{"pk":{"S":"a\\u0000\xf0\x9f\x98\x80"},"n":{"N":"-1.2345678901234567890123456789012345678E-10"},"b":{"B":"AP8="},'
    b'"ss":{"SS":["x","y"]},"ns":{"NS":["1","2"]},"bs":{"BS":["AA==","/w=="]},"t":{"BOOL":true},"z":{"NULL":true},'
    b'"l":{"L":[{"S":""},{"M":{}}]},"m":{"M":{"k":{"L":[{"B":""}]}}}}'
)
SAMPLE: Final = (
    b'{"Records":[{"eventID":"1","eventName":"INSERT","eventVersion":"1.1","eventSource":"aws:dynamodb",'
    b'"awsRegion":"eu-west-1","dynamodb":{"ApproximateCreationDateTime":1.7E9,"Keys":{"pk":{"S":"a"}},"NewImage":'
    + _EVERY_TYPE
    + b',"SequenceNumber":"000000000000000000001","SizeBytes":26,"StreamViewType":"NEW_AND_OLD_IMAGES"}},'
    b'{"eventID":"2","eventName":"REMOVE","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"eu-west-1",'
    b'"userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"},'
    b'"dynamodb":{"ApproximateCreationDateTime":1700000001,"Keys":{"pk":{"S":"a"}},"OldImage":'
    + _EVERY_TYPE
    + b',"SequenceNumber":"1234567890123456789012345678901234567890","SizeBytes":26,'
    b'"StreamViewType":"NEW_AND_OLD_IMAGES"}}],"NextShardIterator":"next"}'
)


class _CannedBody:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


def _answer_self_test(sample: bytes, request: Any, **_: Any) -> AioAWSResponse | None:
    """The ``before-send`` handler: answers the self-test's own request instead of the network, and no other."""
    body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
    if SELF_TEST.encode() not in body:
        return None
    headers = {"content-type": "application/x-amz-json-1.0", "x-amzn-requestid": SELF_TEST}
    return AioAWSResponse(request.url, 200, headers, _CannedBody(sample))


def _same_pages(one: Page, other: Page) -> bool:
    return one.next_iterator == other.next_iterator == "next" and _comparable(one) == _comparable(other)


def _comparable(page: Page) -> list[Any]:
    return [
        [json.loads(event_json(record)), record.keys, record.new_image, record.old_image, record.user_identity]
        for record in page.records
        if isinstance(record, Record)
    ]
