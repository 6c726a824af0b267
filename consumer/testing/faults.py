"""The fault verbs, and a nemesis that draws them from the seed until it is told to heal everything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from consumer.domain.frontier import FrontierSnapshot
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.worker.discovery import SECOND_LOOK

if TYPE_CHECKING:
    from consumer.testing.simulation import Simulation

SERVICES = ("table", "keeper", "stream", "dead_letters")
MOST_OPEN_SHARDS = 8
MOST_STREAMS = 3
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
    "jump_wall_clock": 1,
    "lose_session_row": 1,
    "drop_table": 1,
    "roll": 3,
    "split": 2,
    "hide_children": 2,
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
    "wipe_table": 1,
}
RECORDS = {
    **EVERYTHING,
    "trim_unread": 1,
    "vanish_unread": 1,
    "replace_without_dead_letters": 3,
    "lose_lease_without_dead_letters": 3,
}


class Nemesis:
    """Hurts the fleet every ``pause`` seconds on average. ``duration`` (of a lease) scales how long faults last."""

    def __init__(self, world: Simulation, verbs: dict[str, int], pause: float) -> None:
        self._world = world
        self._dice: random.Random = world.dice("nemesis")
        self._names = list(verbs)
        self._weights = list(verbs.values())
        self._pause = pause
        self._duration: float = world.settings.leases.duration
        self._healed = False
        self._listed_again = 0.0
        self._repairs: list[Callable[[], None]] = []

    async def run(self, seconds: float) -> None:
        """Draw verbs for so long, then heal."""
        world = self._world
        end = world.loop.now + seconds
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / self._pause))
            if world.loop.now >= end:
                break
            (verb,) = self._dice.choices(self._names, self._weights)
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
            for shard_id in (*stream.open_shards(), *stream.closed_shards()):
                stream.empty_pages(shard_id, 0)
        for worker in world.workers.values():
            worker.resume()
            for link in worker.links.values():
                link.weather = Weather()
            if not worker.running:
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
        the keeper's next calls get lost, so that the worker has nothing but its belief to go by."""
        worker = self._some_worker()
        process, frozen, deaf = worker.process, self._long(3.0), self._long(0.5)

        def strike() -> None:
            if worker.process is process:
                worker.pause()
                self._later(frozen, lambda: worker.resume() if worker.process is process else None)
                self._set(worker, ("keeper",), Weather(lose_request=1.0), frozen + deaf)

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
        self._set(worker, ("keeper",), Weather(lose_request=1.0), 3 * self._duration)
        self._set(worker, ("dead_letters",), Weather(throttle=1.0), self._dice.uniform(1.5, 2.5) * self._duration)

    def stall(self) -> None:
        """User code blocks the main loop; the keeper goes on in its thread."""
        self._some_worker().stall(self._long(2.0))

    def jump_wall_clock(self) -> None:
        worker = self._some_worker()
        if worker.process is not None:
            worker.process.wall_offset += self._dice.uniform(-HOUR, HOUR)

    # --- the network -----------------------------------------------------------------------------------

    def partition(self) -> None:
        """One worker cannot reach one service, or none: requests get lost, or answers do."""
        direction = self._dice.choice(("request", "response", "both"))
        lost = self._dice.choice((1.0, 1.0, 0.5))
        weather = Weather(
            lose_request=lost if direction != "response" else 0.0,
            lose_response=lost if direction != "request" else 0.0,
        )
        self._set(self._some_worker(), self._some_services(), weather, self._long(3.0))

    def slow_network(self) -> None:
        slowest = self._dice.choice((1.0, 3.0, self._duration, 3 * self._duration))
        weather = Weather(slow=self._dice.choice((0.2, 1.0)), slowest=slowest)
        self._set(self._some_worker(), self._some_services(), weather, self._long(4.0))

    def throttle(self) -> None:
        """The service throttles, everybody or one."""
        weather = Weather(throttle=self._dice.choice((0.3, 0.9, 1.0)))
        services, seconds = self._some_services(), self._long(2.0)
        everybody = list(self._world.workers.values())
        for worker in everybody if self._dice.random() < 0.5 else [self._some_worker()]:
            self._set(worker, services, weather, seconds)

    def deny(self) -> None:
        """Somebody edits the role's policy."""
        self._set(self._some_worker(), self._some_services(), Weather(deny=1.0), self._long(2.0))

    # --- the lease table -------------------------------------------------------------------------------

    def lose_session_row(self) -> None:
        for sessions in self._world.table.sessions.values():
            if sessions:
                del sessions[self._dice.choice(list(sessions))]

    def drop_table(self) -> None:
        """The lease table is gone for a while, and comes back with what it held."""

        def back() -> None:
            self._world.table.exists = True

        self._world.table.exists = False
        self._later(self._long(1.0), back)

    def wipe_table(self) -> None:
        """The lease table is deleted and made anew, empty. Not while the fleet drains an older stream: which one it
        reads is known to the table and to the processes only, and those may die, too."""
        world = self._world
        if not self._reads_newest():
            return

        def back() -> None:
            world.table.exists = True

        world.wipe_table()
        self._later(self._long(1.0), back)

    def _reads_newest(self) -> bool:
        return self._world.table.streams.get(self._world.settings.application) == self._world.stream.arn

    # --- the stream ------------------------------------------------------------------------------------

    def roll(self) -> None:
        stream = self._world.stream
        stream.roll(self._dice.choice(stream.open_shards()))

    def split(self) -> None:
        stream = self._world.stream
        shards = stream.open_shards()
        if len(shards) < MOST_OPEN_SHARDS:
            stream.split(self._dice.choice(shards))

    def enable_stream_again(self) -> None:
        """The table's stream is disabled and enabled again; the old one must be read to its end first."""
        if self._reads_newest() and len(self._world.streams) < MOST_STREAMS:
            self._world.enable_again(self._dice.randint(1, 3))

    def hide_children(self) -> None:
        """Children appear up to two minutes after their parent's end."""
        stream = self._world.stream
        stream.hide_children(self._dice.uniform(0.0, 120.0))
        stream.roll(self._dice.choice(stream.open_shards()))

    def expire_iterators(self) -> None:
        self._world.stream.expire_iterators()

    def empty_pages(self) -> None:
        stream = self._world.stream
        stream.empty_pages(self._dice.choice(stream.open_shards()), self._dice.randint(1, 10))

    def blank_listing(self) -> None:
        """DescribeStream succeeds and names no shard."""
        stream = self._world.stream

        def back() -> None:
            stream.blank = False

        stream.blank = True
        self._later(self._long(2.0), back)

    def lose_stream(self) -> None:
        """For a while the service knows no such stream; its listing fails, or succeeds and is empty."""
        stream = self._world.stream

        def back() -> None:
            stream.blank = stream.missing = False

        stream.missing = True
        stream.blank = self._dice.random() < 0.5
        self._later(self._long(2.0), back)

    def list_partly(self) -> None:
        """For a while the service knows nothing of some shards. Not for so long that an old one counts as gone: what
        complete listings leave out for ``SECOND_LOOK`` is gone, unless its id says that it is too young for that."""
        stream, now = self._world.stream, self._world.loop.now
        if now < self._listed_again:
            return
        seconds = self._long(2.0) if stream.dated else self._dice.uniform(0.0, 0.8 * SECOND_LOOK)
        self._listed_again = now + seconds + 2 * SECOND_LOOK

        def back() -> None:
            stream.omitted = frozenset()

        shown = [shard.shard_id for shard in stream.listed()] if not stream.missing else []
        stream.omitted = frozenset(shard_id for shard_id in shown if self._dice.random() < 0.4)
        self._later(seconds, back)

    def delete_row(self) -> None:
        """Somebody deletes a lease row."""
        shard_id = self._dice.choice([*self._world.rows(), ""])
        if shard_id:
            self._world.delete_row(shard_id)

    def corrupt_row(self) -> None:
        """Somebody spoils the checkpoint of a lease row, and repairs it later, if no owner has written over it."""
        world = self._world
        rows = [row for row in world.rows().values() if not row.finished and not row.corrupt]
        if not rows:
            return
        row = self._dice.choice(rows)
        world.edit_row(row.shard_id, frontier=FrontierSnapshot(), corrupt="low is not a sequence number: 'x'")

        def repair() -> None:
            now = world.rows().get(row.shard_id)
            if now is not None and now.corrupt:
                world.edit_row(row.shard_id, frontier=row.frontier, corrupt="")

        self._repairs.append(repair)
        self._later(self._long(4.0), repair)

    def short_pages(self) -> None:
        """Pages are cut wherever the service likes."""
        stream, usual = self._world.stream, self._world.streams[0].usual_page_records

        def back() -> None:
            stream.page_records = usual

        stream.page_records = self._dice.choice((1, 2, 5))
        stream.last_page = self._dice.choice(("with_records", "empty"))
        self._later(self._long(2.0), back)

    def days_pass(self) -> None:
        """Three days in which nothing happens, when all is settled; then tombstones are old enough to go."""
        if not self._world.stream.dated and self._world.everything_settled():
            self._world.loop.pass_days(3.0)

    def forget_finished_shard(self) -> None:
        """A shard leaves the stream, as it does 24 hours after its end; all of it was handled long before."""
        if self._world.stream.dated:
            return  # it is too young for that
        rows = self._world.rows()
        done = [shard for shard in self._world.stream.closed_shards() if shard in rows and rows[shard].finished]
        if done:
            self._world.vanish(done[0])

    def vanish_unread(self) -> None:
        """A closed shard leaves the stream before all of it was settled."""
        rows = self._world.rows()
        for shard_id in self._world.stream.closed_shards() if not self._world.stream.dated else ():
            if shard_id in rows and not rows[shard_id].settled:
                self._world.vanish(shard_id)
                return

    def trim_unread(self) -> None:
        """Records are trimmed before anybody has settled them."""
        rows = self._world.rows()
        for item in self._world.checkers.oldest_open():
            row = rows.get(item.shard_id)
            # What is trimmed before the first read of a shard leaves no trace: nobody can know that it was there.
            if row is not None and row.frontier.first is not None:
                self._world.trim(item.shard_id, str(item.number))
                return

    # --- inside ----------------------------------------------------------------------------------------

    def _some_worker(self) -> SimulatedWorker:
        return self._dice.choice(list(self._world.workers.values()))

    def _ambush(self, worker: SimulatedWorker, strike: Callable[[], None]) -> None:
        link = worker.links.get(self._dice.choice(("keeper", "keeper", "table", "stream")))
        if link is not None:
            link.ambush = lambda: None if self._healed else strike()

    def _some_services(self) -> tuple[str, ...]:
        one = self._dice.choice(SERVICES)
        return self._dice.choice(((one,), (one,), ("table", "keeper"), SERVICES))

    def _long(self, durations: float) -> float:
        return self._dice.uniform(0.0, durations * self._duration)

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        self._world.loop.after(seconds, lambda: None if self._healed else undo())

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
