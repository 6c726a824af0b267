"""What the worker reports about itself: signs of life, loop stalls, gauges and the status snapshot."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import structlog

from consumer import __version__
from consumer.domain.lease import LeaseRow
from consumer.domain.service_time import MOST_APART
from consumer.operate import sd_notify
from consumer.operate.metrics import BREAKER_STATES, LEASE_STATES, SHARD_STATES, Metrics
from consumer.operate.status import ShardStatus, Status, StatusBoard
from consumer.operate.stuck_keys import stuck_shards
from consumer.ports.time import Clock, ServiceClock
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.shard.shard_worker import Ages, ShardWorker
from consumer.worker.snapshot import ShardSnapshots, finished_shards, fleet, keys_that_wait

log = structlog.get_logger()

PULSE = 0.1  # seconds between beats: the resolution of loop_stall_seconds
BEATS_PER_REPORT = 10


class Pulse:
    """The main loop's sign of life. ``beats`` is read by the watchdog on the control thread."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self.beats = 0

    async def run(self) -> None:
        """Beat for ever; report the longest stall of the loop in each report interval."""
        worst = 0.0
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(PULSE)
            worst = max(worst, self._clock.monotonic() - before - PULSE)
            self.beats += 1
            if self.beats % BEATS_PER_REPORT == 0:
                self._metrics.loop_stall_seconds.set(worst)
                worst = 0.0


