"""What was read shortly before the place where a new owner goes on: changes that come late may be older than that.

Where a source mixes up the order of changes, the worker remembers the newest version of each item. A worker that takes
a shard over has not seen them, nor has one that begins with a child of other workers' shards. So it reads once more
what arrived in the ``PERIOD`` before: of the shard itself, and where that is younger, of the shards before it. Each of
the two readers of a shard does: deferred keys go on at a place of their own, long before that of the others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

import structlog

from consumer.domain.errors import DependencyError, ResourceMissing, Throttled, TrimmedData
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.stream_record import StreamRecord
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.retrying import Backoff
from consumer.worker.shard.page_requests import PageRequests

log = structlog.get_logger()

PERIOD = 30.0  # seconds; DynamoDB puts changes late by milliseconds as a rule, and tries again for some seconds
MOST_THROTTLED = 6  # times in a row, until that is an error to show
AGAIN = Backoff(0.3, 3.0)


@dataclass(slots=True)
class _Stretch:
    """What is to be read of one shard: all up to ``last`` that arrived ``since`` (Unix seconds; None: not known yet).
    ``first`` is the first record that was ever read of it, ``after`` the last one that was remembered. Numbers are
    those of the books."""

    shard_id: str
    parents: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    since: float | None = None
    after: str | None = None


class LookBack:
    """Of one shard, whose ``parents`` are these. Its reader waits meanwhile.

    Args:
        remember: is given the records, oldest first, with their ordering keys, and whether they are of this shard.
        resume_from: where the reader goes on; only ``first`` and ``low`` matter.
        beside: another one reads the shard at the same time.
    """

    def __init__(
        self,
        context: WorkerContext,
        remember: Callable[[StreamRecord, bytes, bool], None],
        budget: BudgetAccount,
        shard_id: str,
        parents: tuple[str, ...],
        resume_from: FrontierSnapshot,
        *,
        beside: bool = False,
    ) -> None:
        self._context = context
        self._key_of = context.stream.format.key_of
        self._limits = context.stream.format.reading
        self._remember = remember
        self._beside = beside
        self._budget = budget
        self._own = _Stretch(shard_id, parents, resume_from.first, resume_from.low or resume_from.first)
        self._met = {shard_id}
        self._prepared = set[str]()
        self._left = [self._own]
        self._due = -math.inf  # of the next read, on the clock of the loop

    async def run(self) -> None:
        """Returns at once when it is done already. Raises what reading raises, and goes on where it was when called
        again. Older shards come first: what is remembered must be in the order in which it was put."""
        while self._left:
            stretch = self._left[-1]
            if stretch.shard_id not in self._prepared:
                before = sorted(set(await self._prepare(stretch)) - self._met)
                self._prepared.add(stretch.shard_id)
                self._met.update(before)
                self._left.extend(_Stretch(shard_id) for shard_id in before)
                continue
            with suppress(TrimmedData, ResourceMissing):  # meanwhile
                await self._read(stretch)
            self._left.pop()

    async def _prepare(self, stretch: _Stretch) -> Collection[str]:
        """Find out what of a shard is to be read; returns the shards that have to be read before it."""
        if stretch is not self._own:
            await self._look_up(stretch)
        if stretch.last is None:
            return stretch.parents
        requests = PageRequests(self._context, stretch.shard_id, self._budget)
        try:
            if stretch.since is None:
                page = await self._first_page(requests, Position("AT_SEQUENCE_NUMBER", stretch.last))
                stretch.since = (page.arrived or page.records[0].created) - PERIOD
            if not stretch.parents or stretch.first is None:
                return stretch.parents
            page = await self._first_page(requests, Position("AT_TIMESTAMP", timestamp=stretch.since))
        except (TrimmedData, ResourceMissing):  # so old that nothing of the period is left
            stretch.last = None
            return ()
        return stretch.parents if int(page.records[0].number) <= int(stretch.first) else ()

    async def _look_up(self, stretch: _Stretch) -> None:
        """From its row as it is now: what a worker remembers of others' shards is old."""
        store, label = self._context.ports.store, self._context.stream.label
        try:
            row = await store.lease(label, stretch.shard_id)
        except ResourceMissing as error:  # the lease table, not a shard
            raise DependencyError("GetItem", "ResourceMissing", str(error)) from error
        if row is not None:
            frontier = row.frontier
            stretch.parents, stretch.first, stretch.last = row.parents, frontier.first, frontier.low or frontier.first

    async def _read(self, stretch: _Stretch) -> None:
        if stretch.since is None or stretch.last is None:
            return
        requests = PageRequests(self._context, stretch.shard_id, self._budget)
        position = Position("AT_TIMESTAMP", timestamp=stretch.since)
        if stretch.after is not None:
            position = Position("AFTER_SEQUENCE_NUMBER", stretch.after)
        iterator: str | None = await requests.iterator(position)
        until = int(stretch.last)
        while iterator is not None:
            page = await self._page(requests, iterator)
            for record in page.records:
                if int(record.number) <= until:
                    self._remember(record, self._key_of(record), stretch is self._own)
                    stretch.after = record.number
            if page.at_tip or (page.records and int(page.records[-1].number) >= until):
                break
            iterator = page.next_iterator
        log.debug("shard.looked_back", shard_id=stretch.shard_id, since=stretch.since, until=stretch.last)

    async def _first_page(self, requests: PageRequests, position: Position) -> Page:
        """With one record. TrimmedData when there is none."""
        iterator: str | None = await requests.iterator(position)
        while iterator is not None:
            page = await self._page(requests, iterator, most=1)
            if page.records:
                return page
            if page.at_tip:
                break
            iterator = page.next_iterator
        raise TrimmedData(f"nothing is left of {requests.shard_id} there")

    async def _page(self, requests: PageRequests, iterator: str, most: int | None = None) -> Page:
        """At a pace that the service allows, also when the other children of a shard look back into it at the same
        time. Its owner's reads may take what is left: a page that is throttled is asked for again, some times."""
        loop, random = asyncio.get_running_loop(), self._context.ports.random.random
        for throttled in count(1):
            await asyncio.sleep(max(0.0, self._due - loop.time()))
            try:
                page = await requests.read(iterator, lambda page, size: False, most=most)
            except Throttled:
                if throttled == MOST_THROTTLED:
                    raise
                await asyncio.sleep(AGAIN.after(throttled) * (0.5 + random()))
                continue
            pause = self._limits.pause_behind(page.wire_bytes)
            others = self._beside or requests.shard_id != self._own.shard_id
            self._due = loop.time() + (max(pause, self._limits.second_reader) if others else pause)
            return page
        raise AssertionError("unreachable: count has no end")
