"""One process of the simulated fleet: the production worker above its ports, wired as ``worker/app.py`` wires it.

Real are the keeper (in a lane of its own, as on its own thread), the coordinator, discovery, the shard workers and all
below them. Simulated are the clock, randomness, the network, the services, and the operating system that starts and
ends the process. What the composition root does with real sockets, signals and threads is not here: its tests are end
to end.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from consumer.domain.errors import DependencyError, PermissionDenied, ResourceMissing, StreamConsumerError
from consumer.domain.lease import Belief, SessionRow
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.operate.metrics import Metrics
from consumer.ports import Handler, Registration, StreamDescription
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_stream import MemoryStreamSource
from consumer.testing.network import Link
from consumer.testing.observed import ObservedDeadLetters, ObservedHandler, ObservedStore
from consumer.testing.virtual_loop import Process
from consumer.worker.budget import ByteBudget
from consumer.worker.context import HandlerSlots, Ports, WorkerContext
from consumer.worker.coordinator import Coordinator
from consumer.worker.discovery import register_start
from consumer.worker.keeper import Keeper

if TYPE_CHECKING:
    from consumer.testing.simulation import Simulation

T = TypeVar("T")

CALL_TIMEOUT = 2.0  # seconds for one call, as the adapters have it
START_DEADLINE = 60.0  # as in worker/app.py
DRAIN_SHARE = 0.8  # as in worker/app.py
HARD_STOP_MARGIN = 2.0  # as in worker/app.py


class ProcessClock:
    """``ports.Clock`` of one simulated process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def monotonic(self) -> float:
        return self._process.monotonic()

    def wall(self) -> float:
        return self._process.wall()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ProcessRandomness:
    """``ports.Randomness`` from the seed."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.random = dice.random

    def token(self) -> str:
        return f"{self._dice.getrandbits(128):032x}"


class SimulatedWorker:
    """A place in the fleet: one process at a time, ``name`` stays over restarts.

    ``links`` (``table``, ``keeper``, ``stream``, ``dead_letters``) is the network of the current process.
    """

    def __init__(self, simulation: Simulation, name: str, handler: Handler) -> None:
        self._simulation = simulation
        self.name = name
        self.handler = handler
        self._starts = 0
        self.rate = 1.0
        self.links: dict[str, Link] = {}
        self.process: Process | None = None
        self.context: WorkerContext | None = None
        self.coordinator: Coordinator | None = None
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    # --- the operating system --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """There is a process, frozen or not."""
        return self.process is not None

    @property
    def incarnation(self) -> str:
        """The newest session of the current process, "" before it has one."""
        return self.context.incarnation if self.process is not None and self.context is not None else ""

    def start(self) -> None:
        """Start a new process; its network is the one it gets from ``simulation.fair_weather``."""
        if self.process is not None:
            raise ValueError(f"{self.name} is running")
        simulation = self._simulation
        self._starts += 1
        dice = simulation.dice(f"process {self.name} {self._starts}")
        process = Process(simulation.loop, f"{self.name}#{self._starts}", rate=self.rate, base=dice.uniform(10.0, 1e5))
        process.wall_offset = dice.uniform(-0.5, 0.5)
        self.process, self.context, self.coordinator = process, None, None
        timeouts = {"keeper": min(CALL_TIMEOUT, simulation.settings.leases.duration / 8)}
        self.links = {
            service: Link(
                process,
                service,
                dice,
                timeouts.get(service, CALL_TIMEOUT),
                simulation.called,
                late_saves=simulation.gaps.late_saves,
            )
            for service in ("table", "keeper", "stream", "dead_letters")
        }
        self._stop, self._ended = asyncio.Event(), asyncio.Event()
        simulation.history.note("process started", process.name)
        process.spawn(self._main(process, ProcessRandomness(dice), self._stop), f"main of {process.name}")

    def kill(self) -> None:
        """SIGKILL."""
        process = self.process
        if process is not None:
            self._simulation.history.note("process killed", process.name)
            self._simulation.loop.kill(process)
            self._exited(process)

    def pause(self) -> None:
        """SIGSTOP."""
        if self.process is not None and not self.process.paused:
            self._simulation.history.note("process paused", self.process.name)
            self._simulation.loop.pause(self.process)

    def resume(self) -> None:
        """SIGCONT."""
        if self.process is not None and self.process.paused:
            self._simulation.history.note("process resumed", self.process.name)
            self._simulation.loop.resume(self.process)

    def stall(self, seconds: float) -> None:
        """A handler blocks the main loop; the keeper's thread goes on."""
        if self.process is not None:
            self._simulation.history.note("main thread stalled", self.process.name, seconds)
            self._simulation.loop.stall(self.process.main, seconds)

    def terminate(self) -> None:
        """SIGTERM: drain and end. What hangs is ended by the process itself shortly after the grace."""
        process = self.process
        if process is None or self._stop.is_set():
            return
        simulation = self._simulation
        simulation.history.note("process terminated", process.name)
        # The signal is handled by the process itself, so a frozen one hears it when it goes on.
        simulation.loop.call_soon(self._stop.set, context=process.main.context.copy())
        grace = simulation.settings.shutdown.grace + HARD_STOP_MARGIN

        def overrun() -> None:
            if process.alive and self.process is process:
                self.kill()

        simulation.loop.after(grace, overrun)

    async def stop(self) -> None:
        """SIGTERM, and wait for the end of the process."""
        self.terminate()
        await self._ended.wait()

    def _exited(self, process: Process) -> None:
        process.alive = False
        self.process = None
        self._ended.set()

    # --- the process -----------------------------------------------------------------------------------

    async def _main(self, process: Process, dice: ProcessRandomness, stop: asyncio.Event) -> None:
        simulation, clock = self._simulation, ProcessClock(process)
        try:
            await _Life(self, simulation, process, clock, dice, stop).run()
            simulation.history.note("process ended", process.name)
        except (DependencyError, PermissionDenied, ResourceMissing) as error:
            # Exit codes 69, 77, 78: whoever runs the container starts it again.
            simulation.history.note("process gave up", process.name, error)
            simulation.loop.after(1.0, self._start_again)
        except Exception as error:  # noqa: BLE001  # exit code 70, in a process that nothing should make exit
            simulation.history.violated("no bug", f"{process.name} ended by itself: {error!r}")
        simulation.loop.kill(process)
        self._exited(process)

    def _start_again(self) -> None:
        if self.process is None and not self._stop.is_set():
            self.start()

    def opened(self, context: WorkerContext, coordinator: Coordinator) -> None:
        self.context, self.coordinator = context, coordinator


