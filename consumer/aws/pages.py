"""GetRecords answers to records without botocore's shape walk.

botocore turns a page into a tree of Python objects, attribute by attribute: 370 us a record of 2 KB, 90 % of all the
time a reader spends, and a page of 1000 stalls the event loop for a third of a second. Here the body is taken out
before botocore parses it and decoded once by msgspec; images stay slices of the body (2 us a record, 1.4 times the
wire size in memory instead of 9 times). Calls go through ``consumer.aws.direct_get_records`` where that knows how the
SDK asks, else through ``client.get_records()``; signing, credentials, endpoints, connections and error answers are
always botocore's.

The hook is botocore's ``before-parse`` event. A self-test at the start sends a built-in page through the client with
and without it and compares; when anything differs, botocore's parser is used and a warning says so.

A page that is cut, is not JSON or lacks ``Records`` is an error to retry. botocore makes an *empty success* of it, and
the missing ``NextShardIterator`` then looks like the end of the shard: silent loss of everything behind it.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError
from msgspec import Raw

from consumer.aws.direct_get_records import LeanGetRecords
from consumer.domain.errors import DependencyError
from consumer.domain.record import Change, Record, event_json
from consumer.ports.source import Page

log = structlog.get_logger()

BEFORE_PARSE: Final = "before-parse.dynamodb-streams.GetRecords"
BEFORE_SEND: Final = "before-send.dynamodb-streams.GetRecords"
BODY: Final = "__page_body"  # where the hook leaves body and headers in the parsed answer
SELF_TEST: Final = "stream-consumer-self-test"
SELF_TEST_DEADLINE: Final = 5.0  # seconds for two calls that never leave the process

ABSENT: Final = Raw(b"")
UNREADABLE: Final = Raw(
    b'{"unreadable":{"unreadable":true}}'
)  # valid JSON, but ValueError for whoever decodes it: poison

# What msgspec raises for bodies it cannot take: its own errors, UnicodeDecodeError, and recursion that is too deep.
_REFUSED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class GetRecordsAnswer(msgspec.Struct, gc=False):
    """The body of a successful answer. ``NextShardIterator`` is absent when the shard is closed and read to its end."""

    Records: list[Record]
    NextShardIterator: str | None = None


class _Split(msgspec.Struct, gc=False):
    Records: list[Raw]
    NextShardIterator: Any = None


class _LeastChange(msgspec.Struct, gc=False):
    SequenceNumber: str


class _LeastRecord(msgspec.Struct, gc=False):
    dynamodb: _LeastChange


_decode_answer = msgspec.json.Decoder(GetRecordsAnswer).decode
_decode_split = msgspec.json.Decoder(_Split).decode
_decode_record = msgspec.json.Decoder(Record).decode
_decode_least = msgspec.json.Decoder(_LeastRecord).decode


def decode_page(body: bytes | bytearray, headers: Mapping[str, str], source_arn: str) -> Page:
    """The records of one successful answer, each with ``source_arn`` as its ``eventSourceARN``.

    Raises:
        DependencyError: the body is cut, damaged, not JSON, lacks ``Records``, or a record has no SequenceNumber.
    """
    _check_integrity(body, headers)
    try:
        answer = _decode_answer(body)
    except _REFUSED as error:
        answer = _decode_one_by_one(body, error)
    return _page(answer.Records, answer.NextShardIterator, len(body), source_arn)


def convert_page(answer: Mapping[str, Any], source_arn: str) -> Page:
    """The same from what botocore's own parser made of an answer: the slow way, for when the hook does not work."""
    records = answer.get("Records")
    if not isinstance(records, list):
        raise _undecodable("Malformed", "the answer has no Records")
    converted = [_rebuild(index, wire) for index, wire in enumerate(records)]
    length = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-length", "")
    size = int(length) if length.isdecimal() else sum(record.wire_size for record in converted)
    return _page(converted, _checked_iterator(answer.get("NextShardIterator")), size, source_arn)


