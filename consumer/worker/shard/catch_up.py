"""Reads the records of deferred keys again, with a second iterator, once what is in memory of them is settled.

One pass at a time for a shard, which all keys share that may catch up when it begins: it starts at the first unsettled
record among them and goes on until it has seen everything that the main reader has. A key of which too much is in
memory leaves the pass; it begins another one when that is settled. The rules, and why no record is lost or overtaken by
a later one, are in ``domain/deferred.py``. Everything here runs on one event loop: taking a page, by either reader, and
changing the list of deferred keys never interleave.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from functools import partial
from itertools import count

import structlog

from consumer.domain.batching import Entry, PageHold
from consumer.domain.deferred import DeferredKey, blocked_by_parents
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    PermissionDenied,
    ResourceMissing,
    TrimmedData,
    Unavailable,
)
from consumer.domain.frontier import FrontierSnapshot
from consumer.ports.leases import Loss
from consumer.ports.source import Page, Position
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.retrying import Backoff
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.held_lease import HeldLease
from consumer.worker.shard.lineage import Lineage
from consumer.worker.shard.look_back import LookBack
from consumer.worker.shard.page_requests import PageRequests
from consumer.worker.shard.parked_rows import ParkedRows
from consumer.worker.shard.reader import ShardReader
from consumer.worker.shard.subscription import Subscription

log = structlog.get_logger()

MANY_EMPTY = 20  # pages in a row, after which pages are read as rarely as an idle shard is
LOOK = 1.0  # seconds between looks at a parent shard that holds keys back
ERROR_BACKOFF = Backoff(0.2, 10.0)


class CatchUp:
    """The second reader of one shard."""

    def __init__(
        self,
        context: WorkerContext,
        lease: HeldLease,
        reader: ShardReader,
        subscription: Subscription,
        parked: ParkedRows,
        budget: BudgetAccount,
        lineage: Lineage,
    ) -> None:
        self._context = context
        self._requests = PageRequests(context, lease.shard_id, budget)
        self._lease = lease
        self._shard_id = lease.shard_id
        self._parents = lease.row.parents
        self._reader = reader
        self._subscription = subscription
        self._deferred = subscription.deferred
        self._parked = parked
        self._budget = budget  # which the records that are read again are charged to
        self._lineage = lineage
        self._most_records = max(1, context.bounds.line_records // 2)  # of a key: room for what comes after the meeting
        self._most_bytes = context.bounds.line_bytes // 2
        # The service takes few reads a second, and the main reader goes first.
        self._pause = context.stream.format.reading.second_reader
        self._lost = False  # records at the horizon; where it is shows the next page
        # Deferred by another owner, or in a parent: what this worker remembers of them may be nothing, or newer.
        self._unseen = {key.digest for key in self._deferred.snapshot()}
        self._read_at = -math.inf  # on the clock of the loop

    async def run(self, dispatcher: Dispatcher) -> None:
        """Catch up whenever a deferred key may, for ever. LeaseLost."""
        woken = self._subscription.may_catch_up
        while True:
            woken.clear()
            ready = await self._looked_up(self._ready())
            through = [key for key in ready if not key.has_records]
            if through:
                await self._let_through(through)
                continue
            if ready:
                await self._pass(ready, dispatcher)
                continue
            try:
                async with asyncio.timeout(LOOK if self._deferred else None):
                    await woken.wait()
            except TimeoutError:
                pass

    def _ready(self) -> list[DeferredKey]:
        """Keys that may be read again now. Not before the main reader has read again what was settled before a restart:
        a key would meet it below a stretch that hides its records."""
        if not self._deferred or not (self._reader.state.ended or self._subscription.has_read_known):
            return []
        return self._deferred.ready(self._is_blocked)

    async def _looked_up(self, ready: list[DeferredKey]) -> list[DeferredKey]:
        """Those of these keys that are still ready, when it is known which of them are parked: keys that have waited
        for a parent may have been parked there, after this shard has read which keys are. None when that cannot be
        known now."""
        digests = {key.digest for key in ready}
        try:
            for key in ready:
                if key.waits_for_parent:
                    await self._parked.look(key.digest)
        except Unavailable as error:
            log.warning("keys.catch_up_failed", shard_id=self._shard_id, error=str(error), failures=1)
            return []
        return [key for key in self._ready() if key.digest in digests]

    def _is_blocked(self, key: DeferredKey) -> bool:
        return key.waits_for_parent and blocked_by_parents(key, self._lineage.keys_held_back(self._parents))

    async def _let_through(self, keys: list[DeferredKey]) -> None:
        """Nothing of these keys is here to be read again, unless the main reader meets some meanwhile."""
        deferred = self._deferred
        deferred.in_pass.update(dict.fromkeys(key.digest for key in keys))
        await self._look_back(None)
        waiting = [key for key in deferred.snapshot() if key.digest in deferred.in_pass]
        self._meet([key.digest for key in waiting if not key.has_records])
        deferred.in_pass.clear()

    # --- one pass --------------------------------------------------------------------------------------

    async def _pass(self, ready: list[DeferredKey], dispatcher: Dispatcher) -> None:
        deferred, self._lost = self._deferred, False
        deferred.in_pass.update(dict.fromkeys(key.digest for key in ready))
        oldest = min(ready, key=lambda key: int(key.number) + key.passed)
        position = self._position(oldest)
        log.debug("keys.catching_up", shard_id=self._shard_id, keys=len(ready), after=position.sequence_number)
        await self._look_back(position.sequence_number)
        iterator: str | None = None
        failures = empty = 0
        while True:
            # At this moment, not later: nothing is awaited since the page was taken, and the main reader may drop what
            # follows it.
            if _reached(position) >= self._subscription.frontier.newest:
                self._meet(list(deferred.in_pass))
            if not deferred.in_pass:
                return
            await self._keep_distance(empty)
            try:
                if iterator is None:
                    iterator = await self._requests.iterator(position)
                page = await self._requests.read(iterator, partial(self._take, dispatcher))
            except ExpiredIterator:
                iterator = None
                failures += 1
                await asyncio.sleep(ERROR_BACKOFF.after(failures))
                continue
            except TrimmedData:
                await self._lose(position)
                position, iterator = Position("TRIM_HORIZON"), None
                continue
            except (DependencyError, PermissionDenied, ResourceMissing) as error:
                if isinstance(error, ResourceMissing) and await self._lineage.is_gone(self._shard_id):
                    await self._lose(position)
                    self._meet(list(deferred.in_pass))
                    return
                failures += 1
                about = {"shard_id": self._shard_id, "error": str(error), "failures": failures}
                log.warning("keys.catch_up_failed", **about)
                await asyncio.sleep(ERROR_BACKOFF.after(failures))
                continue
            failures = 0
            if page.records:
                position = Position("AFTER_SEQUENCE_NUMBER", page.records[-1].number)
            empty = 0 if page.records else empty + 1
            iterator = page.next_iterator
            if iterator is None:
                self._meet(list(deferred.in_pass))

    async def _look_back(self, number: str | None) -> None:
        """Read once more what came before the keys in the pass, which go on at this record; None: in the shards before
        this one."""
        seen, in_pass = self._subscription.seen, self._deferred.in_pass
        if seen is None or self._unseen.isdisjoint(in_pass):
            return
        first = self._subscription.snapshot(0).first if number is not None else None
        place = FrontierSnapshot(number, first)
        look_back = LookBack(
            self._context, seen.remember_again, self._budget, self._shard_id, self._parents, place, beside=True
        )
        for failures in count(1):
            try:
                await look_back.run()
                break
            except (ExpiredIterator, DependencyError, PermissionDenied) as error:
                about = {"shard_id": self._shard_id, "error": str(error), "failures": failures}
                log.warning("keys.catch_up_failed", **about)
                await asyncio.sleep(ERROR_BACKOFF.after(failures))
        self._unseen.difference_update(in_pass)

    async def _keep_distance(self, empty: int) -> None:
        """From the last read, which may have been of another pass: a key that fills its bound needs many. So many pages
        in a row were ``empty``, which is normal; behind a trimmed shard they never end."""
        loop = asyncio.get_running_loop()
        longest = self._context.settings.source.poll.idle_backoff_max
        pause = self._pause if empty < MANY_EMPTY else max(self._pause, longest)
        await asyncio.sleep(self._read_at + pause - loop.time())
        self._read_at = loop.time()

    def _position(self, key: DeferredKey) -> Position:
        if not key.waits_for_parent:
            return Position("AFTER_SEQUENCE_NUMBER" if key.passed else "AT_SEQUENCE_NUMBER", key.number)
        first = self._subscription.snapshot(0).first
        return Position("AT_SEQUENCE_NUMBER", first) if first is not None else Position("TRIM_HORIZON")

    def _take(self, dispatcher: Dispatcher, page: Page, _size: int) -> bool:
        """Hand on what a page holds of the keys in the pass, up to what the main reader has come to; keys of which
        enough is in memory leave it. What is handed on is copied out, so nothing holds the page."""
        newest = self._subscription.frontier.newest
        hold = PageHold(self._budget, 0, left=0, event_bytes=0)
        entries: list[Entry] = []
        if self._lost and page.records:
            self._lost = False
            first = page.records[0]
            for digest in self._deferred.in_pass:
                self._deferred.lost(digest, first.number, first.created)
        for record in page.records:
            if int(record.number) > newest:
                break
            taken = self._subscription.accept_again(record, hold)
            if taken is not None:
                entries.append(taken[0])
                if self._deferred.is_full_of(taken[1], self._most_records, self._most_bytes):
                    del self._deferred.in_pass[taken[1]]
        dispatcher.add_read_again(entries)
        return False

    def _meet(self, digests: Collection[str]) -> None:
        for digest in digests:
            self._deferred.met(digest)
        self._subscription.changed()

    async def _lose(self, position: Position) -> None:
        """Records of deferred keys were trimmed before they could be read again: a loss with a durable trace."""
        if position.kind == "TRIM_HORIZON":  # it moves on faster than it is read
            await asyncio.sleep(LOOK)
        keys = sorted(self._deferred.in_pass)
        reason = f"trimmed while {len(keys)} keys were deferred: {' '.join(keys[:16])}"
        now = self._context.ports.clock.wall()
        number = position.sequence_number
        after = number and self._context.stream.format.shown(number)
        await self._lease.record_gap(Loss("gap", self._shard_id, after, None, reason, now))
        self._context.metrics.gaps.inc()
        self._deferred.forget_age()
        self._lost = True
        log.error("keys.trimmed", shard_id=self._shard_id, keys=len(keys), after=after)


def _reached(position: Position) -> int:
    """The number up to which a reader at this position has seen everything."""
    number = position.sequence_number
    if number is None:
        return -1
    return int(number) - (position.kind == "AT_SEQUENCE_NUMBER")
