"""One owned shard from taking its lease to letting it go: read, dispatch, checkpoint, end, hand over.

Ends in one of these ways: the shard is finished; the lease was handed over or released (drained first, so no record is
handled twice); the lease was lost (nothing more is written); the shard is halted because records were trimmed unread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from consumer.domain.batching import Entry
from consumer.domain.errors import (
    LeaseLost,
    ResourceMissing,
    TrimmedData,
    Unavailable,
)
from consumer.domain.frontier import MAX_RUNS_BYTES, MAX_RUNS_BYTES_GIVEN_AWAY, Frontier
from consumer.domain.lease import LeaseRow, LeaseState
from consumer.domain.windows import TumblingWindow, WindowState
from consumer.ports.leases import Loss
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.shard_discovery import Discovery
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.dispatcher import Dispatcher
from consumer.worker.shard.reader import ShardReader
from consumer.worker.tasks import never_ending

log = structlog.get_logger()

How = Literal["done", "released", "lost", "halted", "failed"]


@dataclass(frozen=True, slots=True)
class LetGo:
    """Ask a shard worker to drain and pass its lease on. ``target`` None releases it; ``grace`` in seconds limits
    the wait for calls under way (None: no limit)."""

    target: str | None = None
    grace: float | None = None


class ShardWorker:
    """Owns one lease of ``lease.epoch``. ``children`` finds and registers child shards at the end."""

    def __init__(self, context: WorkerContext, lease: LeaseRow, children: Discovery) -> None:
        self._context = context
        self._lease = lease
        self._children = children
        self._frontier = Frontier(lease.frontier)
        self._window: TumblingWindow | None = None
        self._budget = BudgetAccount(context.budget)
        self._saved_version = self._version
        self._saved_window = 0
        self._saved_at = context.ports.clock.monotonic()
        self._letting_go = asyncio.Event()
        self._let_go = LetGo()
        self._drain_limit: asyncio.Timeout | None = None
        self._saving = asyncio.Lock()
        self._dispatcher: Dispatcher | None = None
        self._settled = asyncio.Event()
        self._moved = asyncio.Event()
        self._state: LeaseState = "open" if lease.state == "waiting" else lease.state
        self._note = lease.note
        self._reader = ShardReader(
            context,
            lease.shard_id,
            lease.frontier,
            self._frontier,
            self._budget,
            self._deliver,
            lambda: children.known(lease.shard_id),
        )

    @property
    def shard_id(self) -> str:
        return self._lease.shard_id

    @property
    def epoch(self) -> int:
        return self._lease.epoch

    @property
    def state(self) -> LeaseState:
        return self._state

    @property
    def letting_go(self) -> bool:
        return self._letting_go.is_set()

    @property
    def row(self) -> LeaseRow:
        """The lease as this worker would write it now."""
        return self._row()

    @property
    def reader(self) -> ShardReader:
        return self._reader

    @property
    def outstanding(self) -> int:
        return self._frontier.outstanding

    @property
    def retrying_keys(self) -> int:
        return self._dispatcher.retrying_keys if self._dispatcher else 0

    @property
    def low(self) -> str | None:
        return self._frontier.low

    @property
    def checkpoint_age(self) -> float:
        """Seconds since everything settled was last known to be durable."""
        if self._version == self._saved_version:
            return 0.0
        return self._context.ports.clock.monotonic() - self._saved_at

    def lag(self, now: float) -> float:
        """Seconds by which the oldest unsettled record is behind; 0 when the shard is read to its tip and settled."""
        settled = self._dispatcher.newest_settled_time if self._dispatcher else 0.0
        if self._reader.state.at_tip and not self._frontier.outstanding:
            return 0.0
        newest = self._reader.state.newest_fetched_time
        behind = (settled or newest) if self._frontier.outstanding else newest  # filtered records are settled, too
        return max(0.0, now - behind) if behind else 0.0

    def let_go(self, how: LetGo) -> None:
        """Start to drain. A second call (a shutdown during a hand-over) replaces the target and the grace."""
        self._let_go = how
        self._letting_go.set()
        limit = self._drain_limit
        if limit is not None and not limit.expired() and how.grace is not None:
            limit.reschedule(asyncio.get_running_loop().time() + how.grace)

    async def run(self) -> How:
        """Work until the lease ends. Raises nothing but cancellation and bugs."""
        try:
            return await self._work()
        except* LeaseLost as group:
            log.warning("lease.lost", shard_id=self.shard_id, epoch=self.epoch, reason=str(_first(group)))
            self._context.metrics.lease_events("lost").inc()
        finally:
            self._budget.close()
        return "lost"

    async def _work(self) -> How:
        if self._state == "halted":
            if self._context.settings.source.on_gap == "halt":
                log.error("shard.halted", shard_id=self.shard_id, note=self._lease.note, hint="set on_gap: continue")
                return await self._wait_halted()
            self._state, self._note = "open", ""
            return await self._process(from_horizon=True)
        if self._state in ("draining", "done"):
            return await self._finish()
        return await self._process(from_horizon=False)

    async def _process(self, *, from_horizon: bool) -> How:
        if self._context.settings.batch.tumbling_window and not await self._load_window():
            return await self._pass_on()
        while True:
            ended = await self._read_and_dispatch(from_horizon=from_horizon)
            if ended == "end":
                return await self._finish()
            if ended == "stop":
                return await self._pass_on()
            if not await self._gap(ended):
                return await self._wait_halted()
            if ended == "vanished":
                return await self._finish()
            from_horizon = True

    async def _read_and_dispatch(self, *, from_horizon: bool) -> Literal["end", "stop", "trimmed", "vanished"]:
        """Run reader, batches and checkpoints until the shard is settled to its end or has to stop."""
        result: Literal["end", "stop", "trimmed", "vanished"] = "stop"
        # Batches live in a group of their own, so that stopping the reader and the checkpoints never cancels a call.
        try:
            async with asyncio.TaskGroup() as batches:
                self._dispatcher = dispatcher = Dispatcher(
                    self._context,
                    self._lease,
                    self._frontier,
                    self._budget,
                    batches,
                    window=self._window,
                    tip_seen_at=lambda: self._reader.state.tip_seen_at,
                    on_progress=self._progressed,
                )
                checkpoints = batches.create_task(
                    never_ending(self._checkpoint_for_ever(), "checkpoints"), name=f"checkpoint {self.shard_id}"
                )
                reading = batches.create_task(self._read(from_horizon=from_horizon), name=f"read {self.shard_id}")
                stopping = batches.create_task(self._letting_go.wait(), name=f"stop {self.shard_id}")
                await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    result = reading.result()
                    if result != "trimmed":
                        dispatcher.no_more()
                    if not await self._settle_rest(dispatcher, stopping):
                        result = "stop"
                reading.cancel()
                await self._drain()
                stopping.cancel()
                async with self._saving:  # a save cut off on its way could be applied late, after newer writes of ours
                    checkpoints.cancel()
        finally:
            if self._dispatcher is not None:
                self._dispatcher.abandon()
                self._dispatcher = None
        return result

    async def _settle_rest(self, dispatcher: Dispatcher, stopping: asyncio.Task[bool]) -> bool:
        """The reader is through: wait until what it delivered is settled. False when the stop comes first."""
        while not dispatcher.finished:
            if stopping.done():
                return False
            self._settled.clear()
            waiting = asyncio.ensure_future(self._settled.wait())
            try:
                await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
        return True

    async def _drain(self) -> None:
        """Wait for the calls under way; after the grace they are cancelled (their records stay unsettled)."""
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        grace = self._let_go.grace if self._letting_go.is_set() else None
        try:
            async with asyncio.timeout(grace) as self._drain_limit:
                await dispatcher.drain()
        except TimeoutError:
            log.warning("shard.drain_timed_out", shard_id=self.shard_id, grace=self._let_go.grace)
            await dispatcher.cancel()
        finally:
            self._drain_limit = None

    async def _read(self, *, from_horizon: bool) -> Literal["end", "trimmed", "vanished"]:
        while True:
            before = self._reader.position()
            try:
                await self._reader.read_to_end(from_horizon=from_horizon)
            except TrimmedData:
                return "trimmed"
            except ResourceMissing as error:
                if await self._shard_is_gone():
                    return "vanished"
                log.error("stream.missing", shard_id=self.shard_id, error=str(error))
                await asyncio.sleep(5.0)
                if self._reader.position() != before:
                    from_horizon = False  # what was read since then must not be read again
            else:
                return "end"

    async def _shard_is_gone(self) -> bool:
        """Only complete listings of a stream that exists can say so; an error or an empty list never means gone."""
        return await self._children.is_gone(self.shard_id)

    def _deliver(self, entries: list[Entry]) -> None:
        self._moved.set()  # the first record read is stored, and what the reader skipped is settled
        if self._dispatcher is not None:
            self._dispatcher.add(entries)

    def _progressed(self) -> None:
        self._moved.set()
        self._settled.set()

    # --- durable state ---------------------------------------------------------------------------------

    @property
    def _version(self) -> int:
        """Grows whenever something that has to be stored has changed."""
        return self._frontier.version + (self._window.version if self._window is not None else 0)

    async def _load_window(self) -> bool:
        """The window that the previous owner left open. Nothing may be handled before it is known; False when the shard
        is to be let go before that."""
        ports, label = self._context.ports, self._context.stream.label
        while True:
            try:
                durable = await ports.store.window_state(label, self.shard_id)
                break
            except Unavailable as error:
                log.warning("window.load_failed", shard_id=self.shard_id, error=str(error))
                if self._context.validity.fenced:
                    raise LeaseLost(self.shard_id, self.epoch, "the session is fenced") from error
                if self._letting_go.is_set():
                    return False
                await asyncio.sleep(1.0)
        self._window = TumblingWindow(int(self._context.settings.batch.tumbling_window), durable)
        return True

    def _windows(self) -> tuple[WindowState | None, WindowState | None]:
        """The window to store, None when that is done (writing it costs a transaction); and the whole of it."""
        if self._window is None:
            return None, None
        whole = self._window.durable
        return (whole if self._window.version != self._saved_window else None), whole

    def _row(self, state: LeaseState | None = None, note: str = "", *, given_away: bool = False) -> LeaseRow:
        if state is not None:
            self._state, self._note = state, note
        frontier = self._frontier.snapshot(MAX_RUNS_BYTES_GIVEN_AWAY if given_away else MAX_RUNS_BYTES)
        if self._context.settings.idempotency.mode == "off":
            frontier = replace(frontier, runs=())  # the low watermark alone, as the KCL keeps it
        return replace(self._lease, state=self._state, frontier=frontier, note=self._note)

    async def _checkpoint_for_ever(self) -> None:
        """Write the frontier ``checkpoint.interval`` after it moved: at most one write a shard and interval. An idle
        shard sets no timer for it."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            while self._version != self._saved_version:
                await asyncio.sleep(self._context.settings.checkpoint.interval)
                async with self._saving:
                    if self._version != self._saved_version:
                        await self._save_once()

    async def _save_once(self, state: LeaseState | None = None, note: str = "") -> bool:
        version = self._version
        window_version = self._window.version if self._window is not None else 0
        try:
            await self._children.save(self._row(state, note), *self._windows())
        except Unavailable as error:
            log.warning("checkpoint.failed", shard_id=self.shard_id, error=str(error))
            return False
        self._saved_version = version
        self._saved_window = window_version
        self._saved_at = self._context.ports.clock.monotonic()
        return True

    async def _save(self, state: LeaseState, note: str = "") -> None:
        """Write a change of state; repeated until it is durable or the lease is lost."""
        while not await self._save_once(state, note):
            if self._context.validity.fenced:
                raise LeaseLost(self.shard_id, self.epoch, "the session is fenced")
            await asyncio.sleep(0.5)

    async def _gap(self, kind: str) -> bool:
        """Leave a durable trace of records that nobody read; False when the shard must halt."""
        ports, on_gap = self._context.ports, self._context.settings.source.on_gap
        reason = (
            "the shard is not listed any more before it was read to its end"
            if kind == "vanished"
            else "records were trimmed before they were read"
        )
        loss = Loss("gap", self.shard_id, self._reader.position().sequence_number, None, reason, ports.clock.wall())
        while True:
            try:
                await self._children.record_loss(self._row(), loss)
                break
            except Unavailable as error:
                log.warning("gap.record_failed", shard_id=self.shard_id, error=str(error))
                if self._context.validity.fenced:
                    raise LeaseLost(self.shard_id, self.epoch, "the session is fenced") from error
                await asyncio.sleep(1.0)
        self._context.metrics.gaps.inc()
        log.error("shard.gap", shard_id=self.shard_id, after=loss.first_sequence_number, reason=reason, on_gap=on_gap)
        if on_gap == "continue":
            return True
        await self._save("halted", note=reason)
        return False

    # --- ends ------------------------------------------------------------------------------------------

    async def _wait_halted(self) -> How:
        await self._letting_go.wait()
        return await self._pass_on()

    async def _finish(self) -> How:
        """Everything of the shard is settled. Children may start once that is durable; ``done`` when they have rows."""
        if self._state != "done":
            await self._save("draining")
            self._children.parent_settled(self.shard_id)
        stopping = asyncio.ensure_future(self._letting_go.wait())
        searching = asyncio.ensure_future(self._children.register_of(self._lease))
        try:
            await asyncio.wait((stopping, searching), return_when=asyncio.FIRST_COMPLETED)
            if not searching.done():
                return await self._pass_on()
            searching.result()
        finally:
            stopping.cancel()
            searching.cancel()
        await self._save("done")
        self._context.metrics.lease_events("finished").inc()
        log.info("shard.finished", shard_id=self.shard_id, epoch=self.epoch)
        self._children.parent_settled(self.shard_id)
        return "done"

    async def _pass_on(self) -> How:
        """Hand the drained lease over in one conditional write; nobody else can have touched it meanwhile."""
        target = self._let_go.target
        while True:
            try:
                await self._children.hand_over(self._row(given_away=True), target, *self._windows())
            except Unavailable as error:
                log.warning("lease.hand_over_failed", shard_id=self.shard_id, error=str(error))
                if self._context.validity.fenced:
                    raise LeaseLost(self.shard_id, self.epoch, "the session is fenced") from error
                await asyncio.sleep(0.3)
            else:
                break
        self._context.metrics.lease_events("handed_over" if target else "released").inc()
        log.info("lease.passed_on", shard_id=self.shard_id, epoch=self.epoch, target=target)
        return "released"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
