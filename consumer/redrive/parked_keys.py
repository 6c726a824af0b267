"""Brings back several parked keys at once: which of them, by whose calls, and what came of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import structlog

from consumer.domain.errors import DependencyError, StreamConsumerError, first_error
from consumer.domain.filters.filters import Filters
from consumer.domain.letter_selection import Selection
from consumer.domain.parking import Parked, ParkedShard
from consumer.domain.settlement import RetryPolicy
from consumer.domain.stream_record import StreamRecord
from consumer.redrive.attempts import STOPPED, Attempts
from consumer.redrive.parked import KeyResult, ParkedRedrive

log = structlog.get_logger()

MOST_FAILURES = 6  # of a key in a row: half a minute of a service that does not answer
AGAIN = RetryPolicy(initial_backoff=1.0, max_backoff=16.0)


@dataclass(slots=True)
class ParkedSummary:
    """``filtered`` counts records that the filters do not let through any more, so that no handler gets them;
    ``stopped`` says that it ended before its work was done."""

    results: list[KeyResult] = field(default_factory=list)
    filtered: int = 0
    stopped: bool = False

    @property
    def left(self) -> list[KeyResult]:
        """Keys that are still parked."""
        return [one for one in self.results if one.left is not None]

    @property
    def letters_handled(self) -> int:
        return sum(one.handled for one in self.results)


def letters_waiting(parked: Parked) -> int:
    """Letters of a key that were not handled yet."""
    return sum(row.letters - row.done for row in parked.shards)


def would_be(parked: Parked) -> KeyResult:
    """What a redrive would do for a key, as far as its rows say."""
    if parked.damaged:
        return KeyResult(parked.digest, 0, "damaged", parked.damaged[0].problem)
    return KeyResult(parked.digest, letters_waiting(parked))


def selected_keys(parked: Sequence[Parked], selection: Selection, limit: int | None) -> list[Parked]:
    """The keys that a command is about, those that are parked for longest first. A key comes back as a whole, so the
    last one may have more letters than ``limit`` has left. Those whose rows cannot be read are told in any case."""
    keys = [(one.key.since, one) for one in parked if one.key is not None and selection.takes_parked(one.key)]
    taken = [one for one in parked if one.key is None and one.damaged and selection.key in (None, one.digest)]
    letters = 0
    for _, one in sorted(keys, key=lambda pair: pair[0]):
        if limit is not None and letters >= limit:
            break
        taken.append(one)
        letters += letters_waiting(one)
    return taken


class ParkedHandling:
    """``redrive.parked.Handle``: the configured handler, as for any other letter. ``reasons`` says of each key (by its
    digest) why it was not handled further; ``done`` is told how many records were."""

    def __init__(self, attempts: Attempts, filters: Filters, done: Callable[[int], None]) -> None:
        self._attempts = attempts
        self._filters = filters
        self._done = done
        self.reasons: dict[str, str] = {}
        self.filtered = 0

    async def __call__(self, records: Sequence[StreamRecord], shard: ParkedShard) -> int:
        wanted = [one for one in records if not self._filters or self._filters.matches(one)]
        ended = await self._attempts.run(wanted, shard.shard_id)
        unhandled = {one.number for one in wanted} - ended.handled
        count = next((place for place, one in enumerate(records) if one.number in unhandled), len(records))
        self.filtered += count - sum(one.number in ended.handled for one in records[:count])
        if unhandled:
            self.reasons[shard.digest] = next(iter(ended.failed.values()), ended.reason)
        self._done(count)
        return count


class ParkedKeys:
    """Runs a redrive over several keys.

    Args:
        redrive: brings back one key.
        handling: its calls.
        stop: set when nothing further is to begin.
    """

    def __init__(self, redrive: ParkedRedrive, handling: ParkedHandling, stop: asyncio.Event) -> None:
        self._redrive = redrive
        self._handling = handling
        self._stop = stop

    async def run(self, keys: Sequence[Parked], concurrency: int, done: Callable[[KeyResult], None]) -> ParkedSummary:
        """``done`` is told of each key. Unavailable, SessionFenced: then other keys have ended as they should."""
        summary = ParkedSummary()
        failures: list[StreamConsumerError] = []
        turns = asyncio.Semaphore(concurrency)

        async def one(digest: str) -> None:
            async with turns:
                if self._stop.is_set():
                    result = KeyResult(digest, 0, "failed", STOPPED)
                else:
                    try:
                        result = await self._key(digest)
                    except StreamConsumerError as error:
                        failures.append(error)
                        self._stop.set()
                        return
                summary.results.append(result)
                done(result)

        async with asyncio.TaskGroup() as tasks:
            for parked in keys:
                tasks.create_task(one(parked.digest))
        if failures:
            raise failures[0]
        summary.filtered = self._handling.filtered
        summary.stopped = self._stop.is_set()
        return summary

    async def _key(self, digest: str) -> KeyResult:
        result = await self._until_answered(digest)
        reason = self._handling.reasons.get(digest)
        if result.left == "failed" and reason:
            return replace(result, detail=f"{result.detail} {reason}")
        return result

    async def _until_answered(self, digest: str) -> KeyResult:
        """A call that fails ends this round of the key, and neither the others nor the redrive: it is claimed anew."""
        for failures in count(1):
            try:
                return await self._redrive.redrive(digest)
            except (StreamConsumerError, ExceptionGroup) as raised:
                error = first_error(raised) if isinstance(raised, ExceptionGroup) else raised
                if not isinstance(error, DependencyError) or failures >= MOST_FAILURES or self._stop.is_set():
                    raise error from raised
                log.warning("key.redrive_failed", key_digest=digest, failures=failures, error=str(error))
            await asyncio.sleep(AGAIN.backoff(failures))
        raise AssertionError("unreachable: count has no end")
