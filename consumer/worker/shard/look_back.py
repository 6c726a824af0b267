"""What was read shortly before the place where a new owner goes on: changes that come late may be older than that.

Where a source mixes up the order of changes, the worker remembers the newest version of each item. A worker that takes
a shard over has not seen them, nor has one that begins with a child of other workers' shards. So it reads once more
what arrived in the ``PERIOD`` before: of the shard itself, or of its parents while nothing of it is settled.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from consumer.domain.errors import DependencyError, ResourceMissing, TrimmedData
from consumer.domain.frontier import FrontierSnapshot
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.page_requests import PageRequests
from consumer.worker.shard.seen_versions import SeenVersions

log = structlog.get_logger()

PERIOD = 30.0  # seconds; DynamoDB puts changes late by milliseconds as a rule, and tries again for some seconds


class LookBack:
    """Of one shard, whose ``parents`` are these. The main reader waits meanwhile."""

    def __init__(
        self,
        context: WorkerContext,
        seen: SeenVersions,
        budget: BudgetAccount,
        shard_id: str,
        parents: tuple[str, ...],
        resume_from: FrontierSnapshot,
    ) -> None:
        self._context = context
        self._key_of = context.stream.format.key_of
        self._limits = context.stream.format.reading
        self._seen = seen
        self._budget = budget
        self._shard_id = shard_id
        self._parents = parents
        self._low = resume_from.low
        self._left: list[tuple[str, str]] | None = None

    async def run(self) -> None:
        """Returns at once when it is done already. Raises what reading raises, and goes on then when called again."""
        if self._left is None:
            self._left = [(self._shard_id, self._low)] if self._low is not None else await self._ends_before()
        while self._left:
            with suppress(TrimmedData, ResourceMissing):  # so old that nothing of the period is left
                await self._read(*self._left[-1])
            self._left.pop()

    async def _ends_before(self) -> list[tuple[str, str]]:
        """The shards that come right before this one, with their last records: its parents, or those of a parent in
        which nothing was read. From their rows as they are now: what a worker remembers of others' shards is old."""
        store, label = self._context.ports.store, self._context.stream.label
        found: dict[str, str] = {}
        left, met = list(self._parents), set[str]()
        while left:
            shard_id = left.pop()
            try:
                row = await store.lease(label, shard_id) if shard_id not in met else None
            except ResourceMissing as error:  # the lease table, not a shard
                raise DependencyError("GetItem", "ResourceMissing", str(error)) from error
            met.add(shard_id)
            if row is not None and row.frontier.low is not None:
                found[shard_id] = row.frontier.low
            elif row is not None:
                left.extend(row.parents)
        return sorted(found.items())

    async def _read(self, shard_id: str, last: str) -> None:
        """What arrived of the shard in the period before the record ``last``, and that one."""
        requests = PageRequests(self._context, shard_id, self._budget)
        since = await self._arrival(requests, last) - PERIOD
        iterator: str | None = await requests.iterator(Position("AT_TIMESTAMP", timestamp=since))
        count, until = 0, int(last)
        while iterator is not None:
            page = await requests.read(iterator, lambda page, size: False)
            for record in page.records:
                if int(record.number) <= until:
                    self._seen.remember(record, self._key_of(record))
                    count += 1
            if page.at_tip or (page.records and int(page.records[-1].number) >= until):
                break
            iterator = page.next_iterator
            await asyncio.sleep(self._limits.pause_after(page.wire_bytes, full=True, patience=0.0))
        log.debug("shard.looked_back", shard_id=shard_id, records=count, since=since)

    async def _arrival(self, requests: PageRequests, number: str) -> float:
        """When the record came to the stream (Unix seconds), or somewhat earlier."""
        iterator: str | None = await requests.iterator(Position("AT_SEQUENCE_NUMBER", number))
        page: Page | None = None
        while iterator is not None and (page is None or not page.records):
            page = await requests.read(iterator, lambda page, size: False, most=1)
            iterator = page.next_iterator
            if not page.records:
                await asyncio.sleep(self._limits.pause_after(page.wire_bytes, full=True, patience=0.0))
        if page is None or not page.records:
            raise TrimmedData(f"record {number} of {self._shard_id} is not there any more")
        tip = requests.asked_at - page.behind if page.behind else 0.0
        return max(page.records[0].created, tip)