class ClockWatch:
    """Whether this machine's clock and the services' agree."""

    def __init__(self, clock: ServiceClock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._differs = False

    def look(self) -> None:
        """Publish by how much they differ, and log when that begins or ends to matter."""
        ahead = self._clock.ahead()
        self._metrics.clock_ahead_seconds.set(ahead)
        if (abs(ahead) > MOST_APART) == self._differs:
            return
        self._differs = not self._differs
        if self._differs:
            effect = "no record is given up for its age until they agree; set the machine's clock"
            log.warning("clock.differs", ahead=round(ahead, 1), effect=effect)
        else:
            log.info("clock.agrees", ahead=round(ahead, 1))


class Reporter:
    """Publishes one incarnation's state every second."""

    def __init__(self, context: WorkerContext, coordinator: Coordinator, board: StatusBoard, started_at: float) -> None:
        self._context = context
        self._coordinator = coordinator
        self._board = board
        self._started_at = started_at
        self._clock_watch = ClockWatch(context.ports.clock, context.metrics)
        self._snapshots = ShardSnapshots(context)

    async def run(self) -> None:
        """Report for ever; the first time as soon as the first plan is carried out."""
        await self._coordinator.planned.wait()
        self._board.reached("first_plan")
        sd_notify.ready("running")
        try:
            while True:
                self.report()
                await asyncio.sleep(PULSE * BEATS_PER_REPORT)
        finally:
            self._board.blocked = "this session has ended and there is no other one yet"

    def report(self) -> None:
        self._clock_watch.look()
        now = self._context.ports.clock.wall()
        workers = {worker.shard_id: worker for worker in self._coordinator.workers}
        rows = list(self._coordinator.rows)
        ages = {shard_id: self._shard_gauges(worker, now) for shard_id, worker in workers.items()}
        lag = max((one.lag for one in ages.values()), default=0.0)
        shards = tuple(self._snapshots.of(rows, workers, ages))
        self._process_gauges(rows, workers, shards, now)
        self._readiness(list(workers.values()))
        self._remember(lag)
        iterator_age = max((one.unread for one in ages.values()), default=0.0)
        status = self._status(rows, workers, shards, now, iterator_age)
        self._board.publish(status)
        self._coordinator.tell_failing(shard.shard_id for shard in stuck_shards(status))
        sd_notify.status(f"shards={len(workers)} lag={lag:.1f}s")

    def _remember(self, lag: float) -> None:
        history, now = self._board.history, self._context.ports.clock.monotonic()
        if history.observe(now, lag):
            metrics = self._context.metrics
            counted = {
                "handled": metrics.records("handled").value,
                "dead_letters": sum(metrics.dead_letters.counted("reason").values()),
                "throttles": sum(metrics.throttles.counted("operation").values()),
            }
            history.add(now, counted, metrics.api_calls.counted("operation"))

    def _readiness(self, workers: Sequence[ShardWorker]) -> None:
        """Whether anything can work at this moment. A worker that stands by is ready."""
        context = self._context
        has_read = any(worker.reader.state.answered or worker.reader.state.ended for worker in workers)
        if has_read or self._coordinator.stands_by:
            self._board.reached("first_read")
        reasons = [worker.cannot_read for worker in workers]
        if not context.validity.holds(context.ports.clock.monotonic()):
            self._board.blocked = "the session could not be renewed in time: no handler call may start"
        elif reasons and all(reasons):
            self._board.blocked = f"no shard of this worker can be read: {reasons[0]}"
        else:
            self._board.blocked = ""

    def _shard_gauges(self, worker: ShardWorker, now: float) -> Ages:
        gauges = self._context.metrics.shard(worker.shard_id)
        ages = worker.ages(now)
        gauges.oldest_unsettled_seconds, gauges.iterator_age_seconds = ages
        lag = gauges.lag_seconds = ages.lag
        gauges.retention_headroom_seconds = self._context.ports.source.retention - lag
        gauges.checkpoint_age_seconds = worker.lease.checkpoint_age
        monotonic = self._context.ports.clock.monotonic()
        gauges.failing_seconds = worker.processing.failing_for(monotonic)
        hottest = worker.subscription.hot_keys.hottest(monotonic)
        gauges.hot_key_share = hottest[1] if hottest else None
        gauges.breaker_state = BREAKER_STATES.index(worker.breaker.state if worker.breaker else "closed")
        return ages

    def _process_gauges(
        self, rows: list[LeaseRow], workers: dict[str, ShardWorker], shards: Sequence[ShardStatus], now: float
    ) -> None:
        metrics = self._context.metrics
        states = Counter(_state(row, workers.get(row.shard_id)) for row in rows)
        for state in SHARD_STATES:
            metrics.shards(state).set(states[state])
        active = [row for row in rows if not row.finished]
        sharing = max(1, sum(1 for s in self._coordinator.sessions if not s.leaving and not s.fenced))
        counts = {
            "owned": len(workers),
            "target": -(-len(active) // sharing),
            "free": sum(1 for row in active if row.owner is None),
            "total": len(active),
        }
        for state in LEASE_STATES:
            metrics.leases(state).set(counts[state])
        metrics.handler_saturation.value = self._context.places.saturation()
        metrics.buffered_bytes.set(self._context.budget.used)
        metrics.retrying_keys.set(sum(shard.retrying_keys or 0 for shard in shards))
        metrics.deferred_keys.set(sum(shard.deferred_keys or 0 for shard in shards))
        parked = self._context.parked
        metrics.parked_keys.set(len(parked))
        metrics.oldest_parked_seconds.set(max(0.0, now - parked.oldest) if parked.oldest else 0.0)
        failing = (workers[shard.shard_id] for shard in shards if shard.retrying_keys)
        metrics.paused_shards.set(sum(worker.is_paused for worker in failing))

    def _status(
        self,
        rows: Sequence[LeaseRow],
        workers: Mapping[str, ShardWorker],
        shards: tuple[ShardStatus, ...],
        now: float,
        iterator_age: float,
    ) -> Status:
        context, metrics, sessions = self._context, self._context.metrics, self._coordinator.sessions
        finished, finished_count = finished_shards(rows)
        free = self._coordinator.free_since.values()
        backlog = metrics.dead_letter_backlog.value
        return Status(
            application=context.settings.application,
            table=context.stream.name,
            incarnation=context.incarnation,
            stream_arn=context.stream.stream_arn,
            version=__version__,
            started_at=self._started_at,
            updated_at=now,
            workers=max(1, sum(1 for s in sessions if not s.fenced)),
            shards=shards,
            parked_keys=len(context.parked),
            oldest_parked=context.parked.oldest,
            totals=metrics.totals(),
            fleet=fleet(sessions, rows, context.incarnation),
            keys=keys_that_wait(context, workers),
            finished=finished,
            finished_count=finished_count,
            free_leases=len(free),
            free_for=context.ports.clock.monotonic() - min(free) if free else 0.0,
            letters_waiting=int(metrics.dead_letters_waiting.value),
            dead_letter_backlog=None if backlog is None else int(backlog),
            iterator_age=iterator_age,
            clock_ahead=context.ports.clock.ahead(),
            credentials_end=metrics.credentials.end,
            endless_retries=context.settings.retry.max_retry_attempts < 0 and context.settings.retry.max_record_age < 0,
            history=self._board.history.past,
            changed_settings=context.config.now.printed,
        )


def _state(row: LeaseRow, worker: ShardWorker | None) -> str:
    """The owner knows better than its last checkpoint."""
    if row.corrupt:
        return "quarantined"
    return row.state if worker is None else worker.lease.state
