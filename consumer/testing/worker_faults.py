"""What can happen to the processes of the fleet and to their networks: verbs of the nemesis (``faults.py``)."""

from __future__ import annotations

import random
from collections.abc import Callable

from consumer.testing.network import Weather
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation

SERVICES = ("table", "session", "stream", "dead_letters")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0  # seconds


class Verbs:
    """What all verbs need."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._rng: random.Random = world.rng("nemesis")
        self._duration: float = world.settings.leases.duration
        self._healed = False
        self._repairs: list[Callable[[], None]] = []

    def _up_to(self, durations: float) -> float:
        """Seconds: up to so many durations of a lease."""
        return self._rng.uniform(0.0, durations * self._duration)

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        self._world.loop.after(seconds, lambda: None if self._healed else undo())

    def _set_later(self, seconds: float, thing: object, **attributes: object) -> None:
        """Give attributes of a service the values they have without this fault."""

        def back() -> None:
            for name, value in attributes.items():
                setattr(thing, name, value)

        self._later(seconds, back)

    def _reads_newest(self) -> bool:
        """The fleet drains no older stream."""
        newest: str = self._world.stream.arn
        return self._world.table.streams.get(self._world.settings.application) == newest

    def _some_worker(self) -> SimulatedWorker:
        return self._rng.choice(list(self._world.workers.values()))

    def _set(self, worker: SimulatedWorker, services: tuple[str, ...], weather: Weather, seconds: float) -> None:
        links = [worker.links[service] for service in services if service in worker.links]
        for link in links:
            link.weather = weather

        def back() -> None:
            for link in links:
                if link.weather is weather:
                    link.weather = Weather()

        self._later(seconds, back)


class ProcessFaults(Verbs):
    """Signals, stalls and clocks."""

    def freeze(self) -> None:
        """SIGSTOP, for up to four lease durations."""
        worker = self._some_worker()
        process = worker.process
        worker.pause()
        self._later(self._up_to(4.0), lambda: worker.resume() if worker.process is process else None)

    def freeze_before_answer(self) -> None:
        """SIGSTOP in the worst moment: a call has been applied, its answer is not read before the process goes on. Then
        the session renewal's next calls get lost, so that the worker has nothing but its validity to go by."""
        worker = self._some_worker()
        process, frozen, deaf = worker.process, self._up_to(3.0), self._up_to(0.5)

        def hit() -> None:
            if worker.process is process:
                worker.pause()
                self._later(frozen, lambda: worker.resume() if worker.process is process else None)
                self._set(worker, ("session",), Weather(lose_request=1.0), frozen + deaf)

        self._before_the_next_answer(worker, hit)

    def crash_before_answer(self) -> None:
        """SIGKILL between a call that was applied and its answer."""
        worker = self._some_worker()
        process, seconds = worker.process, self._up_to(2.0)

        def hit() -> None:
            if worker.process is process:
                worker.kill()
                self._restart(worker, seconds)

        self._before_the_next_answer(worker, hit)

    def crash(self) -> None:
        """SIGKILL, and a new process some time later."""
        worker = self._some_worker()
        worker.kill()
        self._restart(worker, self._up_to(3.0))

    def replace(self) -> None:
        """SIGTERM, and a new process when the old one is gone."""
        worker = self._some_worker()
        worker.terminate()
        self._restart(worker, self._up_to(1.0))

    def stall(self) -> None:
        """User code blocks the main loop; the session renewal goes on in its thread."""
        self._some_worker().stall(self._up_to(2.0))

    def jump_wall_clock(self) -> None:
        worker = self._some_worker()
        if worker.process is not None:
            worker.process.wall_offset += self._rng.uniform(-HOUR, HOUR)

    def set_clock_wrong(self) -> None:
        """A clock that nobody sets: some minutes off, for good."""
        worker = self._some_worker()
        if worker.process is not None:
            worker.process.wall_offset = self._rng.uniform(-5.0, 5.0) * MINUTE

    def jump_clock_for_seconds(self) -> None:
        """A day ahead, and back again."""
        worker, seconds = self._some_worker(), self._rng.uniform(0.0, 10.0)
        process = worker.process
        if process is None:
            return
        before = process.wall_offset
        process.wall_offset += DAY

        def back() -> None:
            process.wall_offset = before

        self._repairs.append(back)
        self._later(seconds, back)

    def _before_the_next_answer(self, worker: SimulatedWorker, hit: Callable[[], None]) -> None:
        link = worker.links.get(self._rng.choice(("session", "session", "table", "stream")))
        if link is not None:
            link.when_applied = lambda: None if self._healed else hit()

    def _restart(self, worker: SimulatedWorker, seconds: float) -> None:
        def start() -> None:
            if self._healed:
                return
            if worker.running:
                self._later(1.0, start)  # still draining
            else:
                worker.start()

        self._later(seconds, start)


class NetworkFaults(Verbs):
    """One worker's way to the services, or the way of all."""

    def partition(self) -> None:
        """One worker cannot reach one service, or none: requests get lost, or answers do."""
        direction = self._rng.choice(("request", "response", "both"))
        lost = self._rng.choice((1.0, 1.0, 0.5))
        weather = Weather(
            lose_request=lost if direction != "response" else 0.0,
            lose_response=lost if direction != "request" else 0.0,
        )
        self._set(self._some_worker(), self._some_services(), weather, self._up_to(3.0))

    def slow_network(self) -> None:
        slowest = self._rng.choice((1.0, 3.0, self._duration, 3 * self._duration))
        weather = Weather(slow=self._rng.choice((0.2, 1.0)), slowest=slowest)
        self._set(self._some_worker(), self._some_services(), weather, self._up_to(4.0))

    def throttle(self) -> None:
        """The service throttles one worker or all."""
        self._set_one_or_all(Weather(throttle=self._rng.choice((0.3, 0.9, 1.0))))

    def deny(self) -> None:
        """The role's policy is edited."""
        self._set(self._some_worker(), self._some_services(), Weather(deny=1.0), self._up_to(2.0))

    def expire_credentials(self) -> None:
        """One worker's credentials expire, and it takes a while until it gets new ones."""
        self._set(self._some_worker(), SERVICES, Weather(expired=1.0), self._up_to(2.0))

    def break_service(self) -> None:
        """A service answers with 500s, some of them after it has done what it was asked for."""
        self._set_one_or_all(Weather(broken=self._rng.choice((0.3, 1.0))))

    def answer_strangely(self) -> None:
        """Something between all workers and a service, a login page for instance, answers in its place."""
        weather, seconds = Weather(strange=self._rng.choice((0.3, 1.0))), self._up_to(4.0)
        services = self._rng.choice((("dead_letters",), ("dead_letters",), ("table", "session"), SERVICES))
        for worker in self._world.workers.values():
            self._set(worker, services, weather, seconds)

    def _some_services(self) -> tuple[str, ...]:
        one = self._rng.choice(SERVICES)
        return self._rng.choice(((one,), (one,), ("table", "session"), SERVICES))

    def _set_one_or_all(self, weather: Weather) -> None:
        services, seconds = self._some_services(), self._up_to(2.0)
        workers = list(self._world.workers.values())
        for worker in workers if self._rng.random() < 0.5 else [self._some_worker()]:
            self._set(worker, services, weather, seconds)
