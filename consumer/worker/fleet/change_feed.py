"""What workers tell each other about lease rows, by posts, so that nobody has to read all of them for a few."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import structlog

from consumer.domain.bulletin import MOST_CHANGES, Bulletin, Change, Unread
from consumer.domain.errors import Unavailable
from consumer.domain.lease import LeaseRow
from consumer.domain.reading_pace import PostAllowance
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.lease_memory import LeaseMemory

log = structlog.get_logger()

POST_PAUSE = 0.05  # seconds: many changes make one post
BETWEEN_POSTS = 0.25  # seconds, at least: looks are about a second apart, and a post is two writes
BETWEEN_POSTS_OF_FLEET = (0.02, 4.0)  # seconds for each of its workers, and at most: all of them read every post
FAILED_PAUSE = 1.0
MOST_WAITING = 20_000  # changes that are not posted yet


class ChangeFeed:
    """Posts what this worker has changed, and applies to ``memory`` what others have."""

    def __init__(self, context: WorkerContext, memory: LeaseMemory) -> None:
        self._store = context.ports.store
        self._clock = context.ports.clock
        self._label = context.stream.label
        self._me = context.incarnation
        self._memory = memory
        self._waiting: list[Change] = []
        self._told = asyncio.Event()
        self._workers = 1  # of the fleet
        self._unread = Unread()
        self._allowance = PostAllowance(self._clock.monotonic(), 0.8 + 0.4 * context.ports.random.random())
        self._read_changes = 0  # so far
        self.unread_changes = 0  # by the bulletin

    # --- what this worker tells --------------------------------------------------------------------------

    def tell(self, rows: Iterable[LeaseRow]) -> None:
        """These rows were changed, or made, by this worker."""
        self._waiting += (Change.of(row) for row in rows if not row.corrupt)
        del self._waiting[:-MOST_WAITING]  # peers find out by their next complete reading
        self._told.set()

    async def post_for_ever(self) -> None:
        """Post what was told, in the order in which it was."""
        posted_at = float("-inf")
        while True:
            await self._told.wait()
            for_each, longest = BETWEEN_POSTS_OF_FLEET
            next_at = posted_at + max(BETWEEN_POSTS, min(for_each * self._workers, longest))
            await asyncio.sleep(max(POST_PAUSE, next_at - self._clock.monotonic()))
            posted_at = self._clock.monotonic()
            self._told.clear()
            while now := self._waiting[:MOST_CHANGES]:
                del self._waiting[:MOST_CHANGES]
                try:
                    self._unread.made(await self._store.post(self._label, now))
                except Unavailable as error:
                    log.warning("leases.announce_failed", error=str(error))
                    self._waiting[:0] = now  # said twice, it does no harm
                    await asyncio.sleep(FAILED_PAUSE)

    # --- what others tell --------------------------------------------------------------------------------

    async def follow(self, bulletin: Bulletin, workers: int) -> bool:
        """Apply what is new in the posts, as often as the budget of so many ``workers`` allows. False when they do not
        say everything: then the rows are to be read. Posts are hints: those that cannot be read now hold up no plan."""
        self._workers = workers
        told, now, span = self._unread.observe(bulletin.posts), self._clock.monotonic(), self._unread.span
        self.unread_changes = max(0, bulletin.changes - self._read_changes) if span is not None else 0
        self._read_changes = bulletin.changes - self.unread_changes
        most = self._allowance.portion(len(self._unread), self.unread_changes, workers, now)
        if span is None or not most:
            return told
        span = span[0], min(span[1], span[0] + most - 1)
        try:
            found = await self._store.posts(self._label, *span)
        except Unavailable as error:
            log.warning("leases.posts_unread", error=str(error))
            self._allowance.read((), workers)
            return told
        posts = self._unread.read(span, found, now)
        changes = [change for post in posts for change in post.changes]
        self._allowance.read([post.size for post in posts], workers)
        self._read_changes += len(changes)
        for change in changes:
            self._apply(change)
        return not self._unread.give_up(now) and told

    def _apply(self, change: Change) -> None:
        known = self._memory.rows.get(change.shard_id)
        if known is not None and not change.is_news_of(known):
            return
        # What this worker is to start, what may be gone, and deferred keys are read from the row itself.
        if change.owner == self._me:
            self._memory.changed_here.add(change.shard_id)
        elif change.state == "deferred" or self._memory.is_deleted(change.shard_id):
            self._memory.doubtful.add(change.shard_id)
        elif known is not None:
            self._memory.hear(replace(known, owner=change.owner, epoch=change.epoch, state=change.state))
        elif (row := change.row) is not None:
            self._memory.hear(row)
        else:
            self._memory.doubtful.add(change.shard_id)
