"""The change stream of a DynamoDB table, behind the ``StreamSource`` port.

ARNs, shard iterators and sequence numbers are opaque here: they go back to the service exactly as it gave them
(sequence numbers have 21 to 40 digits, some with leading zeros; emulators invent region and account of an ARN).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

from consumer.aws.answers import Flaw
from consumer.aws.errors import ApiCaller, StrangeAnswer
from consumer.aws.inspection import http_time
from consumer.aws.page_reader import StreamsPageReader
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    MisconfiguredResource,
    ResourceMissing,
    StreamConsumerError,
    Throttled,
    TrimmedData,
)
from consumer.domain.shards import DAY, ShardInfo
from consumer.domain.source_format import dynamodb_format
from consumer.ports.source import Page, Position, StreamDescription

T = TypeVar("T")

CALL_TIMEOUT: Final = 10.0  # seconds for any one call
SHARDS_PER_PAGE: Final = 100  # the most DescribeStream gives
UNPACED_PAGES: Final = 3
PAGE_PAUSE: Final = 0.15  # seconds between further pages: DescribeStream allows an account 10 calls a second
THROTTLED_PAUSE: Final = 0.5  # seconds before a throttled page is asked for again, doubled each time
THROTTLED_ATTEMPTS: Final = 4  # of one page of a listing, so that a long listing need not start again


class DynamoDBStreamSource:
    """Reads the stream of ``table`` (its current one), or the stream ``stream_arn``.

    Args:
        streams_client: a ``dynamodbstreams`` client. GetRecords leaves out most of it (``consumer.aws.page_reader``).
        dynamodb_client: a ``dynamodb`` client, used for DescribeTable only; may be None with ``stream_arn``.
        caller: bounds, translates and counts the calls.
        table: name or ARN of the table. Exactly one of ``table`` and ``stream_arn`` must be given.
        stream_arn: ARN of the stream.
        pinned: ARN of the stream of ``table`` to read, whatever its current one is.
        wall: Unix time in seconds, for servers whose answers carry no date.
        pages: shares what another source over the same client has learned; by default its own.
    """

    retention: float = DAY

    def __init__(
        self,
        streams_client: Any,
        dynamodb_client: Any,
        caller: ApiCaller,
        *,
        table: str | None,
        stream_arn: str | None,
        pinned: str | None = None,
        wall: Callable[[], float] = time.time,
        pages: StreamsPageReader | None = None,
    ) -> None:
        if (table is None) == (stream_arn is None):
            raise ValueError("exactly one of table and stream_arn must be given")
        self._streams = streams_client
        self._dynamodb = dynamodb_client
        self._caller = caller
        self._table = table
        # In table mode resolved once, because shards and iterators belong to one stream.
        self._arn = stream_arn or pinned
        self._bound = self._arn is not None
        self._wall = wall
        self._pages = pages or StreamsPageReader(streams_client)

    # --- StreamSource --------------------------------------------------------------------------------------------

    async def describe(self) -> StreamDescription:
        """Resolve the table or ARN and describe the stream. A disabled stream is described, not refused: what it
        holds stays readable for 24 hours.

        Raises:
            MisconfiguredResource: the table has no stream, or its old one was disabled more than 24 hours ago.
            ResourceMissing: the table or the stream does not exist.
        """
        table = await self._table_first()
        if self._arn is None and table is not None:
            self._arn = _latest_of(str(self._table), table)
        arn = await self._stream_arn()
        # By a caller that counts nothing: no request leaves the process.
        await ApiCaller().call("GetRecords", arn, self._pages.prepare(), CALL_TIMEOUT)
        if table is not None and (found := self._from_table(arn, table)) is not None:
            return found
        try:
            answer = await self._describe_page(arn, Limit=1)
        except ResourceMissing as error:
            if self._bound or self._table is None:
                raise
            raise MisconfiguredResource(
                f"table {self._table} names the stream {arn}, which is gone; {_how_to_enable(self._table)}"
            ) from error
        stream = answer["StreamDescription"]
        return StreamDescription(
            stream_arn=arn,
            label=str(stream.get("StreamLabel") or arn.rpartition("/stream/")[2]),
            table_name=str(stream.get("TableName") or self._table),
            status=stream.get("StreamStatus", "ENABLED"),
            view_type=str(stream.get("StreamViewType", "")),
            format=dynamodb_format(_partition_key(stream.get("KeySchema"), arn)),
            server_time=self._server_time(answer),
            keys=_keys(stream["KeySchema"]),
        )

    async def latest_stream(self) -> str | None:
        """Asks DescribeTable. The old ARN stays the newest one until the stream is enabled again."""
        return None if self._table is None else await self._latest_stream_arn(self._table)

    def of(self, stream_id: str) -> Self:
        """Clients and page decoding are shared."""
        return type(self)(
            self._streams,
            self._dynamodb,
            self._caller,
            table=self._table,
            stream_arn=stream_id if self._table is None else None,
            pinned=stream_id,
            wall=self._wall,
            pages=self._pages,
        )

    async def check_listing(self) -> None:
        await self._describe_page(await self._stream_arn(), Limit=1)

    async def list_shards(self) -> list[ShardInfo]:
        """Every shard, all pages; a page that fails for good raises instead of leaving shards out."""
        arn = await self._stream_arn()
        shards: dict[str, ShardInfo] = {}
        async for shard in self._all_shards(arn):
            shards[shard.shard_id] = shard
        return list(shards.values())

    async def child_shards(self, shard_id: str) -> list[ShardInfo]:
        """The children that the service shows so far. Checked here, because emulators ignore the filter."""
        arn = await self._stream_arn()
        only = {"Type": "CHILD_SHARDS", "ShardId": shard_id}
        shards: dict[str, ShardInfo] = {}
        async for shard in self._all_shards(arn, ShardFilter=only):
            if shard_id in shard.parents:
                shards[shard.shard_id] = shard
        return list(shards.values())

    async def iterator(self, shard_id: str, position: Position) -> str:
        """A shard iterator, good for 15 minutes."""
        arn = await self._stream_arn()
        request: dict[str, Any] = {"StreamArn": arn, "ShardId": shard_id, "ShardIteratorType": position.kind}
        if position.sequence_number is not None:
            request["SequenceNumber"] = position.sequence_number
        answer = await self._shard_call("GetShardIterator", shard_id, arn, self._streams.get_shard_iterator(**request))
        return str(answer["ShardIterator"])

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        """The next page; it may hold records *and* be the last one (``next_iterator`` None)."""
        arn = await self._stream_arn()
        return await self._shard_call("GetRecords", shard_id, arn, self._pages.read(iterator, limit, arn))

    # --- which stream --------------------------------------------------------------------------------------------

    async def _stream_arn(self) -> str:
        if self._arn is None:
            self._arn = await self._latest_stream_arn(str(self._table))
        return self._arn

    async def _latest_stream_arn(self, table: str) -> str:
        return _latest_of(table, await self._describe_table(table))

    async def _table_first(self) -> dict[str, Any] | None:
        """The table's description, if it may say all there is to say of the stream (``_from_table``)."""
        if self._table is not None:
            return None if self._bound else await self._describe_table(self._table)
        if self._dynamodb is None:
            return None
        with suppress(StreamConsumerError):  # not allowed, or gone before its stream: DescribeStream says what matters
            return await self._describe_table(_table_of(str(self._arn)))
        return None

    async def _describe_table(self, table: str) -> dict[str, Any]:
        try:
            call = self._dynamodb.describe_table(TableName=table)
            answer: dict[str, Any] = await self._call("DescribeTable", table, call)
        except ResourceMissing as error:
            raise ResourceMissing(f"table {table}", "check source.table, the region and the account") from error
        return answer

    def _from_table(self, arn: str, answer: dict[str, Any]) -> StreamDescription | None:
        """What DescribeStream would say of an enabled stream, without a call of it: an account has ten a second, and a
        fleet may start all at once. None when the table does not say, or speaks of another stream."""
        table = answer["Table"]
        view = table.get("StreamSpecification") or {}
        if table.get("LatestStreamArn") != arn or not view.get("StreamEnabled") or not table.get("KeySchema"):
            return None
        return StreamDescription(
            stream_arn=arn,
            label=str(table.get("LatestStreamLabel") or arn.rpartition("/stream/")[2]),
            table_name=str(table.get("TableName") or _table_of(arn).rpartition("/")[2]),
            status="ENABLED",
            view_type=str(view.get("StreamViewType", "")),
            format=dynamodb_format(_partition_key(table["KeySchema"], arn)),
            server_time=self._server_time(answer),
            keys=_keys(table["KeySchema"]),
        )

    async def _describe_page(self, arn: str, **request: Any) -> dict[str, Any]:
        call = self._streams.describe_stream(StreamArn=arn, **request)
        try:
            answer: dict[str, Any] = await self._call("DescribeStream", arn, call)
        except ResourceMissing as error:
            hint = (
                "check source.stream_arn, the region and the account; a stream is gone 24 hours after it was disabled"
            )
            raise ResourceMissing(f"stream {arn}", hint) from error
        if not isinstance(answer["StreamDescription"].get("Shards"), list):
            raise StrangeAnswer("DescribeStream", Flaw("Malformed", "has no Shards"))
        return answer

    def _server_time(self, answer: dict[str, Any]) -> float:
        """The service's wall clock, from the HTTP Date of its answer (whole seconds)."""
        time = http_time(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))
        return self._wall() if time is None else time

    # --- listing -------------------------------------------------------------------------------------------------

    async def _all_shards(self, arn: str, **request: Any) -> AsyncIterator[ShardInfo]:
        """The shards of all pages of DescribeStream."""
        seen: set[str] = set()
        last: str | None = None
        while True:
            start = {"ExclusiveStartShardId": last} if last is not None else {}
            answer = await self._listing_page(arn, Limit=SHARDS_PER_PAGE, **start, **request)
            stream = answer["StreamDescription"]
            for shard in stream["Shards"]:
                yield _shard_info(shard)
            last = stream.get("LastEvaluatedShardId") or None
            if last is None:
                return
            if last in seen:
                raise DependencyError("DescribeStream", "PagingLoop", f"LastEvaluatedShardId {last} came twice")
            seen.add(last)
            if len(seen) > UNPACED_PAGES:
                await asyncio.sleep(PAGE_PAUSE)

    async def _listing_page(self, arn: str, **request: Any) -> dict[str, Any]:
        pause = THROTTLED_PAUSE
        for _ in range(THROTTLED_ATTEMPTS - 1):
            try:
                return await self._describe_page(arn, **request)
            except Throttled:
                await asyncio.sleep(pause)
                pause *= 2
        return await self._describe_page(arn, **request)

    # --- calls ---------------------------------------------------------------------------------------------------

    async def _call(self, operation: str, resource: str, awaitable: Awaitable[T]) -> T:
        return await self._caller.call(operation, resource, awaitable, CALL_TIMEOUT)

    async def _shard_call(self, operation: str, shard_id: str, arn: str, awaitable: Awaitable[T]) -> T:
        """A call about one shard: errors name it. Denials keep the ARN, which is what policies are about."""
        try:
            return await self._call(operation, arn, awaitable)
        except ResourceMissing as error:
            raise ResourceMissing(f"shard {shard_id} of {arn}", f"{operation} says so") from error
        except ExpiredIterator as error:
            raise ExpiredIterator(f"{operation} on {shard_id}: the shard iterator has expired") from error
        except TrimmedData as error:
            raise TrimmedData(f"{operation} on {shard_id}: the position is older than what the stream keeps") from error


