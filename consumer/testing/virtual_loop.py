"""An event loop with virtual time, several processes in it, and a seeded choice of which one runs next.

Nothing here waits: when no process can run, time jumps to the next timer. There is no I/O and there are no threads, so
a run is a function of its seed alone and can be repeated exactly.

Every simulated process has one *lane* per thread it would really have. A lane is a queue that runs in order, as
asyncio's own does (code may rely on that); which lane goes next is drawn from the seed. A task belongs to the lane that
is set in its context, and contexts are inherited by tasks, callbacks and timers, so everything a process starts stays
in it. That makes the hard faults simple and true:

* ``pause`` (SIGSTOP): nothing of the process runs; answers and timers pile up and are all late when it goes on;
* ``kill`` (SIGKILL): whatever waits to run is dropped. No ``finally`` runs, and nothing is cancelled.

Clocks: each process has a base, a rate and a wall clock of its own. ``loop.time()`` is the time of the process that is
running, so time-outs and sleeps of a process with a fast clock are really shorter, as they would be.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")

MOST_AT_ONCE = 100_000  # timers that follow each other at one moment: time stands still
EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z: the wall clock at virtual time 0

_lane: contextvars.ContextVar[Lane] = contextvars.ContextVar("lane")


class SimulationStuck(Exception):
    """The simulation has not ended, but nothing can run and no timer is set, so something waits for what never comes;
    or time stands still, because something waits again and again for less than a clock can tell."""


class Lane:
    """One thread of one process: its queue of callbacks."""

    __slots__ = ("context", "process", "queue", "queued", "stalled_until", "tasks")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.queue: deque[asyncio.Handle] = deque()
        self.queued = False  # whether the loop has it among those that can run
        self.stalled_until = 0.0
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.context = contextvars.Context()
        self.context.run(_lane.set, self)


class Process:
    """One operating system process: threads, clocks, and whether it runs at all."""

    def __init__(self, loop: VirtualLoop, name: str, *, rate: float = 1.0, base: float = 0.0) -> None:
        self.loop = loop
        self.name = name
        self.rate = rate
        self.base = base
        self.wall_offset = 0.0
        self.alive = True
        self.paused = False
        self.main = Lane(self)
        self.control = Lane(self)

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        return self.main, self.control

    def monotonic(self) -> float:
        return self.base + self.loop.now * self.rate

    def wall(self) -> float:
        return self.loop.epoch + self.loop.now + self.wall_offset

    def spawn(self, work: Coroutine[Any, Any, T], name: str, lane: Lane | None = None) -> asyncio.Task[T]:
        """Start ``work`` in the main lane, or in another one."""
        return self.loop.create_task(work, name=name, context=(lane or self.main).context.copy())


class _Timers(asyncio.BaseEventLoop):
    """The time of the loop: its timers, and the clock of the process that is running."""

    world: Process
    _current: Lane

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.epoch = EPOCH
        self.numbers = count()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._at_once = 0

    def time(self) -> float:
        """The monotonic clock of the process that is running now."""
        return self._current.process.monotonic()

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Run ``callback`` outside all processes at the true time ``when``."""
        return self._schedule(max(when, self.now), when, callback, args, self.world.main.context)

    def after(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Run ``callback`` outside all processes, ``delay`` true seconds from now."""
        return self.at(self.now + delay, callback, *args)

    def call_at(  # type: ignore[override]  # the base class's is generic in the callback's arguments
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        process = self._current.process
        true = (when - process.base) / process.rate
        return self._schedule(max(true, self.now), when, callback, args, context)

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _schedule(
        self,
        true: float,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (true, next(self.numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def pass_days(self, days: float) -> None:
        """Let the wall clocks of all processes jump ahead together: for what happens after days of doing nothing."""
        self.epoch += days * 86400.0


class VirtualLoop(_Timers):
    """``now`` is the true time in seconds since the start. Close it when done.

    Args:
        choice: uniform in [0, 1); decides which lane runs next.
    """

    def __init__(self, choice: random.Random) -> None:
        super().__init__()
        self.failures: list[str] = []
        self._draw = choice.random
        self._runnable: list[Lane] = []
        self._dropped: list[object] = []
        self._halting = False
        self.world = Process(self, "world")
        self._current = self.world.main
        self.set_exception_handler(self._note_failure)

    # --- processes -------------------------------------------------------------------------------------

    def pause(self, process: Process) -> None:
        """Freeze a process between two of its steps."""
        process.paused = True
        for lane in process.lanes:
            self._unqueue(lane)

    def resume(self, process: Process) -> None:
        process.paused = False
        for lane in process.lanes:
            self._requeue(lane)

    def stall(self, lane: Lane, seconds: float) -> None:
        """Block one thread, as a handler does that never awaits: other threads of the process go on."""
        lane.stalled_until = max(lane.stalled_until, self.now + seconds)
        self._unqueue(lane)
        self.at(lane.stalled_until, self._requeue, lane)

    def kill(self, process: Process) -> None:
        """End a process between two of its steps. What it sent is on its way; nothing else of it ever happens."""
        process.alive = False
        for lane in process.lanes:
            self._unqueue(lane)
            # Kept until the end: a suspended coroutine that is collected runs its ``finally`` blocks, which a killed
            # process does not.
            self._dropped += [*lane.queue, *lane.tasks]
            lane.queue.clear()

    # --- callbacks -------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]  # as call_at
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._push(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # as call_at
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """From a thread to the main one, where it comes before whatever that thread does next."""
        return self.call_soon(callback, *args, context=context or self._current.process.main.context.copy())

    def _push(self, handle: asyncio.Handle) -> None:
        lane: Lane = handle._context.get(_lane) or self.world.main  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to it
        process = lane.process
        if not process.alive:
            self._dropped.append(handle)
            return
        lane.queue.append(handle)
        if not lane.queued and not process.paused and lane.stalled_until <= self.now:
            lane.queued = True
            self._runnable.append(lane)

    def create_task(  # type: ignore[override]  # coroutines only: no generator is a task here
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        if self._halting:  # a ``finally`` of what is being closed
            coro.close()
            raise RuntimeError("the simulation is over")
        task: asyncio.Task[T] = _Task(coro, loop=self, name=name, context=context)
        lane = _lane.get(self.world.main) if context is None else context.get(_lane, self.world.main)
        lane.tasks.add(task)
        return task

    # --- running ---------------------------------------------------------------------------------------

    def run_until(self, work: Coroutine[Any, Any, T], name: str = "world") -> T:
        """Run ``work`` outside all processes to its end, then end every process as by a kill."""
        task = self.world.spawn(work, name)
        try:
            return self.run_until_complete(task)
        finally:
            self._close_all()

    def _run_once(self) -> None:
        runnable, draw = self._runnable, self._draw
        while not self._stopping:  # type: ignore[attr-defined]  # set by BaseEventLoop.stop
            if not runnable:
                self._advance()
                continue
            index = int(draw() * len(runnable)) if len(runnable) > 1 else 0
            lane = runnable[index]
            handle = lane.queue.popleft()
            if not lane.queue:
                lane.queued = False
                runnable[index] = runnable[-1]
                runnable.pop()
            if not handle._cancelled:  # noqa: SLF001 - what BaseEventLoop does with its handles
                self._current = lane
                handle._run()  # noqa: SLF001 - as above
                self._current = self.world.main

    def _advance(self) -> None:
        """Jump to the next timer and queue all that are due then."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise SimulationStuck(f"nothing left to do at virtual time {self.now:.3f} s")
        self._at_once = 0 if timers[0][0] > self.now else self._at_once + 1
        if self._at_once > MOST_AT_ONCE:
            raise SimulationStuck(f"pauses are too short to pass at virtual time {self.now:.3f} s: {timers[0][2]!r}")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                self._push(timer)

    def _unqueue(self, lane: Lane) -> None:
        if lane.queued:
            lane.queued = False
            self._runnable.remove(lane)

    def _requeue(self, lane: Lane) -> None:
        if (
            lane.queue
            and not lane.queued
            and lane.process.alive
            and not lane.process.paused
            and lane.stalled_until <= self.now
        ):
            lane.queued = True
            self._runnable.append(lane)

    def _note_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self._halting:
            self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _close_all(self) -> None:
        """Close what is still suspended, quietly: none of it may run on, and nothing may be reported as forgotten."""
        self._halting = True
        self._runnable.clear()
        self._timers.clear()
        tasks = dict.fromkeys(one for one in self._dropped if isinstance(one, asyncio.Task))
        tasks |= dict.fromkeys(asyncio.all_tasks(self))
        self._dropped.clear()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # coroutines that were made and never started
                while tasks:
                    task, _ = tasks.popitem()
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
                    _close(task.get_coro())
        finally:
            sys.unraisablehook = hook


def _close(coro: Any) -> None:
    for _ in range(20):  # a ``finally`` that awaits refuses the first attempts
        try:
            coro.close()
        except BaseException:  # noqa: BLE001, S112  # it runs in no process any more, so what it says does not count
            continue
        return


class _Task(asyncio.Task):  # type: ignore[type-arg]  # asyncio.Task[...] is a class of the stubs only
    """A task whose place in a set does not depend on its address: TaskGroup cancels its tasks in the order of a set,
    and that order must be the same in every run."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Task:
        task = super().__new__(cls, *args, **kwargs)
        task._number = next(kwargs["loop"].numbers)
        return task

    _number: int

    def __hash__(self) -> int:
        return self._number

    __eq__ = asyncio.Task.__eq__
