"""A re-sharding and fault proxy in front of a real local server.

Everything passes through except DescribeStream, GetShardIterator and GetRecords, which show a synthetic tree of virtual
shards over the one real shard. Tests re-shard, trim, hide and expire through methods, or over HTTP
(``POST /_proxy/split`` with ``{"shard_id": ...}``), and queue faults for any operation of any service.

    async with ReshardProxy(local_aws.endpoint, shards=4) as proxy:   # in the test's own loop
    with ProxyThread(local_aws.endpoint, shards=4) as proxy:          # in a thread, for daemons in other processes
        proxy.call("split", shard_id)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tests.support.fault_proxy import Answer, FaultProxy, InThread
from tests.support.proxy_faults import Refusal
from tests.support.virtual_shards import HASHES, Cursor, VirtualShard, VirtualStream, new_shard, number_text

STREAMS = "DynamoDBStreams_20120810."


class ReshardProxy(FaultProxy):
    """The proxy, running on 127.0.0.1 in the loop that entered it. Its methods take effect at once.

    Args:
        upstream: URL of the real server.
        shards: how many open virtual shards a stream has at first.
        describe_page: most shards in a DescribeStream answer (100 on AWS).
    """

    ADMIN = (
        *("split", "roll", "hide_children", "trim", "vanish", "expire_iterators", "empty_pages"),
        *(*FaultProxy.ADMIN, "shards"),
    )

    def __init__(self, upstream: str, *, shards: int = 1, describe_page: int = 100) -> None:
        super().__init__(upstream)
        self.initial_shards = shards
        self.describe_page = describe_page
        self.ignore_shard_filter = False
        self._streams: dict[str, VirtualStream] = {}
        self._generation = 0
        self._hidden_for = 0.0
        self._closing = asyncio.Lock()

    # --- what tests do -------------------------------------------------------------------------------------------

    async def split(self, shard_id: str) -> list[str]:
        """Close a shard at the current tail; returns its two children, each with half of its keys."""
        stream, shard = self._find(shard_id)
        middle = (shard.low + shard.high) // 2
        return await self._close(stream, shard, [(shard.low, middle), (middle, shard.high)])

    async def roll(self, shard_id: str) -> list[str]:
        """Close a shard at the current tail; returns its only child, with the same keys."""
        stream, shard = self._find(shard_id)
        return await self._close(stream, shard, [(shard.low, shard.high)])

    async def hide_children(self, seconds: float) -> None:
        """From now on, children are visible only ``seconds`` after their parent was closed; 0 shows all at once."""
        self._hidden_for = seconds
        for shard in [shard for stream in self._streams.values() for shard in stream.shards.values() if not seconds]:
            shard.visible_at = 0.0

    async def trim(self, shard_id: str, upto: str) -> None:
        """Drop this shard's records up to and including a SequenceNumber."""
        _, shard = self._find(shard_id)
        if not shard.is_trimmed(int(upto)):
            shard.trimmed = upto

    async def vanish(self, shard_id: str) -> None:
        """Remove a shard from listings and answers. Its children keep naming it."""
        self._find(shard_id)[1].gone = True

    async def expire_iterators(self) -> None:
        """Every iterator handed out so far is expired."""
        self._generation += 1

    async def empty_pages(self, shard_id: str, times: int = 1) -> None:
        """The next pages of this shard are empty, without moving on."""
        self._find(shard_id)[1].empty_pages = times

    async def shards(self, arn: str | None = None) -> list[dict[str, Any]]:
        """All virtual shards, hidden ones included: ``shard_id``, ``parent``, ``open``, ``arn``."""
        return [
            {"shard_id": shard.shard_id, "parent": shard.parent, "open": shard.end is None, "arn": stream.arn}
            for stream in self._streams.values()
            for shard in stream.shards.values()
            if arn in (None, stream.arn) and not shard.gone
        ]

    # --- the three rewritten operations --------------------------------------------------------------------------

    def _own(self) -> Mapping[str, Answer]:
        return {
            STREAMS + "DescribeStream": self._describe_stream,
            STREAMS + "GetShardIterator": self._get_shard_iterator,
            STREAMS + "GetRecords": self._get_records,
        }

    async def _stream(self, headers: dict[str, str], arn: str) -> tuple[VirtualStream, dict[str, Any]]:
        """The virtual stream of an ARN (made at first sight) and its real description."""
        real = (await self._real(headers, STREAMS + "DescribeStream", {"StreamArn": arn}))["StreamDescription"]
        if arn not in self._streams:
            key = next(e["AttributeName"] for e in real["KeySchema"] if e["KeyType"] == "HASH")
            stream = VirtualStream(arn, key, real["Shards"][0]["ShardId"], headers)
            bounds = [HASHES * index // self.initial_shards for index in range(self.initial_shards + 1)]
            for low, high in pairwise(bounds):
                shard = new_shard(None, low, high, None, 0.0)
                stream.shards[shard.shard_id] = shard
            self._streams[arn] = stream
        return self._streams[arn], real

    async def _describe_stream(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        stream, real = await self._stream(headers, parameters["StreamArn"])
        listed = stream.listed(time.monotonic())
        wanted = parameters.get("ShardFilter")
        if wanted and not self.ignore_shard_filter:
            listed = [shard for shard in listed if shard.parent == wanted["ShardId"]]
        start = parameters.get("ExclusiveStartShardId")
        if start:
            listed = [shard for shard in listed if shard.shard_id > start]  # ids grow
        limit = min(self.describe_page, parameters.get("Limit", 100))
        described = [shard.described() for shard in listed[:limit]]
        ended = real["Shards"][0]["SequenceNumberRange"].get("EndingSequenceNumber")
        if ended is not None:  # the real stream is disabled
            for shard in described:
                shard["SequenceNumberRange"].setdefault("EndingSequenceNumber", ended)
        answer = {**real, "Shards": described}
        answer.pop("LastEvaluatedShardId", None)
        if len(listed) > limit:
            answer["LastEvaluatedShardId"] = described[-1]["ShardId"]
        return {"StreamDescription": answer}

    async def _get_shard_iterator(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        arn = parameters["StreamArn"]
        stream = self._streams.get(arn) or (await self._stream(headers, arn))[0]
        shard = self._visible(stream, parameters["ShardId"])
        kind, number = parameters["ShardIteratorType"], parameters.get("SequenceNumber")
        after = int(shard.begin or 0)
        if kind == "LATEST":
            after = -1
        elif number is not None:
            if shard.is_trimmed(int(number)):
                raise Refusal("TrimmedDataAccessException", "")
            position = int(number) - (kind == "AT_SEQUENCE_NUMBER")
            if position > after:
                after = position
            else:  # such as the start of the shard, a number that the server never gave to a record
                kind, number = "TRIM_HORIZON", None
        if kind == "TRIM_HORIZON" and shard.begin is not None:
            kind, number = "AFTER_SEQUENCE_NUMBER", shard.begin
        real = await self._real_iterator(headers, stream, kind, number)
        return {"ShardIterator": Cursor(shard.shard_id, stream.arn, real, self._generation, after).token()}

    async def _get_records(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            cursor = Cursor.of(parameters["ShardIterator"])
        except ValueError as error:
            raise Refusal("ValidationException", str(error)) from error
        if cursor.generation != self._generation:
            raise Refusal("ExpiredIteratorException", "")
        stream = self._streams[cursor.arn]
        shard = self._visible(stream, cursor.shard)
        if cursor.after >= 0 and shard.is_trimmed(cursor.after + 1):
            raise Refusal("TrimmedDataAccessException", "")
        if shard.empty_pages:
            shard.empty_pages -= 1
            return {"Records": [], "NextShardIterator": cursor.token()}
        closed_before = shard.end is not None  # if it is closed while we read, an empty page does not mean its end
        limit = parameters.get("Limit", 1000)
        page = await self._real(headers, STREAMS + "GetRecords", {"ShardIterator": cursor.real, "Limit": limit})
        numbers = [record["dynamodb"]["SequenceNumber"] for record in page["Records"]]
        stream.saw(numbers)
        pairs = zip(page["Records"], numbers, strict=True)
        answer: dict[str, Any] = {
            "Records": [record for record, number in pairs if shard.owns(stream.place(record), int(number))]
        }
        over = (
            int(numbers[-1]) >= int(shard.end) if numbers and shard.end is not None else closed_before and not numbers
        )
        following = page.get("NextShardIterator")
        if following is not None and not over:
            after = int(numbers[-1]) if numbers else cursor.after
            answer["NextShardIterator"] = Cursor(shard.shard_id, stream.arn, following, self._generation, after).token()
        return answer

    # --- inside --------------------------------------------------------------------------------------------------

    async def _real_iterator(
        self, headers: dict[str, str], stream: VirtualStream, kind: str, number: str | None
    ) -> str:
        request = {"StreamArn": stream.arn, "ShardId": stream.real_shard, "ShardIteratorType": kind}
        if number is not None:
            request["SequenceNumber"] = number
        return str((await self._real(headers, STREAMS + "GetShardIterator", request))["ShardIterator"])

    async def _close(self, stream: VirtualStream, shard: VirtualShard, ranges: list[tuple[int, int]]) -> list[str]:
        async with self._closing:
            if shard.end is not None:
                raise ValueError(f"{shard.shard_id} is closed already")
            await self._look_for_tail(stream)
            # No await from here on. The tail covers every record that any reader was given.
            shard.end = stream.tail or number_text(0)
            visible_at = time.monotonic() + self._hidden_for
            children = [new_shard(shard.shard_id, low, high, shard.end, visible_at) for low, high in ranges]
            stream.shards |= {child.shard_id: child for child in children}
            if stream.tail is None:  # nothing was written so far: the children begin with the stream
                for child in children:
                    child.start = None
            return [child.shard_id for child in children]

    async def _look_for_tail(self, stream: VirtualStream) -> None:
        kind = "TRIM_HORIZON" if stream.tail is None else "AFTER_SEQUENCE_NUMBER"
        iterator: str | None = await self._real_iterator(stream.headers, stream, kind, stream.tail)
        while iterator is not None:
            page = await self._real(stream.headers, STREAMS + "GetRecords", {"ShardIterator": iterator, "Limit": 1000})
            if not page["Records"]:
                return
            stream.saw([record["dynamodb"]["SequenceNumber"] for record in page["Records"]])
            iterator = page.get("NextShardIterator")

    def _find(self, shard_id: str) -> tuple[VirtualStream, VirtualShard]:
        for stream in self._streams.values():
            if shard_id in stream.shards:
                return stream, stream.shards[shard_id]
        raise KeyError(f"no virtual shard {shard_id}: a stream gets its shards when it is first described")

    def _visible(self, stream: VirtualStream, shard_id: str) -> VirtualShard:
        shard = stream.shards.get(shard_id)
        if shard is None or shard.gone or shard.visible_at > time.monotonic():
            raise Refusal("ResourceNotFoundException", "Requested resource not found: Shard does not exist")
        return shard


class ProxyThread(InThread[ReshardProxy]):
    """The proxy in a thread with a loop of its own, as a context manager: for tests that drive other processes.

    ``call("split", shard_id)`` runs a method of the proxy there and returns its result.
    """

    def __init__(self, upstream: str, *, shards: int = 1, describe_page: int = 100) -> None:
        super().__init__(lambda: ReshardProxy(upstream, shards=shards, describe_page=describe_page))
