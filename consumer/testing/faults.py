"""The fault verbs, and a nemesis that draws them from the seed until it is told to heal everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from consumer.testing.network import Weather
from consumer.testing.service_faults import ServiceFaults
from consumer.testing.simulated_worker import SimulatedWorker

SERVICES = ("table", "session", "stream", "dead_letters")
HOUR = 3600.0

# How often each verb is drawn. Names are those of the methods of ``Nemesis``.
EVERYTHING = {
    "freeze": 4,
    "freeze_before_answer": 4,
    "crash_before_answer": 2,
    "crash": 4,
    "replace": 3,
    "stall": 2,
    "partition": 5,
    "slow_network": 4,
    "throttle": 3,
    "deny": 1,
    "expire_credentials": 1,
    "break_service": 2,
    "jump_wall_clock": 1,
    "lose_session_row": 1,
    "drop_table": 1,
    "roll": 3,
    "split": 2,
    "hide_children": 2,
    "keep_parents_open": 2,
    "stale_listing": 2,
    "expire_iterators": 2,
    "empty_pages": 2,
    "blank_listing": 2,
    "lose_stream": 2,
    "forget_finished_shard": 2,
    "list_partly": 2,
    "delete_row": 2,
    "corrupt_row": 2,
    "short_pages": 2,
    "days_pass": 1,
    "enable_stream_again": 1,
    "lose_replaced_stream": 1,
    "wipe_table": 1,
}
RECORDS = {
    **EVERYTHING,
    "trim_unread": 1,
    "vanish_unread": 1,
    "replace_without_dead_letters": 3,
    "lose_lease_without_dead_letters": 3,
}


class Nemesis(ServiceFaults):
    """Hurts the fleet every ``pause`` seconds on average. ``duration`` (of a lease) scales how long faults last."""

    async def run(self, seconds: float) -> None:
        """Draw verbs for so long, then heal."""
        world = self._world
        end = world.loop.now + seconds
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._pause))
            if world.loop.now >= end:
                break
            (verb,) = self._rng.choices(self._names, self._weights)
            world.history.note("fault", verb)
            getattr(self, verb)()
        self.heal()

    def heal(self) -> None:
        """The end of all faults: the network is fair, everybody runs, nothing is hidden."""
        world = self._world
        self._healed = True
        world.history.note("healed")
        for repair in self._repairs:
            repair()
        world.table.exists = True
        for stream in world.streams:
            stream.blank = stream.missing = False
            stream.page_records = stream.usual_page_records
            stream.omitted = frozenset()
            stream.hide_children(0.0)
            stream.keep_parents_open(0.0)
            stream.freeze_listing(frozen=False)
            for shard_id in (*stream.open_shards(), *stream.closed_shards()):
                stream.empty_pages(shard_id, 0)
        for worker in world.workers.values():
            worker.resume()
            for link in worker.links.values():
                link.weather = Weather()
            self._start_for_good(worker)

    def _start_for_good(self, worker: SimulatedWorker) -> None:
        """After the faults everybody runs, also who is just stopping."""
        if worker.stopping:
            self._world.loop.after(1.0, self._start_for_good, worker)
        elif not worker.running:
            worker.start()

    # --- processes -------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """SIGSTOP, for up to four lease durations."""
        worker = self._some_worker()
        process = worker.process
        worker.pause()
        self._later(self._long(4.0), lambda: worker.resume() if worker.process is process else None)

    def freeze_before_answer(self) -> None:
        """SIGSTOP in the worst moment: a call has been applied, its answer is not read before the process goes on. Then
        the session renewal's next calls get lost, so that the worker has nothing but its validity to go by."""
        worker = self._some_worker()
        process, frozen, deaf = worker.process, self._long(3.0), self._long(0.5)

        def strike() -> None:
            if worker.process is process:
                worker.pause()
                self._later(frozen, lambda: worker.resume() if worker.process is process else None)
                self._set(worker, ("session",), Weather(lose_request=1.0), frozen + deaf)

        self._ambush(worker, strike)

    def crash_before_answer(self) -> None:
        """SIGKILL between a call that was applied and its answer."""
        worker = self._some_worker()
        process, seconds = worker.process, self._long(2.0)

        def strike() -> None:
            if worker.process is process:
                worker.kill()
                self._restart(worker, seconds)

        self._ambush(worker, strike)

    def crash(self) -> None:
        """SIGKILL, and a new process some time later."""
        worker = self._some_worker()
        worker.kill()
        self._restart(worker, self._long(3.0))

    def replace(self) -> None:
        """SIGTERM, and a new process when the old one is gone."""
        worker = self._some_worker()
        worker.terminate()
        self._restart(worker, self._long(1.0))

    def replace_without_dead_letters(self) -> None:
        """The destination refuses for a while, then SIGTERM comes: what could not be buried stays unsettled."""
        worker = self._some_worker()
        self._set(worker, ("dead_letters",), Weather(throttle=1.0), 4 * self._duration)
        process = worker.process

        def terminate() -> None:
            if worker.process is process:
                worker.terminate()
                self._restart(worker, self._duration)

        self._later(self._long(2.0), terminate)

    def lose_lease_without_dead_letters(self) -> None:
        """The destination refuses for a while; meanwhile the worker cannot renew, and others take its shards."""
        worker = self._some_worker()
        self._set(worker, ("session",), Weather(lose_request=1.0), 3 * self._duration)
        self._set(worker, ("dead_letters",), Weather(throttle=1.0), self._rng.uniform(1.5, 2.5) * self._duration)

    def stall(self) -> None:
        """User code blocks the main loop; the session renewal goes on in its thread."""
        self._some_worker().stall(self._long(2.0))

    def jump_wall_clock(self) -> None:
        worker = self._some_worker()
        if worker.process is not None:
            worker.process.wall_offset += self._rng.uniform(-HOUR, HOUR)

    # --- the network -----------------------------------------------------------------------------------

    def partition(self) -> None:
        """One worker cannot reach one service, or none: requests get lost, or answers do."""
        direction = self._rng.choice(("request", "response", "both"))
        lost = self._rng.choice((1.0, 1.0, 0.5))
        weather = Weather(
            lose_request=lost if direction != "response" else 0.0,
            lose_response=lost if direction != "request" else 0.0,
        )
        self._set(self._some_worker(), self._some_services(), weather, self._long(3.0))

    def slow_network(self) -> None:
        slowest = self._rng.choice((1.0, 3.0, self._duration, 3 * self._duration))
        weather = Weather(slow=self._rng.choice((0.2, 1.0)), slowest=slowest)
        self._set(self._some_worker(), self._some_services(), weather, self._long(4.0))

    def throttle(self) -> None:
        """The service throttles, everybody or one."""
        weather = Weather(throttle=self._rng.choice((0.3, 0.9, 1.0)))
        services, seconds = self._some_services(), self._long(2.0)
        everybody = list(self._world.workers.values())
        for worker in everybody if self._rng.random() < 0.5 else [self._some_worker()]:
            self._set(worker, services, weather, seconds)

    def deny(self) -> None:
        """Somebody edits the role's policy."""
        self._set(self._some_worker(), self._some_services(), Weather(deny=1.0), self._long(2.0))

    def expire_credentials(self) -> None:
        """One worker's credentials expire, and it takes a while until it gets new ones."""
        self._set(self._some_worker(), SERVICES, Weather(expired=1.0), self._long(2.0))

    def break_service(self) -> None:
        """A service answers with 500s, some of them after it has done what it was asked for."""
        weather = Weather(broken=self._rng.choice((0.3, 1.0)))
        services, seconds = self._some_services(), self._long(2.0)
        everybody = list(self._world.workers.values())
        for worker in everybody if self._rng.random() < 0.5 else [self._some_worker()]:
            self._set(worker, services, weather, seconds)

    # --- inside ----------------------------------------------------------------------------------------

    def _some_worker(self) -> SimulatedWorker:
        return self._rng.choice(list(self._world.workers.values()))

    def _ambush(self, worker: SimulatedWorker, strike: Callable[[], None]) -> None:
        link = worker.links.get(self._rng.choice(("session", "session", "table", "stream")))
        if link is not None:
            link.when_applied = lambda: None if self._healed else strike()

    def _some_services(self) -> tuple[str, ...]:
        one = self._rng.choice(SERVICES)
        return self._rng.choice(((one,), (one,), ("table", "session"), SERVICES))

    def _restart(self, worker: SimulatedWorker, seconds: float) -> None:
        def start() -> None:
            if self._healed:
                return
            if worker.running:
                self._later(1.0, start)  # still draining
            else:
                worker.start()

        self._later(seconds, start)

    def _set(self, worker: SimulatedWorker, services: tuple[str, ...], weather: Weather, seconds: float) -> None:
        links = [worker.links[service] for service in services if service in worker.links]
        for link in links:
            link.weather = weather

        def back() -> None:
            for link in links:
                if link.weather is weather:
                    link.weather = Weather()

        self._later(seconds, back)
