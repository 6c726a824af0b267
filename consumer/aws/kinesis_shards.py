"""The shard graph of a Kinesis stream: listings, children of shards that have ended, ranges of hash keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, TypeGuard

from consumer.aws.answers import Flaw
from consumer.aws.errors import StrangeAnswer
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.aws.kinesis_pages import KinesisShard
from consumer.domain.errors import DependencyError
from consumer.domain.kinesis_numbers import service_number
from consumer.domain.shards import ShardInfo
from consumer.ports.source import Page

SHARDS_PER_PAGE: Final = 1000  # the most ListShards gives
LAST_LOOKS: Final = 3  # empty pages behind what may be the last one
LISTING_ATTEMPTS: Final = 3  # a token for the next page lives 300 seconds


def names_children(children: list[ShardInfo] | None, shard_id: str) -> TypeGuard[list[ShardInfo]]:
    """Whether these are the children of the shard, each with its parents. Otherwise the answer is not valid: a child
    that names no parents would wait for none."""
    return bool(children) and all(shard_id in child.parents for child in children or ())


class KinesisShards:
    """Of one stream. ``forget`` when another stream has its name."""

    def __init__(self, calls: KinesisCalls) -> None:
        self._calls = calls
        self._children: dict[str, list[ShardInfo]] = {}
        self._ranges: dict[str, tuple[int, int]] = {}

    def forget(self) -> None:
        """Ids of shards are given again by a stream that was made anew."""
        self._children.clear()
        self._ranges.clear()

    def hash_range(self, shard_id: str) -> tuple[int, int] | None:
        """First and last hash key of the shard, as far as a listing has said."""
        return self._ranges.get(shard_id)

    async def all(self) -> list[ShardInfo]:
        """Every shard that still has records, all pages; a page that fails for good raises instead of leaving shards
        out. A token that has expired begins the listing anew."""
        for _ in range(LISTING_ATTEMPTS - 1):
            try:
                return await self._listed()
            except DependencyError as error:
                if not error.code.startswith("ExpiredNextToken"):
                    raise
        return await self._listed()

    def learn_children(self, shard_id: str, children: list[ShardInfo]) -> None:
        """The last page of a shard has named them."""
        self._children[shard_id] = children

    async def children(self, shard_id: str) -> list[ShardInfo]:
        """As the last page of the shard named them. Otherwise the service is asked in the KCL's way, by a read at the
        end of the shard, and then by a listing."""
        known = self._children.get(shard_id)
        if known:
            return known
        iterator = await self._calls.iterator(shard_id, "LATEST")
        page = await self._calls.read(KinesisShard("", shard_id), iterator, 1)
        if names_children(page.children, shard_id):
            self.learn_children(shard_id, page.children)
            return page.children
        return [shard for shard in await self.all() if shard_id in shard.parents]

    async def check_end(self, shard_id: str, iterator: str, page: Page) -> None:
        """A page without next iterator and without children: the KCL calls that an invalid answer and asks again, and
        some servers never name children. So it is the end when the shard is closed and nothing is left behind the page.

        Raises:
            StrangeAnswer: it is not the end.
        """
        shard = next((one for one in await self.all() if one.shard_id == shard_id), None)
        if shard is None or shard.ending_sequence_number is None:
            listed = "is not listed" if shard is None else "is open"
            raise StrangeAnswer("GetRecords", Flaw("NoIterator", f"has no NextShardIterator, and {shard_id} {listed}"))
        if page.records:
            last = {"StartingSequenceNumber": service_number(page.records[-1].number)[0]}
            iterator = await self._calls.iterator(shard_id, "AFTER_SEQUENCE_NUMBER", **last)
        for _ in range(LAST_LOOKS):
            rest = (await self._calls.read(KinesisShard("", shard_id), iterator, 1)).page
            if rest.records:
                break
            if rest.next_iterator is None:
                return
            iterator = rest.next_iterator
        raise StrangeAnswer("GetRecords", Flaw("NoIterator", f"has no NextShardIterator, and {shard_id} goes on"))

    async def _listed(self) -> list[ShardInfo]:
        shards: dict[str, ShardInfo] = {}
        seen: set[str] = set()
        token: str | None = None
        while True:
            answer = await self._calls.list_shards(SHARDS_PER_PAGE, token)
            for shard in answer["Shards"]:
                info = self._shard_info(shard)
                shards[info.shard_id] = info
            token = answer.get("NextToken") or None
            if token is None:
                self._forget_all_but(shards)
                return list(shards.values())
            if token in seen:
                raise DependencyError("ListShards", "PagingLoop", "the same NextToken came twice")
            seen.add(token)

    def _forget_all_but(self, shards: Collection[str]) -> None:
        self._children = {shard_id: found for shard_id, found in self._children.items() if shard_id in shards}
        self._ranges = {shard_id: found for shard_id, found in self._ranges.items() if shard_id in shards}

    def _shard_info(self, shard: Mapping[str, Any]) -> ShardInfo:
        shard_id = shard.get("ShardId")
        if not isinstance(shard_id, str) or not shard_id:
            raise StrangeAnswer("ListShards", Flaw("Malformed", "has a shard without ShardId"))
        numbers, hashes = shard.get("SequenceNumberRange") or {}, shard.get("HashKeyRange") or {}
        low, high = str(hashes.get("StartingHashKey", "")), str(hashes.get("EndingHashKey", ""))
        if low.isdecimal() and high.isdecimal():
            self._ranges[shard_id] = int(low), int(high)
        parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
        return ShardInfo(
            shard_id,
            tuple(parent for parent in parents if parent),
            numbers.get("StartingSequenceNumber"),
            numbers.get("EndingSequenceNumber"),
        )
