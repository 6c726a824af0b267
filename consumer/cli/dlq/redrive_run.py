"""What ``dlq redrive`` runs: first single letters, then parked keys."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import click

from consumer.cli.dlq.progress import Progress, shown_progress
from consumer.cli.dlq.reach import Reach, reached, say_what_is_not_shown
from consumer.cli.dlq.request import Request
from consumer.cli.failures import EX_CONFIG, fail
from consumer.cli.handler_run import started_handler
from consumer.domain.parking import Parked
from consumer.domain.settlement import RetryPolicy
from consumer.ports.handler import Handler
from consumer.ports.items import SourceItems
from consumer.ports.parked_letters import ParkedLetterBox
from consumer.ports.source import StreamDescription
from consumer.redrive.attempts import Attempts, Calls, Pace
from consumer.redrive.gathering import GatheredLetter, whole_keys
from consumer.redrive.key_run import Rules
from consumer.redrive.letter_deletion import LetterDeletion
from consumer.redrive.parked import ParkedRedrive
from consumer.redrive.parked_in_queue import ParkedInQueue
from consumer.redrive.parked_keys import (
    ParkedHandling,
    ParkedKeys,
    ParkedSummary,
    letters_waiting,
    selected_keys,
    would_be,
)
from consumer.redrive.reading_again import ReadingAgain
from consumer.redrive.redrive import LetterResult, Redrive, Summary
from consumer.redrive.session import RedriveSession

RETRIES: Final = 2  # of a record, where the configuration says for ever
MOST_RETRIES: Final = 10
MOST_BACKOFF: Final = 5.0  # seconds between two attempts
ORPHAN: Final = "is of a key that is not parked any more, or not as it was then: handled, unless rows were lost"


async def redriven(request: Request) -> tuple[Summary, ParkedSummary]:
    """What came of the letters and of the parked keys. Unavailable, SessionFenced, MisconfiguredResource."""
    stop = asyncio.Event()
    with _stopped_by_signals(stop):
        async with reached(request.settings, request.place) as reach:
            stream = await reach.source()
            if request.dry_run:
                return await _Run(request, reach, stream, stop).look()
            async with started_handler(request.settings, request.concurrency) as handler, reach.claimed() as session:
                return await _Run(request, reach, stream, stop).work(handler, session)


class _Run:
    """One run of the command."""

    def __init__(self, request: Request, reach: Reach, stream: StreamDescription, stop: asyncio.Event) -> None:
        self._request = request
        self._reach = reach
        self._stream = stream
        self._stop = stop
        self._gathering = reach.gathering(stream)
        self._filters = request.settings.compiled_filters()

    async def look(self) -> tuple[Summary, ParkedSummary]:
        """A dry run."""
        letters, _ = await self._gathered()
        keys = selected_keys(await self._parked(), self._request.which, self._limit_after(letters))
        with self._progress(letters, keys) as progress:
            summary = await self._letters(letters, None, None, progress)
            results = [would_be(one) for one in keys]
            for result in results:
                progress.key(result)
        return summary, ParkedSummary(results)

    async def work(self, handler: Handler, session: RedriveSession) -> tuple[Summary, ParkedSummary]:
        letters, aside = await self._gathered()
        parked = await self._parked()
        keys = selected_keys(parked, self._request.which, self._limit_after(letters))
        attempts = Attempts(
            await self._calls(handler, session), Pace(self._reach.clock, self._request.rate), self._stop
        )
        with self._progress(letters, keys) as progress:
            summary = await self._letters(letters, attempts, session, progress)
            box = self._reach.parked_by_name or ParkedInQueue(
                self._gathering, self._reach.held, self._reach.payloads, aside
            )
            after = await self._keys(keys, attempts, session, box, progress)
            if isinstance(box, ParkedInQueue):
                known = [row.park_id for one in parked for row in (one.key, *one.shards) if row is not None]
                for found in box.others(known):
                    result = LetterResult(found, "left", ORPHAN)
                    summary.results.append(result)
                    progress.letter(result)
        return summary, after

    # --- single letters ----------------------------------------------------------------------------------

    async def _gathered(self) -> tuple[list[GatheredLetter], list[GatheredLetter]]:
        """Single letters, and those of parked keys as far as they came with them."""
        waiting = await self._reach.store.waiting()
        gathered = await self._gathering.gather(self._request.which, parked=False, stop=self._stop)
        say_what_is_not_shown(gathered, waiting)
        return whole_keys(gathered.letters, self._request.limit), gathered.parked

    def _limit_after(self, letters: Sequence[GatheredLetter]) -> int | None:
        limit = self._request.limit
        return None if limit is None else max(0, limit - len(letters))

    async def _letters(
        self,
        letters: Sequence[GatheredLetter],
        attempts: Attempts | None,
        session: RedriveSession | None,
        progress: Progress,
    ) -> Summary:
        reach, key_of = self._reach, self._stream.format.key_of
        rules = Rules(self._filters, await self._items() if letters else None, await self._again())
        deletion = LetterDeletion(reach.held, reach.payloads, session) if session is not None else None
        work = Redrive(self._gathering, deletion, key_of, progress.letter)
        return await work.run(letters, rules, attempts, self._stop, self._request.concurrency)

    async def _items(self) -> SourceItems | None:
        if self._request.force or not self._request.check:
            why = "--force" if self._request.check else "--check none"
            click.echo(f"the source is not compared with ({why}): records may be older than their item", err=True)
            return None
        table = self._table
        if not table:
            fail("the stream has no table of which items could be read: use --force to handle its records", EX_CONFIG)
        return await self._reach.adapters.items(table)

    async def _again(self) -> ReadingAgain:
        """For redacted letters, whatever is compared otherwise."""
        if not self._request.check:
            return ReadingAgain(None, "--check none reads no items")
        if not self._table:
            return ReadingAgain(None, "the stream names no table (source.table does)")
        return ReadingAgain(await self._reach.adapters.items(self._table))

    @property
    def _table(self) -> str:
        return self._request.settings.source.table or self._stream.table_name

    # --- parked keys -------------------------------------------------------------------------------------

    async def _parked(self) -> Sequence[Parked]:
        return await self._reach.main.store.parked()

    async def _keys(
        self,
        keys: Sequence[Parked],
        attempts: Attempts,
        session: RedriveSession,
        box: ParkedLetterBox,
        progress: Progress,
    ) -> ParkedSummary:
        claims = await self._reach.adapters.claims()
        handling = ParkedHandling(attempts, self._filters, progress.parked_letters)
        redrive = ParkedRedrive(
            self._reach.main.store,
            box,
            handling,
            session,
            lambda: str(uuid.uuid4()),
            claims.note_lost_letter if self._request.accept_loss else None,
            await self._again(),
        )
        work = ParkedKeys(redrive, handling, self._stop)
        return await work.run(keys, self._request.concurrency, progress.key)

    # --- both --------------------------------------------------------------------------------------------

    def _progress(self, letters: Sequence[GatheredLetter], keys: Sequence[Parked]) -> AbstractContextManager[Progress]:
        length = len(letters) + sum(map(letters_waiting, keys))
        return shown_progress(length, as_json=self._request.as_json, dry_run=self._request.dry_run)

    async def _calls(self, handler: Handler, session: RedriveSession) -> Calls:
        settings, retry = self._request.settings, self._request.settings.retry
        policy = RetryPolicy(
            max_retries=RETRIES if retry.max_retry_attempts < 0 else min(retry.max_retry_attempts, MOST_RETRIES),
            bisect=retry.bisect_on_error,
            initial_backoff=min(retry.backoff.initial, MOST_BACKOFF),
            max_backoff=min(retry.backoff.max, MOST_BACKOFF),
        )
        epochs = {row.shard_id: row.epoch for row in await self._reach.main.store.leases(self._stream.label)}
        return Calls(
            handler=handler,
            session=session,
            application=settings.application,
            timeout=settings.handler.timeout,
            batch_size=settings.batch.batch_size,
            policy=policy,
            epoch_of=lambda shard_id: epochs.get(shard_id, 0),
            redaction=settings.on_failure.redaction,
        )


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets calls end and puts the rest back; nothing is cut short by it."""
    loop = asyncio.get_running_loop()

    def begin() -> None:
        if not stop.is_set():
            click.echo("stopping: calls under way end, the rest is left", err=True)
        stop.set()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, begin)
    try:
        yield
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(signum)
