"""The snapshot of one worker for the status page: made once a second, of what is known anyway. Nothing is asked of AWS
for it, and nothing is counted for it by the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import islice

from consumer.domain.deferred import digest_of
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.operate.history import Rates
from consumer.operate.status import KeyStatus, ShardStatus, SlowReason, WorkerStatus
from consumer.worker.context import WorkerContext
from consumer.worker.shard.shard_worker import Ages, ShardWorker

MOST_KEYS = 20  # of a kind that are listed
MOST_OF_SHARD = 5  # of them of one shard
MOST_FINISHED = 200  # shards that are listed
HOT = 0.1  # of a shard's records: a key with less is like any other
BEHIND = 2.0  # seconds; less is no lag, but the pause between two reads


class ShardSnapshots:
    """Of one incarnation."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._rates = Rates()

    def of(
        self, rows: Sequence[LeaseRow], workers: Mapping[str, ShardWorker], ages: Mapping[str, Ages]
    ) -> Iterator[ShardStatus]:
        """The shards that are not finished. ``ages`` of those that are owned here."""
        now = self._context.ports.clock.monotonic()
        self._rates.keep(workers)
        for row in rows:
            if row.finished:
                continue
            worker = workers.get(row.shard_id)
            yield _others(row) if worker is None else self._own(row, worker, ages[row.shard_id], now)

    def _own(self, row: LeaseRow, worker: ShardWorker, ages: Ages, now: float) -> ShardStatus:
        held = worker.outstanding
        retrying_keys = worker.retrying_keys if held else 0  # as usual: a thousand idle shards report every second
        failing_for = worker.processing.failing_for(now) if held else 0.0
        breaker = worker.breaker
        fails = breaker is not None and (failing_for > 0 or not breaker.is_closed)
        reader = worker.reader.state
        key, share = worker.subscription.hot_keys.hottest(self._context.ports.clock.monotonic()) or (b"", 0.0)
        is_hot = share >= HOT
        return ShardStatus(
            shard_id=row.shard_id,
            state=worker.lease.state,
            owner=self._context.incarnation,
            mine=True,
            epoch=worker.lease.epoch,
            lag=ages.lag,
            in_flight=held,
            retrying_keys=retrying_keys,
            failing_for=failing_for or None,
            deferred_keys=worker.deferred_keys,
            parked_keys=worker.parked.letters_here,
            checkpoint_age=worker.lease.checkpoint_age,
            breaker="closed" if breaker is None else breaker.state,
            last_error=breaker.last_error if breaker is not None and fails else None,
            note=_note(worker) or row.note,
            parents=row.parents,
            headroom=self._context.ports.source.retention - ages.lag,
            slow_because=self._slow_because(worker, ages, retrying_keys),
            read_rate=self._rates.observe(now, row.shard_id, reader.read),
            hot_key=digest_of(key) if is_hot else None,
            hot_key_share=share if is_hot else None,
        )

    def _slow_because(self, worker: ShardWorker, ages: Ages, retrying_keys: int) -> SlowReason | None:
        """The first of ``SLOW`` that holds."""
        breaker = worker.breaker
        if breaker is not None and not breaker.is_closed:
            return "breaker"
        if worker.is_paused:
            return "parked_full" if worker.parked.full else "paused"
        reader = worker.reader
        if reader.state.refusal is not None:
            return "denied"
        if reader.state.throttled:
            return "throttled"
        if reader.state.failing:
            return "read_fails"
        dispatcher = worker.processing.dispatcher
        if dispatcher is not None and dispatcher.letters_waiting:
            return "destination"
        if reader.waits_for_room:
            return "room"
        if dispatcher is not None and dispatcher.waits_for_slot and ages.lag > BEHIND:
            return "place" if self._context.places.are_taken else "slot"
        if retrying_keys:
            return "retrying"
        if worker.deferred_keys:
            return "deferred"
        if worker.releasing:
            return "handing_over"
        return "reading" if ages.lag > BEHIND else None


def _note(worker: ShardWorker) -> str:
    """What the reason why a shard is behind does not say; empty when there is no more to say."""
    breaker, reader = worker.breaker, worker.reader.state
    if breaker is not None and not breaker.is_closed:
        return f"the breaker is {breaker.state}: most of what is tried fails ({breaker.last_error or 'unknown error'})"
    return str(reader.refusal or "") or reader.failing


def _others(row: LeaseRow) -> ShardStatus:
    state = "quarantined" if row.corrupt else row.state
    return ShardStatus(
        row.shard_id, state, row.owner, epoch=row.epoch, note=row.corrupt or row.note, parents=row.parents
    )


def finished_shards(rows: Sequence[LeaseRow]) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], int]:
    """The newest ones, and how many there are. Their ids begin with the time of their creation."""
    done = [row for row in rows if row.finished]
    newest = nlargest(MOST_FINISHED, done, key=lambda row: row.shard_id)
    return tuple((row.shard_id, row.parents) for row in reversed(newest)), len(done)


def keys_that_wait(context: WorkerContext, workers: Mapping[str, ShardWorker]) -> tuple[KeyStatus, ...]:
    """Some of the keys that do not simply go on, by their digests."""
    found = [
        *islice(_each(workers, _retrying), MOST_KEYS),
        *islice(_each(workers, _deferred), MOST_KEYS),
        *(KeyStatus(digest, "parked", since=since) for digest, since in context.parked.some(MOST_KEYS)),
    ]
    return tuple(found)


def _each(
    workers: Mapping[str, ShardWorker], keys_of: Callable[[ShardWorker], Iterator[KeyStatus]]
) -> Iterator[KeyStatus]:
    for worker in workers.values():
        yield from islice(keys_of(worker), MOST_OF_SHARD)


def _retrying(worker: ShardWorker) -> Iterator[KeyStatus]:
    dispatcher = worker.processing.dispatcher
    if dispatcher is not None and dispatcher.failing_keys:
        for key, created in dispatcher.failing(MOST_OF_SHARD):
            yield KeyStatus(digest_of(key), "retrying", worker.shard_id, created)


def _deferred(worker: ShardWorker) -> Iterator[KeyStatus]:
    if worker.deferred_keys:
        for key in worker.subscription.deferred.snapshot():
            yield KeyStatus(key.digest, "deferred", worker.shard_id, key.since)


def fleet(sessions: Sequence[SessionRow], rows: Sequence[LeaseRow], me: str) -> tuple[WorkerStatus, ...]:
    """The workers that can still have leases, this one first."""
    leases = Counter(row.owner for row in rows if not row.finished)
    found = [
        WorkerStatus(
            one.incarnation,
            mine=one.incarnation == me,
            leases=leases[one.incarnation],
            version=one.version,
            started_at=one.started_at,
            leaving=one.leaving,
            capacity=one.capacity,
            failing=one.failing,
        )
        for one in sessions
        if not one.fenced
    ]
    return tuple(sorted(found, key=lambda worker: (not worker.mine, worker.incarnation)))
