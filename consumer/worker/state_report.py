"""SIGUSR1: what this worker is doing, written to the log from the control thread, also while the main loop is wedged.

The parts of the worker are read as they are at that moment, while the main loop may go on: numbers that belong together
may differ by what happened in between.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from consumer.operate import state_dump
from consumer.operate.logs import write_event
from consumer.operate.status import StatusBoard
from consumer.worker.context import WorkerContext
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.shard.shard_worker import ShardWorker

MOST_SHARDS: Final = 100  # of this worker, those that hold most first
PAUSE: Final = 1.0  # seconds from one dump to the next, however many are asked for


class StateReport:
    """``follow`` the incarnation that lives now; ``run`` on the control thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, board: StatusBoard) -> None:
        """``loop`` is the main loop."""
        self._loop = loop
        self._board = board
        self._parts: tuple[WorkerContext, Coordinator] | None = None

    def follow(self, context: WorkerContext, coordinator: Coordinator) -> None:
        self._parts = (context, coordinator)

    async def run(self, arrived: socket.socket) -> None:
        """Write the state for ever, when a SIGUSR1 is among the signal numbers that come out of ``arrived``
        (``signal.set_wakeup_fd``: the interpreter writes them there whatever the main thread does)."""
        loop = asyncio.get_running_loop()
        while numbers := await loop.sock_recv(arrived, 64):
            if signal.SIGUSR1 in numbers:
                self.write()
                await asyncio.sleep(PAUSE)
        await asyncio.Event().wait()  # the other end is closed: the process is about to end

    def write(self) -> None:
        """One event for each thing, all of them named ``state.dump``."""
        self._write("worker", lambda: [self._worker()])
        self._write("shard", self._shards)
        self._write("thread", state_dump.threads)
        self._write("tasks", lambda: state_dump.task_groups(self._loop))

    def _write(self, part: str, look: Callable[[], Iterable[dict[str, Any]]]) -> None:
        try:
            for report in look():
                write_event("state.dump", part=part, **report)
        except Exception as error:  # noqa: BLE001 - a look from another thread must never end a daemon that works
            write_event("state.dump", part=part, unreadable=repr(error))

    def _worker(self) -> dict[str, Any]:
        (_, health), (_, readiness) = self._board.health(), self._board.readiness()
        report: dict[str, Any] = {"health": health, "readiness": readiness, "progress_age": self._board.progress_age}
        if self._parts is None:
            return report | {"started": False}
        context, coordinator = self._parts
        workers, rows = list(coordinator.workers), list(coordinator.rows)
        return report | {
            "incarnation": context.incarnation,
            "session_valid_for": round(context.validity.left(context.ports.clock.monotonic()), 3),
            "leases_owned": len(workers),
            "leases": dict(Counter(row.state for row in rows)),
            "sessions": len(coordinator.sessions),
            "in_flight": sum(worker.outstanding for worker in workers),
            "retrying_keys": sum(worker.retrying_keys for worker in workers),
            "deferred_keys": sum(worker.deferred_keys for worker in workers),
            "parked_keys": len(context.parked),
            "buffered_bytes": context.budget.used,
            "buffer": context.settings.limits.buffer,
            "shards_left_out": max(0, len(workers) - MOST_SHARDS),
        }

    def _shards(self) -> list[dict[str, Any]]:
        if self._parts is None:
            return []
        context, coordinator = self._parts
        now = context.ports.clock.wall()
        workers = sorted(coordinator.workers, key=lambda worker: -worker.outstanding)
        return [_read(worker, now) for worker in workers[:MOST_SHARDS]]


def _read(worker: ShardWorker, now: float) -> dict[str, Any]:
    try:
        return _shard(worker, now)
    except RuntimeError as error:  # a collection was changed while it was counted
        return {"shard_id": worker.shard_id, "unreadable": str(error)}


def _shard(worker: ShardWorker, now: float) -> dict[str, Any]:
    reader, breaker = worker.reader, worker.breaker
    return {
        "shard_id": worker.shard_id,
        "state": worker.lease.state,
        "epoch": worker.lease.epoch,
        "releasing": worker.releasing,
        "settled_up_to": worker.settled_up_to,
        "checkpoint_age": round(worker.lease.checkpoint_age, 3),
        "in_flight": worker.outstanding,
        "retrying_keys": worker.retrying_keys,
        "deferred_keys": worker.deferred_keys,
        "parked_letters": worker.parked.letters_here,
        "paused": worker.is_paused,
        "breaker": None if breaker is None else breaker.state,
        "at_tip": reader.state.at_tip,
        "unread_for": round(reader.state.behind(now), 3),
        "waits_for_room": reader.waits_for_room,
        "reading_fails": reader.state.failing,
    }