def _how_to_enable(table: str) -> str:
    return (
        f"enable one: aws dynamodb update-table --table-name {table} "
        "--stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES"
    )


def _partition_key(schema: Any, arn: str) -> str:
    for element in schema or ():
        if element.get("KeyType") == "HASH":
            return str(element["AttributeName"])
    raise StrangeAnswer("DescribeStream", Flaw("Malformed", f"names no partition key of {arn}"))


def _latest_of(table: str, answer: dict[str, Any]) -> str:
    arn = answer["Table"].get("LatestStreamArn")
    if not isinstance(arn, str) or not arn:
        raise MisconfiguredResource(f"table {table} has no stream; {_how_to_enable(table)}")
    return arn


def _table_of(stream_arn: str) -> str:
    return stream_arn.partition("/stream/")[0]


def _keys(schema: Any) -> tuple[str, ...]:
    return tuple(str(element["AttributeName"]) for element in schema)


def _shard_info(shard: dict[str, Any]) -> ShardInfo:
    shard_id = shard.get("ShardId")
    if not isinstance(shard_id, str) or not shard_id:
        raise StrangeAnswer("DescribeStream", Flaw("Malformed", "has a shard without ShardId"))
    numbers = shard.get("SequenceNumberRange") or {}
    parent = shard.get("ParentShardId")
    return ShardInfo(
        shard_id,
        (parent,) if parent else (),
        numbers.get("StartingSequenceNumber"),
        numbers.get("EndingSequenceNumber"),
    )