class _Life:
    """What ``worker.app.Daemon`` does between start and exit."""

    def __init__(
        self,
        worker: SimulatedWorker,
        simulation: Simulation,
        process: Process,
        clock: ProcessClock,
        dice: ProcessRandomness,
        stop: asyncio.Event,
    ) -> None:
        self._worker = worker
        self._simulation = simulation
        self._settings = simulation.settings
        self._process = process
        self._clock = clock
        self._random = dice
        self._stop = stop
        self._metrics = Metrics()
        self._filters = self._settings.compiled_filters()

    async def run(self) -> None:
        if not await self._until_stopped(self._start()):
            return
        while not self._stop.is_set():
            await self._incarnation()
        await self._ports.handler.close()

    async def _start(self) -> bool:
        simulation, links, settings = self._simulation, self._worker.links, self._settings
        application, wall = settings.application, self._clock.wall
        store = ObservedStore(simulation.checkers, simulation.table, application, wall, links["table"])
        self._keeper_store = MemoryLeaseStore(simulation.table, application, wall, links["keeper"])
        source = MemoryStreamSource(simulation.stream, links["stream"])
        dead_letters = ObservedDeadLetters(
            simulation.checkers, self._who, simulation.dead_letters, links["dead_letters"]
        )
        handler = ObservedHandler(simulation.checkers, self._who, self._worker.handler)
        await handler.start()
        self._ports = Ports(source, store, handler, dead_letters, self._clock, self._random)
        self._stream: StreamDescription = await self._patiently(source.describe)
        await self._patiently(lambda: store.pin_application(self._stream.table_name))
        start = settings.source.starting_position
        self._registration: Registration = await self._patiently(
            lambda: register_start(source, store, self._stream, start)
        )
        self._slots = HandlerSlots(handler.width)
        self._budget = ByteBudget(settings.limits.buffer)
        return True

    def _who(self) -> str:
        return self._worker.incarnation

    async def _patiently(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        deadline = self._clock.monotonic() + START_DEADLINE
        pause = 0.5
        while True:
            try:
                return await attempt()
            except DependencyError as error:
                if self._clock.monotonic() + pause > deadline or error.exit_code != DependencyError.exit_code:
                    raise
                await self._clock.sleep(pause)
                pause = min(5.0, pause * 2)

    async def _incarnation(self) -> None:
        lost = asyncio.Event()
        context = await self._until_stopped(self._patiently(self._open_session))
        if context is None:
            return
        keeper = Keeper(
            self._keeper_store,
            self._clock,
            context.belief,
            context.incarnation,
            self._settings.leases.duration,
            may_renew=lambda: True,
            on_lost=lost.set,
        )
        keeping = self._process.spawn(keeper.run(), "keeper", self._process.upkeep)
        coordinator = Coordinator(context, self._registration)
        self._worker.opened(context, coordinator)
        try:
            await self._live(coordinator, keeping, lost)
        finally:
            keeping.cancel()
            await self._close_session(context)

    async def _live(self, coordinator: Coordinator, keeping: asyncio.Task[None], lost: asyncio.Event) -> None:
        running = asyncio.create_task(coordinator.run(), name="coordinator")
        stopped = asyncio.ensure_future(self._stop.wait())
        fenced = asyncio.ensure_future(lost.wait())
        try:
            await asyncio.wait({running, keeping, stopped, fenced}, return_when=asyncio.FIRST_COMPLETED)
            for task in (running, keeping):
                if task.done() and not (task is keeping and lost.is_set()) and not task.cancelled():
                    _raise_death(task)
            if self._stop.is_set() and not lost.is_set():
                await self._drain(coordinator, running, fenced)
                if running.done() and not running.cancelled():
                    _raise_death(running)
        finally:
            for end in (running, stopped, fenced):
                end.cancel()
            await asyncio.gather(running, stopped, fenced, return_exceptions=True)

    async def _drain(self, coordinator: Coordinator, *ends: asyncio.Future[Any]) -> None:
        draining = asyncio.create_task(coordinator.drain(self._settings.shutdown.grace * DRAIN_SHARE))
        await asyncio.wait({draining, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            draining.result()
        draining.cancel()

    async def _open_session(self) -> WorkerContext:
        context = WorkerContext(
            settings=self._settings,
            ports=self._ports,
            metrics=self._metrics,
            stream=self._stream,
            incarnation=f"{self._worker.name}/{self._process.name.partition('#')[2]}/{self._random.token()}",
            belief=Belief(),
            budget=self._budget,
            slots=self._slots,
            start_at=self._registration.start_at,
            filters=self._filters,
        )
        row = SessionRow(
            context.incarnation,
            capacity=self._settings.limits.max_shards,
            started_at=self._clock.wall(),
            label=context.stream.label,
        )

        async def write() -> None:
            sent_at = self._clock.monotonic()
            await self._keeper_store.open_session(row)
            context.belief.renewed(sent_at, self._settings.leases.duration)

        await self._process.spawn(write(), "open session", self._process.upkeep)
        return context

    async def _close_session(self, context: WorkerContext) -> None:
        try:
            closing = self._keeper_store.close_session(context.incarnation)
            await self._process.spawn(closing, "close session", self._process.upkeep)
        except StreamConsumerError:
            pass  # it expires by itself

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``, or None when the stop came first."""
        task = asyncio.create_task(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stopped.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _raise_death(task: asyncio.Task[None]) -> None:
    error = task.exception()
    raise StreamConsumerError(f"background task {task.get_name()} ended: {error!r}") from error


class Scripted:
    """``ports.Handler`` around one coroutine function over calls; simpler and quicker than real user code."""

    width = 0

    def __init__(self, behave: Callable[[HandlerCall], Coroutine[Any, Any, Outcome]]) -> None:
        self.invoke = behave

    async def start(self) -> None:
        """Nothing to import."""

    async def close(self) -> None:
        """Nothing to end."""
