"""One process of the simulated fleet: the production worker above its ports, started as ``worker/app.py`` starts it.

Real are the start, the incarnations, the session renewal (in a lane of its own, as on its own thread), the coordinator,
discovery, the shard workers and all below them. Simulated are the clock, randomness, the network, the
services, and the operating system that starts and ends the process. What the composition root does with real sockets,
signals and threads is not here: its tests are end to end.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from consumer.domain.errors import StreamConsumerError, Unavailable
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.operate.metrics import Metrics
from consumer.ports.handler import Handler, Reservation
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.network import Link
from consumer.testing.observed import ObservedDeadLetters, ObservedHandler
from consumer.testing.simulated_clock import SimulatedClock
from consumer.testing.virtual_loop import Process
from consumer.testing.world import World, settings_of
from consumer.worker.context import Ports, WorkerContext
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.incarnation import HARD_STOP_MARGIN, Host, IncarnationLoop
from consumer.worker.start import start
from consumer.worker.tasks import Stopped, until_stopped

CALL_TIMEOUT = 2.0  # seconds for one call, as the adapters have it


class ProcessRandomness:
    """``ports.Randomness`` from the seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.random = rng.random

    def token(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


class SimulatedWorker:
    """A place in the fleet: one process at a time, ``name`` stays over restarts.

    ``links`` (``table``, ``session``, ``stream``, ``dead_letters``) is the network of the current process.
    """

    def __init__(self, world: World, name: str, handler: Handler) -> None:
        self._world = world
        self.name = name
        self.handler = handler
        self._starts = 0
        self._own: Settings | None = None  # of the next process; None: those of the world
        self._running: Settings | None = None
        self._loop: IncarnationLoop | None = None
        self.rate = 1.0
        self.links: dict[str, Link] = {}
        self.process: Process | None = None
        self.context: WorkerContext | None = None
        self.coordinator: Coordinator | None = None
        self._stop = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._stop_asked = False
        self.killed = False  # so ended the last process, or not by itself anyway

    # --- the operating system --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """There is a process, frozen or not."""
        return self.process is not None

    @property
    def stopping(self) -> bool:
        """There is a process that was told to end."""
        return self.process is not None and self._stop_asked

    @property
    def incarnation(self) -> str:
        """The newest session of the current process, "" before it has one."""
        return self.context.incarnation if self.process is not None and self.context is not None else ""

    @property
    def settings(self) -> Settings:
        """Of the current process, or else of the next one."""
        if self.process is not None and self._running is not None:
            return self._running
        return self._own or self._world.settings

    def configure(self, config: Mapping[str, Any]) -> None:
        """The configuration file of the processes that are started from now on: sections, over those of the world."""
        self._own = settings_of(self._world.config, config)

    def reload(self, config: Mapping[str, Any]) -> None:
        """SIGHUP to a process that has started: sections that may change while it runs, over those of the world. Raises
        what the worker raises when it refuses them."""
        if self.process is None or self._loop is None:
            raise ValueError(f"{self.name} has not started")
        settings, process = settings_of(self._world.config, config), self.process
        self._world.history.note("configuration reloaded", process.name)
        process.main.context.copy().run(self._loop.reconfigure, settings)
        self._running = self._own = settings
        self._world.checkers.checkpoints.opened(self.incarnation, settings.checkpoint.interval)

    def start(self) -> None:
        """Start a new process; its network is the one it gets from ``simulation.fair_weather``."""
        if self.process is not None:
            raise ValueError(f"{self.name} is running")
        world = self._world
        self._starts += 1
        rng = world.rng(f"process {self.name} {self._starts}")
        process = Process(world.loop, f"{self.name}#{self._starts}", rate=self.rate, base=rng.uniform(10.0, 1e5))
        process.wall_offset = rng.uniform(-0.5, 0.5)
        settings = self._running = self._own or world.settings
        self.process, self.context, self.coordinator, self._loop = process, None, None, None
        self._clock = SimulatedClock(process)
        timeouts = {"session": min(CALL_TIMEOUT, settings.leases.duration / 8)}
        self.links = {
            service: Link(process, service, rng, timeouts.get(service, CALL_TIMEOUT), world.called, self._clock.heard)
            for service in ("table", "session", "stream", "dead_letters")
        }
        self._stop, self._ended, self._stop_asked = asyncio.Event(), asyncio.Event(), False
        self.killed = False
        world.history.note("process started", process.name)
        process.spawn(self._main(process, ProcessRandomness(rng), self._stop), f"main of {process.name}")

    def kill(self) -> None:
        """SIGKILL."""
        process = self.process
        if process is not None:
            self._world.history.note("process killed", process.name)
            self.killed = True
            self._world.loop.kill(process)
            self._exited(process)

    def pause(self) -> None:
        """SIGSTOP."""
        if self.process is not None and not self.process.paused:
            self._world.history.note("process paused", self.process.name)
            self._world.loop.pause(self.process)

    def resume(self) -> None:
        """SIGCONT."""
        if self.process is not None and self.process.paused:
            self._world.history.note("process resumed", self.process.name)
            self._world.loop.resume(self.process)

    def stall(self, seconds: float) -> None:
        """A handler blocks the main loop; the session renewal's thread goes on."""
        if self.process is not None:
            self._world.history.note("main thread stalled", self.process.name, seconds)
            self._world.loop.stall(self.process.main, seconds)

    def terminate(self) -> None:
        """SIGTERM: drain and end. What hangs is ended by the process itself shortly after the grace."""
        process = self.process
        if process is None or self._stop.is_set():
            return
        world = self._world
        world.history.note("process terminated", process.name)
        self._stop_asked = True
        # The signal is handled by the process itself, so a frozen one hears it when it goes on.
        world.loop.call_soon(self._stop.set, context=process.main.context.copy())
        grace = self.settings.shutdown.grace + HARD_STOP_MARGIN

        def overrun() -> None:
            if process.alive and self.process is process:
                self.kill()

        world.loop.after(grace, overrun)

    def _end_within(self, process: Process, seconds: float) -> Callable[[], None]:
        """Exit code 70 when the time is over; then the scheduler starts the container again."""

        def overrun() -> None:
            if process.alive and self.process is process and not self.stopping:
                self.kill()
                self._world.loop.after(1.0, self._start_again)

        return self._world.loop.after(seconds, overrun).cancel

    async def stop(self) -> None:
        """SIGTERM, and wait for the end of the process."""
        self.terminate()
        await self._ended.wait()

    def _exited(self, process: Process) -> None:
        process.alive = False
        self.process = None
        self._ended.set()

    # --- the process -----------------------------------------------------------------------------------

    async def _main(self, process: Process, rng: ProcessRandomness, stop: asyncio.Event) -> None:
        world = self._world
        try:
            await self._run(process, rng, stop)
            world.history.note("process ended", process.name)
        except Unavailable as error:
            # Exit codes 69, 77, 78: the scheduler starts the container again.
            world.history.note("process gave up", process.name, error)
            world.loop.after(1.0, self._start_again)
        except Exception as error:  # noqa: BLE001  # exit code 70, in a process that nothing should make exit
            world.history.violated("no bug", f"{process.name} ended by itself: {error!r}")
        world.loop.kill(process)
        self._exited(process)

    def _start_again(self) -> None:
        if self.process is None and not self._stop.is_set():
            self.start()

    async def _run(self, process: Process, rng: ProcessRandomness, stop: asyncio.Event) -> None:
        """What ``worker.app.Daemon`` does between start and exit, without what only a real process has."""
        world, links, settings = self._world, self.links, self.settings
        checkers = world.checkers
        clock = self._clock

        def who() -> str:
            return self.incarnation

        store = MemoryLeaseStore(world.table, settings.application, clock.wall, links["table"])
        session_store = MemoryLeaseStore(world.table, settings.application, clock.wall, links["session"])
        source = world.source(links["stream"], clock)
        letters = ObservedDeadLetters(
            checkers, who, world.dead_letters, links["dead_letters"], world.table, world.parking
        )
        dead_letters = letters if settings.on_failure.destination else None
        handler = ObservedHandler(checkers, who, self.handler, world.parking)
        host = Host(
            name=f"{self.name}/{process.name.partition('#')[2]}",
            stop=stop,
            spawn=lambda work, name: process.spawn(work, name, process.control),
            may_renew=lambda: True,
            companion=self._companion,
            on_stopping=lambda: None,
            bounds=self._world.bounds,
            task_died=lambda name, error: StreamConsumerError(f"background task {name} ended: {error!r}"),
            end_within=lambda seconds: self._end_within(process, seconds),
        )
        ports = Ports(source, store, handler, dead_letters, clock, rng)
        await handler.start()
        try:
            starting = start(host, settings, ports, session_store, Metrics())
            worker = self._loop = await until_stopped(stop, starting)
            await worker.run()
        except Stopped:
            pass
        await handler.close()

    async def _companion(self, context: WorkerContext, coordinator: Coordinator) -> None:
        self._world.checkers.opened(context.incarnation, self.settings)
        self.context, self.coordinator = context, coordinator
        await asyncio.Event().wait()


class Scripted:
    """``ports.Handler`` around one coroutine function over calls; simpler and quicker than real user code. It is always
    ready; ``ScriptedProcesses`` is not."""

    width = 0

    def __init__(self, behave: Callable[[HandlerCall], Coroutine[Any, Any, Outcome]]) -> None:
        self.run = behave

    async def start(self) -> None:
        """Nothing to import."""

    async def reserve(self) -> Reservation:
        return self

    def release(self) -> None:
        """Nothing was reserved."""

    async def close(self) -> None:
        """Nothing to end."""