class PageReader:
    """``GetRecords`` through one client, decoded. Safe to share between any number of shards of one event loop.

    Args:
        client: the long-lived ``dynamodbstreams`` client; the hook is registered on this client only.
        lean: asks without the client's machinery instead, when it can (see ``consumer.aws.direct_get_records``).
    """

    def __init__(self, client: Any, lean: LeanGetRecords | None = None) -> None:
        self._client = client
        self._lean = lean
        self._preparing = asyncio.Lock()
        self._prepared = False
        self.fast = False

    async def prepare(self) -> None:
        """Install the hook and prove that it works. Idempotent; ``fast`` says how it went.

        Raises:
            BotoCoreError: there are no credentials to sign with; nothing was decided, so call it again.
        """
        async with self._preparing:
            if self._prepared:
                return
            problem = await self._self_test()
            self.fast = not problem
            if self._lean is not None:
                await self._learn(self._lean)
            self._prepared = True
            if problem:
                self._client.meta.events.unregister(BEFORE_PARSE, take_body)
                log.warning("pages.fallback_parser", reason=problem, effect="GetRecords is decoded 50 times slower")

    async def read(self, iterator: str, limit: int, source_arn: str) -> Page:
        """One page. DependencyError when it does not decode; otherwise what the client raises."""
        if not self._prepared:
            await self.prepare()
        if self._lean is not None:
            body, headers = await self._lean.call(iterator, limit)
            return decode_page(body, headers, source_arn)
        return await self._fetch(source_arn, ShardIterator=iterator, Limit=limit)

    async def _learn(self, lean: LeanGetRecords) -> None:
        events = self._client.meta.events
        events.register(BEFORE_SEND, _answer_self_test)
        try:
            async with asyncio.timeout(SELF_TEST_DEADLINE):
                await lean.learn(SELF_TEST)
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the SDK's own way still works
            self._lean = None
            log.warning(
                "pages.sdk_call_path", reason=str(error) or repr(error), effect="a GetRecords call costs more CPU"
            )
        finally:
            events.unregister(BEFORE_SEND, _answer_self_test)

    async def _fetch(self, source_arn: str, **parameters: Any) -> Page:
        try:
            answer = await self._client.get_records(**parameters)
        except (ValueError, TypeError, AttributeError, LookupError) as error:  # botocore's parser on an odd body
            raise _undecodable("Malformed", f"botocore's parser refuses the answer: {error!r}") from error
        if BODY not in answer:
            return convert_page(answer, source_arn)
        body, headers = answer[BODY]
        return decode_page(body, headers, source_arn)

    async def _self_test(self) -> str:
        """Both ways over the built-in page; an empty string when they agree, else what is wrong."""
        events = self._client.meta.events
        events.unregister(BEFORE_PARSE, take_body)  # from a test that was cancelled
        events.register(BEFORE_SEND, _answer_self_test)
        try:
            async with asyncio.timeout(SELF_TEST_DEADLINE):
                expected = await self._fetch(SELF_TEST, ShardIterator=SELF_TEST)
                events.register(BEFORE_PARSE, take_body)
                answer = await self._client.get_records(ShardIterator=SELF_TEST)
            if BODY not in answer:
                return "the before-parse hook did not fire"
            body, headers = answer[BODY]
            actual = decode_page(body, headers, SELF_TEST)
            return "" if _same_pages(expected, actual) else "botocore and msgspec decode the built-in page differently"
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError):
            events.unregister(BEFORE_PARSE, take_body)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the slow way still works
            return f"the self-test failed: {error!r}"
        finally:
            events.unregister(BEFORE_SEND, _answer_self_test)


def take_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """The ``before-parse`` handler: keep a successful body from botocore's parser, which then walks ``{}``."""
    if response_dict["status_code"] < 300:
        customized_response_dict[BODY] = (response_dict["body"], response_dict["headers"])
        response_dict["body"] = b"{}"


def _check_integrity(body: bytes | bytearray, headers: Mapping[str, str]) -> None:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) != len(body):
        raise _undecodable("Truncated", f"{len(body)} bytes of {length} arrived")
    checksum = headers.get("x-amz-crc32", "")  # DynamoDB sends it; 0.3 to 1 ms for a page of 1 MB
    if checksum.isdecimal() and int(checksum) != zlib.crc32(body):
        raise _undecodable("ChecksumMismatch", f"CRC32 of {len(body)} bytes is not {checksum}")


def _page(records: list[Record], iterator: str | None, size: int, source_arn: str) -> Page:
    if iterator == "":  # None would mean the end of the shard: never guess that
        raise _undecodable("Malformed", "NextShardIterator is empty")
    for index, record in enumerate(records):
        if not record.dynamodb.SequenceNumber.isdecimal():
            raise _without_number(index, record.event_id)
        record.event_source_arn = source_arn
    return Page(records, iterator, size)


def _undecodable(code: str, message: str) -> DependencyError:
    return DependencyError("GetRecords", code, message)


def _without_number(index: int, event_id: object) -> DependencyError:
    return _undecodable("Malformed", f"record {index} of the page (eventID {event_id!r}) has no usable SequenceNumber")


# --- one odd record must not fail its page ---------------------------------------------------------------------------


