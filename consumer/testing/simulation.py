"""A whole fleet in one process, in virtual time, from one seed.

``Simulation`` is the world: a stream, a lease table, dead letters, workers and what happens to them. A scenario is an
``async`` function that drives it; ``run`` runs it to its end and returns the history. Everything that is not decided by
the scenario is drawn from the seed.

    async def scenario(world: Simulation) -> None:
        for name in ("a", "b"):
            world.add_worker(name, handler).start()
        for number in range(100):
            world.put(f"key-{number % 7}")
        await world.until(world.everything_settled, 60.0)

    history = Simulation(seed=7, shards=2).run(scenario)
    assert not history.violations
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import structlog

from consumer.ports.handler import Handler
from consumer.testing.history import History
from consumer.testing.network import Link
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.world import APPLICATION as APPLICATION
from consumer.testing.world import World
from consumer.worker.memory_budget import BYTES_PER_WIRE_BYTE

CHECK_EVERY = 0.25  # virtual seconds between looks at a condition
SHOWN_ROWS = 4  # when a wait fails


class BrokenPromise(AssertionError):
    """A simulation saw a violation. ``history`` has them all; the same seed shows them again."""

    def __init__(self, seed: int | str, history: History) -> None:
        shown = "\n".join(f"  {violation}" for violation in history.violations[:5])
        super().__init__(f"seed {seed!r}: {len(history.violations)} violations\n{shown}")
        self.history = history


class Simulation(World):
    """One run.

    Args:
        seed: decides everything that the scenario does not.
        shards: open shards of the stream at the start.
        config: sections of the configuration file, merged over quick defaults.
        on_event: is given a line for everything that happens, log events of the workers included.
        stream: more arguments of ``MemoryStream``.
        bounds: of what is held in memory of failing keys.
    """

    @cached_property
    def workers(self) -> dict[str, SimulatedWorker]:
        """The places in the fleet by name, running or not."""
        return {}

    # --- what a scenario does ----------------------------------------------------------------------------

    def add_worker(self, name: str, handler: Handler, config: Mapping[str, Any] | None = None) -> SimulatedWorker:
        """A place in the fleet; ``start`` it. ``config``: sections of its own configuration file, over those of the
        simulation; without it the worker has the settings of the simulation."""
        worker = self.workers[name] = SimulatedWorker(self, name, handler)
        if config is not None:
            worker.configure(config)
        return worker

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def until(self, condition: Callable[[], bool], seconds: float, what: str = "") -> bool:
        """Wait in virtual time. False, and a violation of liveness that shows the state of the fleet, when it does not
        come true within ``seconds``."""
        deadline = self.loop.now + seconds
        while not condition():
            if self.loop.now >= deadline:
                name = what or getattr(condition, "__name__", "it")
                self.history.violated("liveness", f"{name} did not happen within {seconds:g} s: {self.summary()}")
                return False
            await asyncio.sleep(CHECK_EVERY)
        return True

    # --- what a scenario asks ----------------------------------------------------------------------------

    def summary(self) -> str:
        """One line: which workers run, what is left, and the rows of unfinished shards."""
        workers = [worker.incarnation or f"{worker.name} (no session)" for worker in self.workers.values()]
        rows = [
            f"{row.shard_id} {row.state} at {row.frontier.low}, owner {row.owner}, epoch {row.epoch}"
            for row in self.rows().values()
            if not row.finished
        ]
        shown = "; ".join(rows[:SHOWN_ROWS]) + (f"; {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else "")
        return f"{self.checkers.left} records left; workers {', '.join(workers) or 'none'}; leases {shown or 'none'}"

    def owned(self) -> dict[str, int]:
        """Leases that are not finished, by incarnation; workers that own nothing count 0."""
        counts = {worker.incarnation: 0 for worker in self.workers.values() if worker.incarnation}
        for row in self.rows_of(self.stream).values():
            if row.owner is not None and not row.finished:
                counts[row.owner] = counts.get(row.owner, 0) + 1
        return counts

    def everything_settled(self) -> bool:
        """Every record of the stream is handled, dead-lettered or lost with its trace."""
        return not self.checkers.left

    def balanced(self) -> bool:
        """Every unfinished lease has a live owner, and no worker has two more than another."""
        live = {worker.incarnation for worker in self.workers.values() if worker.running}
        if not live or "" in live:
            return False
        counts = self.owned()
        rows = self.rows_of(self.stream)
        owners = {row.owner for row in rows.values() if not row.finished}
        shown = {shard.shard_id for shard in self.stream.listed()}
        missing = shown - rows.keys()
        return owners <= live and not missing and max(counts.values()) - min(counts.values()) <= 1

    def closed_shards_done(self) -> bool:
        """Every shard with a visible child is finished."""
        rows, shown = self.rows_of(self.stream), {shard.shard_id: shard for shard in self.stream.listed()}
        known = shown.keys() | rows.keys()  # the rows may have been wiped, and not all of them be back
        parents = {parent for shard in shown.values() for parent in shard.parents if parent in known}
        return all(parent in rows and rows[parent].finished for parent in parents)

    # --- running -----------------------------------------------------------------------------------------

    def run(self, scenario: Callable[[Simulation], Awaitable[None]]) -> History:
        """Run ``scenario`` to its end, then end every process as by a kill. Returns the history."""

        async def body() -> None:
            try:
                await scenario(self)
            except Exception as error:
                for violation in self.history.violations[:5]:  # often why the scenario found what it did not expect
                    error.add_note(str(violation))
                raise
            finally:
                for failure in self.loop.failures:
                    self.history.violated("no bug", failure)
                self.history.sealed = True

        gc_was_on = gc.isenabled()
        gc.disable()  # collections at arbitrary moments cost a third of the time and could run finalizers
        try:
            with _logs_to(self.history):
                self.loop.run_until(body())
        finally:
            self.loop.close()
            if gc_was_on:
                gc.enable()
        return self.history

    async def finish(self) -> None:
        """Stop all workers gracefully, then judge what must hold in the end."""
        for worker in [worker for worker in self.workers.values() if worker.running]:
            context = worker.context
            await worker.stop()
            if context is None or worker.killed:
                continue
            if context.budget.used:
                self.history.violated("byte budget", f"{worker.name} ends with {context.budget.used} bytes held")
            if in_flight := context.metrics.in_flight_records.value:
                self.history.violated("no bug", f"{worker.name} ends with {in_flight:g} records in flight")
        self.checkers.at_the_end(self.gaps_recorded())

    def check(self) -> None:
        """Raise BrokenPromise if anything was violated."""
        if self.history.violations:
            raise BrokenPromise(self.seed, self.history)

    def called(self, link: Link, operation: str, outcome: str) -> None:
        super().called(link, operation, outcome)
        if operation == "get_records":
            self._check_budget(link.sender)

    def _check_budget(self, process: str) -> None:
        """``limits.buffer``, beyond it the page that every shard is sure of, and for each reader what its page is
        larger than its reserve, and what was copied out of that page."""
        worker = self.workers.get(process.partition("#")[0])
        if worker is None or worker.context is None or worker.coordinator is None:
            return
        budget, shards = worker.context.budget, len(list(worker.coordinator.workers))
        page = int(max(stream.largest_page for stream in self.streams) * BYTES_PER_WIRE_BYTE)
        most = worker.settings.limits.buffer + shards * (budget.small + budget.page_reserve + 2 * page)
        if budget.used > most:
            self.history.violated("byte budget", f"{process} holds {budget.used} bytes, not {most}")


@contextmanager
def _logs_to(history: History) -> Iterator[None]:
    """Log events of the workers: all of them into the trace when there is one; bugs of ours are violations always."""

    def collect(_: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if history.sealed:
            raise structlog.DropEvent
        name = event.pop("event", "")
        error = event.pop("exc_info", None)
        if name in ("shard.worker_failed", "task.died"):
            found = sys.exc_info()[1] if error is True else error
            history.violated("no bug", f"{name}: {found!r}")
        if history.on_event is not None:
            history.on_event(f"{history.now():.9f}   log {method} {name} {event}")
        raise structlog.DropEvent

    before = structlog.get_config()
    level = 0 if history.on_event is not None else 40
    structlog.configure(
        processors=[collect],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
