"""Follows a stream by reading alone: every shard after its parents, gently, until enough records came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

import click

from consumer.cli.failures import EX_USAGE, fail
from consumer.cli.reach import Reach
from consumer.domain.errors import DependencyError, ExpiredIterator, ResourceMissing, TrimmedData
from consumer.domain.lineage import Lineage
from consumer.domain.shards import ShardInfo
from consumer.domain.stream_record import StreamRecord
from consumer.ports.source import Page, Position, StreamDescription, StreamSource
from consumer.worker.retrying import Backoff
from consumer.worker.tasks import Stopped, until_stopped

PAUSE: Final = 0.5  # seconds between two reads of a shard: it has five a second, which its owner needs, too
AT_TIP: Final = 1.0  # the same when nothing new is there
AT_ONCE: Final = 16  # reads under way
ATTEMPTS: Final = 8  # to read a shard for the first time: later failures are waited for
AGAIN: Final = Backoff(0.5, 10.0)
CHILDREN: Final = 10.0  # seconds between looks for the children of a shard that has ended; they are shown late

Show = Callable[[StreamRecord], bool]
"""Is given a record, and says whether it counts."""


class Tail:
    """One run. ``limit``: records that count; None: without end. ``is_read``: whether what is shown has a reader."""

    def __init__(self, reach: Reach, show: Show, limit: int | None, is_read: Callable[[], bool]) -> None:
        self._reach = reach
        self._show = show
        self._is_read = is_read
        self._left = limit
        self._enough = asyncio.Event()
        self._reads = asyncio.Semaphore(AT_ONCE)
        self._since = 0.0
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    async def run(self, since: float | None, chosen: Collection[str]) -> None:
        """From ``since`` on: as ``position_or_ago`` gives it. Returns after ``limit`` records, or without a reader.
        What the source raises, PermissionDenied among it, ends it."""
        source = self._reach.source
        stream = await source.describe()
        if since is not None:
            self._since = stream.server_time + since if since < 0 else since
        listed = await source.list_shards()
        graph = Lineage(listed, {})
        unknown = set(chosen) - graph.listed.keys()
        if unknown:
            fail(f"the stream has no shard {', '.join(sorted(unknown))}: see `stream-consumer shards`", EX_USAGE)
        wanted = graph.descendants(chosen or graph.listed)
        if since is None:
            wanted = {i for i in wanted if graph.listed[i].ending_sequence_number is None}
        else:
            wanted -= graph.ended_before(self._since, stream.format.created) if self._since else set()
        start = Position("LATEST") if since is None else Position("TRIM_HORIZON", not_before=self._since or None)
        try:
            await until_stopped(self._enough, self._follow(source, stream, graph.listed, wanted, start))
        except Stopped:
            return

    async def _follow(
        self,
        source: StreamSource,
        stream: StreamDescription,
        listed: Mapping[str, ShardInfo],
        wanted: Collection[str],
        start: Position,
    ) -> None:
        waiting = {shard_id: listed[shard_id] for shard_id in wanted}

        async with asyncio.TaskGroup() as tasks:

            def begin_what_may(position: Position) -> None:
                for shard_id, shard in sorted(waiting.items()):
                    if all(parent not in self._open(waiting) for parent in shard.parents):
                        del waiting[shard_id]
                        self._begun.add(shard_id)
                        tasks.create_task(one(shard_id, position))

            async def one(shard_id: str, position: Position) -> None:
                await self._read(source, stream, shard_id, position)
                self._ended.add(shard_id)
                begin_what_may(Position("TRIM_HORIZON", not_before=self._since or None))
                children = await self._children(source, shard_id)
                waiting.update({child.shard_id: child for child in children if child.shard_id not in self._begun})
                begin_what_may(Position("TRIM_HORIZON"))

            begin_what_may(start)

    def _open(self, waiting: Collection[str]) -> set[str]:
        """Shards of this run whose end was not read yet."""
        return (self._begun | set(waiting)) - self._ended

    async def _children(self, source: StreamSource, shard_id: str) -> list[ShardInfo]:
        """They are visible late; a stream that was disabled ends without any, and is waited for as well."""
        while True:
            try:
                if found := await source.child_shards(shard_id):
                    return found
            except ResourceMissing:
                return []
            except DependencyError as error:
                click.echo(f"children of {shard_id}: {error}", err=True)
            await self._reach.sleep(CHILDREN)

    async def _read(self, source: StreamSource, stream: StreamDescription, shard_id: str, place: Position) -> None:
        """Show the records of one shard until its end."""
        iterator: str | None = None
        failures, has_read = 0, False
        while True:
            try:
                async with self._reads:
                    if iterator is None:
                        iterator = await source.iterator(shard_id, place)
                    page = await source.get_records(shard_id, iterator, self._reach.settings.source.poll.max_records)
            except TrimmedData:
                click.echo(f"{shard_id}: records were trimmed before they could be shown", err=True)
                iterator, place = None, Position("TRIM_HORIZON")
                continue
            except ResourceMissing:
                click.echo(f"{shard_id} has left the stream", err=True)
                return
            except (DependencyError, ExpiredIterator) as error:
                failures += 1
                if failures == ATTEMPTS and not has_read:
                    raise
                iterator = None if isinstance(error, ExpiredIterator) else iterator
                await self._reach.sleep(AGAIN.after(failures))
                continue
            failures, has_read = 0, True
            if not self._is_read():
                self._enough.set()
                return
            if page.records:
                place = Position("AFTER_SEQUENCE_NUMBER", page.records[-1].number)
                self._show_all(page)
            if page.next_iterator is None:
                return
            iterator = page.next_iterator
            await self._reach.sleep(self._pause(stream, page))

    def _show_all(self, page: Page) -> None:
        for record in page.records:
            if self._enough.is_set():
                return
            if 0 < record.created < self._since or not self._show(record):
                continue
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    self._enough.set()

    def _pause(self, stream: StreamDescription, page: Page) -> float:
        """Half of what a shard gives is left to its owner."""
        limits = stream.format.reading
        usual = AT_TIP if page.at_tip else max(PAUSE, limits.second_reader)
        return max(usual, 2 * page.wire_bytes / limits.bytes_per_second)