def _decode_one_by_one(body: bytes | bytearray, cause: BaseException) -> GetRecordsAnswer:
    """msgspec refused the page: decode record by record, so that only the odd one suffers.

    The standard json module takes what msgspec does not (NaN, lone surrogates). Bytes that are not UTF-8 become lone
    surrogates, which make the value unreadable later instead of silently different.
    """
    records: Sequence[Any]
    try:
        split = _decode_split(body)
        records, iterator = split.Records, split.NextShardIterator
    except _REFUSED:
        try:
            whole = json.loads(body.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise _undecodable("Malformed", f"{len(body)} bytes are not JSON: {cause}") from error
        if not isinstance(whole, dict) or not isinstance(whole.get("Records"), list):
            raise _undecodable("Malformed", "the answer has no Records") from cause
        records, iterator = whole["Records"], whole.get("NextShardIterator")
    decoded = [_decode_alone(index, record) for index, record in enumerate(records)]
    log.warning("pages.odd_page", reason=str(cause), records=len(decoded))
    return GetRecordsAnswer(decoded, _checked_iterator(iterator))


def _checked_iterator(iterator: object) -> str | None:
    if iterator is not None and not isinstance(iterator, str):
        raise _undecodable("Malformed", "NextShardIterator is not a string")
    return iterator


def _decode_alone(index: int, record: object) -> Record:
    """One record of a page that msgspec refused, either a slice of the body or what json made of it."""
    if not isinstance(record, Raw):
        return _rebuild(index, record)
    try:
        return _decode_record(record)
    except _REFUSED:
        pass
    text = bytes(record)
    try:
        return _rebuild(index, json.loads(text.decode("utf-8", "surrogateescape")))
    except (ValueError, RecursionError):
        pass
    try:
        number = _decode_least(text).dynamodb.SequenceNumber
    except _REFUSED as error:
        raise _without_number(index, "unknown") from error
    return Record(Change(number, Keys=UNREADABLE, NewImage=UNREADABLE, OldImage=UNREADABLE))


def _rebuild(index: int, wire: object) -> Record:
    """A record from Python objects: fields of the wrong type fall back to their defaults, images become JSON again."""
    outer = wire if isinstance(wire, dict) else {}
    change = outer.get("dynamodb")
    if not isinstance(change, dict):
        raise _without_number(index, outer.get("eventID"))
    number = change.get("SequenceNumber")
    if isinstance(number, int) and not isinstance(number, bool):
        number = str(number)
    if not isinstance(number, str):
        raise _without_number(index, outer.get("eventID"))
    return Record(
        Change(
            number,
            ApproximateCreationDateTime=_seconds(change.get("ApproximateCreationDateTime")),
            Keys=_image(change.get("Keys")),
            NewImage=_image(change.get("NewImage")),
            OldImage=_image(change.get("OldImage")),
            SizeBytes=_whole(change.get("SizeBytes")),
            StreamViewType=_text(change.get("StreamViewType"), ""),
        ),
        event_id=_text(outer.get("eventID"), ""),
        event_name=_text(outer.get("eventName"), ""),
        event_version=_text(outer.get("eventVersion"), "1.1"),
        event_source=_text(outer.get("eventSource"), "aws:dynamodb"),
        aws_region=_text(outer.get("awsRegion"), ""),
        user_identity_wire=_identity(outer.get("userIdentity")),
    )


def _image(value: object) -> Raw:
    if value is None:
        return ABSENT
    try:
        return Raw(json.dumps(value, allow_nan=False, default=_base64, separators=(",", ":")).encode())
    except (ValueError, TypeError, RecursionError):
        return UNREADABLE


def _base64(value: object) -> str:
    if isinstance(value, bytes):  # botocore has decoded binary attributes
        return base64.b64encode(value).decode()
    raise TypeError(f"not a JSON value: {type(value)}")


def _seconds(value: object) -> float:
    if isinstance(value, dt.datetime):
        return value.timestamp()
    finite = isinstance(value, int | float) and abs(value) < 1e12  # also false for NaN
    return float(value) if finite else 0.0  # type: ignore[arg-type]  # a finite number, as just checked


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _text(value: object, default: str) -> str:
    """Text without lone surrogates, which could not be encoded again."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else default


def _identity(value: object) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    texts = {name: inner for name, inner in value.items() if isinstance(inner, str)}
    return {_text(name, ""): _text(inner, "") for name, inner in texts.items() if name}


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
    async def read(self) -> bytes:
        return SAMPLE


def _answer_self_test(request: Any, **_: Any) -> AioAWSResponse | None:
    """The ``before-send`` handler: answers the self-test's own request instead of the network, and no other."""
    body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
    if SELF_TEST.encode() not in body:
        return None
    headers = {"content-type": "application/x-amz-json-1.0", "content-length": str(len(SAMPLE))}
    return AioAWSResponse(request.url, 200, headers, _CannedBody())


def _same_pages(one: Page, other: Page) -> bool:
    return one.next_iterator == other.next_iterator == "next" and _comparable(one) == _comparable(other)


def _comparable(page: Page) -> list[Any]:
    return [
        [json.loads(event_json(record)), record.keys, record.new_image, record.old_image, record.user_identity]
        for record in page.records
    ]
