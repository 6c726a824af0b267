"""Complete listings of the stream, shared by all shards of a worker that ask at about the same time, and what they
say about a shard that cannot be found: an error or an empty listing never means that it is gone."""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog

from consumer.domain.errors import MisconfiguredResource, ResourceMissing, StreamConsumerError, Unavailable
from consumer.domain.shards import ShardInfo, is_young
from consumer.worker.context import WorkerContext

log = structlog.get_logger()

Listed = list[ShardInfo] | StreamConsumerError | None  # None: there is no such stream, and the table has a new one

SECOND_LOOK = 5.0  # seconds that a shard must stay out of complete listings until it counts as gone
SECOND_LOOK_YOUNG = 600.0  # the same for a shard that by its id is too young to have been trimmed
STREAM_LOOKS = 60  # SECOND_LOOKs that a whole stream must be missing: that answer is an error first of all


class ShardListing:
    """Lists the shards of one stream."""

    def __init__(self, context: WorkerContext) -> None:
        self._source = context.ports.source
        self._clock = context.ports.clock
        self._created = context.stream.format.created
        self._stream_id = context.stream.stream_id
        self._asking = asyncio.Lock()
        self._listed: Listed = None
        self._listed_at = float("-inf")

    def patience(self, shard_id: str) -> float:
        """Seconds that the shard must stay out of complete listings until it counts as gone."""
        created = self._created(shard_id)
        return SECOND_LOOK_YOUNG if is_young(created, self._clock.trusted(), self._source.retention) else SECOND_LOOK

    async def is_gone(self, shard_id: str) -> bool:
        """True when complete listings of a stream that exists do not name the shard, over some time. False also when
        that cannot be found out now."""
        since, patience = self._clock.monotonic(), self.patience(shard_id)
        try:
            while True:
                found = await self._look_for(shard_id)
                if found == "shard":
                    return False
                if found == "nothing":
                    patience = max(patience, STREAM_LOOKS * SECOND_LOOK)
                missing = max(0.0, self._listed_at - since)  # of a listing that may be shared, and older than this look
                if missing >= patience:
                    return True
                log.warning("shard.unlisted", shard_id=shard_id, seconds=missing, patience=patience)
                await asyncio.sleep(min(patience, 6 * SECOND_LOOK))
        except (Unavailable, MisconfiguredResource):
            return False

    async def _look_for(self, shard_id: str) -> Literal["shard", "others", "nothing"]:
        """What a listing shows. ``nothing``: the service knows no such stream, and the table has a new one."""
        listed = await self._recent()
        if listed is None:
            return "nothing"
        may_exist = not listed or any(shard.shard_id == shard_id for shard in listed)
        return "shard" if may_exist else "others"

    async def _recent(self) -> list[ShardInfo] | None:
        """A complete listing of now, one for all shards that ask: when a stream is gone, all its shards do. None and
        errors: as for ``Listed``."""
        recent = self._clock.monotonic() - SECOND_LOOK / 2  # two looks that decide stay two listings
        async with self._asking:
            if self._listed_at < recent:
                at = self._clock.monotonic()
                try:
                    self._listed = await self._ask()
                except (Unavailable, MisconfiguredResource) as error:
                    self._listed = error
                self._listed_at = at
            listed = self._listed
        if isinstance(listed, StreamConsumerError):
            raise listed
        return listed

    async def _ask(self) -> list[ShardInfo] | None:
        try:
            return await self._source.list_shards()
        except ResourceMissing:
            if await self._source.latest_stream() in (None, self._stream_id):
                raise
            return None
